"""Everything a report shows, gathered by the pipeline; the page reads nothing else."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitscope.backbones.backbone import Site
from vitscope.report.beside import RunFigures
from vitscope.report.removal import RemovalFigures
from vitscope.sae.quality import ReconstructionMetrics
from vitscope.scope.awcds import NormSpectrum
from vitscope.scope.cds import FeatureScores
from vitscope.scope.evidence import Evidence
from vitscope.scope.exemplar_views import GalleryFeature
from vitscope.scope.gallery import GalleryChoice
from vitscope.scope.instability_summary import ReadingInstability
from vitscope.scope.outliers import NormHistogram, OutlierSettings, OutlierThreshold
from vitscope.scope.partition import Partition
from vitscope.scope.settings import ScopeSettings
from vitscope.scope.stability import Agreement
from vitscope.scope.token_maps import TokenMaps


@dataclass(frozen=True)
class PartitionSizes:
    """Sizes of the groups under one reading of missed pairs, γ found anew under it."""

    gamma: float
    low: int
    high: int
    unscored: int


@dataclass(frozen=True)
class StageTiming:
    """Wall time of one stage, and its rate in words (``212 images/s``)."""

    name: str
    seconds: float
    rate: str


@dataclass(frozen=True)
class ReportData:
    """One run's results.

    Attributes:
        title: of the page.
        created: when, in ISO 8601.
        notes: shown on top as warnings («weights are randomised: the numbers mean nothing»).
        study: the configuration as resolved, plain values in nested mappings; None for «unset».
        scope: the settings behind ``scores`` and ``partition``.
        outliers: the settings behind ``tau`` and ``instability``.
        site: where activations were read.
        n_train_images: usable images the SAE was trained on; 0 for an SAE brought along.
        n_eval_images: usable images that were scored.
        n_skipped: images left out as unreadable, over both sets.
        reconstruction: over all patch tokens of the evaluation images, and their outliers.
        scores: one entry per feature, [m].
        columns: further figures per feature, [m] each. The page shows ``density`` (share of
            tokens on which it is active) and, where there, ``mean_on_outlier`` and
            ``mean_on_normal`` (mean activation per outlier token and per other token).
        partition: the groups and γ.
        partition_by_missing: the same under each reading of missed pairs (``max``, …).
        gamma_evidence: how firm γ is, and what else it could be.
        tau: the outlier threshold.
        tau_evidence: how firm τ is, and what else it could be.
        norm_histogram: of patch-token norms.
        instability: per shift, membership and reading of attention.
        n_instability_images: images whose attention was compared.
        diameter: D_grid of the study's own shift, in patches.
        spectrum: awCDS over norm percentiles.
        choice: the features of the gallery, and the rule.
        gallery: those features with their images, in the order of ``choice.features``.
        stages: in the order they ran.
        versions: library -> version.
        curve: lines of the training log; empty for an SAE brought along.
        stability: the scores held against those of other choices.
        beside: this run and others, if any are shown beside it.
        removal: what is left without each group; None where neither probes nor zero-shot have run.
        token_maps: norms and awCDS of some images, patch by patch.
        skipped: (image id, reason) of skipped images; the page lists the first ones.
    """

    title: str
    created: str
    study: Mapping[str, Any]
    scope: ScopeSettings
    outliers: OutlierSettings
    site: Site
    n_train_images: int
    n_eval_images: int
    n_skipped: int
    reconstruction: ReconstructionMetrics
    scores: FeatureScores
    columns: Mapping[str, NDArray[np.float64]]
    partition: Partition
    partition_by_missing: Mapping[str, PartitionSizes]
    gamma_evidence: Evidence
    tau: OutlierThreshold
    tau_evidence: Evidence
    norm_histogram: NormHistogram
    instability: tuple[ReadingInstability, ...]
    n_instability_images: int
    diameter: float
    spectrum: NormSpectrum
    choice: GalleryChoice
    gallery: tuple[GalleryFeature, ...]
    stages: tuple[StageTiming, ...]
    versions: Mapping[str, str]
    notes: tuple[str, ...] = ()
    curve: tuple[Mapping[str, float], ...] = ()
    stability: tuple[Agreement, ...] = ()
    beside: tuple[RunFigures, ...] = ()
    removal: RemovalFigures | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    token_maps: tuple[TokenMaps, ...] = ()

    @property
    def n_features(self) -> int:
        """m."""
        return int(self.scores.cds.size)
