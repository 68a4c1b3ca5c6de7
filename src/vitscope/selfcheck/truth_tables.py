"""The truth behind a set of photographs: what the planted atoms do on every evaluation image."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from vitscope.activations.forward import ReadingSettings
from vitscope.backbones.planted.mixture import Mixture
from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.images.loading import load_batches
from vitscope.images.sources import ImageRef
from vitscope.scope.views import plain_view, shifted_views

READING = ReadingSettings()


@dataclass(frozen=True)
class TruthTables:
    """Truth over every image, read from the specification; N images.

    Attributes:
        strongest: largest activation of each atom on the plain view, [N, n_atoms].
        present: whether each atom is on at all, in view 1 and in view 2, bool [N, 2, n_atoms].
        outlier_share: share of outlier tokens in the plain views.
    """

    strongest: NDArray[np.float32]
    present: NDArray[np.bool_]
    outlier_share: float


def read_truth(backbone: PlantedBackbone, refs: Sequence[ImageRef], shift: int) -> TruthTables:
    """Mix the true codes of every image, in the plain view and in both shifted ones."""
    strongest: list[NDArray[np.float32]] = []
    outliers: list[NDArray[np.bool_]] = []
    for mixture in _plain_mixtures(backbone, refs):
        strongest.append(mixture.codes.max(1))
        outliers.append(mixture.outliers)
    present: list[NDArray[np.bool_]] = []
    views = partial(shifted_views, site=backbone.site, shift=shift)
    for batch in load_batches(
        refs,
        views,
        batch_size=READING.batch_size,
        workers=READING.workers,
        max_pixels=READING.max_pixels,
    ):
        on = backbone.mixture(torch.as_tensor(batch.images).flatten(0, 1)).codes.any(1)
        present.append(on.reshape(-1, 2, backbone.spec.n_atoms))
    return TruthTables(
        strongest=np.concatenate(strongest),
        present=np.concatenate(present),
        outlier_share=float(np.concatenate(outliers).mean()),
    )


def true_awcds(
    backbone: PlantedBackbone, refs: Sequence[ImageRef], cds: NDArray[np.float64]
) -> tuple[float, float]:
    """Return mean awCDS of outlier tokens and of others, from true codes and ``cds`` [n_atoms].

    Atoms whose score is NaN weigh nothing, as in the pipeline.
    """
    defined = np.isfinite(cds)
    outlier: list[NDArray[np.float64]] = []
    other: list[NDArray[np.float64]] = []
    for mixture in _plain_mixtures(backbone, refs):
        codes = mixture.codes[..., defined].astype(np.float64)
        total = codes.sum(-1)
        values = (codes @ cds[defined]) / np.where(total > 0, total, np.nan)
        outlier.append(values[mixture.outliers])
        other.append(values[~mixture.outliers])
    return float(np.nanmean(np.concatenate(outlier))), float(np.nanmean(np.concatenate(other)))


def _plain_mixtures(backbone: PlantedBackbone, refs: Sequence[ImageRef]) -> Iterator[Mixture]:
    plain = partial(plain_view, site=backbone.site, preprocessing=backbone.preprocessing)
    for batch in load_batches(
        refs,
        plain,
        batch_size=READING.batch_size,
        workers=READING.workers,
        max_pixels=READING.max_pixels,
    ):
        yield backbone.mixture(torch.as_tensor(batch.images))
