"""A batch-top-k training step on the device: one queue of kernels, and figures when asked for."""

# a launch takes plain numbers for a kernel's constants, and its number of warps besides
# pyright: reportCallIssue=false, reportArgumentType=false

import torch
import triton
from torch import Tensor

from vitscope.axes import Float, Rows
from vitscope.sae.kept_activations import GUESS
from vitscope.sae.kernels.adam import update_vector
from vitscope.sae.kernels.entries import Entries, EntryOrder
from vitscope.sae.kernels.products import product
from vitscope.sae.kernels.reconstruction import reconstruct_tokens
from vitscope.sae.kernels.revival import Revival, Revived
from vitscope.sae.kernels.row_sums import SEGMENT, SegmentPlan, sum_segments
from vitscope.sae.kernels.row_update import ROWS_PER_PROGRAM, update_rows
from vitscope.sae.kernels.selection import DeviceSelection
from vitscope.sae.kernels.silence import count_silence
from vitscope.sae.kernels.verdict import N_FIGURES, N_MARKS, OK, THETA, judge_step
from vitscope.sae.optimiser import bias_corrections
from vitscope.sae.plan import TrainingPlan
from vitscope.sae.state import TrainingState
from vitscope.sae.watch import MEMORY

ENTRIES_AT_ONCE = 4
"""Rows that a program has in flight: enough to hide most of a load's latency, few registers."""

BLOCK = 1024
"""Elements a program handles where each stands for itself."""

COLUMNS_PER_WARP = 128
"""With fewer warps each would hold more registers, and fewer would run at a time."""


