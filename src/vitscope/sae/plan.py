"""The numbers of a training that settings and source fix before its first step."""

from dataclasses import dataclass, replace

from vitscope.errors import SaeError
from vitscope.sae.methods import method_of, warmed
from vitscope.sae.objective import Objective
from vitscope.sae.schedule import dead_after, effective_batch, total_steps
from vitscope.sae.settings import SaeSettings
from vitscope.sae.source import TokenSource
from vitscope.store.checksum import fingerprint as hash_of

NOT_IN_KEY = {"path", "checkpoint_every", "log_every", "track", "sweep"}
"""Settings that leave the weights as they are: changing them does not void a checkpoint."""


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
        matmul_dtype: what products' factors are rounded to, by name.
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


def plan_training(
    settings: SaeSettings,
    source: TokenSource,
    *,
    seed: int,
    fingerprint: str,
    matmul_dtype: str = "float32",
) -> TrainingPlan:
    """Resolve the defaults of ``settings`` for ``source``, and for the device its ``matmul_dtype``.

    Raises:
        SaeError: K exceeds the dictionary, or there are no tokens.
    """
    n_features = settings.expansion * source.width
    if settings.k > n_features:
        raise SaeError(
            f"k = {settings.k} exceeds the dictionary's {n_features} features "
            f"(expansion {settings.expansion} · width {source.width}); lower k"
        )
    batch = effective_batch(settings, source.n_tokens)
    batches_per_epoch = source.n_tokens // batch
    n_steps = total_steps(settings, batches_per_epoch)
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
        dead_after=dead_after(settings, n_steps * batch),
        objective=Objective(
            k=settings.k,
            aux_k=settings.aux_k or max(1, source.width // 2),
            aux_coefficient=settings.aux_coefficient,
            method=method_of(settings, n_features),
        ),
        matmul_dtype=matmul_dtype,
        key=hash_of(decisive),
    )


def objective_at(plan: TrainingPlan, step: int) -> Objective:
    """Return what the step after ``step`` minimises: penalties rise at the beginning."""
    method = warmed(plan.objective.method, (step + 1) / plan.n_steps)
    return (
        plan.objective
        if method is plan.objective.method
        else replace(plan.objective, method=method)
    )
