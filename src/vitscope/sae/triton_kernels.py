"""The step ``triton``: one fused pass over the dictionary, in place of the update block by block.

Gradients of a feature's rows, projection, Adam, unit norm: each weight and each moment is read once
and written once, and no gradient is ever stored. Run in Triton's interpreter against the torch
step; never yet on a GPU. Imported only where it is asked for.
"""

# a kernel's arguments have types only at its launch, which takes plain numbers for its constants
# pyright: reportMissingParameterType=false, reportOperatorIssue=false
# pyright: reportCallIssue=false, reportArgumentType=false

import torch
import triton
import triton.language as tl
from torch import Tensor

from vitscope.axes import Float, Int64
from vitscope.sae.gradients import (
    ChosenRowGradients,
    RowBlock,
    RowGradients,
    SparseRowGradients,
    SummedRowGradients,
)
from vitscope.sae.optimiser import ADAM_EPSILON, BETAS, AdamMoments

_FIRST_DECAY = tl.constexpr(BETAS[0])
_SECOND_DECAY = tl.constexpr(BETAS[1])
_DAMPING = tl.constexpr(ADAM_EPSILON)

_SEGMENT = 64
"""Entries up to which a feature's own program sums them, and entries of a segment: a feature with
many entries would keep one program busy long after all others are done, so its entries are cut into
segments, each summed by a program of its own beforehand."""

_ENTRIES_AT_ONCE = 4
"""Rows that a program has in flight: enough to hide most of a load's latency, few registers."""

_ROWS_PER_PROGRAM = 8
"""Features that one program updates, one after the other: their share of ``b_dec``'s gradient is
summed on the way, so that its table has an eighth of the dictionary's rows."""

_COLUMNS_PER_WARP = 128
"""With fewer warps each would hold more registers, and fewer would run at a time."""


