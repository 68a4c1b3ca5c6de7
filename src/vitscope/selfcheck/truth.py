"""What is known to be there: the oracle's SAE, and what the planted atoms do on every image."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from vitscope.backbones.planted.mixture import PlantedMixture
from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.backbones.planted.spec import PlantedSpec
from vitscope.images.loading import load_batches
from vitscope.images.sources import ImageRef
from vitscope.sae.model import SparseAutoencoder
from vitscope.scope.views import plain_view, shifted_views
from vitscope.tokens.encoding import LoaderOptions

LOADER = LoaderOptions()


def oracle_sae(backbone: PlantedBackbone) -> SparseAutoencoder:
    """Return the SAE whose feature j is atom j; θ lies half-way to the weakest activation.

    It is made of the truth, and so leaves the pipeline alone to be judged.
    """
    spec = backbone.spec
    return SparseAutoencoder(
        w_enc=backbone.atoms.T.contiguous(),
        b_enc=torch.zeros(spec.n_atoms),
        w_dec=backbone.atoms,
        b_dec=backbone.bias,
        threshold=spec.local_amplitude[0] / 2,
        k=round(spec.atoms_per_token),
        site=backbone.site,
        info={"oracle": "true atoms"},
    )


def load_prepared(refs: Sequence[ImageRef], prepare: Callable[[Image], Tensor]) -> Iterator[Tensor]:
    """Yield prepared images in batches, uint8 [B, ...]."""
    for batch in load_batches(
        refs,
        prepare,
        batch_size=LOADER.batch_size,
        workers=LOADER.workers,
        max_pixels=LOADER.max_pixels,
    ):
        yield torch.as_tensor(batch.images)


@dataclass(frozen=True)
class TruthTables:
    """Truth over every image, read from the specification; N images.

    Attributes:
        strongest: largest activation of each atom on the plain view, [N, n_atoms].
        present: whether each atom is on at all, in view 1 and in view 2, bool [N, 2, n_atoms].
        outlier_share: share of outlier tokens in the plain views.
        fvu_all: FVU of an SAE made of the true atoms, over all patch tokens.
        fvu_outlier: the same over outlier tokens, about the mean of all tokens.
    """

    strongest: NDArray[np.float32]
    present: NDArray[np.bool_]
    outlier_share: float
    fvu_all: float
    fvu_outlier: float


def read_truth(backbone: PlantedBackbone, refs: Sequence[ImageRef], shift: int) -> TruthTables:
    """Mix the true codes of every image, in the plain view and in both shifted ones."""
    strongest: list[NDArray[np.float32]] = []
    outliers: list[NDArray[np.bool_]] = []
    moments: list[tuple[_CodeMoments, _CodeMoments]] = []
    for mixture in _plain_mixtures(backbone, refs):
        strongest.append(mixture.codes.max(1))
        outliers.append(mixture.outliers)
        flat, mask = mixture.codes.reshape(-1, backbone.spec.n_atoms), mixture.outliers.ravel()
        moments.append((_code_moments(flat), _code_moments(flat[mask])))
    present: list[NDArray[np.bool_]] = []
    for views in load_prepared(refs, partial(shifted_views, site=backbone.site, shift=shift)):
        on = backbone.mixture(views.flatten(0, 1)).codes.any(1)
        present.append(on.reshape(-1, 2, backbone.spec.n_atoms))
    whole, of_outliers = (_total(group) for group in zip(*moments, strict=True))
    mean = whole.total / whole.n
    return TruthTables(
        strongest=np.concatenate(strongest),
        present=np.concatenate(present),
        outlier_share=float(np.concatenate(outliers).mean()),
        fvu_all=_fvu(backbone.spec, whole, mean),
        fvu_outlier=_fvu(backbone.spec, of_outliers, mean),
    )


def true_maps(
    backbone: PlantedBackbone, square: Tensor, shift: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the true codes [n_atoms, q, q] of both views' shared part, cut out by plain slices.

    Args:
        backbone: whose atoms they are.
        square: one image, bytes [3, H, W] with room for both views.
        shift: s, in patches.
    """
    spec = backbone.spec
    side, offset, inner = spec.grid * spec.patch, shift * spec.patch, spec.grid - shift
    crops = torch.stack([square[:, :side, :side], square[:, offset:, offset:]])
    codes = backbone.mixture(crops).codes.reshape(2, spec.grid, spec.grid, spec.n_atoms)
    first, second = codes[0, shift:, shift:], codes[1, :inner, :inner]
    return first.transpose(2, 0, 1), second.transpose(2, 0, 1)


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
    return defined_mean(np.concatenate(outlier)), defined_mean(np.concatenate(other))


def defined_mean(values: NDArray[np.float64]) -> float:
    """Return the mean of what is no NaN; NaN where nothing is left."""
    defined = values[np.isfinite(values)]
    return float(defined.mean()) if defined.size else float("nan")


class _CodeMoments(NamedTuple):
    """Sums over true codes [n, n_atoms]: tokens, active atoms, squares, and codes [n_atoms]."""

    n: int
    active: int
    squares: float
    total: NDArray[np.float64]


def _code_moments(codes: NDArray[np.float32]) -> _CodeMoments:
    wide = codes.astype(np.float64)
    return _CodeMoments(len(wide), int((wide > 0).sum()), float((wide**2).sum()), wide.sum(0))


def _total(parts: Sequence[_CodeMoments]) -> _CodeMoments:
    n, active, squares, totals = zip(*parts, strict=True)
    return _CodeMoments(sum(n), sum(active), sum(squares), np.sum(totals, axis=0))


def _fvu(spec: PlantedSpec, group: _CodeMoments, mean: NDArray[np.float64]) -> float:
    """Return Σ|x - x̂|² / Σ|x - μ|²: atoms are orthonormal, and x̂ keeps their noise alone."""
    variance = spec.noise**2
    unexplained = variance * (group.n * spec.width - group.active)
    about_mean = group.squares - 2 * mean @ group.total + group.n * mean @ mean
    return float(unexplained / (about_mean + variance * group.n * spec.width))


def _plain_mixtures(
    backbone: PlantedBackbone, refs: Sequence[ImageRef]
) -> Iterator[PlantedMixture]:
    plain = partial(plain_view, site=backbone.site, preprocessing=backbone.preprocessing)
    return map(backbone.mixture, load_prepared(refs, plain))
