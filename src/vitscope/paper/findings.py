"""What a run found, under the names that the paper's numbers have in ``reference.toml``."""

from collections.abc import Mapping

import numpy as np

from vitscope.intervals import student_interval
from vitscope.paper.measured import Measured, jackknife, of_proportion
from vitscope.report.removal import RemovalFigures, TaskFigures
from vitscope.scope.evidence import Evidence
from vitscope.stages.instability_table import read_instability
from vitscope.stages.removal_tables import read_removal
from vitscope.stages.run_tables import number, read_reconstruction
from vitscope.store.atomic import read_json
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stage import read_stamp
from vitscope.store.tables import read_table
from vitscope.study import Study

Findings = Mapping[str, Measured]

VARIANTS = ("original", "high-removed", "low-removed")
IMAGES, SEARCHES, FEATURES = "images", "searches", "features"
"""What an interval is over."""


def read_findings(run: RunDirectory, study: Study) -> dict[str, Measured]:
    """Return every number that the finished stages of ``run`` have.

    Raises:
        ArtifactError: a table is damaged.
    """
    readers = {
        "outliers": lambda: _threshold(run),
        "evaluate": lambda: _reconstruction(run),
        "partition": lambda: _partition(run) | _activation(run),
        "instability": lambda: _instability(run, study),
        "probe": lambda: _probes(run),
    }
    found: dict[str, Measured] = {}
    for stage, read in readers.items():
        if read_stamp(run, stage) is not None:
            found |= read()
    return found


def _threshold(run: RunDirectory) -> dict[str, Measured]:
    """τ as the histogram alone proposes it: the run itself may use the paper's."""
    table = read_json(run.table("outliers"))
    evidence = Evidence.from_table(table["evidence"])
    proposed = {row.name: row.threshold for row in evidence.alternatives}
    value = proposed.get("valley", float("nan"))
    if table["source"] == "valley":
        value = float(table["tau"])
    if not np.isfinite(value) or evidence.method != "valley":
        return {"tau": Measured(value)}
    return {"tau": Measured(value, evidence.interval.low, evidence.interval.high, IMAGES)}


def _reconstruction(run: RunDirectory) -> dict[str, Measured]:
    metrics = read_reconstruction(run)
    left_out = read_table(run.columns("reconstruction_left_out"))
    found = {
        f"{name}.{group}": jackknife(
            getattr(getattr(metrics, group), name), left_out[f"{name}.{group}"], IMAGES
        )
        for group in ("all", "outlier")
        for name in ("fvu", "fvu_own_mean", "fvu_uncentred", "l0", "cosine")
    }
    gap = metrics.outlier.l0 - metrics.all.l0
    found["l0.gap"] = jackknife(gap, left_out["l0.outlier"] - left_out["l0.all"], IMAGES)
    return found


def _partition(run: RunDirectory) -> dict[str, Measured]:
    table = read_json(run.table("partition"))
    cds = read_table(run.features)["cds"].astype(np.float64)
    evidence, gamma = Evidence.from_table(table["evidence"]), float(table["gamma"])
    low, high = int(table["low"]), int(table["high"])
    found = {"dictionary": Measured(float(cds.size))}
    ends = evidence.interval
    if table["source"] == "given" or not np.isfinite(ends.low):
        sizes = {"low": Measured(float(low)), "high": Measured(float(high))}
        return found | {"gamma": Measured(gamma)} | sizes
    fewest, most = (float((cds > end).sum()) for end in (ends.high, ends.low))
    both = float(low + high)
    return found | {
        "gamma": Measured(gamma, ends.low, ends.high, FEATURES),
        "high": Measured(float(high), fewest, most, FEATURES),
        "low": Measured(float(low), both - most, both - fewest, FEATURES),
    }


def _activation(run: RunDirectory) -> dict[str, Measured]:
    """Activation per token summed over a group's features; no interval: features are summed."""
    features = read_table(run.features)
    return {
        f"activation.{group}.{kind}": Measured(
            float(np.nansum(features[f"mean_on_{kind}"][features["group"] == group]))
        )
        for group in ("high", "low")
        for kind in ("outlier", "normal")
    }


def _instability(run: RunDirectory, study: Study) -> dict[str, Measured]:
    chosen = (study.outliers.attention, study.outliers.membership)
    found: dict[str, Measured] = {}
    for row in read_instability(run.table("instability")).rows:
        if (row.reading, row.membership) == chosen:
            for name, group in (("out", row.out), ("non", row.non)):
                value = Measured(group.mean, group.low, group.high, IMAGES)
                found[f"emd.{name}.{row.shift}"] = value
            ratio = Measured(row.ratio, row.ratio_low, row.ratio_high, IMAGES)
            found[f"emd.ratio.{row.shift}"] = ratio
    return found


def _probes(run: RunDirectory) -> dict[str, Measured]:
    figures = read_removal(run, ("probe",))
    assert figures is not None
    found: dict[str, Measured] = {}
    for task in figures.tasks:
        for variant in VARIANTS:
            if variant in task.values:
                found[f"{task.task}.{variant}"] = _of_searches(task, variant)
        found |= _changes(task, figures)
    return found


def _of_searches(task: TaskFigures, variant: str) -> Measured:
    values = task.values[variant]
    if len(values) == 1 and task.metric == "top1":
        return of_proportion(values[0], task.n_validation, IMAGES)
    mean = student_interval(values)
    return Measured(mean.mean, mean.low, mean.high, SEARCHES if len(values) > 1 else "")


def _changes(task: TaskFigures, figures: RemovalFigures) -> dict[str, Measured]:
    """Differences from the original, search by search: all variants share their trials."""
    before = task.values.get("original", ())
    found: dict[str, Measured] = {}
    for group in figures.groups:
        after = task.values.get(group.variant, ())
        if group.is_control or len(after) != len(before):
            continue
        gaps = [b - a for a, b in zip(before, after, strict=True)]
        shares = [gap / a for gap, a in zip(gaps, before, strict=True) if a]
        for name, values in (("change", gaps), ("share", shares)):
            mean = student_interval(values)
            over = SEARCHES if len(values) > 1 else ""
            found[f"{task.task}.{group.of}.{name}"] = Measured(mean.mean, mean.low, mean.high, over)
    return found


def is_percentile(run: RunDirectory) -> bool:
    """Whether τ is a stand-in for want of a second mode of norms: then nothing is an outlier."""
    return read_json(run.table("outliers"))["source"] == "percentile"


def share_of_outliers(run: RunDirectory) -> float:
    """Return the share of patch tokens above τ."""
    return number(read_json(run.table("outliers"))["share"])
