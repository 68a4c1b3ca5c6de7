"""All heads of all variants trained together, over one pass of the cached features per epoch."""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from vitscope.axes import Bool, Float
from vitscope.errors import ArtifactError
from vitscope.probes.features import FeatureBatch, LabelledFeatures, epoch_order
from vitscope.probes.heads import Descent, Heads, Normaliser, Trial, first_heads
from vitscope.probes.objectives import ProbeObjective
from vitscope.probes.settings import HeadSettings, ProbeSettings
from vitscope.progress import track
from vitscope.store.tensors import load_tensors, save_tensors

DIVERGED_RATIO = 2.0
"""A head whose last epoch's loss is so many times that of its first weights has diverged."""

SAVE_EVERY_S = 60.0
"""Seconds between two saves: what a kill may cost, beside the epoch it was in."""


@dataclass
class Checkpoint:
    """Where the state of a training is kept between epochs.

    Attributes:
        path: of the file; removed by :meth:`discard` once the training is done.
        fingerprint: of everything that decides the training; the state of another is ignored.
    """

    path: Path
    fingerprint: str
    _saved: float = field(default_factory=time.monotonic)

    def load(self, state: dict[str, Tensor]) -> int:
        """Fill the tensors of ``state`` in place; return the epochs done, 0 where none stands."""
        try:
            found, facts = load_tensors(self.path)
        except ArtifactError:
            return 0  # missing or damaged: trained anew
        if facts.get("fingerprint") != self.fingerprint or set(found) != set(state):
            return 0
        for name, tensor in state.items():
            tensor.copy_(found[name])
        return int(facts["epochs"])

    def save(self, state: dict[str, Tensor], epochs: int) -> None:
        """Keep ``state`` after so many epochs, unless the last save is recent."""
        if time.monotonic() - self._saved < SAVE_EVERY_S:
            return
        facts = {"fingerprint": self.fingerprint, "epochs": str(epochs)}
        save_tensors(self.path, state, facts)
        self._saved = time.monotonic()

    def discard(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)


@dataclass(frozen=True, eq=False)
class TrainedHeads:
    """Heads after training.

    Attributes:
        heads: their parameters; those of diverged heads are 0.
        normaliser: what comes before them.
        losses: mean training loss per epoch, NaN from the epoch of a divergence on, [E, V, h].
        first_loss: loss of the untrained heads on the first batch, [V, h].
        diverged: which heads are to be left out, [V, h].
    """

    heads: Heads
    normaliser: Normaliser
    losses: Float[Tensor, "E V h"]
    first_loss: Float[Tensor, "V h"]
    diverged: Bool[Tensor, "V h"]

    def logits(self, batch: FeatureBatch) -> Float[Tensor, "V B P h C"]:
        """Return the logits of every head, in evaluation."""
        seen = self.normaliser.evaluate(batch.patches, batch.token)
        return self.heads.logits(seen).unflatten(1, batch.patches.shape[1:3])


def train_heads(
    features: LabelledFeatures,
    objective: ProbeObjective,
    trials: tuple[Trial, ...],
    head: HeadSettings,
    settings: ProbeSettings,
    *,
    key: tuple[int | str, ...],
    checkpoint: Checkpoint | None = None,
) -> TrainedHeads:
    """Train one head per (variant, trial): SGD with momentum, cosine to 0 over all steps.

    Every head sees the same batches. A head's arithmetic does not involve the others, so that
    training them together gives what training them apart would, up to rounding.

    Args:
        features: of the training images.
        objective: the task.
        trials: rates and first weights of the heads of each variant.
        head: batch size and norm.
        settings: epochs and momentum.
        key: what the order of images is drawn from.
        checkpoint: where the state is kept between epochs; None keeps it nowhere.
    """
    state = begin_training(
        (len(features.variants), features.width), objective, trials, head, settings, features.device
    )
    n_steps = math.ceil(len(features) / head.batch_size)
    begun = 0 if checkpoint is None else checkpoint.load(state.tensors())
    n_heads = len(features.variants) * len(trials)
    with track(f"{n_heads} heads", settings.epochs * n_steps, "steps") as progress:
        progress.skip(begun * n_steps)
        for epoch in range(begun, settings.epochs):
            batches = epoch_order(len(features), head.batch_size, *key, epoch)
            for step, rows in enumerate(batches, start=epoch * n_steps):
                batch = features.batch(rows)
                schedule = 0.5 * (1 + math.cos(math.pi * step / (settings.epochs * n_steps)))
                state.step(batch, objective, schedule, epoch, len(rows) / len(features))
                progress.advance()
            state.end_epoch(epoch)
            progress.note(f"loss {float(state.losses[epoch][~state.dead].mean()):.3g}")
            if checkpoint is not None:
                checkpoint.save(state.tensors(), epoch + 1)
    return state.result()


