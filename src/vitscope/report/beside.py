"""Other runs beside this one: the same figures, line by line."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from vitscope.report.spectrum import awcds_of_highest, awcds_of_median
from vitscope.sae.quality import ReconstructionMetrics
from vitscope.scope.awcds import NormSpectrum
from vitscope.scope.evidence import Evidence
from vitscope.scope.instability_summary import ReadingInstability
from vitscope.scope.outliers import OutlierThreshold


@dataclass(frozen=True)
class RunFigures:
    """One run's figures.

    Attributes:
        name: of its study.
        model: of its backbone.
        layer: 1-based block.
        n_images: images scored.
        cds: score of each feature, NaN where it has none, [m].
        relative: score over the relocation null, [m].
        n_low, n_high, n_unscored: sizes of the groups.
        gamma: where they are cut.
        gamma_evidence: how firm that is.
        reconstruction: of all tokens and of outliers.
        tau: outlier threshold.
        instability: at the study's own shift and reading; None where no attention was compared.
        spectrum: awCDS over norm percentiles.
    """

    name: str
    model: str
    layer: int
    n_images: int
    cds: NDArray[np.float64]
    relative: NDArray[np.float64]
    n_low: int
    n_high: int
    n_unscored: int
    gamma: float
    gamma_evidence: Evidence
    reconstruction: ReconstructionMetrics
    tau: OutlierThreshold
    instability: ReadingInstability | None
    spectrum: NormSpectrum

    @property
    def median_cds(self) -> float:
        """Median score of the features that have one; NaN without any."""
        return median(self.cds)

    @property
    def median_relative(self) -> float:
        """Median of the score over its null."""
        return median(self.relative)

    @property
    def awcds_top(self) -> float:
        """Mean awCDS of the tokens of highest norm."""
        return awcds_of_highest(self.spectrum)

    @property
    def awcds_middle(self) -> float:
        """Mean awCDS of the tokens of median norm."""
        return awcds_of_median(self.spectrum)


def median(values: NDArray[np.float64]) -> float:
    """Return the median of the finite ``values``; NaN without any."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")
