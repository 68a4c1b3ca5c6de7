"""Gradients of one feature's rows: weighted sums over the tokens on which it was kept.

A feature with many entries would keep one program busy long after all others are done. Its entries
are cut into segments, each summed by a program of its own beforehand.
"""

# a kernel's arguments have types only at its launch
# pyright: reportMissingParameterType=false, reportOperatorIssue=false, reportArgumentType=false

from dataclasses import dataclass

import torch
import triton
import triton.language as tl
from torch import Tensor

from vitscope.axes import Float

SEGMENT = 64
"""Entries up to which a feature's own program sums them, and entries of a segment."""


@triton.jit
def row_sums(
    first,
    last,
    tokens,
    values,
    error,
    centred,
    decoder_row,
    scale,
    width,
    columns,
    inside,
    D: tl.constexpr,
    E: tl.constexpr,
):
    """Return the sums over entries ``first`` to ``last`` of one feature.

    Returns:
        Gradients of its encoder row, decoder row ``[D]`` and encoder bias, and the inner product
        of the decoder row with its gradient.
    """
    of_enc = tl.zeros([D], dtype=tl.float32)
    of_dec = tl.zeros([D], dtype=tl.float32)
    of_bias = tl.zeros([E], dtype=tl.float32)
    radial = tl.zeros([E], dtype=tl.float32)
    for start in range(first, last, E):
        entries = start + tl.arange(0, E)
        real = entries < last
        token = tl.load(tokens + entries, mask=real, other=0)
        value = tl.load(values + entries, mask=real, other=0.0)
        places = token.to(tl.int64)[:, None] * width + columns[None, :]
        mask = real[:, None] & inside[None, :]
        of_output = tl.load(error + places, mask=mask, other=0.0) * scale
        # ReLU is open where an entry was kept: a value's gradient is its pre-activation's
        of_value = tl.sum(of_output * decoder_row[None, :], 1)
        of_dec += tl.sum(value[:, None] * of_output, 0)
        rows = tl.load(centred + places, mask=mask, other=0.0)
        of_enc += tl.sum(of_value[:, None] * rows, 0)
        of_bias += of_value
        radial += of_value * value
    return of_enc, of_dec, tl.sum(of_bias, 0), tl.sum(radial, 0)


@triton.jit
def sum_segments(
    starts,
    tokens,
    values,
    error,
    centred,
    w_dec,
    owners,
    segment_starts,
    sums,
    scale,
    width,
    n_features,
    SEGMENT: tl.constexpr,
    D: tl.constexpr,
    E: tl.constexpr,
):
    """Write the sums of one segment of a feature with many entries. Grid: places for segments.

    Args:
        starts: ``[m + 1]``, place of each feature's first entry.
        tokens: of each entry, by feature.
        values: likewise.
        error: ``[B, d]``.
        centred: ``[B, d]``, what the encoder was multiplied with.
        w_dec: ``[m, d]``.
        owners: feature of each segment; m where there is none.
        segment_starts: ``[m]``, each feature's first segment.
        sums: ``[segments, 2 · d + 2]``, written.
        scale: from the error to the output's gradient.
        width: d.
        n_features: m.
        SEGMENT: entries of a segment.
        D: d rounded up to a power of two.
        E: entries read at a time.
    """
    segment = tl.program_id(0)
    owner = tl.load(owners + segment)
    real = owner < n_features
    feature = tl.where(real, owner, 0)
    columns = tl.arange(0, D)
    inside = columns < tl.where(real, width, 0)
    nth = segment - tl.load(segment_starts + feature)
    first = tl.load(starts + feature) + nth * SEGMENT
    last = tl.minimum(first + SEGMENT, tl.load(starts + feature + 1))
    row = tl.load(w_dec + feature.to(tl.int64) * width + columns, mask=inside, other=0.0)
    of_enc, of_dec, of_bias, radial = row_sums(
        first, tl.where(real, last, first), tokens, values, error, centred, row, scale, width,
        columns, inside, D, E,
    )  # fmt: skip
    at = sums + segment.to(tl.int64) * (2 * width + 2)
    tl.store(at + columns, of_enc, mask=inside)
    tl.store(at + width + columns, of_dec, mask=inside)
    tl.store(at + 2 * width, of_bias, mask=real)
    tl.store(at + 2 * width + 1, radial, mask=real)


@dataclass(frozen=True, eq=False)
class Segments:
    """Where the segments of features with many entries are; whole numbers int32.

    Attributes:
        owners: feature of each segment, m for places that hold none.
        starts: each feature's first segment.
        counts: each feature's segments; 0 where its own program sums all entries.
    """

    owners: Tensor
    starts: Tensor
    counts: Tensor


class SegmentPlan:
    """Cuts features with many entries into segments.

    Attributes:
        size: entries of a segment.
        n_places: segments there can be at most.

    Args:
        n_entries: kept entries at most.
        device: of all tensors.
        size: entries of a segment.
    """

    def __init__(self, n_entries: int, device: torch.device, size: int = SEGMENT) -> None:
        self.size = size
        # a feature has segments only from size + 1 entries on: fewer than 2 · entries / size
        self.n_places = max(1, 2 * n_entries // size)
        self._places = torch.arange(self.n_places, device=device, dtype=torch.int32)

    def of(self, starts: Tensor) -> Segments:
        """Return the segments of entries that begin at ``starts``."""
        lengths = starts[1:] - starts[:-1]
        filled = torch.div(lengths + (self.size - 1), self.size, rounding_mode="floor")
        counts = filled * (lengths > self.size)
        ends = counts.cumsum(0, dtype=torch.int32)
        owners = torch.searchsorted(ends, self._places, right=True, out_int32=True)
        return Segments(owners, ends - counts, counts)

    def sums(self, width: int, device: torch.device) -> Float[Tensor, "segments n"]:
        """Return a table for the sums of all places."""
        return torch.empty(self.n_places, 2 * width + 2, device=device)