class DeviceStep:
    """Everything a step needs between its batch and the next one, allocated once.

    Attributes:
        marks: see :mod:`~vitscope.sae.kernels.verdict`.
        figures: likewise.
        squared_x: squared norm of each row of the batch; of the first bad step, if there was one.

    Args:
        state: changed in place by every step.
        plan: of the training.
        n_tokens: B.
        dtype: what products are rounded to: float32 or bfloat16.
        segment: entries of a feature up to which one program sums them.
        capacity: candidates that the selection lists; None takes the default.

    Raises:
        SaeError: the batch is too large.
    """

    def __init__(
        self,
        state: TrainingState,
        plan: TrainingPlan,
        n_tokens: int,
        dtype: torch.dtype,
        *,
        segment: int = SEGMENT,
        capacity: int | None = None,
    ) -> None:
        self._state, self._dtype, self._n_tokens = state, dtype, n_tokens
        w_enc = state.parameters.w_enc
        (m, d), device = w_enc.shape, w_enc.device
        n_keep = n_tokens * plan.objective.k
        self._selection = DeviceSelection(n_tokens, m, n_keep, device, capacity)
        self._order = EntryOrder(n_tokens, m, device)
        self._segments = SegmentPlan(n_keep, device, segment)
        self._sums = self._segments.sums(d, device)
        self._revival = Revival(plan, m, device, dtype)
        self._rounded = w_enc if dtype == w_enc.dtype else w_enc.to(dtype)
        self._n_programs = triton.cdiv(m, ROWS_PER_PROGRAM)
        self._through_encoder = torch.empty(self._n_programs, d, device=device)
        self._no_loss = torch.zeros(1, device=device)
        self._squared_error = torch.zeros(n_tokens, device=device)
        self.squared_x = torch.zeros(n_tokens, device=device)
        self.marks = torch.zeros(N_MARKS, dtype=torch.int32, device=device)
        self.figures = torch.zeros(N_FIGURES, dtype=torch.float64, device=device)
        theta = state.watch.threshold
        self.figures[THETA.value] = -1.0 if theta is None else theta
        self._columns = triton.next_power_of_2(d)
        self._warps = min(8, max(1, self._columns // COLUMNS_PER_WARP))
        self._moments = {
            name.removeprefix("adam."): tensor
            for name, tensor in state.optimiser.state_tensors().items()
        }

    def take(self, x: Rows, learning_rate: float) -> None:
        """Queue one step on normalised rows ``[B, d]``; wait for nothing.

        The state's step counts up; where the numbers are not finite, nothing else changes, now and
        in all steps after.
        """
        state, parameters = self._state, self._state.parameters
        number = state.step + 1
        self._revival.look(state)
        x = x.float().contiguous()
        centred = x - parameters.b_dec
        products = product(self._rounded, centred.T, self._dtype)
        entries = self._order.of(self._selection.largest(products, parameters.b_enc))
        error = self._reconstruct(x, entries)
        more = self._revival.term(parameters, products, error, centred, state.silent_tokens)
        judge_step[(1,)](
            self._squared_error, self.squared_x, self._no_loss if more is None else more.loss,
            self._selection.search, self._selection.bound, self.marks, self.figures,
            number, self._n_tokens, x.numel(), MEMORY=MEMORY, GUESS=GUESS,
            BLOCK=BLOCK, num_warps=1,
        )  # fmt: skip
        self._update(entries, error, centred, more, learning_rate, number)
        n_features = parameters.b_enc.numel()
        count_silence[(triton.cdiv(n_features, BLOCK),)](
            state.silent_tokens, entries.starts, self.marks, self._n_tokens, n_features, BLOCK=BLOCK
        )
        state.step = number

    def _reconstruct(self, x: Rows, entries: Entries) -> Rows:
        error, parameters = torch.empty_like(x), self._state.parameters
        reconstruct_tokens[(self._n_tokens,)](
            x, parameters.w_dec, parameters.b_dec,
            entries.token_starts, entries.features_by_token, entries.values_by_token,
            self.marks[1:], error, self._squared_error, self.squared_x, x.shape[1],
            D=self._columns, E=ENTRIES_AT_ONCE, num_warps=self._warps,
        )  # fmt: skip
        return error

    def _update(
        self,
        entries: Entries,
        error: Rows,
        centred: Rows,
        more: Revived | None,
        learning_rate: float,
        number: int,
    ) -> None:
        parameters, moment = self._state.parameters, self._moments
        (m, d), scale = parameters.w_enc.shape, 2 / error.numel()
        first, root = bias_corrections(number)
        rate = learning_rate / first
        segments = self._segments.of(entries.starts)
        sum_segments[(self._segments.n_places,)](
            entries.starts, entries.tokens, entries.values, error, centred, parameters.w_dec,
            segments.owners, segments.starts, self._sums, scale, d, m,
            SEGMENT=self._segments.size, D=self._columns, E=ENTRIES_AT_ONCE, num_warps=self._warps,
        )  # fmt: skip
        ok = self.marks[OK.value :]
        update_rows[(self._n_programs,)](
            *self._with_moments("w_enc"), *self._with_moments("w_dec"),
            *self._with_moments("b_enc"), self._rounded,
            entries.starts, entries.tokens, entries.values,
            segments.starts, segments.counts, self._sums, *_tables(more, self._through_encoder),
            error, centred, ok, self._through_encoder, scale, rate, root, d, m,
            COPY=self._rounded is not parameters.w_enc, MORE=more is not None,
            ROWS=ROWS_PER_PROGRAM, D=self._columns, E=ENTRIES_AT_ONCE, num_warps=self._warps,
        )  # fmt: skip
        of_b_dec = error.sum(0).mul_(scale).sub_(self._through_encoder.sum(0))
        update_vector[(triton.cdiv(d, BLOCK),)](
            parameters.b_dec, moment["b_dec.exp_avg"], moment["b_dec.exp_avg_sq"],
            of_b_dec, ok, rate, root, d, BLOCK=BLOCK,
        )  # fmt: skip

    def _with_moments(self, name: str) -> tuple[Tensor, Tensor, Tensor]:
        moments = self._moments
        parameter = self._state.parameters.named()[name]
        return parameter, moments[f"{name}.exp_avg"], moments[f"{name}.exp_avg_sq"]


def _tables(more: Revived | None, unread: Float[Tensor, "n d"]) -> tuple[Tensor, ...]:
    if more is None:
        return (unread,) * 5
    return more.slots, more.of_enc, more.of_dec, more.of_bias, more.radial
