"""A run whose results are made up, written to disk as stages write theirs; its models are real.

The planted backbone and random features on six generated photographs, of which two are shown of
every feature: what the page computes anew costs seconds.
"""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.report.page_reader import read_page

from vitscope.backbones.backbone import Backbone, describe_backbone
from vitscope.backbones.loading import load_backbone
from vitscope.backbones.settings import BackboneSettings
from vitscope.images.generated import write_generated_images
from vitscope.images.sources import ImageRef
from vitscope.images.verify import SkippedImage, VerifiedImages, write_image_table
from vitscope.probes.results import TaskResult, VariantResult, ZeroShotSummary
from vitscope.probes.zero_shot import reliability
from vitscope.report.page import render_report
from vitscope.run import Run
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.quality import GroupMetrics
from vitscope.sae.storage import save_sae
from vitscope.scope.awcds import NormSpectrum, norm_spectrum
from vitscope.scope.bootstrap import Interval
from vitscope.scope.cds import FeatureScores
from vitscope.scope.gallery import GalleryImage
from vitscope.scope.instability_summary import GroupInstability, ReadingInstability
from vitscope.scope.outliers import OutlierThreshold
from vitscope.scope.partition import partition_features
from vitscope.scope.thresholds import Alternative, ThresholdEvidence
from vitscope.stages.awcds import AwcdsResult
from vitscope.stages.evaluate import EvaluateResult
from vitscope.stages.gallery import GalleryStage
from vitscope.stages.images import ImagesResult
from vitscope.stages.instability import InstabilityResult
from vitscope.stages.outliers import OutliersResult
from vitscope.stages.partition import GroupSizes, PartitionResult
from vitscope.stages.probe import ProbesResult
from vitscope.stages.removal_groups import DrawnControl, RemovedGroup, RemovedGroups
from vitscope.stages.score import ScoreResult
from vitscope.stages.stability import StabilityResult
from vitscope.stages.stage import Job, Models
from vitscope.stages.train import TrainingSummary, TrainResult
from vitscope.stages.zeroshot import ZeroShotResult
from vitscope.store.atomic import write_text
from vitscope.store.records import save_record
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stamp import STAMP_SCHEMA, Stamp, write_stamp
from vitscope.store.tables import Table
from vitscope.study import Study, dump_study

GRID = 14
PATCH = 8
WIDTH = 192
N_FEATURES = 300
N_IMAGES = 6
NAN = float("nan")
CREATED = "2026-11-05T10:00:00+00:00"


def make_scores(cds: np.ndarray, n_pairs: np.ndarray | None = None) -> FeatureScores:
    m = cds.size
    pairs = np.where(np.isfinite(cds), 16, 0) if n_pairs is None else n_pairs
    return FeatureScores(
        cds=cds,
        cds_se=cds / 10,
        cds_max=cds,
        cds_drop=cds * 0.9,
        cds_zero=cds * 0.8,
        **{name: cds / n for n, name in enumerate(("moved", "flicker", "border", "departure"), 2)},
        **{f"{name}_se": cds / 20 for name in ("moved", "flicker", "border", "departure")},
        n_pairs=pairs.astype(np.int64),
        n_missed=np.zeros(m, np.int64),
        n_exemplars=np.full(m, 16),
        survival=np.where(np.isfinite(cds), 0.9, np.nan),
        support=np.where(np.isfinite(cds), 5.0, np.nan),
        null=np.where(np.isfinite(cds), 0.4, np.nan),
        cross=np.where(np.isfinite(cds), 0.3, np.nan),
        relative=cds / 0.4,
    )


