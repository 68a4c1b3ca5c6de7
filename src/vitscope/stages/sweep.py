"""Stage «sweep»: several SAEs over one pass of the activations, and a table of them."""

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitscope.distributed import leave_unless_rank_0
from vitscope.errors import ConfigError
from vitscope.sae.log import require_trackers
from vitscope.sae.plan import NOT_IN_KEY
from vitscope.sae.settings import SaeSettings, SweepSettings
from vitscope.sae.storage import save_sae
from vitscope.sae.training import TrainedSae, TrainingJob, train_saes
from vitscope.stages.backbone import BackboneStage
from vitscope.stages.stage import Job, Stage
from vitscope.stages.train import token_source
from vitscope.study import Study

SHORT = {"seed": "seed", "k": "k", "expansion": "x", "learning_rate": "lr", "method": ""}
"""How a sweep's settings are written in the names of its SAEs."""


@dataclass(frozen=True)
class SweepPoint:
    """One SAE of a sweep.

    Attributes:
        name: of its folder; made of what the sweep varies.
        settings: its own, without a sweep.
        seed: of its initial weights.
    """

    name: str
    settings: SaeSettings
    seed: int


@dataclass(frozen=True)
class SweepRow:
    """One SAE of a finished sweep: what it varies, and how it does on tokens it has not seen."""

    name: str
    method: str
    seed: int
    k: int
    expansion: int
    learning_rate: float
    features: int
    threshold: float | None
    threshold_low: float | None
    threshold_high: float | None
    held_out_fvu: float
    held_out_l0: float
    held_out_silent_share: float
    held_out_n_tokens: int
    dead_share: float
    dead_after_tokens: int
    tokens: int


@dataclass(frozen=True)
class SweepResult:
    """Every SAE, in the order of the sweep, and its files under ``sweep/NAME``."""

    rows: tuple[SweepRow, ...]
    files: tuple[Path, ...]


class SweepStage(Stage[SweepResult]):
    """Trains every SAE that ``[sae.sweep]`` asks for, over the same tokens."""

    name = "sweep"
    after = ("backbone", "extract")
    shared = True
    Result = SweepResult

    def check(self, study: Study) -> None:
        """Refuse a sweep of nothing."""
        sweep_points(study.sae, study.seed)

    def settings(self, job: Job) -> Mapping[str, Any]:
        """Return how they are trained."""
        return job.study.sae.model_dump(mode="json", exclude=NOT_IN_KEY - {"sweep"})

    def run(self, job: Job) -> SweepResult:
        """Train them side by side."""
        study, run = job.study, job.run
        require_trackers(study.sae.track)
        points = sweep_points(study.sae, study.seed)
        folders = [run.root / "sweep" / point.name for point in points]
        jobs = [
            TrainingJob(
                point.settings,
                point.seed,
                checkpoint=run.parts("sweep") / f"{point.name}.safetensors",
                log=folder / "metrics.jsonl",
            )
            for point, folder in zip(points, folders, strict=True)
        ]
        trained = train_saes(
            token_source(job),
            jobs,
            site=job.result(BackboneStage).site,
            fingerprint=job.fingerprint,
            device=job.models.device,
        )
        leave_unless_rank_0()
        files: list[Path] = []
        for found, folder in zip(trained, folders, strict=True):
            files += [*save_sae(folder, found.sae), folder / "metrics.jsonl"]
        rows = [_row(point, found) for point, found in zip(points, trained, strict=True)]
        return SweepResult(tuple(rows), tuple(files))


def sweep_points(settings: SaeSettings, seed: int) -> list[SweepPoint]:
    """Return every combination that ``settings.sweep`` asks for.

    Raises:
        ConfigError: it asks for none, names one twice, or the study brings its SAE along.
    """
    if settings.path is not None:
        raise ConfigError("sae.path is set: there is nothing to train; leave it out for a sweep")
    lists: dict[str, tuple[Any, ...]] = {
        name: values for name, values in settings.sweep if values != ()
    }
    if not lists:
        raise ConfigError(
            "there is nothing to sweep; set lists under [sae.sweep], such as seed = [0, 1] or "
            f"k = [15, 30] ({', '.join(SweepSettings.model_fields)})"
        )
    points: list[SweepPoint] = []
    for values in itertools.product(*lists.values()):
        chosen = dict(zip(lists, values, strict=True))
        name = "-".join(f"{SHORT[key]}{value:g}" if key != "method" else str(value)
                        for key, value in chosen.items())  # fmt: skip
        own = {**settings.model_dump(exclude={"sweep"}), **chosen}
        of_seed = own.pop("seed", seed)
        points.append(SweepPoint(name, SaeSettings.parse(own, source=f"sweep {name}"), of_seed))
    names = [point.name for point in points]
    if len(set(names)) < len(names):
        raise ConfigError("sae.sweep names a value twice; every SAE needs settings of its own")
    return points


def sweep_lines(rows: tuple[SweepRow, ...]) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells of the comparison as it is printed."""
    headings = ["SAE", "features", "FVU", "L0", "silent", "dead", "θ"]
    cells = [
        [
            row.name,
            str(row.features),
            f"{row.held_out_fvu:.4f}",
            f"{row.held_out_l0:.1f}",
            f"{row.held_out_silent_share:.1%}",
            f"{row.dead_share:.1%}",
            _interval(row),
        ]
        for row in rows
    ]
    return headings, cells


def _interval(row: SweepRow) -> str:
    if row.threshold is None or row.threshold_low is None:
        return "–" if row.threshold is None else f"{row.threshold:.4g}"
    return f"{row.threshold:.4g} ({row.threshold_low:.4g}-{row.threshold_high:.4g})"


def _row(point: SweepPoint, trained: TrainedSae) -> SweepRow:
    values: dict[str, Any] = {
        **point.settings.model_dump(),
        **trained.sae.info,  # what came of a setting that was left open, too
        "name": point.name,
        "seed": point.seed,
        "features": trained.sae.n_features,
        "threshold": trained.sae.threshold,
    }
    row: dict[str, Any] = {name: values.get(name) for name in SweepRow.__dataclass_fields__}
    return SweepRow(**row)
