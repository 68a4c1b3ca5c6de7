"""What a run found, under the names that the paper's numbers have in ``reference.toml``."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.backbones.planted.truth import expected_cds, expected_instability
from vitscope.images.sources import ImageRef
from vitscope.images.verify import read_image_table
from vitscope.intervals import jackknife_interval, student_interval, wilson_interval
from vitscope.paper.assumptions import Readings
from vitscope.paper.studies import PLANTED_MODEL
from vitscope.paper.targets import Target
from vitscope.scope.awcds import NormSpectrum
from vitscope.scope.bootstrap import image_weights
from vitscope.scope.cds import PairScores
from vitscope.scope.evidence import Evidence
from vitscope.scope.instability_summary import ReadingInstability
from vitscope.selfcheck.truth_tables import read_truth
from vitscope.stages.instability_table import read_instability
from vitscope.stages.removal_tables import read_removal
from vitscope.stages.run_tables import read_reconstruction, read_spectrum
from vitscope.stages.score import read_pairs
from vitscope.store.atomic import read_json
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stage import read_stamp
from vitscope.store.tables import read_metadata, read_table
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
        model: the backbone.
        readings: otherwise than by default.
        targets: that it serves.
        study: as it was run.
        run: where everything lies.
        numbers: what it found.
    """

    model: str
    readings: Readings
    targets: tuple[Target, ...]
    study: Study
    run: RunDirectory
    numbers: Findings

    def has(self, stage: str) -> bool:
        """Whether a stage has finished."""
        return read_stamp(self.run, stage) is not None

    @property
    def scored_images(self) -> tuple[ImageRef, ...]:
        """The usable images that features are scored on."""
        return self.images("train" if self.study.images.eval is None else "eval")

    def images(self, split: str) -> tuple[ImageRef, ...]:
        """Return the usable images of ``train`` or ``eval``; none before they are listed."""
        return read_image_table(self.run.images(split)).usable if self.has("images") else ()

    def cds(self, group: str = "") -> NDArray[np.float64]:
        """Return the score of every feature, [m], or of those of a group."""
        features = read_table(self.run.features)
        return features["cds"][features["group"] == group] if group else features["cds"]

    @property
    def pairs(self) -> PairScores:
        """Every pair of views that scores a feature."""
        return read_pairs(self.run.pairs)

    @property
    def diameter(self) -> float:
        """D_grid of the pairs, in patches."""
        return float(read_metadata(self.run.pairs)["diameter"])

    @property
    def spectrum(self) -> NormSpectrum:
        """The course of awCDS over the norm."""
        return read_spectrum(self.run)

    @property
    def instability(self) -> tuple[ReadingInstability, ...]:
        """Attention instability under every reading and at every shift."""
        return read_instability(self.run.table("instability")).rows


def read_findings(run: RunDirectory, study: Study) -> dict[str, Finding]:
    """Return every number that the finished stages of ``run`` have.

    Raises:
        ArtifactError: a table is damaged.
    """
    readers = {
        "outliers": _threshold,
        "evaluate": _reconstruction,
        "partition": _partition,
        "instability": lambda run: _instability(run, study),
        "awcds": _awcds,
        "probe": _probes,
    }
    found: dict[str, Finding] = {}
    for stage, read in readers.items():
        if read_stamp(run, stage) is not None:
            found |= read(run)
    return found


def _threshold(run: RunDirectory) -> dict[str, Finding]:
    """τ as the histogram alone proposes it: the run itself may use the paper's.

    ``second-mode`` is 0 where τ is a percentile for want of a second mode of norms: then nothing
    is an outlier.
    """
    table = read_json(run.table("outliers"))
    evidence = Evidence.from_table(table["evidence"])
    value = next((a.threshold for a in evidence.alternatives if a.name == "valley"), math.nan)
    if table["source"] == "valley":
        value = float(table["tau"])
    tau = Finding(value)
    if math.isfinite(value) and evidence.method == "valley":
        tau = Finding(value, evidence.interval.low, evidence.interval.high, OVER_IMAGES)
    return {"tau": tau, "second-mode": Finding(float(table["source"] != "percentile"))}


def _reconstruction(run: RunDirectory) -> dict[str, Finding]:
    metrics = read_reconstruction(run)
    left_out = read_table(run.columns("reconstruction_left_out"))

    def jackknifed(value: float, left_out: NDArray[np.float64]) -> Finding:
        return _with_ends(value, jackknife_interval(value, left_out), OVER_IMAGES)

    found = {
        f"{name}.{group}": jackknifed(
            getattr(getattr(metrics, group), name), left_out[f"{name}.{group}"]
        )
        for group in ("all", "outlier")
        for name in (*FVU_CENTRES, "l0", "cosine")
    }
    gap = metrics.outlier.l0 - metrics.all.l0
    found["l0.gap"] = jackknifed(gap, left_out["l0.outlier"] - left_out["l0.all"])
    return found