def two_modes(m: int = N_FEATURES, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    cds = np.clip(
        np.where(
            random.random(m) < 0.75, random.normal(0.07, 0.03, m), random.normal(0.4, 0.06, m)
        ),
        0,
        1,
    )
    cds[:: m // 10] = np.nan
    return cds


def make_images(n: int, image_id: str = "class/photo.jpg") -> tuple[GalleryImage, ...]:
    random = np.random.default_rng(7)
    return tuple(
        GalleryImage(
            image_id=image_id,
            views=random.integers(0, 256, (2, 3, GRID * PATCH, GRID * PATCH), dtype=np.uint8),
            maps=np.maximum(random.normal(-0.5, 1, (2, GRID, GRID)), 0),
            emd=float(rank),
        )
        for rank in range(n)
    )


def group(mean: float, n: int = 50) -> GroupInstability:
    ends = (0.9 * mean, 1.1 * mean)
    return GroupInstability(mean, mean / 20, *ends, n, n * 12, 3, mean * 1.1, *ends)


def no_group() -> GroupInstability:
    nan = float("nan")
    return GroupInstability(nan, nan, nan, nan, 0, 0, 0, nan, nan, nan)


def reading(
    name: str,
    out: GroupInstability,
    non: GroupInstability,
    *,
    shift: int = 1,
    membership: str = "either",
) -> ReadingInstability:
    ratio = out.mean / non.mean
    ends = (0.8 * ratio, 1.2 * ratio)
    return ReadingInstability(shift, membership, name, 8.49, out, non, ratio, *ends)


def make_spectrum(n: int = 5000) -> NormSpectrum:
    random = np.random.default_rng(1)
    norms = np.exp(random.normal(3, 0.2, n))
    norms[: n // 50] *= 6
    norms, ones = norms.reshape(50, -1), np.ones((50, n // 50))
    return norm_spectrum(norms, np.where(norms > 60, 0.5, 0.1), ones, ones, 50, seed=0)


def make_evidence(**overrides: Any) -> ThresholdEvidence:
    values: dict[str, Any] = {
        "dip": 0.05,
        "dip_p": 1e-4,
        "silverman_p": 0.005,
        "n_effective": 260.0,
        "interval": Interval(0.18, 0.24, 1.0, 1000),
        "method": "valley",
        "valley_found": 1.0,
        "changed": 0.02,
        "alternatives": (
            Alternative("valley", 0.21, 200, 70),
            Alternative("otsu", 0.25, 203, 67),
            Alternative("mixture", float("nan"), 0, 0),
        ),
    }
    return ThresholdEvidence(**{**values, **overrides})


def make_partition(
    cds: np.ndarray | None = None,
    *,
    gamma: float | None = None,
    n_pairs: np.ndarray | None = None,
    **overrides: Any,
) -> PartitionResult:
    """The partition of these scores; every feature without one where no score is defined."""
    cds = two_modes() if cds is None else cds
    m, random = cds.size, np.random.default_rng(2)
    defined = bool(np.isfinite(cds).any())
    cut = partition_features(cds if defined else np.zeros(m), gamma=gamma)
    nothing = None if defined else np.full(m, NAN)
    columns: dict[str, Any] = {
        "feature": np.arange(m),
        **asdict(make_scores(cds, n_pairs)),
        "density": random.random(m) / 100 if nothing is None else nothing,
        "mean_on_outlier": random.random(m) if nothing is None else nothing,
        "mean_on_other": random.random(m) if nothing is None else nothing,
        "group": cut.group.tolist() if defined else ["unscored"] * m,
    }
    values: dict[str, Any] = {
        "gamma": cut.gamma if defined else NAN,
        "source": cut.source,
        "mode_peaks": cut.mode_peaks,
        "bandwidth": cut.bandwidth,
        "message": cut.message,
        "by_missing": {name: GroupSizes(0.2, 200, 70, 30) for name in ("max", "drop", "zero")},
        "evidence": make_evidence(),
        "features": Table(columns),
    }
    return PartitionResult(**{**values, **overrides})


def make_outliers(**overrides: Any) -> OutliersResult:
    norms = np.exp(np.random.default_rng(2).normal(3, 0.3, 9000))
    counts, edges = np.histogram(np.log10(norms), 60)
    values: dict[str, Any] = {
        "threshold": OutlierThreshold(60.0, "valley", 0.02, (20.0, 120.0), "τ = 60 is the valley"),
        "evidence": make_evidence(interval=Interval(50.0, 70.0, 1.0, 1000), alternatives=()),
        "n_images": N_IMAGES,
        "n_tokens": 9000,
        "histogram": norm_table(edges, counts),
    }
    return OutliersResult(**{**values, **overrides})


def norm_table(edges: np.ndarray, counts: np.ndarray) -> Table:
    return Table({"log10_low": edges[:-1], "log10_high": edges[1:], "n_tokens": counts})


def make_instability(
    rows: tuple[ReadingInstability, ...] | None = None, **overrides: Any
) -> InstabilityResult:
    names = ("query", "received", "key")
    rows = rows or tuple(reading(name, group(5.0), group(0.6)) for name in names)
    values: dict[str, Any] = {
        "rows": rows,
        "shift": 1,
        "membership": "either",
        "diameter": 8.49,
        "n_images": 50,
        "images": Table({"emd": np.zeros(1)}),
    }
    return InstabilityResult(**{**values, **overrides})


def make_awcds(spectrum: NormSpectrum | None = None) -> AwcdsResult:
    bins = Table(asdict(spectrum or make_spectrum()))
    return AwcdsResult(0.5, 0.1, 5000, 0, 0, 0, 1.0, bins)


def make_reconstruction(**overrides: Any) -> EvaluateResult:
    nothing = Table({"feature": np.zeros(0, np.int64)})
    values: dict[str, Any] = {
        "all": GroupMetrics(9000, 0.1, 0.1, 0.05, 30.2, 0.92),
        "outlier": GroupMetrics(90, 0.02, 0.4, 0.01, 13.1, 0.998),
        "silent_share": 0.0,
        "n_images": 60,
        "exemplars": nothing,
        "activity": nothing,
        "left_out": nothing,
    }
    return EvaluateResult(**{**values, **overrides})


def make_pairs(m: int = N_FEATURES, per_feature: int = 3) -> ScoreResult:
    n = m * per_feature
    feature, rank = np.repeat(np.arange(m), per_feature), np.tile(np.arange(per_feature), m)
    columns: dict[str, Any] = {
        "feature": feature,
        "rank": rank,
        "image": (feature + rank) % N_IMAGES,
        "emd": rank.astype(np.float64),
        **{name: np.full(n, 0.4) for name in ("null", "cross")},
        **{name: np.full(n, 5) for name in ("cells_first", "cells_second")},
        **{name: np.full(n, 2.0) for name in ("reach_first", "reach_second")},
        **{name: np.full(n, 0.5) for name in ("beyond_first", "beyond_second")},
    }
    return ScoreResult(m, 0, N_IMAGES, 8.49, Table(columns))


NO_MATCH = "no matched control exists, only 30 features lie outside"

REMOVED = RemovedGroups(
    groups=(
        RemovedGroup("high-removed", "high", False, 40, 0.05, 0.1),
        RemovedGroup("random-high-0", "high", True, 41, 0.051, 0.1),
        RemovedGroup("random-high-1", "high", True, 39, 0.052, 0.1),
        RemovedGroup("low-removed", "low", False, 200, 0.9, 0.8),
    ),
    controls=(
        DrawnControl("random-high-0", "high", 41, 40, 1.02, 1.0, True, "matched"),
        DrawnControl("random-high-1", "high", 39, 40, 1.04, 1.0, True, "matched"),
        DrawnControl("random-low-0", "low", 30, 200, 0.1, 0.1, False, NO_MATCH),
    ),
)


def make_task(**values: tuple[float, ...]) -> TaskResult:
    """The depth task; keywords are variants, with _ for -, and the best trial of every search."""
    found = {
        "original": (0.50, 0.52), "high-removed": (0.49, NAN), "random-high-0": (0.6, 0.7),
        "random-high-1": (0.8, 0.9), "low-removed": (),
        **{name.replace("_", "-"): numbers for name, numbers in values.items()},
    }  # fmt: skip
    diverged = {"low-removed": ("a", "b"), "high-removed": ("c",)}
    variants = [
        VariantResult(name, NAN, NAN, numbers, diverged.get(name, ()), {})
        for name, numbers in found.items()
    ]
    return TaskResult("depth", "rmse", False, 1200, 654, tuple(variants))


def make_probes() -> ProbesResult:
    return ProbesResult(REMOVED, (make_task(),), Table({"value": np.zeros(1)}))


def make_zero_shot() -> ZeroShotResult:
    names = ["original", *(one.variant for one in REMOVED.groups)]
    variants = []
    for i, name in enumerate(names):
        sure = np.full(50, 0.9 - 0.1 * i)
        diagram = reliability(sure, sure > 0.8)
        variants.append(ZeroShotSummary(name, 0.7, 0.9, float(sure[0]), diagram, 12, 8, 3))
    none = Table({"variant": np.zeros(0)})
    classes = tuple(f"class {i}" for i in range(10))
    return ZeroShotResult(REMOVED, 50, classes, tuple(variants), none, none)


@dataclass(frozen=True)
class Parts:
    """What every made-up run shares: photographs, backbone, SAE."""

    photographs: tuple[Path, ...]
    backbone: Backbone
    sae: SparseAutoencoder


MakeRun = Callable[..., Run]


@pytest.fixture(scope="session")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Return a function that writes a run: see :func:`write_run`, which takes its keywords."""
    folder = tmp_path_factory.mktemp("made_up")
    write_generated_images(folder / "photographs", N_IMAGES, seed=0, side=GRID * PATCH)
    random = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(N_FEATURES, WIDTH, generator=random), dim=1)
    sae = SparseAutoencoder(
        rows.T.contiguous(), torch.zeros(N_FEATURES), rows, torch.zeros(WIDTH), 1.0, 30
    )
    photographs = tuple(sorted((folder / "photographs").rglob("*.*")))
    parts = Parts(photographs, load_backbone(BackboneSettings(name="planted")), sae)
    numbers = count()
    return lambda **changes: write_run(folder / f"run-{next(numbers)}", parts, **changes)


def write_run(
    folder: Path,
    parts: Parts,
    *,
    study: Mapping[str, Any] | None = None,
    image_id: str = "class/photo.jpg",
    skipped: tuple[tuple[str, str], ...] = (("class/broken.jpg", "truncated"),),
    curve: bool = True,
    **results: Any,
) -> Run:
    """Write a run that has finished.

    Args:
        folder: of it.
        parts: as ``make_run`` makes them.
        study: settings that differ from a study's own.
        image_id: of every image.
        skipped: id and reason of images that are left out.
        curve: whether an SAE was trained.
        results: stage -> its result, in place of the usual one; None: the stage has not run.
    """
    directory = RunDirectory(folder)
    settings = {"name": "A study", "images": {"train": "photos"}, **(study or {})}
    write_text(directory.study, dump_study(Study.parse(settings, source="made up")))
    refs = tuple(ImageRef(image_id, path, None) for path in parts.photographs)
    bad = tuple(SkippedImage(*one) for one in skipped)
    sizes = ((GRID * PATCH, GRID * PATCH),) * len(refs)
    verified = VerifiedImages(refs, sizes, ("0",) * len(refs), bad, None)
    write_image_table(directory.images("train"), verified)
    save_sae(directory.sae, parts.sae)
    trained = TrainingSummary(20, 9000, 0.1, 0.1, 0.0, 900, 0.1, 900, 1.0) if curve else None
    if curve:
        lines = (f'{{"step": {s}, "fvu": {1 / s}, "dead_share": 0.1}}' for s in range(1, 20))
        write_text(directory.training_log, "\n".join(lines))
    found: dict[str, Any] = {
        "backbone": describe_backbone(parts.backbone),
        "images": ImagesResult(60, None, len(skipped), ()),
        "train": TrainResult(N_FEATURES, trained, None, ()),
        "outliers": make_outliers(),
        "evaluate": make_reconstruction(),
        "score": make_pairs(),
        "partition": make_partition(),
        "stability": StabilityResult(()),
        "instability": make_instability(),
        "awcds": make_awcds(),
        **results,
    }
    for stage, result in found.items():
        if result is not None:
            _finish(directory, stage, result)
    if "gallery" not in results and found["partition"] and found["score"]:
        made = Run(folder).study
        job = Job(made, directory, Models(made, directory, parts.backbone), stage="gallery")
        _finish(directory, "gallery", GalleryStage().run(job))
    run = Run(folder)
    return Run(folder, models=Models(run.study, directory, parts.backbone))


def _finish(directory: RunDirectory, stage: str, result: Any) -> None:
    plain, _ = save_record(result, directory.root, {})
    rates = {"decode_images_per_s": 212.0}
    write_stamp(directory, Stamp(STAMP_SCHEMA, stage, "", {}, {}, {}, plain, 12.5, rates, {}))


def render(run: Run) -> str:
    """Return the page with all that the run holds."""
    return render_report(run, tuple(run.provenance), CREATED)


HOSTILE = """x"><script>alert('1')</script>&amp;{{ 7*7 }}$a_$.jpg"""


def nothing_defined() -> dict[str, Any]:
    """Return the results of a run in which nothing whatever is defined."""
    unknown = ThresholdEvidence(
        NAN, NAN, NAN, NAN, Interval(NAN, NAN, 0.0, 1000), "valley", 0.0, NAN, ()
    )
    bins, zeros = np.full(4, NAN), np.zeros(4, np.int64)
    nothing, metrics = no_group(), GroupMetrics(0, NAN, NAN, NAN, NAN, NAN)
    return {
        "partition": make_partition(
            np.full(N_FEATURES, NAN),
            source="otsu",
            mode_peaks=(),
            bandwidth=0.0,
            message="no scores",
            by_missing={"max": GroupSizes(None, 0, 0, N_FEATURES)},
            evidence=unknown,
        ),
        "outliers": make_outliers(
            threshold=OutlierThreshold(NAN, "percentile", NAN, (), "no norms"),
            evidence=unknown,
            n_tokens=0,
            histogram=norm_table(np.linspace(0, 1, 5), np.zeros(4, np.int64)),
        ),
        "evaluate": make_reconstruction(all=metrics, outlier=metrics),
        "instability": make_instability((reading("query", nothing, nothing),), diameter=NAN),
        "awcds": make_awcds(NormSpectrum(bins, bins, bins, bins, bins, zeros, zeros, zeros, bins)),
        "curve": False,
    }


def little_to_show() -> dict[str, Any]:
    """Return a run without high-CDS features, outliers, skipped images, or a training."""
    cds = two_modes()
    pairs = np.where(np.isfinite(cds), 16, 0)
    pairs[partition_features(cds, gamma=1.0).low[4:]] = 2
    rows = tuple(reading(name, no_group(), group(0.6)) for name in ("query", "received", "key"))
    tau = OutlierThreshold(1e6, "given", 0.0, (20.0,), "τ was given")
    return {
        "partition": make_partition(cds, gamma=1.0, n_pairs=pairs),
        "outliers": make_outliers(threshold=tau),
        "instability": make_instability(rows),
        "zeroshot": make_zero_shot(),
        "skipped": (),
        "curve": False,
    }


def shifts_and_rules() -> InstabilityResult:
    """Three shifts under three memberships; every figure tells where it is from."""
    rows = tuple(
        reading(name, group(10.0 * s + m + r / 10), group(s / 10), shift=s, membership=membership)
        for s in (1, 2, 4)
        for m, membership in enumerate(("either", "first", "both"))
        for r, name in enumerate(("query", "received", "key"))
    )
    return make_instability(rows, shift=2, membership="first")


def with_silent_tokens() -> NormSpectrum:
    spectrum = make_spectrum()
    silent, unscored = spectrum.n_silent.copy(), spectrum.n_unscored.copy()
    silent[0], unscored[0], unscored[-1] = 30, 20, 25
    shares = np.where(np.arange(50) == 49, 0.4, 0.9)
    return replace(spectrum, n_silent=silent, n_unscored=unscored, scored_share=shares)


def much_to_show() -> dict[str, Any]:
    """Return a run of a stranger's words and settings other than the usual ones."""
    sizes = {
        name: GroupSizes(0.1 * i, 1000 + i, 2000 + i, 3000 + i)
        for i, name in enumerate(("max", "drop", "zero"), 1)
    }
    wide = make_evidence(
        interval=Interval(0.11, 0.39, 1.0, 1000), changed=0.37, dip_p=0.5, silverman_p=0.3
    )
    return {
        "study": {
            "name": HOSTILE,
            "note": f"first {HOSTILE}",
            "images": {"train": HOSTILE},
            "scope": {"missing": "drop", "shift": 2},
            "outliers": {"attention": "key", "membership": "first"},
        },
        "image_id": HOSTILE,
        "skipped": ((HOSTILE, HOSTILE),),
        "partition": make_partition(by_missing=sizes, evidence=wide),
        "outliers": make_outliers(
            threshold=OutlierThreshold(50.0, "percentile", 0.02, (20.0,), "no second mode")
        ),
        "instability": shifts_and_rules(),
        "awcds": make_awcds(with_silent_tokens()),
        "probe": make_probes(),
    }


def usual() -> dict[str, Any]:
    probes = {"trials": 5, "epochs": 100, "seeds": 2}
    return {"study": {"probes": probes}, "probe": make_probes(), "zeroshot": make_zero_shot()}


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "usual": usual,
    "undefined": nothing_defined,
    "little": little_to_show,
    "much": much_to_show,
}


@dataclass(frozen=True)
class Rendered:
    """A run and its page."""

    run: Run
    html: str

    @property
    def text(self) -> str:
        return read_page(self.html).text


PageOf = Callable[[str], Rendered]


@pytest.fixture(scope="session")
def page_of(make_run: MakeRun) -> PageOf:
    """Return a function that renders a case once, however many tests read it."""
    kept: dict[str, Rendered] = {}

    def rendered(case: str) -> Rendered:
        if case not in kept:
            changes = CASES[case]()
            if case == "much":  # which stands beside the usual one
                changes["study"]["beside"] = {"runs": [str(rendered("usual").run.root)]}
            run = make_run(**changes)
            kept[case] = Rendered(run, render(run))
        return kept[case]

    return rendered
