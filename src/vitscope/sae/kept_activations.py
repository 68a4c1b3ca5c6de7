"""The pre-activations of one batch, kept in a buffer that every step uses again."""

import torch
from torch import Tensor

from vitscope.axes import Bool, Float, Int64, Rows
from vitscope.distributed import ALONE, Ranks
from vitscope.sae.selection import Blocks, Selection, entries_above, select_largest
from vitscope.sae.sparse_code import SparseCode

CHUNK = 1024
"""Features encoded at a time: few enough that their pre-activations are still in the cache when
the maxima are taken, many enough that packing the batch again for each product costs little."""

BLOCK = 32
"""Tokens under one maximum: two cache lines, of which one in twenty or so is ever read again."""

GUESS = 0.97
"""Of the last cut: about 1.2 candidates per kept entry, and seldom too few."""

GROUPS_PER_KEPT = 8
"""Where K are wanted of every token: groups of features per kept entry. Fewer bound the cut too
loosely, more are nearly as many as the entries."""


class KeptActivations:
    """A buffer ``[m, B]``: a feature is a row, so that chunks of features are contiguous.

    It holds the products without the encoder's bias, which is added to what is read: to the maxima
    and to the few blocks that a selection looks at. Rounding is monotone, so the maximum of the
    sums is the sum with the maximum.

    The last batch's cut is remembered as a guess. It saves time and changes no result.

    Attributes:
        guess: that cut; 0 where there is none.

    Args:
        n_rows: B, rows of a batch on this rank.
        n_features: m.
        like: its dtype and device are the buffer's.
    """

    def __init__(self, n_rows: int, n_features: int, like: Tensor) -> None:
        self.n_rows, self.n_features = n_rows, n_features
        n_blocks = -(-n_rows // BLOCK)
        # the last block of each feature is filled up with what no selection takes
        self._padded = like.new_full((n_features, n_blocks * BLOCK), -torch.inf)
        self._maxima = like.new_empty(n_features, n_blocks)
        self._bias = like.new_zeros(n_features)
        self.guess = 0.0

    def of_features(self, features: Int64[Tensor, "n"]) -> Float[Tensor, "n B"]:
        """Return the pre-activations of some features."""
        products = self._padded.index_select(0, features)[:, : self.n_rows]
        return products.add_(self._bias[features, None])

    def encode(self, centred: Rows, w_enc: Float[Tensor, "m d"], b_enc: Float[Tensor, "m"]) -> None:
        """Fill the buffer with ``centred @ w_enc.T + b_enc``, transposed, and take the maxima."""
        assert centred.shape[0] == self.n_rows
        blocks, columns = self._padded.view(*self._maxima.shape, BLOCK), centred.T
        for start in range(0, self.n_features, CHUNK):
            part = slice(start, start + CHUNK)
            torch.mm(w_enc[part], columns, out=self._padded[part, : self.n_rows])
            torch.amax(blocks[part], 2, out=self._maxima[part])
        self._bias = b_enc.clone()  # training moves the bias before the buffer is filled again
        self._maxima += self._bias[:, None]

    def largest(self, n_keep: int, ranks: Ranks = ALONE) -> SparseCode:
        """Return this rank's share of the ``n_keep`` largest positive entries of all ranks.

        Among equals the lower token wins, then the lower feature.

        Raises:
            FloatingPointError: a pre-activation is NaN.
        """
        chosen = self.select(n_keep, ranks)
        features, rows = self._place(chosen.positions)
        by_row = torch.argsort(rows, stable=True)
        return SparseCode(
            rows[by_row], features[by_row], chosen.values[by_row], self.n_rows, self.n_features
        )

    def largest_of_each(self, k: int) -> SparseCode:
        """Return the ``k`` largest positive entries of every token, the lower feature first.

        The ``k``-th largest of a token's maxima over groups of features is reached by ``k`` of its
        entries, so none of its ``k`` largest lies below it: only what reaches it is sorted.
        """
        k = min(k, self.n_features)
        bound = self._bound_of_each(k).clamp_min(torch.finfo(self._bias.dtype).tiny)
        found: list[tuple[Tensor, Tensor, Tensor]] = []
        for start in range(0, self.n_features, CHUNK):
            pre = self.block(start, min(start + CHUNK, self.n_features))
            flat = (pre >= bound).view(-1).nonzero().squeeze(1)
            feature = torch.div(flat, self.n_rows, rounding_mode="floor")
            found.append((feature + start, flat % self.n_rows, pre.view(-1)[flat]))
        features, rows, values = (torch.cat(parts) for parts in zip(*found, strict=True))
        order = values.argsort(descending=True, stable=True)  # features ascend among equals
        order = order[rows[order].argsort(stable=True)]
        rows, features, values = rows[order], features[order], values[order]
        starts = torch.searchsorted(rows, torch.arange(self.n_rows, device=rows.device))
        rank = torch.arange(rows.numel(), device=rows.device) - starts[rows]
        kept = rank < k
        return SparseCode(rows[kept], features[kept], values[kept], self.n_rows, self.n_features)

    def _bound_of_each(self, k: int) -> Float[Tensor, "B"]:
        """Return a bound for every token that at least ``k`` of its entries reach."""
        size = max(1, self.n_features // (GROUPS_PER_KEPT * k))
        whole = self.n_features // size * size  # what is left over can only raise the bound
        chunk = max(1, CHUNK // size) * size
        maxima = [
            self.block(start, min(start + chunk, whole)).unflatten(0, (-1, size)).amax(1)
            for start in range(0, whole, chunk)
        ]
        of_token = torch.cat(maxima).T.contiguous()
        return of_token.topk(k, dim=1, sorted=False).values.amin(1)

    def block(self, start: int, stop: int) -> Float[Tensor, "R B"]:
        """Return the pre-activations of features ``start`` to ``stop``."""
        return self._padded[start:stop, : self.n_rows] + self._bias[start:stop, None]

    def above(self, bounds: Float[Tensor, "m"], at_most: int) -> SparseCode | None:
        """Return every entry above its feature's bound, by token; None if more than ``at_most``.

        Args:
            bounds: of every feature, none negative.
            at_most: entries that are still worth a sparse code.
        """
        n_live = int(torch.count_nonzero(self._maxima > bounds[:, None]))
        if n_live > at_most:  # every live block has an entry at least
            return None
        positions, values = entries_above(self._blocks(), float(bounds.min()))
        features, rows = self._place(positions)
        kept = (values > bounds[features]).nonzero().squeeze(1)
        if kept.numel() > at_most:
            return None
        kept = kept[torch.argsort(rows[kept], stable=True)]
        return SparseCode(rows[kept], features[kept], values[kept], self.n_rows, self.n_features)

    def holds_nan(self) -> Bool[Tensor, ""]:
        """Tell whether a pre-activation is NaN."""
        return self._maxima.max().isnan()

    def _blocks(self) -> Blocks:
        return Blocks(self._padded.view(-1, BLOCK), self._maxima.view(-1), self._bias)

    def select(self, n_keep: int, ranks: Ranks = ALONE) -> Selection:
        """Return the same as positions in the buffer, and remember their cut."""
        chosen = select_largest(
            self._blocks(), n_keep, guess=GUESS * self.guess, tie_order=self._order, ranks=ranks
        )
        self.guess = chosen.cut
        return chosen

    def _place(self, positions: Int64[Tensor, "n"]) -> tuple[Tensor, Tensor]:
        width = self._padded.shape[1]
        return torch.div(positions, width, rounding_mode="floor"), positions % width

    def _order(self, positions: Int64[Tensor, "n"]) -> Int64[Tensor, "n"]:
        features, rows = self._place(positions)
        return rows * self.n_features + features
