"""How far the attention of a token moves when its context shifts (protocol, section 7).

Three readings of the paper's text, in one pass over one pair of views:

* ``query``: the token's own row over the overlap's keys;
* ``received``: per head, the map of attention received over outlier keys, and over other keys;
* ``key``: the token's column, as a map over the overlap's queries.

Which tokens are outliers has three readings too. A token's distances do not depend on them: each is
computed once, and then grouped three times.

A column runs over every query of the overlap, and so does the mean that a key receives. So each row
of attention is computed once, a few rows at a time; what is kept are the rows and columns of chosen
tokens and one sum. With V views, A heads and G tokens on an overlap of q² patches that is
2·A·G·q² + A·q² numbers a view, and V·A·``QUERY_CHUNK`` rows while they are read: never a whole P×P.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitscope.axes import Reals
from vitscope.backbones.attention import QUERY_CHUNK, BlockAttention
from vitscope.draws import generator
from vitscope.scope.outliers import outlier_membership
from vitscope.scope.settings import AttentionReading, Membership
from vitscope.scope.views import Overlap
from vitscope.transport.emd import emd

ATTENTION_READINGS: tuple[AttentionReading, ...] = get_args(AttentionReading)
MEMBERSHIPS: tuple[Membership, ...] = get_args(Membership)
COMPARED_GROUPS = ("outlier", "other")

INSTABILITY_SHAPE = (len(ATTENTION_READINGS), len(MEMBERSHIPS), len(COMPARED_GROUPS))
"""Axes of every figure of an image: reading, membership, group."""

_RECEIVED_GROUPS = (np.asarray([True, False]), np.asarray([False, True]))
"""The groups of ``received``: its first map is over outlier keys, its second over the others."""

_Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class ViewMaps:
    """Attention of one view between the q² patches that it shares with the other one.

    Attributes:
        query: rows of the chosen tokens over the overlap's keys, float32 [A, G, q²].
        key: columns of the same tokens over the overlap's queries, float32 [A, G, q²].
        received: what every key of the overlap receives, averaged over its queries, float32
            [A, q²]; summed in float64.
    """

    query: NDArray[np.float32]
    key: NDArray[np.float32]
    received: NDArray[np.float32]


@torch.inference_mode()
def read_maps(
    attention: BlockAttention, cells: NDArray[np.int64], tokens: Sequence[NDArray[np.int64]]
) -> list[ViewMaps]:
    """Read the maps of every view in ``attention``; its views share the place of the overlap.

    Args:
        attention: of V views.
        cells: flat patch positions of the overlap, [q²].
        tokens: for each view the chosen tokens, counted within the overlap, ascending, [G].
    """
    places = torch.from_numpy(cells) + attention.n_prefix
    kept = [_Kept(torch.from_numpy(chosen)) for chosen in tokens]
    received: Tensor | float = 0.0
    for start in range(0, len(cells), QUERY_CHUNK):
        received = received + _read_rows(attention, places, start, kept)
    assert isinstance(received, Tensor)
    means = (received / len(cells)).float().cpu().numpy()
    return [one.joined(mean) for one, mean in zip(kept, means, strict=True)]


class _Kept:
    """What has been kept of one view."""

    def __init__(self, tokens: Tensor) -> None:
        self.tokens = tokens
        self.rows: list[Tensor] = []
        self.columns: list[Tensor] = []

    def take(self, rows: Tensor, start: int) -> None:
        """Keep, of rows [A, n, q²] from position ``start`` on, what belongs to chosen tokens."""
        tokens = self.tokens
        inside = tokens[(tokens >= start) & (tokens < start + rows.shape[1])] - start
        # indexed by tensors, and so copied: the rows themselves are let go
        self.rows.append(rows[:, inside.to(rows.device)].cpu())
        self.columns.append(rows[:, :, tokens.to(rows.device)].cpu())

    def joined(self, received: NDArray[np.float32]) -> ViewMaps:
        columns = torch.cat(self.columns, 1).transpose(1, 2)
        return ViewMaps(torch.cat(self.rows, 1).numpy(), columns.contiguous().numpy(), received)


def _read_rows(
    attention: BlockAttention, places: Tensor, start: int, kept: Sequence[_Kept]
) -> Tensor:
    """Read one chunk of rows and return its sum over queries, float64 [V, A, q²]."""
    rows = attention.rows(places[start : start + QUERY_CHUNK])
    over_overlap = rows[..., places.to(rows.device)]
    for one, of_view in zip(kept, over_overlap, strict=True):
        one.take(of_view, start)
    return over_overlap.sum(2, dtype=torch.float64)


@dataclass(frozen=True)
class ComparedTokens:
    """The tokens of one image whose attention is compared, counted within the overlap.

    Attributes:
        outliers: what each view says of the overlap's q² patches, bool [2, q²].
        order: a random order of them; the others are drawn from its front.
        n_others: tokens drawn of those that are no outliers; 0 takes all.
    """

    outliers: NDArray[np.bool_]
    order: NDArray[np.int64]
    n_others: int

    @classmethod
    def choose(
        cls,
        outliers: tuple[_Mask, _Mask],
        overlap: Overlap,
        n_others: int,
        key: tuple[int | str, ...],
    ) -> Self:
        """Draw the tokens of an image.

        Args:
            outliers: outlier mask over patch tokens, [P], of each view.
            overlap: which patches the views share.
            n_others: tokens drawn of those that are no outliers; 0 takes all.
            key: seed and image id: the draw depends on them and on the shift.
        """
        inside = (outliers[0][overlap.first], outliers[1][overlap.second])
        order = generator(*key, "instability", overlap.shift).permutation(overlap.n_cells)
        return cls(np.stack(inside), order, n_others)

    @property
    def tokens(self) -> NDArray[np.int64]:
        """Tokens that any membership asks for, ascending, [G]: drawn in one order, they nest."""
        out, others = self._members("either")
        return np.sort(np.concatenate([out, others]))

    def groups(self, membership: Membership) -> tuple[_Mask, _Mask]:
        """Return which of ``tokens`` are the outliers, and which the others drawn, bool [G] each.

        An outlier in one view only counts among the others where ``membership`` says so, and then
        has the same chance of being drawn as any of them.
        """
        out, others = self._members(membership)
        return np.isin(self.tokens, out), np.isin(self.tokens, others)

    def n_outliers(self, membership: Membership) -> int:
        """Outliers among the overlap's patches."""
        return len(self._members(membership)[0])

    def _members(self, membership: Membership) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        is_outlier = outlier_membership(self.outliers[0], self.outliers[1], membership)
        others = self.order[~is_outlier[self.order]]
        return np.flatnonzero(is_outlier), others[: self.n_others or None]


