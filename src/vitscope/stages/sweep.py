"""Several SAEs over one pass of the activations, and a table of them: ``train --sweep``."""

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitscope.distributed import rank_0_goes_on
from vitscope.errors import ConfigError
from vitscope.sae.log import require_trackers
from vitscope.sae.plan import NOT_IN_KEY
from vitscope.sae.settings import SaeSettings, SweepSettings
from vitscope.sae.storage import save_sae
from vitscope.sae.training import TrainedSae, TrainingJob, train_saes
from vitscope.stages.context import Context, StageOutcome
from vitscope.stages.extract import run_extract
from vitscope.stages.images import run_images
from vitscope.stages.joined import held_run
from vitscope.stages.tokens import token_source
from vitscope.store.atomic import read_json, write_json
from vitscope.store.stage import StageOutput
from vitscope.study import Study

SHORT = {"seed": "seed", "k": "k", "expansion": "x", "learning_rate": "lr", "method": ""}
"""How a sweep's settings are written in the names of its SAEs."""

FIGURES = (
    "held_out_fvu",
    "held_out_l0",
    "held_out_silent_share",
    "held_out_n_tokens",
    "dead_share",
    "dead_after_tokens",
    "threshold_low",
    "threshold_high",
    "tokens",
)
"""What the table takes from an SAE's own record."""


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


def run_sweep(context: Context) -> StageOutcome:
    """Train every SAE of the sweep into ``sweep/<name>/`` and write ``tables/sweep.json``."""
    study, run = context.study, context.run
    points = sweep_points(study.sae, study.seed)
    require_trackers(study.sae.track)
    folders = [run.root / "sweep" / point.name for point in points]

    def body(fingerprint: str) -> StageOutput:
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
            token_source(context),
            jobs,
            site=context.backbone.site,
            fingerprint=fingerprint,
            device=context.device,
        )
        rank_0_goes_on()
        files: list[Path] = []
        for found, folder in zip(trained, folders, strict=True):
            files += [*save_sae(folder, found.sae), folder / "metrics.jsonl"]
        rows = [_row(point, found) for point, found in zip(points, trained, strict=True)]
        write_json(run.table("sweep"), {"fingerprint": fingerprint, "rows": rows})
        return StageOutput([*files, run.table("sweep")], {"saes": len(rows)})

    settings = study.sae.model_dump(exclude=NOT_IN_KEY - {"sweep"})
    return context.finish("sweep", settings=settings, after=("extract",), body=body, shared=True)


def sweep_study(
    study: Study, out: Path, *, on_stage: Callable[[str, StageOutcome], None] | None = None
) -> list[dict[str, Any]]:
    """Run what a sweep needs of a study, then the sweep; return the rows of its table.

    Args:
        study: with absolute paths, and lists under ``sae.sweep``.
        out: the run directory, created where needed and locked meanwhile.
        on_stage: called with the name of a stage and how it ended.
    """
    sweep_points(study.sae, study.seed)  # refused before an image is looked at
    with held_run(out, study) as run:
        context = Context(study, run, frozenset({"images", "extract", "sweep"}))
        for name, stage in (("images", run_images), ("extract", run_extract), ("sweep", run_sweep)):
            outcome = stage(context)
            if on_stage is not None:
                on_stage(name, outcome)
    return read_json(run.table("sweep"))["rows"]


def sweep_lines(rows: list[dict[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells of the comparison as it is printed."""
    headings = ["SAE", "features", "FVU", "L0", "silent", "dead", "θ"]
    cells = [
        [
            row["name"],
            str(row["features"]),
            f"{row['held_out_fvu']:.4f}",
            f"{row['held_out_l0']:.1f}",
            f"{row['held_out_silent_share']:.1%}",
            f"{row['dead_share']:.1%}",
            _interval(row),
        ]
        for row in rows
    ]
    return headings, cells


def _interval(row: Mapping[str, Any]) -> str:
    if row.get("threshold_low") is None:
        return f"{row['threshold']:.4g}"
    return f"{row['threshold']:.4g} ({row['threshold_low']:.4g}-{row['threshold_high']:.4g})"


def _row(point: SweepPoint, trained: TrainedSae) -> dict[str, Any]:
    info = trained.sae.info
    return {
        "name": point.name,
        "method": point.settings.method,
        "seed": point.seed,
        "k": point.settings.k,
        "expansion": point.settings.expansion,
        "learning_rate": point.settings.learning_rate,
        "features": trained.sae.n_features,
        "threshold": trained.sae.threshold,
        **{name: info.get(name) for name in FIGURES},
    }
