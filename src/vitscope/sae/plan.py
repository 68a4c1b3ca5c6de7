"""The numbers of a training that settings, source and device fix before its first step."""

import importlib.util
import math
from dataclasses import dataclass

import torch

from vitscope.errors import SaeError
from vitscope.sae.settings import Objective, SaeSettings, objective_of
from vitscope.sae.source import TokenSource
from vitscope.store.atomic import fingerprint as hash_of

NOT_IN_KEY = {"path", "checkpoint_every", "log_every", "track", "sweep", "step"}
"""Settings that leave the weights as they are (``step``: but for rounding, as the device does):
changing them does not void a checkpoint."""

_DEFAULT_STEPS = 1000
"""Least number of steps where neither epochs nor steps are set."""

_DEFAULT_DEAD_SHARE = 0.1
_DEFAULT_DEAD_TOKENS = 1_000_000
"""Without a setting, a feature is dead after this share of the training, at most so many tokens."""


@dataclass(frozen=True)
class TrainingPlan:
    """What every step of one training shares.

    Attributes:
        settings: as given.
        seed: of the initial weights.
        n_features: m.
        batch: rows of a batch.
        batches_per_epoch: with the step, this gives the epoch and the place in it.
        n_steps: the step after which training ends.
        dead_after: tokens of silence after which a feature is dead.
        objective: what is minimised.
        matmul_dtype: what the encoder's product rounds its factors to, by name.
        key: hash of all that decides the weights; a checkpoint is used only under its own key.
    """

    settings: SaeSettings
    seed: int
    n_features: int
    batch: int
    batches_per_epoch: int
    n_steps: int
    dead_after: int
    objective: Objective
    matmul_dtype: str
    key: str

    def learning_rate(self, step: int, end: int | None = None) -> float:
        """Return the rate of ``step`` (from 0): linear rise, plateau, linear fall towards zero.

        Args:
            step: steps done.
            end: where training ends earlier than planned: the fall is as long as planned, and
                ends there.
        """
        rise = (step + 1) / max(self.settings.warmup_share * self.n_steps, 1)
        fall = ((end or self.n_steps) - step) / max(self.settings.decay_share * self.n_steps, 1)
        return self.settings.learning_rate * min(1.0, rise, fall)

    def end_after_fall(self, step: int) -> int:
        """Return where a training ends whose rate begins its final fall after ``step`` steps."""
        return min(self.n_steps, step + math.ceil(self.settings.decay_share * self.n_steps))


def plan_training(
    settings: SaeSettings,
    source: TokenSource,
    *,
    seed: int,
    fingerprint: str,
    device: torch.device | str = "cpu",
) -> TrainingPlan:
    """Resolve the defaults of ``settings`` for ``source`` and ``device``.

    Raises:
        SaeError: K exceeds the dictionary, there are no tokens, or the device cannot do what
            ``step`` or ``matmul_dtype`` ask for.
    """
    n_features = settings.expansion * source.width
    if settings.k > n_features:
        raise SaeError(
            f"k = {settings.k} exceeds the dictionary's {n_features} features "
            f"(expansion {settings.expansion} · width {source.width}); lower k"
        )
    if source.n_tokens < 1:
        raise SaeError("there are no tokens to train on; check the image folder and its limit")
    batch = min(settings.batch_size, source.n_tokens)
    batches_per_epoch = source.n_tokens // batch
    n_steps = _total_steps(settings, batches_per_epoch)
    matmul_dtype = matmul_dtype_on(torch.device(device), settings)
    decisive = {
        "settings": settings.model_dump(mode="json", exclude=NOT_IN_KEY),
        "seed": seed,
        "source": [source.width, source.n_tokens, fingerprint],
        "matmul_dtype": matmul_dtype,
    }
    return TrainingPlan(
        settings=settings,
        seed=seed,
        n_features=n_features,
        batch=batch,
        batches_per_epoch=batches_per_epoch,
        n_steps=n_steps,
        dead_after=_dead_after(settings, n_steps * batch),
        objective=objective_of(settings, source.width),
        matmul_dtype=matmul_dtype,
        key=hash_of(decisive),
    )


def matmul_dtype_on(device: torch.device, settings: SaeSettings) -> str:
    """Return the name of the type that the encoder's product rounds its factors to.

    Raises:
        SaeError: ``step`` or ``matmul_dtype`` ask for what this device or method has not.
    """
    on_cuda, fused = device.type == "cuda", settings.step == "triton"
    if fused and not (on_cuda and importlib.util.find_spec("triton")):
        raise SaeError(
            f'sae.step = "triton" needs a CUDA device and Triton (this is {device.type}); leave '
            'it at "torch"'
        )
    if fused and settings.method in ("relu", "jumprelu"):
        raise SaeError(
            f'sae.step = "triton" has no {settings.method}, only the top-k methods; leave it at '
            '"torch"'
        )
    if settings.matmul_dtype == "bfloat16" and not on_cuda:
        raise SaeError(
            f"matmul_dtype bfloat16 needs a CUDA device (this is {device.type}); choose auto or "
            "float32"
        )
    if settings.matmul_dtype == "auto":
        return "bfloat16" if fused else "float32"
    return settings.matmul_dtype


def _total_steps(settings: SaeSettings, batches_per_epoch: int) -> int:
    of_epochs = None if settings.epochs is None else math.ceil(settings.epochs * batches_per_epoch)
    limits = [limit for limit in (settings.steps, of_epochs) if limit is not None]
    return min(limits) if limits else max(batches_per_epoch, _DEFAULT_STEPS)


def _dead_after(settings: SaeSettings, training_tokens: int) -> int:
    if settings.dead_after_tokens is not None:
        return settings.dead_after_tokens
    return max(1, min(_DEFAULT_DEAD_TOKENS, int(_DEFAULT_DEAD_SHARE * training_tokens)))