@dataclass(frozen=True)
class ImageInstability:
    """One image at one shift; axes as in ``INSTABILITY_SHAPE``.

    ``received`` compares maps over each view's own outliers, whatever the membership: it stands
    under each of them unchanged.

    Attributes:
        emd: mean distance in patches, over tokens and heads; NaN where a group is empty here.
        n_maps: distances that entered.
        n_missed: of these, maps empty in exactly one view, which count D_grid.
        n_outliers: outlier tokens of the overlap, by membership, [3].
    """

    emd: Reals
    n_maps: NDArray[np.int64]
    n_missed: NDArray[np.int64]
    n_outliers: NDArray[np.int64]


def image_instability(
    views: tuple[ViewMaps, ViewMaps], tokens: ComparedTokens, overlap: Overlap, *, workers: int = 1
) -> ImageInstability:
    """Compare the two views of one image, all maps in one batch.

    Args:
        views: the maps of ``tokens.tokens`` in each view.
        tokens: the tokens that were chosen, and their groups.
        overlap: which patches the views share.
        workers: threads.
    """
    pairs = zip(views, tokens.outliers, strict=True)
    first, second = (_stack(view, own, overlap) for view, own in pairs)
    distances, missed = _compare(first, second, overlap, workers)
    n_heads, n_tokens = views[0].query.shape[:2]
    ends = np.cumsum(
        [n_heads * n_tokens, n_heads * len(COMPARED_GROUPS)]
    )  # in the order of ATTENTION_READINGS
    by_reading = [
        (d.reshape(n_heads, -1), m.reshape(n_heads, -1))
        for d, m in zip(np.split(distances, ends), np.split(missed, ends), strict=True)
    ]
    return _group(by_reading, tokens)


def _group(by_reading: Sequence[tuple[Reals, _Mask]], tokens: ComparedTokens) -> ImageInstability:
    """Average distances [A, G], and [A, 2] for ``received``, over the groups of each membership."""
    mean = np.full(INSTABILITY_SHAPE, np.nan)
    n_maps, n_missed = np.zeros((2, *INSTABILITY_SHAPE), np.int64)
    for m, membership in enumerate(MEMBERSHIPS):
        of_tokens = tokens.groups(membership)
        for r, (distances, missed) in enumerate(by_reading):
            groups = _RECEIVED_GROUPS if ATTENTION_READINGS[r] == "received" else of_tokens
            for g, group in enumerate(groups):
                values = distances[:, group]
                defined = np.isfinite(values)
                n_maps[r, m, g] = defined.sum()
                n_missed[r, m, g] = missed[:, group].sum()
                if defined.any():
                    mean[r, m, g] = values[defined].mean()
    n_outliers = np.asarray([tokens.n_outliers(membership) for membership in MEMBERSHIPS])
    return ImageInstability(mean, n_maps, n_missed, n_outliers)


def _stack(view: ViewMaps, own: _Mask, overlap: Overlap) -> NDArray[np.float32]:
    """Return the maps of every reading, one after the other, as [N, q, q]."""
    # each view's own outliers: a map of where they are, not of where they might be
    received = view.received[:, None] * np.stack([own, ~own])
    shape = (-1, overlap.side, overlap.side)
    return np.concatenate([maps.reshape(shape) for maps in (view.query, received, view.key)])


def _compare(
    first: NDArray[np.float32], second: NDArray[np.float32], overlap: Overlap, workers: int
) -> tuple[Reals, _Mask]:
    """Return the distance of every pair, and which ones are empty in exactly one view.

    Such a pair counts D_grid; one empty in both counts nothing: NaN.
    """
    has_mass = first.any((1, 2)), second.any((1, 2))
    both, missed = has_mass[0] & has_mass[1], has_mass[0] != has_mass[1]
    distances = np.where(missed, overlap.diameter, np.nan)
    distances[both] = emd(first[both], second[both], workers=workers)
    return distances, missed
