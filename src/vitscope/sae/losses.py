"""Reconstruction loss and exact gradients of a batch under a top-k method.

:mod:`vitscope.sae.gated` has the methods whose features decide one by one.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Float, Int64, Rows
from vitscope.distributed import Ranks
from vitscope.sae.kept_activations import KeptActivations
from vitscope.sae.parameters import Parameters
from vitscope.sae.row_gradients import RowGradients, sparse_row_gradients
from vitscope.sae.sparse_code import SparseCode, decode


@dataclass(frozen=True, eq=False)
class Encoded:
    """A batch, encoded; on one rank.

    Attributes:
        x: normalised inputs.
        centred: x − b_dec.
        kept: its pre-activations.
        parameters: the SAE in training.
        n_rows: rows of all ranks.
        first_row: rows of the lower ranks.
        ranks: who holds the others.
    """

    x: Rows
    centred: Rows
    kept: KeptActivations
    parameters: Parameters
    n_rows: int
    first_row: int
    ranks: Ranks

    @property
    def n_elements(self) -> int:
        """B·d, over all ranks."""
        return self.n_rows * self.x.shape[1]

    def of_all(self, code: SparseCode) -> SparseCode:
        """Return the code of all ranks' rows."""
        return code.gathered(self.n_rows, self.first_row, self.ranks)


@dataclass(frozen=True, eq=False)
class Reconstructed:
    """What a method made of a batch.

    Attributes:
        error: x̂ − x of this rank's rows.
        errors: of all ranks' rows.
        loss: what the method minimises, penalty included.
        rows: gradients of the dictionary's rows.
        output: gradient of ``b_dec`` as far as it is added to the output.
        fired: features that are active somewhere in the batch, with or without repetition.
        n_active: active entries.
        code: the active entries, where they are few enough to be listed.
        log_threshold: gradient of the logarithm of every θ, where the method learns them.
    """

    error: Rows
    errors: Rows
    loss: Float[Tensor, ""]
    rows: RowGradients
    output: Float[Tensor, "d"]
    fired: Int64[Tensor, "n"]
    n_active: int
    code: SparseCode | None = None
    log_threshold: Float[Tensor, "m"] | None = None


def reconstruct(batch: Encoded, mine: SparseCode) -> Reconstructed:
    """Return ``Σ‖x − x̂‖² / (B·d)`` and its gradients for the entries ``mine`` of this rank."""
    decoder = batch.parameters
    error = decode(mine, decoder.w_dec).add_(decoder.b_dec).sub_(batch.x)
    code, errors = batch.of_all(mine), batch.ranks.gather(error)
    of_output = errors * (2 / batch.n_elements)
    rows, _ = sparse_row_gradients(code, of_output, batch.ranks.gather(batch.centred))
    return Reconstructed(
        error=error,
        errors=errors,
        loss=sum_of_squares(errors) / batch.n_elements,
        rows=rows,
        output=of_output.sum(0),
        fired=code.features,
        n_active=code.n,
        code=code,
    )


def reconstruct_nested(batch: Encoded, mine: SparseCode, ends: tuple[int, ...]) -> Reconstructed:
    """Return the mean over prefixes of the dictionary of their losses, and its gradients.

    A feature's row takes part in every prefix that reaches it, so its output gradient is the sum
    of theirs. Those sums, one table a segment between two ends, stand below each other, and every
    entry looks its row up in its segment's table: the same sparse sums as without prefixes.

    Args:
        batch: encoded.
        mine: kept entries of this rank.
        ends: features of each prefix, ascending to m.
    """
    gather, w_dec = batch.ranks.gather, batch.parameters.w_dec
    edges = torch.tensor(ends, device=w_dec.device)
    segment = torch.searchsorted(edges, mine.features, right=True)
    error, parts = batch.parameters.b_dec - batch.x, list[Rows]()
    for number in range(len(ends)):
        error = error + decode(_chosen(mine, segment == number), w_dec)
        parts.append(gather(error))
    weight = 2 / (batch.n_elements * len(ends))
    squares = torch.stack([sum_of_squares(part) for part in parts])
    tables = torch.stack(parts).mul_(weight).flip(0).cumsum(0).flip(0)
    code = batch.of_all(mine)
    segment = torch.searchsorted(edges, code.features, right=True)
    rows, _ = sparse_row_gradients(
        code, tables.flatten(0, 1), gather(batch.centred),
        output_rows=segment * batch.n_rows + code.rows,
    )  # fmt: skip
    return Reconstructed(
        error=error,
        errors=parts[-1],
        loss=squares.mean() / batch.n_elements,
        rows=rows,
        output=tables[0].sum(0),
        fired=code.features,
        n_active=code.n,
        code=code,
    )


def sum_of_squares(rows: Rows) -> Float[Tensor, ""]:
    """Return Σ‖row‖² without a tensor of squares."""
    flat = rows.reshape(-1)
    return torch.dot(flat, flat)


def _chosen(code: SparseCode, mask: Tensor) -> SparseCode:
    return SparseCode(
        code.rows[mask], code.features[mask], code.values[mask], code.n_rows, code.n_features
    )