def _partition(run: RunDirectory) -> dict[str, Finding]:
    """γ, both groups at both ends of its interval, and each group's activation per token.

    Activation has no interval: features are summed.
    """
    table, features = read_json(run.table("partition")), read_table(run.features)
    cds = features["cds"].astype(np.float64)
    evidence, gamma = Evidence.from_table(table["evidence"]), float(table["gamma"])
    low, high = float(table["low"]), float(table["high"])
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
    if table["source"] != "given" and math.isfinite(ends.low):
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
        for kind in ("outlier", "normal"):
            mine = features[f"mean_on_{kind}"][features["group"] == group]
            found[f"activation.{group}.{kind}"] = Finding(float(np.nansum(mine)))
    return found


def _instability(run: RunDirectory, study: Study) -> dict[str, Finding]:
    """D̄ of both groups and their ratio by shift; how often outliers peak, and others rise.

    The shares ``emd.peak`` and ``emd.rise`` are of resamples of the images, each drawn with all its
    shifts; NaN where fewer than two images have such tokens at every shift.
    """
    chosen = (study.outliers.attention, study.outliers.membership)
    found: dict[str, Finding] = {}
    for row in read_instability(run.table("instability")).rows:
        if (row.reading, row.membership) == chosen:
            for name, group in (("out", row.out), ("non", row.non)):
                value = Finding(group.mean, group.low, group.high, OVER_IMAGES)
                found[f"emd.{name}.{row.shift}"] = value
            ratio = Finding(row.ratio, row.ratio_low, row.ratio_high, OVER_IMAGES)
            found[f"emd.ratio.{row.shift}"] = ratio
    shifts = compared_shifts(found)
    if set(PEAK_SHIFTS) < set(shifts):
        outlier, other = (_curves(run, study, shifts, t) for t in ("outlier", "other"))
        at_peak = np.isin(np.asarray(shifts)[outlier.argmax(1)], PEAK_SHIFTS)
        rises = (np.diff(other, axis=1) > 0).all(1)
        for name, share in (("peak", at_peak), ("rise", rises)):
            found[f"emd.{name}"] = Finding(float(share.mean()) if share.size else math.nan)
    return found


def compared_shifts(found: Findings) -> tuple[int, ...]:
    """Return the shifts at which a run has compared attention, ascending."""
    prefix = "emd.ratio."
    return tuple(sorted(int(k.removeprefix(prefix)) for k in found if k.startswith(prefix)))


def _curves(
    run: RunDirectory, study: Study, shifts: Sequence[int], tokens: str
) -> NDArray[np.float64]:
    """Return mean EMD over the shifts, a row per resample of the images, [draws, S].

    Images without such tokens at a shift count nothing there; draws that have none are left out.
    """
    table = read_table(run.outliers)
    rows = (
        (table["reading"] == study.outliers.attention)
        & (table["membership"] == study.outliers.membership)
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
            for weights in image_weights(images.size, study.seed, f"curve of {tokens} tokens")
        ]
    )
    return curves[np.isfinite(curves).all(1)]


def _awcds(run: RunDirectory) -> dict[str, Finding]:
    """Mean awCDS of the bins above τ, of the 40th to 60th percentile, and their ratio.

    Ends of the bins' intervals are set against each other, so that the ratio's is a wide one.
    """
    spectrum, tau = read_spectrum(run), float(read_json(run.table("outliers"))["tau"])
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


def _probes(run: RunDirectory) -> dict[str, Finding]:
    """Each variant's figure, and its change from the original, also as a share of it.

    Changes are taken search by search: all variants share their trials.
    """
    figures = read_removal(run, ("probe",))
    assert figures is not None
    found: dict[str, Finding] = {}
    for task in figures.tasks:
        for variant in REMOVED:
            values = task.values.get(variant, ())
            if len(values) == 1 and task.metric == "top1":
                ends = wilson_interval(values[0], task.n_validation)
                found[f"{task.task}.{variant}"] = _with_ends(values[0], ends, OVER_IMAGES)
            elif values:
                found[f"{task.task}.{variant}"] = _over_searches(values)
        before = task.values.get("original", ())
        for group in figures.groups:
            after = task.values.get(group.variant, ())
            if group.is_control or len(after) != len(before):
                continue
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
    if run.has("evaluate"):
        truth = read_truth(backbone, run.images("train"), shift)
        found["fvu.all"] = Finding(truth.fvu_all)
        found["fvu.outlier"] = Finding(truth.fvu_outlier)
        found["l0.all"] = Finding(backbone.spec.atoms_per_token)
    if run.has("instability") and study.outliers.membership == "either":
        for s in sorted({shift, *study.instability.shifts}):
            drawn = expected_instability(backbone.spec, s)[study.outliers.attention]
            for name, (value, error) in zip(("out", "non"), drawn, strict=True):
                low, high = float(value - TRUTH_ERRORS * error), float(value + TRUTH_ERRORS * error)
                found[f"emd.{name}.{s}"] = Finding(float(value), low, high, "draws")
    return found
