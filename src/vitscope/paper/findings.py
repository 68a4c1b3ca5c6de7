"""What a run found, under the names that the paper's numbers have in ``reference.toml``."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.backbones.planted.truth import expected_cds, expected_instability
from vitscope.intervals import jackknife_interval, student_interval, wilson_interval
from vitscope.paper.assumptions import Readings
from vitscope.paper.studies import PLANTED_MODEL
from vitscope.paper.targets import Target
from vitscope.run import Run
from vitscope.scope.bootstrap import image_weights
from vitscope.selfcheck.truth import read_truth
from vitscope.study import Study

OVER_IMAGES, OVER_SEARCHES, OVER_FEATURES = "images", "searches", "features"
"""What an interval is over."""

REMOVED = ("original", "high-removed", "low-removed")
"""Variants of the tokens that the paper shows."""

FVU_CENTRES = {
    "fvu": "mean of all tokens",
    "fvu_own_mean": "own mean",
    "fvu_uncentred": "uncentred",
}
"""What FVU is about: the name of its figure, and in words."""

PEAK_SHIFTS = (3, 4)
"""Shifts between which the paper's outlier EMD is largest."""


@dataclass(frozen=True)
class Finding:
    """A number with a 95 % interval.

    Attributes:
        value: in this project's units; NaN where it is not defined.
        low: lower end; NaN where there is no interval.
        high: upper end.
        over: what the interval would change with: images, searches, features; empty without one.
    """

    value: float
    low: float = math.nan
    high: float = math.nan
    over: str = ""

    @property
    def has_interval(self) -> bool:
        """Whether both ends are known."""
        return math.isfinite(self.low) and math.isfinite(self.high)


Findings = Mapping[str, Finding]


@dataclass(frozen=True)
class FinishedRun:
    """A run of a reproduction, perhaps with fewer stages than its study has.

    Attributes:
        model: the backbone, or the name of a study of one's own.
        readings: otherwise than by default.
        targets: that it serves.
        run: where everything lies.
        numbers: what it found.
    """

    model: str
    readings: Readings
    targets: tuple[Target, ...]
    run: Run
    numbers: Findings

    @property
    def study(self) -> Study:
        """As it was run."""
        return self.run.study


def read_findings(run: Run) -> dict[str, Finding]:
    """Return every number that the finished stages of ``run`` have.

    Raises:
        ArtifactError: what a stage has left is damaged.
    """
    readers = {
        "outliers": _threshold,
        "evaluate": _reconstruction,
        "partition": _partition,
        "instability": _instability,
        "awcds": _awcds,
        "probe": _probes,
    }
    found: dict[str, Finding] = {}
    for stage, read in readers.items():
        if run.has(stage):
            found |= read(run)
    return found


def _threshold(run: Run) -> dict[str, Finding]:
    """τ as the histogram alone proposes it: the run itself may use the paper's.

    ``second-mode`` is 0 where τ is a percentile for want of a second mode of norms: then nothing
    is an outlier.
    """
    threshold, evidence = run.outliers.threshold, run.outliers.evidence
    value = next((a.threshold for a in evidence.alternatives if a.name == "valley"), math.nan)
    if threshold.source == "valley":
        value = threshold.tau
    ends = (evidence.interval.low, evidence.interval.high)
    tau = Finding(value)
    if math.isfinite(value) and evidence.method == "valley":
        tau = Finding(value, *ends, OVER_IMAGES)
    return {"tau": tau, "second-mode": Finding(float(threshold.source != "percentile"))}


def _reconstruction(run: Run) -> dict[str, Finding]:
    found, left_out = run.reconstruction, run.reconstruction.left_out

    def jackknifed(value: float, without: NDArray[np.float64]) -> Finding:
        return _with_ends(value, jackknife_interval(value, without), OVER_IMAGES)

    numbers = {
        f"{name}.{group}": jackknifed(getattr(metrics, name), left_out[f"{name}.{group}"])
        for group, metrics in (("all", found.all), ("outlier", found.outlier))
        for name in (*FVU_CENTRES, "l0", "cosine")
    }
    gap = left_out["l0.outlier"] - left_out["l0.all"]
    return {**numbers, "l0.gap": jackknifed(found.outlier.l0 - found.all.l0, gap)}


