"""Feature maps, cell by cell: what no distance between two of them can show.

A transposition of both views, or any other isometry of the grid, leaves every Earth Mover's
Distance as it was; only the maps themselves tell.
"""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.images.loading import load_batches, to_square
from vitscope.images.sources import ImageRef
from vitscope.scope.pairs import feature_maps
from vitscope.scope.views import Overlap, shifted_views
from vitscope.selfcheck.check import Check, at_most
from vitscope.selfcheck.oracle import oracle_sae
from vitscope.selfcheck.truth_tables import READING

N_IMAGES = 8
"""Every cell of every atom is compared: a few images say all."""

NOISE_DEVIATIONS = 7
"""An active cell's code carries the noise along its atom: of half a million cells none should be
further from the truth than so many standard deviations."""


def check_maps(backbone: PlantedBackbone, refs: Sequence[ImageRef], shift: int) -> list[Check]:
    """Compare the pipeline's maps on the overlap with the true codes, cut out by plain slices."""
    some = refs[:: max(len(refs) // N_IMAGES, 1)][:N_IMAGES]
    site = backbone.site
    views = _load(some, partial(shifted_views, site=site, shift=shift))
    whole = _load(some, partial(to_square, side=site.resolution + shift * site.patch))
    sae, overlap = oracle_sae(backbone), Overlap(site.grid, shift)
    every = torch.arange(backbone.spec.n_atoms)
    errors: list[NDArray[np.float64]] = []
    for pair, image in zip(views, whole, strict=True):
        found = feature_maps(sae, backbone.tokens(pair).patch, every, overlap)
        truth = _true_maps(backbone, image, shift)
        errors += [np.abs(a - b) for a, b in zip(found, truth, strict=True)]
    bound = NOISE_DEVIATIONS * backbone.spec.noise
    return [at_most("feature maps, largest error of a cell", float(np.max(errors)), bound)]


def _load(refs: Sequence[ImageRef], prepare: Callable[[Image], Tensor]) -> Tensor:
    batches = load_batches(
        refs,
        prepare,
        batch_size=len(refs),
        workers=READING.workers,
        max_pixels=READING.max_pixels,
    )
    return torch.cat([torch.as_tensor(batch.images) for batch in batches])


def _true_maps(
    backbone: PlantedBackbone, image: Tensor, shift: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the true codes [n_atoms, q, q] of both views of one square image [3, H, W]."""
    spec = backbone.spec
    side, offset, inner = spec.grid * spec.patch, shift * spec.patch, spec.grid - shift
    crops = torch.stack([image[:, :side, :side], image[:, offset:, offset:]])
    codes = backbone.mixture(crops).codes.reshape(2, spec.grid, spec.grid, spec.n_atoms)
    first, second = codes[0, shift:, shift:], codes[1, :inner, :inner]
    return first.transpose(2, 0, 1), second.transpose(2, 0, 1)