@dataclass(eq=False)
class Training:
    """Heads while they are trained: what changes from step to step.

    Attributes:
        descent: heads and their momentum.
        normaliser: what comes before them.
        losses: mean per epoch so far, 0 for epochs to come, [E, V, h].
        first_loss: of the first batch, [V, h].
        started: whether there was a first batch.
        dead: heads whose loss was not finite, [V, h].
    """

    descent: Descent
    normaliser: Normaliser
    losses: Tensor
    first_loss: Tensor
    started: Tensor
    dead: Tensor

    def step(
        self,
        batch: FeatureBatch,
        objective: ProbeObjective,
        schedule: float,
        epoch: int,
        share: float,
    ) -> None:
        """Take one step.

        Args:
            batch: of training images.
            objective: the task.
            schedule: factor of every learning rate.
            epoch: of this step.
            share: of the training images that the batch has.
        """
        seen = self.normaliser.train(batch.patches, batch.token)
        heads = self.descent.heads.leaves()
        logits = heads.logits(seen).unflatten(1, batch.patches.shape[1:3])
        loss = objective.loss(logits, batch.target)
        # the sum mixes nothing: a head's parameters are in its own loss alone
        gradients = torch.autograd.grad(loss.sum(), [value for value, _ in heads.parameters()])
        self.descent.step(gradients, schedule)
        loss = loss.detach()
        self.losses[epoch] += share * loss
        torch.where(self.started, self.first_loss, loss, out=self.first_loss)
        self.started.fill_(True)

    def end_epoch(self, epoch: int) -> None:
        """Retire the heads whose loss was not finite."""
        self.dead |= ~self.losses[epoch].isfinite()
        self.losses[epoch].masked_fill_(self.dead, math.nan)
        self.descent.retire(self.dead)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the state by name, not copied."""
        named = {"losses": self.losses, "first_loss": self.first_loss, "dead": self.dead}
        named |= {"started": self.started}
        named |= {"mean": self.normaliser.mean, "variance": self.normaliser.variance}
        for part, heads in (("heads", self.descent.heads), ("velocity", self.descent.velocity)):
            named |= {f"{part}.{n}": value for n, (value, _) in enumerate(heads.parameters())}
        return named

    def result(self) -> TrainedHeads:
        """Return the heads as they stand, and which have diverged."""
        diverged = self.dead | (self.losses[-1] > DIVERGED_RATIO * self.first_loss)
        return TrainedHeads(
            heads=self.descent.heads,
            normaliser=self.normaliser,
            losses=self.losses.cpu(),
            first_loss=self.first_loss.cpu(),
            diverged=diverged.cpu(),
        )


def begin_training(
    shape: tuple[int, int],
    objective: ProbeObjective,
    trials: tuple[Trial, ...],
    head: HeadSettings,
    settings: ProbeSettings,
    device: torch.device,
) -> Training:
    """Return untrained heads, ready for their first step.

    Args:
        shape: V, number of variants, and d, width of the features.
        objective: the task.
        trials: rates and first weights of the heads of each variant.
        head: norm.
        settings: epochs and momentum.
        device: where the heads lie.
    """
    n_variants, width = shape
    heads = first_heads(
        trials,
        n_variants=n_variants,
        width=width,
        n_outputs=objective.n_outputs,
        scaled=head.norm != "none",
        device=device,
    )
    per_head = (n_variants, len(trials))
    return Training(
        descent=Descent.start(heads, trials, settings.momentum),
        normaliser=Normaliser(head.norm, n_variants, width, device),
        losses=torch.zeros(settings.epochs, *per_head, device=device),
        first_loss=torch.zeros(per_head, device=device),
        started=torch.zeros((), dtype=torch.bool, device=device),
        dead=torch.zeros(per_head, dtype=torch.bool, device=device),
    )


@torch.inference_mode()
def score_heads(
    trained: TrainedHeads, features: LabelledFeatures, objective: ProbeObjective, batch_size: int
) -> dict[str, Float[Tensor, "V h"]]:
    """Return every metric of every head on a validation set; NaN where a head has diverged."""
    score = objective.score(*trained.diverged.shape)
    for start in range(0, len(features), batch_size):
        batch = features.batch(torch.arange(start, min(start + batch_size, len(features))))
        score.update(trained.logits(batch), batch.target)
    found = score.metrics()
    return {name: value.masked_fill(trained.diverged, math.nan) for name, value in found.items()}