def _partition(run: Run) -> dict[str, Finding]:
    """γ, both groups at both ends of its interval, and each group's activation per token.

    Activation has no interval: features are summed.
    """
    partition = run.partition
    cds, gamma, evidence = partition.cds, partition.gamma, partition.evidence
    low, high = float(partition.low.size), float(partition.high.size)
    found = {
        "dictionary": Finding(float(cds.size)),
        "gamma": Finding(gamma),
        "low": Finding(low),
        "high": Finding(high),
        "gap": Finding(low - high),
        "dip-p": Finding(evidence.dip_p),
        "silverman-p": Finding(evidence.silverman_p),
        "valley-found": Finding(evidence.valley_found),
    }
    ends = evidence.interval
    if partition.source != "given" and math.isfinite(ends.low):
        # a larger γ makes a smaller high group; scored features are in one of the two
        fewest, most = (float((cds > end).sum()) for end in (ends.high, ends.low))
        both = low + high
        found |= {
            "gamma": Finding(gamma, ends.low, ends.high, OVER_FEATURES),
            "low": Finding(low, both - most, both - fewest, OVER_FEATURES),
            "high": Finding(high, fewest, most, OVER_FEATURES),
            "gap": Finding(low - high, both - 2 * most, both - 2 * fewest, OVER_FEATURES),
        }
    for group in ("high", "low"):
        for tokens, column in (("outlier", "mean_on_outlier"), ("other", "mean_on_other")):
            mine = run.features[column][partition.group(group)]
            found[f"activation.{group}.{tokens}"] = Finding(float(np.nansum(mine)))
    return found


def _instability(run: Run) -> dict[str, Finding]:
    """D̄ of both groups and their ratio by shift; how often outliers peak, and others rise.

    The shares ``emd.peak`` and ``emd.rise`` are of resamples of the images, each drawn with all its
    shifts; NaN where fewer than two images have such tokens at every shift.
    """
    found: dict[str, Finding] = {}
    for row in run.instability.shown:
        if row.reading == run.instability.reading:
            for name, group in (("outlier", row.outlier), ("other", row.other)):
                value = Finding(group.mean, group.low, group.high, OVER_IMAGES)
                found[f"emd.{name}.{row.shift}"] = value
            ratio = Finding(row.ratio, row.ratio_low, row.ratio_high, OVER_IMAGES)
            found[f"emd.ratio.{row.shift}"] = ratio
    shifts = compared_shifts(found)
    if set(PEAK_SHIFTS) < set(shifts):
        outlier, other = (_curves(run, shifts, tokens) for tokens in ("outlier", "other"))
        at_peak = np.isin(np.asarray(shifts)[outlier.argmax(1)], PEAK_SHIFTS)
        rises = (np.diff(other, axis=1) > 0).all(1)
        for name, share in (("peak", at_peak), ("rise", rises)):
            found[f"emd.{name}"] = Finding(float(share.mean()) if share.size else math.nan)
    return found


def compared_shifts(found: Findings) -> tuple[int, ...]:
    """Return the shifts at which a run has compared attention, ascending."""
    prefix = "emd.ratio."
    return tuple(sorted(int(k.removeprefix(prefix)) for k in found if k.startswith(prefix)))


def _curves(run: Run, shifts: Sequence[int], tokens: str) -> NDArray[np.float64]:
    """Return mean EMD over the shifts, a row per resample of the images, [draws, S].

    Images without such tokens at a shift count nothing there; draws that have none are left out.
    """
    table, chosen = run.instability.images, run.study.outliers
    rows = (
        (table["reading"] == chosen.attention)
        & (table["membership"] == chosen.membership)
        & (table["tokens"] == tokens)
    )
    images, index = np.unique(table["image_id"][rows], return_inverse=True)
    values = np.full((images.size, len(shifts)), np.nan)
    values[index, np.searchsorted(shifts, table["shift"][rows])] = table["emd"][rows]
    has = np.isfinite(values)
    if min(has.sum(0), default=0) < 2:
        return np.empty((0, len(shifts)))
    known = np.where(has, values, 0.0)
    curves = np.concatenate(
        [
            (weights @ known) / np.where(counts := weights @ has, counts, np.nan)
            for weights in image_weights(images.size, run.study.seed, f"curve of {tokens} tokens")
        ]
    )
    return curves[np.isfinite(curves).all(1)]


