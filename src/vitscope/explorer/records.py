"""What the explorer is handed of a run: tables read once, and models that come later."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from vitscope.axes import Float
from vitscope.backbones.backbone import Backbone, Site
from vitscope.images.sources import ImageRef
from vitscope.probes.prompts import Prompts
from vitscope.probes.text import TextTower
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.quality import ReconstructionMetrics
from vitscope.scope.awcds import NormSpectrum
from vitscope.scope.outliers import NormHistogram, OutlierThreshold
from vitscope.scope.settings import ScopeSettings

NOT_SCORED = -1
"""Cells of a pair that the run left out, as where it scores a sample of its features."""


@dataclass(frozen=True, eq=False)
class Exemplars:
    """The strongest images of every feature; arrays [N], ordered by feature, then rank.

    Attributes:
        feature: index in the dictionary.
        rank: 0 for the feature's strongest image.
        image: position in the run's evaluation images.
        activation: the feature's maximum on that image, unshifted.
        emd: distance between both views' maps, in patches; NaN unless both have mass.
        cells_first: active overlap cells in view 1; ``NOT_SCORED`` where the run did not look.
        cells_second: active overlap cells in view 2.
    """

    feature: NDArray[np.int64]
    rank: NDArray[np.int64]
    image: NDArray[np.int64]
    activation: NDArray[np.float64]
    emd: NDArray[np.float64]
    cells_first: NDArray[np.int64]
    cells_second: NDArray[np.int64]

    def of(self, feature: int) -> slice:
        """Return the rows of one feature."""
        first, last = np.searchsorted(self.feature, [feature, feature + 1])
        return slice(int(first), int(last))


@dataclass(frozen=True, eq=False)
class RunRecord:
    """The tables of a finished run.

    Attributes:
        name: of the study.
        note: what its author wants read first.
        folder: the run directory.
        site: where activations were read.
        scope: settings behind the scores.
        gamma: γ of the partition on disk.
        gamma_source: given, valley or otsu.
        gamma_message: how γ was found, in a sentence.
        features: columns of ``features.parquet``, [m] each.
        exemplars: top images of every feature.
        images: the evaluation images, in the order that ``exemplars.image`` counts.
        is_readable: whether the explorer may open an image: it lies under the study's image roots.
        max_pixels: an image with more is refused.
        reconstruction: FVU, L0 and cosine over the evaluation images.
        tau: the outlier threshold.
        norms: histogram of patch-token norms.
        spectrum: awCDS over the norm; None where «awcds» has not run.
        digest: hash of what the pages show; changes when γ is saved.
    """

    name: str
    note: str
    folder: Path
    site: Site
    scope: ScopeSettings
    gamma: float
    gamma_source: str
    gamma_message: str
    features: Mapping[str, NDArray[Any]]
    exemplars: Exemplars
    images: tuple[ImageRef, ...]
    is_readable: Callable[[ImageRef], bool]
    max_pixels: int
    reconstruction: ReconstructionMetrics
    tau: OutlierThreshold
    norms: NormHistogram
    spectrum: NormSpectrum | None
    digest: str

    @property
    def n_features(self) -> int:
        """m."""
        return len(self.features["cds"])


@dataclass(frozen=True, eq=False)
class TextSide:
    """Sentences beside images.

    Attributes:
        tower: of the backbone's own weights.
        prompts: the classes that predictions choose from.
        classes: their unit rows.
        phrases: what a feature's effect is put in words with.
        phrase_rows: their unit rows.
    """

    tower: TextTower
    prompts: Prompts
    classes: Float[Tensor, "C e"]
    phrases: tuple[str, ...]
    phrase_rows: Float[Tensor, "W e"]


@dataclass(frozen=True, eq=False)
class Models:
    """What computes; loaded in the background, since the table needs none of it.

    Attributes:
        backbone: read at the run's site.
        sae: the run's dictionary.
        plain_view: RGB image -> bytes [3, H, W], as the backbone takes it.
        shifted_views: RGB image -> the two views [2, 3, H, W] that the run compared.
        text: None where the backbone has no text tower.
        no_text: why there is none, in a sentence.
    """

    backbone: Backbone
    sae: SparseAutoencoder
    plain_view: Callable[[Image], Tensor]
    shifted_views: Callable[[Image], Tensor]
    text: TextSide | None
    no_text: str = ""
