"""The n largest entries of a batch's pre-activations, exactly, reading little of them twice.

Entries below a bound are never looked at. The bound of a batch is the last one's cut a little
lowered; where that does not hold, the n-th largest block maximum: n entries reach that, so it
cannot be too high. The exact cut among the candidates is found by counting.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Bool, Float, Int64, Rows
from vitscope.distributed import ALONE, Ranks
from vitscope.sae.code import SparseCode

_DIGIT_BITS = 11
"""Bits settled per round: three rounds for float32, with counts that fit the first-level cache."""

_INTEGER_OF_SIZE = {2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True)
class Cut:
    """Where the ``n`` largest numbers end.

    Attributes:
        value: the n-th largest.
        n_kept_ties: how many of those equal to ``value`` belong to the n largest.
        n_ties: how many are equal to it.
    """

    value: float
    n_kept_ties: int
    n_ties: int


def find_cut(positive: Float[Tensor, "c"], n: int, ranks: Ranks) -> Cut | None:
    """Return the cut of the ``n`` ≥ 1 largest of all ranks' numbers; None where fewer exist.

    A radix selection. The bit patterns of positive floats, read as integers, are ordered as the
    floats are. From the highest bits down, each round counts the numbers by their next digit and
    settles that digit of the n-th largest. Counts of disjoint parts add up: with a sum over ranks,
    every rank finds the cut of all numbers together without any of them leaving its rank.

    Args:
        positive: this rank's numbers, all above zero, none NaN; as many as it has.
        n: how many to keep, over all ranks.
        ranks: who else holds numbers.
    """
    bits = positive.view(_INTEGER_OF_SIZE[positive.element_size()])
    undecided = 8 * positive.element_size() - 1  # the sign bit is zero
    pattern, wanted, n_ties = 0, n, 0
    while undecided:
        width = min(_DIGIT_BITS, undecided)
        undecided -= width
        digits = (bits >> undecided) & ((1 << width) - 1)
        counts = ranks.sum(torch.bincount(digits, minlength=1 << width))
        from_top = counts.flip(0).cumsum(0)
        if int(from_top[-1]) < wanted:  # in the first round alone
            return None
        place = int(torch.searchsorted(from_top, wanted))
        digit = counts.numel() - 1 - place
        n_ties = int(counts[digit])
        wanted -= int(from_top[place]) - n_ties  # those with a larger digit are kept
        pattern = (pattern << width) | digit
        bits = bits[digits == digit]
    return Cut(_float_of(pattern, positive.dtype), wanted, n_ties)


def _float_of(pattern: int, dtype: torch.dtype) -> float:
    integer = _INTEGER_OF_SIZE[dtype.itemsize]
    value = torch.tensor([pattern], dtype=integer).view(dtype).item()
    assert not math.isnan(value)
    return value


_CHUNK = 1024
"""Features encoded at a time: few enough that their pre-activations are still in the cache when
the maxima are taken, many enough that packing the batch again for each product costs little."""

_BLOCK = 32
"""Tokens under one maximum: two cache lines, of which one in twenty or so is ever read again."""

GUESS_SHARE = 0.97
"""Of the last cut: about 1.2 candidates per kept entry, and seldom too few."""

_MAX_LIVE_PER_KEPT = 4
"""A guessed bound that leaves more blocks than this per kept entry is too loose to be of use."""

_ENTRIES_AT_ONCE = 1 << 19
"""Entries of live blocks read at a time. One array of all of them would be mapped into memory
anew in every step, and the page faults would cost more than the reading."""

_GROUPS_PER_KEPT = 8
"""Where K are wanted of every token: groups of features per kept entry. Fewer bound the cut too
loosely, more are nearly as many as the entries."""


class PreActivationBuffer:
    """The pre-activations of one batch, ``[m, B]``, in memory that every step uses again.

    A feature is a row, so that chunks of features are contiguous. The buffer holds the products
    without the encoder's bias, which is added to what is read: to the maxima and to the few blocks
    that a selection looks at. Rounding is monotone, so the maximum of the sums is the sum with the
    maximum.

    Attributes:
        guess: the last batch's cut; 0 where there is none. It saves time and changes no result.
        n_scans: how often the last selection gathered candidates: 2 where the guess did not hold.

    Args:
        n_rows: B, rows of a batch on this rank.
        n_features: m.
        like: its dtype and device are the buffer's.
        rounded_to: what the factors of the product are rounded to; None rounds nothing.
    """

    def __init__(
        self, n_rows: int, n_features: int, like: Tensor, rounded_to: torch.dtype | None = None
    ) -> None:
        self.n_rows, self.n_features = n_rows, n_features
        n_blocks = -(-n_rows // _BLOCK)
        # the last block of each feature is filled up with what no selection takes
        self._padded = like.new_full((n_features, n_blocks * _BLOCK), -torch.inf)
        self._maxima = like.new_empty(n_features, n_blocks)
        self._bias = like.new_zeros(n_features)
        self._rounded_to = rounded_to
        self.guess, self.n_scans = 0.0, 0

    def encode(self, centred: Rows, w_enc: Float[Tensor, "m d"], b_enc: Float[Tensor, "m"]) -> None:
        """Fill the buffer with ``centred @ w_enc.T + b_enc``, transposed, and take the maxima."""
        assert centred.shape[0] == self.n_rows
        blocks, columns = self._padded.view(*self._maxima.shape, _BLOCK), centred.T
        for start in range(0, self.n_features, _CHUNK):
            part = slice(start, start + _CHUNK)
            products = self._padded[part, : self.n_rows]
            if self._rounded_to is None:
                torch.mm(w_enc[part], columns, out=products)
            else:
                products.copy_(_rounded_product(w_enc[part], columns, self._rounded_to))
            torch.amax(blocks[part], 2, out=self._maxima[part])
        self._bias = b_enc.clone()  # training moves the bias before the buffer is filled again
        self._maxima += self._bias[:, None]

    def require_no_nan(self, ranks: Ranks = ALONE) -> None:
        """Refuse a batch one of whose pre-activations is NaN.

        Raises:
            FloatingPointError: there is one, on any rank.
        """
        if int(ranks.sum(self._maxima.max().isnan().long())):
            raise FloatingPointError("pre-activations contain NaN")

    def block(self, start: int, stop: int) -> Float[Tensor, "R B"]:
        """Return the pre-activations of features ``start`` to ``stop``."""
        return self._padded[start:stop, : self.n_rows] + self._bias[start:stop, None]

    def of_features(self, features: Int64[Tensor, "n"]) -> Float[Tensor, "n B"]:
        """Return the pre-activations of some features."""
        products = self._padded.index_select(0, features)[:, : self.n_rows]
        return products.add_(self._bias[features, None])

    def largest(self, n_keep: int, ranks: Ranks = ALONE) -> SparseCode:
        """Return this rank's share of the ``n_keep`` largest positive entries of all ranks.

        Where fewer are positive, those are all that is kept. Among equals the lower token wins,
        then the lower feature; tokens of lower ranks come first.

        Raises:
            FloatingPointError: a pre-activation is NaN, on any rank.
        """
        self.require_no_nan(ranks)
        positions, values, self.guess = self._selected(n_keep, ranks)
        return self._by_token(positions, values)

    def _selected(
        self, n_keep: int, ranks: Ranks
    ) -> tuple[Int64[Tensor, "n"], Float[Tensor, "n"], float]:
        """Return kept positions in the buffer, ascending, their values, and the smallest of all.

        The last is 0 where every positive entry is kept.
        """
        self.n_scans = 0
        guess = GUESS_SHARE * self.guess
        if n_keep == 0:
            none = self._bias.new_empty(0)
            return none.long(), none, 0.0
        if guess > 0:
            n_live = int(ranks.sum(torch.count_nonzero(self._maxima >= guess)))
            if n_live <= _MAX_LIVE_PER_KEPT * n_keep:
                self.n_scans += 1
                found = self._cut_to(n_keep, *self._entries_above(guess), ranks)
                if found is not None:
                    return found
        self.n_scans += 1
        highest = find_cut(self._maxima[self._maxima > 0], n_keep, ranks)
        positions, values = self._entries_above(0.0 if highest is None else highest.value)
        found = self._cut_to(n_keep, positions, values, ranks)
        return (positions, values, 0.0) if found is None else found

    def _entries_above(self, bound: float) -> tuple[Int64[Tensor, "c"], Float[Tensor, "c"]]:
        """Return ascending positions and values of the positive entries from ``bound`` on."""
        live = _reach(self._maxima.view(-1), bound).nonzero().squeeze(1)
        blocks, per_feature = self._padded.view(-1, _BLOCK), self._maxima.shape[1]
        positions: list[Tensor] = []
        values: list[Tensor] = []
        for some in live.split(_ENTRIES_AT_ONCE // _BLOCK):
            bias = self._bias[torch.div(some, per_feature, rounding_mode="floor")]
            found = blocks.index_select(0, some).add_(bias[:, None])
            within = _reach(found, bound).view(-1).nonzero().squeeze(1)
            values.append(found.view(-1)[within])
            block = torch.div(within, _BLOCK, rounding_mode="floor")
            positions.append(some[block] * _BLOCK + within % _BLOCK)
        return torch.cat(positions), torch.cat(values)

    def _cut_to(
        self, n_keep: int, positions: Int64[Tensor, "c"], values: Float[Tensor, "c"], ranks: Ranks
    ) -> tuple[Int64[Tensor, "n"], Float[Tensor, "n"], float] | None:
        """Return the ``n_keep`` largest candidates and the cut; None where there are fewer."""
        cut = find_cut(values, n_keep, ranks)
        if cut is None:
            return None
        keep = values >= cut.value
        if cut.n_kept_ties < cut.n_ties:
            ties = (values == cut.value).nonzero().squeeze(1)
            everywhere = ranks.all_gather(torch.tensor([ties.numel()], device=values.device))
            n_mine = cut.n_kept_ties - int(everywhere[: ranks.rank].sum())
            features, rows = self._place(positions[ties])
            ties = ties[(rows * self.n_features + features).argsort()]
            keep[ties[max(0, n_mine) :]] = False
        kept = keep.nonzero().squeeze(1)
        return positions[kept], values[kept], cut.value

    def largest_of_each(self, k: int) -> SparseCode:
        """Return the ``k`` largest positive entries of every token, the lower feature first.

        The ``k``-th largest of a token's maxima over groups of features is reached by ``k`` of its
        entries, so none of its ``k`` largest lies below it: only what reaches it is sorted.
        """
        k = min(k, self.n_features)
        bound = self._bound_of_each(k).clamp_min(torch.finfo(self._bias.dtype).tiny)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for start in range(0, self.n_features, _CHUNK):
            pre = self.block(start, min(start + _CHUNK, self.n_features))
            flat = (pre >= bound).view(-1).nonzero().squeeze(1)
            feature = torch.div(flat, self.n_rows, rounding_mode="floor")
            found.append((feature + start, flat % self.n_rows, pre.view(-1)[flat]))
        features, rows, values = (torch.cat(parts) for parts in zip(*found, strict=True))
        order = values.argsort(descending=True, stable=True)  # features ascend among equals
        order = order[rows[order].argsort(stable=True)]
        code = SparseCode(rows[order], features[order], values[order], self.n_rows, self.n_features)
        starts = torch.searchsorted(code.rows, torch.arange(self.n_rows, device=rows.device))
        return code.take(torch.arange(code.n, device=rows.device) - starts[code.rows] < k)

    def _bound_of_each(self, k: int) -> Float[Tensor, "B"]:
        """Return a bound for every token that at least ``k`` of its entries reach."""
        size = max(1, self.n_features // (_GROUPS_PER_KEPT * k))
        whole = self.n_features // size * size  # what is left over can only raise the bound
        chunk = max(1, _CHUNK // size) * size
        maxima = [
            self.block(start, min(start + chunk, whole)).unflatten(0, (-1, size)).amax(1)
            for start in range(0, whole, chunk)
        ]
        of_token = torch.cat(maxima).T.contiguous()
        return of_token.topk(k, dim=1, sorted=False).values.amin(1)

    def above(self, bounds: Float[Tensor, "m"], at_most: int) -> SparseCode | None:
        """Return every entry above its feature's bound, by token; None if more than ``at_most``.

        Args:
            bounds: of every feature, none negative.
            at_most: entries that are still worth a sparse code.
        """
        n_live = int(torch.count_nonzero(self._maxima > bounds[:, None]))
        if n_live > at_most:  # every live block has an entry at least
            return None
        positions, values = self._entries_above(float(bounds.min()))
        features, _ = self._place(positions)
        kept = (values > bounds[features]).nonzero().squeeze(1)
        return None if kept.numel() > at_most else self._by_token(positions[kept], values[kept])

    def _by_token(self, positions: Int64[Tensor, "n"], values: Float[Tensor, "n"]) -> SparseCode:
        features, rows = self._place(positions)
        code = SparseCode(rows, features, values, self.n_rows, self.n_features)
        return code.take(torch.argsort(rows, stable=True))

    def _place(self, positions: Int64[Tensor, "n"]) -> tuple[Tensor, Tensor]:
        """Return feature and token of positions in the buffer."""
        width = self._padded.shape[1]
        return torch.div(positions, width, rounding_mode="floor"), positions % width


def _rounded_product(a: Tensor, b: Tensor, dtype: torch.dtype) -> Float[Tensor, "n k"]:
    """Return ``a @ b`` in float32, both rounded to ``dtype`` before."""
    a, b = a.to(dtype), b.to(dtype)
    if a.is_cuda:
        return torch.mm(a, b, out_dtype=torch.float32)
    return a.float() @ b.float()  # bfloat16 numbers multiply exactly in float32


def _reach(values: Tensor, bound: float) -> Bool[Tensor, "*n"]:
    return values >= bound if bound > 0 else values > 0
