"""What «probe» and «zeroshot» have left, read back for the report."""

from collections.abc import Mapping
from typing import Any

from vitscope.probes.calibration import Reliability
from vitscope.probes.zero_shot import ZeroShotSummary
from vitscope.report.removal import RemovalFigures, TaskFigures, VariantGroup, ZeroShotFigures
from vitscope.stages.run_tables import number
from vitscope.store.atomic import read_json
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stage import read_stamp

TABLES = {"probe": "probes", "zeroshot": "zeroshot"}
"""Stage -> its table."""


def read_removal(run: RunDirectory, stages: tuple[str, ...]) -> RemovalFigures | None:
    """Return what those of ``stages`` that have finished found; None where none has."""
    done = [stage for stage in stages if read_stamp(run, stage) is not None]
    tables = {stage: read_json(run.table(TABLES[stage])) for stage in done}
    if not tables:
        return None
    described = next(iter(tables.values()))  # equal in both: of the same partition
    matched = {row["variant"] for row in described["controls"] if row["is_matched"]}
    groups = tuple(_group(row, row["variant"] in matched) for row in described["groups"])
    unmatched = {
        row["of"]: str(row["message"])
        for row in described["controls"]
        if not any(g.of == row["of"] and g.is_control for g in groups)
    }
    return RemovalFigures(
        groups=groups,
        unmatched=unmatched,
        tasks=tuple(_task(row) for row in tables.get("probe", {}).get("tasks", ())),
        zero_shot=_zero_shot(tables["zeroshot"]) if "zeroshot" in tables else None,
    )


def _group(row: Mapping[str, Any], is_control: bool) -> VariantGroup:
    return VariantGroup(
        variant=row["variant"],
        of=row["of"],
        n_features=int(row["n_features"]),
        energy_share=number(row["energy_share"]),
        rate_share=number(row["rate_share"]),
        is_control=is_control,
    )


def _task(row: Mapping[str, Any]) -> TaskFigures:
    return TaskFigures(
        task=row["task"],
        metric=row["metric"],
        higher_is_better=bool(row["higher_is_better"]),
        n_train=int(row["n_train"]),
        n_validation=int(row["n_validation"]),
        values={one["variant"]: tuple(map(number, one["values"])) for one in row["variants"]},
        diverged=sum(len(one["diverged"]) for one in row["variants"]),
    )


def _zero_shot(table: Mapping[str, Any]) -> ZeroShotFigures:
    summaries = (_summary(row) for row in table["variants"])
    return ZeroShotFigures(
        n_images=int(table["n_images"]),
        n_classes=int(table["n_classes"]),
        variants={summary.variant: summary for summary in summaries},
    )


def _summary(row: Mapping[str, Any]) -> ZeroShotSummary:
    found = row["calibration"]
    lists = {name: tuple(map(number, found[name])) for name in ("edges", "confidence", "accuracy")}
    counts, error = tuple(map(int, found["n"])), number(found["expected_error"])
    calibration = Reliability(n=counts, expected_error=error, **lists)
    values: dict[str, Any] = {**row, "calibration": calibration}
    return ZeroShotSummary(**values)
