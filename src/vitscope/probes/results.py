"""What a probe leaves: one record per head, one line per variant, columns for a table."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitscope.probes.objective import Objective
from vitscope.probes.search import Trial
from vitscope.probes.training import TrainedHeads


@dataclass(frozen=True)
class TrialResult:
    """One head.

    Attributes:
        variant: of the tokens.
        trial: its rates.
        metric: name of ``value``.
        value: on the validation set; NaN where it has diverged.
        others: every other metric.
        losses: mean training loss per epoch.
        diverged: it is left out.
        is_best: of its variant and seed.
    """

    variant: str
    trial: Trial
    metric: str
    value: float
    others: dict[str, float]
    losses: tuple[float, ...]
    diverged: bool
    is_best: bool


@dataclass(frozen=True)
class VariantResult:
    """The best trial of each seed of a variant, summed up.

    Attributes:
        variant: of the tokens.
        mean: over seeds; NaN where every trial of every seed has diverged.
        spread: standard deviation over seeds; NaN for fewer than two.
        values: of each seed with a result.
        diverged: names of the trials that were left out.
    """

    variant: str
    mean: float
    spread: float
    values: tuple[float, ...]
    diverged: tuple[str, ...]


@dataclass(frozen=True)
class ProbeResult:
    """A task's outcome.

    Attributes:
        task: its name.
        metric: that chooses among trials.
        higher_is_better: which way it improves.
        n_train: training images.
        n_validation: validation images.
        trials: every head.
    """

    task: str
    metric: str
    higher_is_better: bool
    n_train: int
    n_validation: int
    trials: tuple[TrialResult, ...]

    @property
    def variants(self) -> tuple[VariantResult, ...]:
        """One line per variant, in the order of the tokens' variants."""
        names = list(dict.fromkeys(result.variant for result in self.trials))
        return tuple(_summed_up(name, self.trials) for name in names)

    def columns(self) -> dict[str, NDArray[Any] | list[str]]:
        """Return one row per head, for ``probes.parquet``."""
        rows = self.trials
        numbers = {
            "seed": [r.trial.seed for r in rows],
            "trial": [r.trial.number for r in rows],
            "learning_rate": [r.trial.learning_rate for r in rows],
            "weight_decay": [r.trial.weight_decay for r in rows],
            "value": [r.value for r in rows],
            "final_loss": [r.losses[-1] for r in rows],
            "diverged": [r.diverged for r in rows],
            "is_best": [r.is_best for r in rows],
        }
        return {
            "task": [self.task] * len(rows),
            "variant": [r.variant for r in rows],
            "metric": [r.metric for r in rows],
            **{name: np.asarray(values) for name, values in numbers.items()},
        }

    def described(self) -> dict[str, Any]:
        """Return the summary as plain values; the other metrics are those of the best trials."""
        return {
            "task": self.task,
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "n_train": self.n_train,
            "n_validation": self.n_validation,
            "variants": [asdict(one) | {"others": self._others(one)} for one in self.variants],
        }

    def _others(self, one: VariantResult) -> dict[str, float]:
        best = [r.others for r in self.trials if r.is_best and r.variant == one.variant]
        return {name: float(np.mean([row[name] for row in best])) for name in (best or [{}])[0]}

    def to_values(self) -> dict[str, Any]:
        """Return it as plain values, for JSON, where null stands for NaN."""
        return asdict(self)

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> "ProbeResult":
        """Return what :meth:`to_values` was called on."""
        found = dict(values)
        found["trials"] = tuple(_trial_result(row) for row in values["trials"])
        return cls(**found)


def joined_columns(results: Sequence[ProbeResult]) -> dict[str, NDArray[Any] | list[str]]:
    """Return one row per head of all tasks, for ``probes.parquet``."""
    every = [result.columns() for result in results]
    return {
        name: [text for part in every for text in part[name]]
        if isinstance(column, list)
        else np.concatenate([part[name] for part in every])
        for name, column in every[0].items()
    }


def list_results(
    variants: Sequence[str],
    trials: tuple[Trial, ...],
    trained: TrainedHeads,
    metrics: Mapping[str, Tensor],
    objective: Objective,
) -> tuple[TrialResult, ...]:
    """Return one result per head, the best of every (variant, seed) marked."""
    values = metrics[objective.metric].double().numpy()
    found: list[TrialResult] = []
    for row, variant in enumerate(variants):
        best = _best(values[row], trials, objective.higher_is_better)
        for column, trial in enumerate(trials):
            others = {
                name: float(value[row, column])
                for name, value in metrics.items()
                if name != objective.metric
            }
            found.append(
                TrialResult(
                    variant=variant,
                    trial=trial,
                    metric=objective.metric,
                    value=float(values[row, column]),
                    others=others,
                    losses=tuple(trained.losses[:, row, column].tolist()),
                    diverged=bool(trained.diverged[row, column]),
                    is_best=column in best,
                )
            )
    return tuple(found)


def _trial_result(values: Mapping[str, Any]) -> TrialResult:
    read: dict[str, Any] = {
        "trial": Trial(**values["trial"]),
        "value": _number(values["value"]),
        "others": {name: _number(value) for name, value in values["others"].items()},
        "losses": tuple(_number(loss) for loss in values["losses"]),
    }
    return TrialResult(**{**values, **read})


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _best(
    values: NDArray[np.float64], trials: tuple[Trial, ...], higher_is_better: bool
) -> set[int]:
    """Return the column of each seed's best trial; none where all of a seed's trials diverged."""
    best: set[int] = set()
    for seed in {trial.seed for trial in trials}:
        columns = [c for c, t in enumerate(trials) if t.seed == seed and np.isfinite(values[c])]
        if columns:
            sign = 1 if higher_is_better else -1
            best.add(max(columns, key=lambda c: sign * values[c]))
    return best


def _summed_up(variant: str, trials: tuple[TrialResult, ...]) -> VariantResult:
    mine = [result for result in trials if result.variant == variant]
    values = [result.value for result in mine if result.is_best]
    diverged = tuple(
        f"seed {r.trial.seed}, trial {r.trial.number} (learning rate "
        f"{r.trial.learning_rate:.3g}, weight decay {r.trial.weight_decay:.3g})"
        for r in mine
        if r.diverged
    )
    mean = float(np.mean(values)) if values else float("nan")
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return VariantResult(variant, mean, spread, tuple(values), diverged)
