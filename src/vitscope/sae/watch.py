"""Training watched on held-out tokens under a running θ, and its early stop."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vitscope.axes import Rows
from vitscope.sae.losses import sum_of_squares
from vitscope.sae.model import SparseAutoencoder

ROWS_AT_ONCE = 512
"""Tokens encoded at a time: 50 MB of codes at 24,576 features."""

MEMORY = 0.9
"""Of the running θ: it follows the last ten batches or so, whose cuts are near each other."""


@dataclass(frozen=True)
class HeldOutFigures:
    """What an SAE does on tokens that it was not trained on.

    Attributes:
        fvu: ``Σ‖x − x̂‖² / Σ‖x − μ‖²`` about the tokens' own mean (protocol, section 3).
        l0: active features per token.
        silent_share: share of the features that are active on none of the tokens.
        n_tokens: how many tokens.
    """

    fvu: float
    l0: float
    silent_share: float
    n_tokens: int


@dataclass(frozen=True)
class Watch:
    """What watching has to remember from step to step.

    Attributes:
        threshold: running θ, on normalised inputs; None before the first batch.
        best: lowest held-out FVU so far; None before the first look.
        looks_since: looks since then.
        end: the step after which training ends, if that was brought forward.
    """

    threshold: float | None = None
    best: float | None = None
    looks_since: int = 0
    end: int | None = None

    def after_batch(self, cut: float) -> "Watch":
        """Let θ follow the cut of a batch."""
        if self.threshold is None:
            return replace(self, threshold=cut)
        return replace(self, threshold=MEMORY * self.threshold + (1 - MEMORY) * cut)

    def after_look(self, fvu: float) -> "Watch":
        """Count a look at held-out tokens."""
        if self.best is None or fvu < self.best:
            return replace(self, best=fvu, looks_since=0)
        return replace(self, looks_since=self.looks_since + 1)


def look(sae: SparseAutoencoder, tokens: Rows) -> HeldOutFigures:
    """Return the figures of ``sae`` on raw tokens, at its own threshold."""
    device = sae.b_enc.device
    fires = torch.zeros(sae.n_features, dtype=torch.int64, device=device)
    mean = tokens.double().mean(0).to(device)
    error = spread = torch.zeros((), dtype=torch.float64, device=device)
    for rows in tokens.split(ROWS_AT_ONCE):
        x = rows.to(device)
        codes = sae.encode(x)
        fires += torch.count_nonzero(codes > 0, dim=0)
        error = error + _squares(sae.decode(codes, like=x) - x)
        spread = spread + (x.double() - mean).square().sum()
    return HeldOutFigures(
        fvu=float(error / spread),
        l0=int(fires.sum()) / tokens.shape[0],
        silent_share=float((fires == 0).double().mean()),
        n_tokens=tokens.shape[0],
    )


def _squares(rows: Rows) -> Tensor:
    return sum_of_squares(rows).double()
