"""Everything that changes from step to step of a training."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from vitscope.axes import Int64
from vitscope.sae.optimiser import UnitDecoderAdam
from vitscope.sae.parameters import Parameters
from vitscope.sae.watch import Watch


@dataclass(frozen=True)
class StepFigures:
    """What the log says of one step.

    Attributes:
        step: from 1.
        loss: reconstruction loss of the batch.
        auxiliary: auxiliary loss of the batch, before its coefficient.
        fvu: of the batch, about the data set's mean.
        l0: kept entries per token.
        dead_share: share of the features that have been silent for too long.
    """

    step: int
    loss: float
    auxiliary: float
    fvu: float
    l0: float
    dead_share: float


@dataclass(eq=False)
class TrainingState:
    """Parameters, Adam's moments, the silence of each feature, and the last step's figures.

    Attributes:
        parameters: the SAE in training, on normalised inputs.
        optimiser: changes them in place.
        silent_tokens: tokens since each feature was last kept.
        step: steps done; with the batches per epoch, this is the place in the data too.
        figures: of the last step; None before the first.
        watch: running θ, and how held-out figures went.
    """

    parameters: Parameters
    optimiser: UnitDecoderAdam
    silent_tokens: Int64[Tensor, "m"]
    step: int = 0
    figures: StepFigures | None = None
    watch: Watch = field(default_factory=Watch)


def new_state(parameters: Parameters) -> TrainingState:
    """Return the state before the first step."""
    n_features, device = parameters.w_dec.shape[0], parameters.w_dec.device
    return TrainingState(
        parameters=parameters,
        optimiser=UnitDecoderAdam(parameters),
        silent_tokens=torch.zeros(n_features, dtype=torch.int64, device=device),
    )
