"""The B·K largest entries of a batch, exactly, with the host asking nothing in between.

The same selection as :meth:`vitscope.sae.kept_activations.KeptActivations.largest`, with its order
among equals. Where the guessed bound leaves too few candidates, or more than the list holds, the
device searches the whole buffer instead: that takes four more passes over it, and happens seldom.
"""

# a launch takes plain numbers for a kernel's constants, and its number of warps besides
# pyright: reportCallIssue=false, reportArgumentType=false

from dataclasses import dataclass

import torch
import triton
from torch import Tensor

from vitscope.axes import Float
from vitscope.errors import SaeError
from vitscope.sae.kernels.candidates import MAX_BLOCK, NUM_WARPS, list_candidates
from vitscope.sae.kernels.kept_entries import list_kept
from vitscope.sae.kernels.search_slots import N_SLOTS, WANTED
from vitscope.sae.kernels.threshold_search import BINS, SHIFTS, count_digits, settle_digit
from vitscope.sae.kernels.ties import count_ties, limit_ties

CAPACITY_PER_KEPT = 4
"""Candidates that the list holds, per kept entry."""

SOURCE_BLOCK = 1024
"""Entries of the source that a program reads at a time."""

MAX_PROGRAMS = 512
"""Programs that share the source: some four for each multiprocessor of a large GPU."""

MAX_ENTRIES = 2**31 - 2**22
"""Entries of a buffer: their positions, and the step beyond the last, are 32-bit integers."""


@dataclass(frozen=True, eq=False)
class Kept:
    """Kept entries, in no particular order.

    Attributes:
        positions: ``[n]``, int32, feature · B + token; m · B in places that hold no entry.
        values: ``[n]``, zero there.
    """

    positions: Tensor
    values: Float[Tensor, "n"]


class DeviceSelection:
    """Buffers of a selection, used again by every step.

    Attributes:
        search: numbers of the last selection, see :mod:`~vitscope.sae.kernels.search_slots`.
        bound: what candidates must reach; changes time, not results.

    Args:
        n_tokens: B.
        n_features: m.
        n_keep: entries to keep, at least one.
        device: of all tensors.
        capacity: of the list of candidates; None takes the default.

    Raises:
        SaeError: the buffer has too many entries for 32-bit positions.
    """

    def __init__(
        self,
        n_tokens: int,
        n_features: int,
        n_keep: int,
        device: torch.device,
        capacity: int | None = None,
    ) -> None:
        if n_tokens * n_features > MAX_ENTRIES:
            raise SaeError(
                f"{n_tokens} tokens by {n_features} features are more entries than the selection "
                f"on a GPU can number ({MAX_ENTRIES}); lower batch_size"
            )
        self.n_tokens, self.n_features, self.n_keep = n_tokens, n_features, n_keep
        self._n_entries = n_tokens * n_features
        self._capacity = CAPACITY_PER_KEPT * n_keep if capacity is None else capacity
        first = torch.zeros(N_SLOTS, dtype=torch.int32)
        first[WANTED.value] = n_keep
        self._first = first.to(device)
        self.search = self._first.clone()
        self.bound = torch.zeros(1, device=device)
        self._candidates = Kept(*_pairs(self._capacity, device))
        self._kept = Kept(*_pairs(n_keep, device))
        self._counts = torch.zeros(BINS.value, dtype=torch.int32, device=device)
        self._of_token = torch.zeros(n_tokens, dtype=torch.int32, device=device)
        self._limits = torch.zeros(2, dtype=torch.int32, device=device)

    def largest(self, products: Float[Tensor, "m B"], bias: Float[Tensor, "m"]) -> Kept:
        """Return the largest positive entries of ``products + bias``; valid until the next call."""
        self.search.copy_(self._first)
        self._of_token.zero_()
        found, kept = self._candidates, self._kept
        kept.positions.fill_(self._n_entries)
        kept.values.zero_()
        block = min(MAX_BLOCK, triton.next_power_of_2(self.n_tokens))
        grid = (self.n_features, triton.cdiv(self.n_tokens, block))
        list_candidates[grid](
            products, bias, self.bound, self.search, found.positions, found.values,
            self.n_tokens, self._capacity, BLOCK=block, num_warps=NUM_WARPS,
        )  # fmt: skip
        source = (products, bias, found.positions, found.values, self.search)
        sizes = (self.n_tokens, self._n_entries, self.n_keep, self._capacity)
        programs = (min(MAX_PROGRAMS, triton.cdiv(self._n_entries, SOURCE_BLOCK)),)
        for shift in SHIFTS:
            count_digits[programs](*source, self._counts, *sizes, SHIFT=shift, BLOCK=SOURCE_BLOCK)
            settle_digit[(1,)](self._counts, self.search, num_warps=1)
        count_ties[programs](*source, self._of_token, *sizes, BLOCK=SOURCE_BLOCK)
        limit_ties[(1,)](
            products, bias, self.search, self._of_token, self._limits,
            self.n_tokens, self.n_features, BLOCK=SOURCE_BLOCK,
        )  # fmt: skip
        list_kept[programs](
            *source, self._limits, kept.positions, kept.values, *sizes, BLOCK=SOURCE_BLOCK
        )
        return kept


def _pairs(n: int, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.zeros(n, dtype=torch.int32, device=device), torch.zeros(n, device=device)
