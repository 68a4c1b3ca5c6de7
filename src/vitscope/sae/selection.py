"""The n largest entries of a big buffer, exactly, reading little more than its blocks' maxima."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Bool, Float, Int64
from vitscope.distributed import ALONE, Ranks
from vitscope.sae.cut import find_cut

MAX_LIVE_PER_KEPT = 4
"""A guessed bound that leaves more blocks than this per kept entry is too loose to be of use."""

MAX_BLOCK = 64
"""Entries per block: one maximum of 64 makes the search for the bound 64 times smaller."""

MIN_BLOCK = 8
"""Below this, blocks save nothing: all positive entries are candidates."""

BLOCKS_PER_KEPT = 4
"""At least this many blocks per kept entry, or their maxima bound the cut too loosely."""

ENTRIES_AT_ONCE = 1 << 19
"""Entries of live blocks read at a time. One array of all of them would be mapped into memory
anew in every step, and the page faults would cost more than the reading."""

TieOrder = Callable[[Int64[Tensor, "t"]], Int64[Tensor, "t"]]
"""Positions in the buffer to what decides among equal entries: the lowest wins."""


@dataclass(frozen=True, eq=False)
class Blocks:
    """A buffer in blocks, and the largest entry of each.

    Attributes:
        values: every entry of the buffer, in its order.
        maxima: largest entry of each block; NaN where it holds one.
        bias: added to all entries of a block as they are read; contained in ``maxima``. There are
            as many blocks to one bias as ``n_blocks / n_biases``. None adds nothing.
    """

    values: Float[Tensor, "n_blocks block"]
    maxima: Float[Tensor, "n_blocks"]
    bias: Float[Tensor, "n_biases"] | None = None

    def read(self, blocks: Int64[Tensor, "n"]) -> Float[Tensor, "n block"]:
        """Return the entries of these blocks."""
        found = self.values.index_select(0, blocks)
        if self.bias is None:
            return found
        to_one = self.values.shape[0] // self.bias.numel()
        of_block = self.bias[torch.div(blocks, to_one, rounding_mode="floor")]
        return found.add_(of_block[:, None])


@dataclass(frozen=True, eq=False)
class Selection:
    """What was kept.

    Attributes:
        positions: in the flat buffer, ascending.
        values: the entries there, positive.
        cut: the smallest kept value over all ranks; 0 where every positive entry was kept.
        n_scans: how often candidates were gathered: 1, or 2 where the guess did not hold.
    """

    positions: Int64[Tensor, "n"]
    values: Float[Tensor, "n"]
    cut: float
    n_scans: int = 1


def select_largest(
    blocks: Blocks,
    n_keep: int,
    *,
    guess: float = 0.0,
    tie_order: TieOrder | None = None,
    ranks: Ranks = ALONE,
) -> Selection:
    """Return the ``n_keep`` largest positive entries over all ranks: those of this rank.

    Where fewer are positive, those are all that is kept. Among equal entries those of the lower
    rank win, and on one rank those that ``tie_order`` puts first.

    Entries below a bound are never looked at. ``guess``, last step's cut a little lowered, costs
    nothing and nearly always holds; where it leaves too few entries, or so many that it is no
    help, the ``n_keep``-th largest block maximum takes its place: that many entries reach it, so
    it cannot be too high. The result does not depend on the guess.

    Args:
        blocks: this rank's buffer.
        n_keep: how many to keep, over all ranks.
        guess: a bound to try first; 0 tries none.
        tie_order: ascending position, where not given.
        ranks: who else selects.

    Raises:
        FloatingPointError: a buffer, on any rank, has a NaN.
    """
    if int(ranks.sum(_count(blocks.maxima.max().isnan()))):
        raise FloatingPointError("pre-activations contain NaN")
    nothing = torch.empty(0, dtype=torch.int64, device=blocks.values.device)
    if n_keep == 0:
        return Selection(nothing, blocks.values.new_empty(0), 0.0)
    n_scans = 0
    if guess > 0:
        n_live = int(ranks.sum(_count(blocks.maxima >= guess)))
        if n_live <= MAX_LIVE_PER_KEPT * n_keep:
            n_scans = 1
            found = _cut_to(n_keep, *entries_above(blocks, guess), tie_order, ranks)
            if found is not None:
                return Selection(*found)
    n_scans += 1
    highest = find_cut(blocks.maxima[blocks.maxima > 0], n_keep, ranks)
    positions, values = entries_above(blocks, 0.0 if highest is None else highest.value)
    found = _cut_to(n_keep, positions, values, tie_order, ranks)
    if found is None:
        return Selection(positions, values, 0.0, n_scans)
    return Selection(*found, n_scans)


def largest_values(flat: Float[Tensor, "n"], n: int) -> Float[Tensor, "n_kept"]:
    """Return the ``n`` largest positive entries of ``flat``; fewer if fewer exist.

    Raises:
        FloatingPointError: ``flat`` has a NaN.
    """
    block = min(MAX_BLOCK, flat.numel() // (BLOCKS_PER_KEPT * max(n, 1)))
    block = block if block >= MIN_BLOCK else 1
    whole = flat[: flat.numel() // block * block].view(-1, block)
    tail = flat[whole.numel() :]
    parts = [select_largest(Blocks(whole, whole.amax(1)), n).values]
    if tail.numel():
        parts.append(select_largest(Blocks(tail[:, None], tail), n).values)
    values = torch.cat(parts)
    return values.topk(n, sorted=False).values if values.numel() > n else values


def entries_above(blocks: Blocks, bound: float) -> tuple[Int64[Tensor, "c"], Float[Tensor, "c"]]:
    """Ascending positions and values of the positive entries from ``bound`` on."""
    live = _reach(blocks.maxima, bound).nonzero().squeeze(1)
    width = blocks.values.shape[1]
    positions: list[Tensor] = []
    values: list[Tensor] = []
    for some in live.split(max(1, ENTRIES_AT_ONCE // width)):
        found = blocks.read(some)
        within = _reach(found, bound).view(-1).nonzero().squeeze(1)
        values.append(found.view(-1)[within])
        block = torch.div(within, width, rounding_mode="floor")
        positions.append(some[block] * width + within % width)
    return torch.cat(positions), torch.cat(values)


def _count(mask: Tensor) -> Int64[Tensor, ""]:
    return torch.count_nonzero(mask)  # `sum` would widen the mask to 8 bytes an entry first


def _reach(values: Tensor, bound: float) -> Bool[Tensor, "*n"]:
    return values >= bound if bound > 0 else values > 0


def _cut_to(
    n_keep: int,
    positions: Int64[Tensor, "c"],
    values: Float[Tensor, "c"],
    tie_order: TieOrder | None,
    ranks: Ranks,
) -> tuple[Int64[Tensor, "n"], Float[Tensor, "n"], float] | None:
    """Return the ``n_keep`` largest candidates and the cut; None where there are fewer."""
    cut = find_cut(values, n_keep, ranks)
    if cut is None:
        return None
    keep = values >= cut.value
    if cut.n_kept_ties < cut.n_ties:
        ties = (values == cut.value).nonzero().squeeze(1)
        everywhere = ranks.gather(torch.tensor([ties.numel()], device=values.device))
        n_mine = cut.n_kept_ties - int(everywhere[: ranks.rank].sum())
        if tie_order is not None:
            ties = ties[tie_order(positions[ties]).argsort()]
        keep[ties[max(0, n_mine) :]] = False
    kept = keep.nonzero().squeeze(1)
    return positions[kept], values[kept], cut.value