def _awcds(run: Run) -> dict[str, Finding]:
    """Mean awCDS of the bins above τ, of the 40th to 60th percentile, and their ratio.

    Ends of the bins' intervals are set against each other, so that the ratio's is a wide one.
    """
    spectrum, tau = run.awcds.spectrum, run.outliers.tau
    means: list[Finding] = []
    for chosen in (spectrum.norm > tau, np.abs(spectrum.percentile - 50) <= 10):
        curves = (spectrum.awcds[chosen], spectrum.low[chosen], spectrum.high[chosen])
        value, low, high = (
            float(np.nanmean(curve)) if np.isfinite(curve).any() else math.nan for curve in curves
        )
        means.append(Finding(value, low, high, OVER_IMAGES))
    top, middle = means
    ratio = Finding(
        *(top.value / middle.value, top.low / middle.high, top.high / middle.low), OVER_IMAGES
    )
    return {"awcds.outlier": top, "awcds.middle": middle, "awcds.ratio": ratio}


def _probes(run: Run) -> dict[str, Finding]:
    """Each variant's figure, and its change from the original, also as a share of it.

    Changes are taken search by search: all variants share their trials.
    """
    found: dict[str, Finding] = {}
    for task in run.probes.tasks:
        values = {one.variant: one.values for one in task.variants}
        before = values.get("original", ())
        for variant in set(REMOVED) & set(values):
            name, mine = f"{task.task}.{variant}", values[variant]
            found[name] = _over_searches(mine)
            if len(mine) == 1 and task.metric == "top1":
                ends = wilson_interval(mine[0], task.n_validation)
                found[name] = _with_ends(mine[0], ends, OVER_IMAGES)
        for group in run.probes.removed.groups:
            after = values.get(group.variant, ())
            if not group.is_control and len(after) == len(before):
                gaps = [b - a for a, b in zip(before, after, strict=True)]
                shares = [gap / a for gap, a in zip(gaps, before, strict=True) if a]
                found[f"{task.task}.{group.of}.change"] = _over_searches(gaps)
                found[f"{task.task}.{group.of}.share"] = _over_searches(shares)
    return found


def _with_ends(value: float, ends: tuple[float, float], over: str) -> Finding:
    return Finding(value, *ends, over) if math.isfinite(ends[0]) else Finding(value)


def _over_searches(values: Sequence[float]) -> Finding:
    mean = student_interval(values)
    return _with_ends(mean.mean, (mean.low, mean.high), OVER_SEARCHES)


TRUTH_ERRORS = 2.0
"""Standard errors of a truth that is itself drawn, to either side."""


def truths_of(run: FinishedRun) -> dict[str, Finding]:
    """Return what must come out of a run on the planted backbone, in the names of its findings.

    Nothing where there is no truth, or where it was read otherwise. Groups are those of the closed
    forms, cut at the run's own γ.
    """
    study = run.study
    if run.model != PLANTED_MODEL or study.sae.path is None or run.readings:
        return {}
    backbone, found = PlantedBackbone(), dict[str, Finding]()
    shift = study.scope.shift
    if "gamma" in run.numbers:
        gamma = run.numbers["gamma"].value
        cds = np.asarray([expected_cds(backbone.spec, a, shift).max for a in backbone.truth])
        found["dictionary"] = Finding(float(cds.size))
        found["high"] = Finding(float((cds > gamma).sum()))
        found["low"] = Finding(float((cds <= gamma).sum()))
    if "fvu.all" in run.numbers:
        truth = read_truth(backbone, run.run.image_refs, shift)
        found["fvu.all"] = Finding(truth.fvu_all)
        found["fvu.outlier"] = Finding(truth.fvu_outlier)
        found["l0.all"] = Finding(backbone.spec.atoms_per_token)
    if compared_shifts(run.numbers) and study.outliers.membership == "either":
        for s in sorted({shift, *study.instability.shifts}):
            drawn = expected_instability(backbone.spec, s)[study.outliers.attention]
            for name, (value, error) in zip(("outlier", "other"), drawn, strict=True):
                low, high = float(value - TRUTH_ERRORS * error), float(value + TRUTH_ERRORS * error)
                found[f"emd.{name}.{s}"] = Finding(float(value), low, high, "draws")
    return found
