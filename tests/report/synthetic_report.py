"""A small, wholly synthetic report."""

from dataclasses import replace
from typing import Any

import numpy as np

from vitscope.backbones.backbone import Site
from vitscope.report.data import PartitionSizes, ReportData, StageTiming
from vitscope.sae.quality import GroupMetrics, ReconstructionMetrics
from vitscope.scope.awcds import NormSpectrum, norm_spectrum
from vitscope.scope.bootstrap import Interval
from vitscope.scope.cds import FeatureScores
from vitscope.scope.evidence import Alternative, Evidence
from vitscope.scope.exemplar_views import GalleryFeature, GalleryImage
from vitscope.scope.gallery import choose_gallery, minimum_pairs
from vitscope.scope.instability_summary import GroupInstability, ReadingInstability
from vitscope.scope.outliers import NormHistogram, OutlierSettings, OutlierThreshold
from vitscope.scope.partition import Partition, partition_features
from vitscope.scope.settings import ScopeSettings
from vitscope.scope.token_maps import TokenMaps

GRID = 8
PATCH = 8
N_FEATURES = 300


def make_scores(cds: np.ndarray, n_pairs: np.ndarray | None = None) -> FeatureScores:
    m = cds.size
    pairs = np.where(np.isfinite(cds), 16, 0) if n_pairs is None else n_pairs
    return FeatureScores(
        cds=cds,
        cds_se=cds / 10,
        cds_max=cds,
        cds_drop=cds * 0.9,
        cds_zero=cds * 0.8,
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


def make_evidence(**overrides: Any) -> Evidence:
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
    return Evidence(**{**values, **overrides})


def make_token_maps(n: int = 2) -> tuple[TokenMaps, ...]:
    random = np.random.default_rng(5)
    side = GRID * PATCH
    return tuple(
        TokenMaps(
            f"{image}.jpg",
            random.integers(0, 256, (3, side, side), dtype=np.uint8),
            random.uniform(20, 80, (GRID, GRID)),
            random.random((GRID, GRID)),
        )
        for image in range(n)
    )


def make_data(**overrides: Any) -> ReportData:
    scores = make_scores(two_modes())
    partition: Partition = partition_features(scores.cds)
    random = np.random.default_rng(2)
    choice = choose_gallery(scores, partition, minimum_pairs(16))
    counts, edges = np.histogram(np.log10(np.exp(random.normal(3, 0.3, 9000))), 60)
    values: dict[str, Any] = {
        "title": "A study",
        "created": "2026-11-05T10:00:00+00:00",
        "study": {"seed": 0, "scope": {"shift": 1, "gamma": None}, "images": {"train": "photos"}},
        "scope": ScopeSettings(),
        "outliers": OutlierSettings(),
        "site": Site("planted", "abc123", 3, 96, GRID, PATCH),
        "n_train_images": 60,
        "n_eval_images": 60,
        "n_skipped": 1,
        "reconstruction": ReconstructionMetrics(
            GroupMetrics(9000, 0.1, 0.1, 0.05, 30.2, 0.92),
            GroupMetrics(90, 0.02, 0.4, 0.01, 13.1, 0.998),
        ),
        "scores": scores,
        "columns": {
            "density": random.random(N_FEATURES) / 100,
            "mean_on_outlier": random.random(N_FEATURES),
            "mean_on_normal": random.random(N_FEATURES),
        },
        "partition": partition,
        "partition_by_missing": {
            name: PartitionSizes(0.2, 200, 70, 30) for name in ("max", "drop", "zero")
        },
        "gamma_evidence": make_evidence(),
        "tau": OutlierThreshold(60.0, "valley", 0.02, (20.0, 120.0), "τ = 60 is the valley"),
        "tau_evidence": make_evidence(interval=Interval(50.0, 70.0, 1.0, 1000), alternatives=()),
        "norm_histogram": NormHistogram(edges, counts),
        "instability": tuple(
            reading(name, group(5.0), group(0.6)) for name in ("query", "received", "key")
        ),
        "n_instability_images": 50,
        "diameter": 8.49,
        "spectrum": make_spectrum(),
        "choice": choice,
        "gallery": tuple(GalleryFeature(j, make_images(2)) for j in choice.features),
        "stages": (StageTiming("extract", 12.5, "212 images/s"),),
        "versions": {"python": "3.11.2", "torch": "2.11.0"},
        "curve": tuple(
            {"step": s, "loss": 1 / s, "fvu": 1 / s, "l0": 30.0, "dead_share": 0.1}
            for s in range(1, 20)
        ),
        "skipped": (("class/broken.jpg", "truncated"),),
        "token_maps": make_token_maps(),
    }
    return ReportData(**{**values, **overrides})


def with_hostile_ids(data: ReportData, image_id: str) -> ReportData:
    gallery = tuple(GalleryFeature(g.feature, make_images(1, image_id)) for g in data.gallery)
    return replace(data, gallery=gallery, skipped=((image_id, image_id),))