@triton.jit
def _row_sums(
    first, last, rows, output_rows, values, output_gradient, x, decoder_row, width, columns,
    inside, D: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """Return the sums of :mod:`vitscope.sae.gradients` over entries ``first`` to ``last``.

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
        mask = real[:, None] & inside[None, :]
        value = tl.load(values + entries, mask=real, other=0.0)
        place = tl.load(output_rows + entries, mask=real, other=0)
        places = place[:, None] * width + columns[None, :]
        of_output = tl.load(output_gradient + places, mask=mask, other=0.0)
        # ReLU is open where an entry was kept: a value's gradient is its pre-activation's
        of_value = tl.sum(of_output * decoder_row[None, :], 1)
        of_dec += tl.sum(value[:, None] * of_output, 0)
        place = tl.load(rows + entries, mask=real, other=0)
        places = place[:, None] * width + columns[None, :]
        of_enc += tl.sum(of_value[:, None] * tl.load(x + places, mask=mask, other=0.0), 0)
        of_bias += of_value
        radial += of_value * value
    return of_enc, of_dec, tl.sum(of_bias, 0), tl.sum(radial, 0)


@triton.jit
def sum_segments(
    starts, rows, output_rows, values, output_gradient, x, w_dec, owners, segment_starts, sums,
    width, n_features, SEGMENT: tl.constexpr, D: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """Write the sums of one segment of a feature with many entries. Grid: places for segments.

    Args:
        starts: ``[m + 1]``, place of each feature's first entry.
        rows: batch row of each entry, by feature.
        output_rows: row of ``output_gradient`` of each entry.
        values: of each entry.
        output_gradient: of the decoded rows.
        x: ``[B, d]``, what the encoder was multiplied with.
        w_dec: ``[m, d]``.
        owners: feature of each segment; m where there is none.
        segment_starts: ``[m]``, each feature's first segment.
        sums: ``[segments, 2 · d + 2]``, written.
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
    first = tl.load(starts + feature) + (segment - tl.load(segment_starts + feature)) * SEGMENT
    last = tl.minimum(first + SEGMENT, tl.load(starts + feature + 1))
    decoder = tl.load(w_dec + feature * width + columns, mask=inside, other=0.0)
    of_enc, of_dec, of_bias, radial = _row_sums(
        first, tl.where(real, last, first), rows, output_rows, values, output_gradient, x, decoder,
        width, columns, inside, D, E,
    )  # fmt: skip
    at = sums + tl.cast(segment, tl.int64) * (2 * width + 2)
    tl.store(at + columns, of_enc, mask=inside)
    tl.store(at + width + columns, of_dec, mask=inside)
    tl.store(at + 2 * width, of_bias, mask=real)
    tl.store(at + 2 * width + 1, radial, mask=real)


@triton.jit
def _moved(parameter, exp_avg, exp_avg_sq, at, inside, gradient, rate, root):
    """Return values ``parameter`` after a step of Adam; change their moments, which are at ``at``.

    ``rate`` is the learning rate over the first moment's bias correction, ``root`` the square root
    of the second's.
    """
    first = tl.load(exp_avg + at, mask=inside, other=0.0)
    second = tl.load(exp_avg_sq + at, mask=inside, other=0.0)
    first = _FIRST_DECAY * first + (1 - _FIRST_DECAY) * gradient
    second = _SECOND_DECAY * second + (1 - _SECOND_DECAY) * gradient * gradient
    tl.store(exp_avg + at, first, mask=inside)
    tl.store(exp_avg_sq + at, second, mask=inside)
    return parameter - rate * (first / (tl.sqrt(second) / root + _DAMPING))


@triton.jit
def update_rows(
    w_enc, enc_avg, enc_avg_sq, b_enc, bias_avg, bias_avg_sq, w_dec, dec_avg, dec_avg_sq,
    starts, rows, output_rows, values, output_gradient, x, segment_starts, segment_counts, sums,
    slots, more_enc, more_dec, more_bias, more_radial, through_encoder,
    rate, root, width, n_features,
    MORE: tl.constexpr, ROWS: tl.constexpr, D: tl.constexpr, E: tl.constexpr,
):  # fmt: skip
    """Take one step on ROWS features. Grid: ⌈m / ROWS⌉. Arguments of :func:`sum_segments`, and:

    Args:
        w_enc: ``[m, d]`` and its moments, changed; so are ``b_enc`` ``[m]`` and ``w_dec``.
        segment_counts: each feature's segments; where there are any, ``sums`` holds its sums.
        slots: ``[m]``, row in the tables of more gradients; -1 has none. Read where MORE.
        more_enc: ``[n, d]``, added to the encoder rows' gradient; likewise the three after it.
        through_encoder: ``[programs, d]``, Σ gradient of the bias · encoder row, written.
        rate: see :func:`_moved`; so ``root``.
        MORE: whether there are more gradients.
        ROWS: features per program.
    """
    # twin: UnitDecoderAdam._update_by_blocks of optimiser.py, in this order of operations
    program = tl.program_id(0)
    columns = tl.arange(0, D)
    inside = columns < width
    through = tl.zeros([D], dtype=tl.float32)
    for feature in range(program * ROWS, tl.minimum(program * ROWS + ROWS, n_features)):
        at = tl.cast(feature, tl.int64) * width + columns
        decoder = tl.load(w_dec + at, mask=inside, other=0.0)
        encoder = tl.load(w_enc + at, mask=inside, other=0.0)
        n_segments = tl.load(segment_counts + feature)
        first = tl.load(starts + feature)
        last = tl.where(n_segments > 0, first, tl.load(starts + feature + 1))
        of_enc, of_dec, of_bias, radial = _row_sums(
            first, last, rows, output_rows, values, output_gradient, x, decoder, width, columns,
            inside, D, E,
        )  # fmt: skip
        segment = tl.load(segment_starts + feature)
        for nth in range(segment, segment + n_segments):
            row = sums + nth * (2 * width + 2)
            of_enc += tl.load(row + columns, mask=inside, other=0.0)
            of_dec += tl.load(row + width + columns, mask=inside, other=0.0)
            of_bias += tl.load(row + 2 * width)
            radial += tl.load(row + 2 * width + 1)
        if MORE:
            slot = tl.load(slots + feature)
            row = tl.where(slot >= 0, slot, 0)
            theirs = columns < tl.where(slot >= 0, width, 0)
            of_enc += tl.load(more_enc + row * width + columns, mask=theirs, other=0.0)
            of_dec += tl.load(more_dec + row * width + columns, mask=theirs, other=0.0)
            of_bias += tl.load(more_bias + row, mask=slot >= 0, other=0.0)
            radial += tl.load(more_radial + row, mask=slot >= 0, other=0.0)
        through += of_bias * encoder  # before this row moves
        new = _moved(encoder, enc_avg, enc_avg_sq, at, inside, of_enc, rate, root)
        tl.store(w_enc + at, new, mask=inside)
        tangent = of_dec - radial * decoder  # the part along the row would only change its norm
        new = _moved(decoder, dec_avg, dec_avg_sq, at, inside, tangent, rate, root)
        tl.store(w_dec + at, new / tl.sqrt(tl.sum(new * new, 0)), mask=inside)
        bias, real = tl.load(b_enc + feature), feature < n_features
        tl.store(
            b_enc + feature,
            _moved(bias, bias_avg, bias_avg_sq, feature, real, of_bias, rate, root),
        )
    tl.store(through_encoder + program * width + columns, through, mask=inside)


class FusedRowUpdate:
    """A :class:`~vitscope.sae.optimiser.RowUpdate` by kernels, for float32 and the top-k methods.

    Args:
        segment: entries of a feature up to which one program sums them.
    """

    def __init__(self, segment: int = _SEGMENT) -> None:
        self._segment = segment

    def __call__(
        self,
        rows: RowGradients,
        moments: dict[str, AdamMoments],
        of_b_dec: Float[Tensor, "d"],
        learning_rate: float,
        step: int,
    ) -> None:
        """Move the dictionary's rows; see :class:`~vitscope.sae.optimiser.RowUpdate`."""
        w_enc, w_dec = moments["w_enc"], moments["w_dec"]
        (m, d), device = w_enc.parameter.shape, w_enc.parameter.device
        sparse, slots, more = _split(rows, w_dec.parameter)
        output_rows = sparse.rows if sparse.output_rows is None else sparse.output_rows
        entries = (sparse.starts, sparse.rows, output_rows, sparse.values)
        inputs = (sparse.output_gradient.contiguous(), sparse.x.contiguous())
        # a feature has segments only from segment + 1 entries on: fewer than 2 · entries / segment
        n_places = max(1, 2 * sparse.values.numel() // self._segment)
        owners, segment_starts, segment_counts = _segments(sparse.starts, self._segment, n_places)
        sums = torch.empty(n_places, 2 * d + 2, device=device)
        columns = triton.next_power_of_2(d)
        shape = {"D": columns, "E": _ENTRIES_AT_ONCE,
                 "num_warps": min(8, max(1, columns // _COLUMNS_PER_WARP))}  # fmt: skip
        sum_segments[(n_places,)](
            *entries, *inputs, w_dec.parameter, owners, segment_starts, sums, d, m,
            SEGMENT=self._segment, **shape,
        )  # fmt: skip
        n_programs = triton.cdiv(m, _ROWS_PER_PROGRAM)
        through_encoder = torch.empty(n_programs, d, device=device)
        tables = (through_encoder,) * 4  # not read
        if more is not None:
            tables = (more.w_enc, more.w_dec, more.b_enc, more.radial)
        rate = learning_rate / (1 - BETAS[0] ** step)
        update_rows[(n_programs,)](
            *w_enc, *moments["b_enc"], *w_dec,
            *entries, *inputs, segment_starts, segment_counts, sums,
            slots, *tables, through_encoder, rate, (1 - BETAS[1] ** step) ** 0.5, d, m,
            MORE=more is not None, ROWS=_ROWS_PER_PROGRAM, **shape,
        )  # fmt: skip
        of_b_dec.sub_(through_encoder.sum(0))


def _split(
    rows: RowGradients, w_dec: Float[Tensor, "m d"]
) -> tuple[SparseRowGradients, Int64[Tensor, "m"], RowBlock | None]:
    """Return the sparse gradients, and the auxiliary loss's: each feature's row in them, or -1."""
    if not isinstance(rows, SummedRowGradients):
        assert isinstance(rows, SparseRowGradients)
        return rows, torch.empty(0, dtype=torch.int64, device=w_dec.device), None
    first, second, m = rows.first, rows.second, w_dec.shape[0]
    assert isinstance(first, SparseRowGradients)
    if not isinstance(second, ChosenRowGradients):
        return first, torch.arange(m, device=w_dec.device), second.block(0, m, w_dec)
    slots = torch.full((m,), -1, dtype=torch.int64, device=w_dec.device)
    slots[second.features] = torch.arange(second.features.numel(), device=w_dec.device)
    return first, slots, second.gradients


def _segments(
    starts: Int64[Tensor, "m+1"], size: int, n_places: int
) -> tuple[Int64[Tensor, "n_places"], Int64[Tensor, "m"], Int64[Tensor, "m"]]:
    """Return the feature of each segment (m: none), each feature's first segment, and its number.

    The number is 0 where a feature's own program sums all of its entries.
    """
    lengths = starts.diff()
    counts = torch.div(lengths + (size - 1), size, rounding_mode="floor") * (lengths > size)
    ends = counts.cumsum(0)
    owners = torch.searchsorted(ends, torch.arange(n_places, device=starts.device), right=True)
    return owners, ends - counts, counts
