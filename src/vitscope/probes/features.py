"""Features of all variants of a labelled set: one pass of the backbone, one encoding, to disk."""

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitscope.backbones.backbone import Backbone, BlockTokens
from vitscope.errors import BackboneError, ConfigError
from vitscope.images.loading import ordered_map, to_square
from vitscope.probes.cache import ArrayPlan, Arrays, CachePlan, FeatureCache, fill_cache
from vitscope.probes.labelled import LabelledImages
from vitscope.probes.settings import CacheType, DepthSettings, HeadSettings, Task
from vitscope.probes.targets import eigen_crop, map_to_square
from vitscope.progress import track
from vitscope.removal.groups import Group, group_mask
from vitscope.removal.remove import remove_groups
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.storage import check_fits
from vitscope.store.checksum import bytes_checksum, fingerprint

ORIGINAL = "original"
TARGET, IMAGE_TOKEN = "target", "image_token"

PREFETCH_BATCHES = 2

SMALLEST_CHUNK = 32
"""Images between two writes, however little memory there is."""

LARGEST_CHUNK = 4096
"""However much there is: what a kill may cost."""


@dataclass(frozen=True)
class Extraction:
    """How features are taken.

    Attributes:
        backbone: read at its designated block.
        sae: of that site.
        groups: variant -> the features removed from it; ``original`` is added and has none.
        task: what decides shape and target.
        settings: of the task's heads.
        keep_error: as of removal.
        cache: type of features on disk.
        batch_size: images per forward pass.
        workers: threads that load; 0 takes one per core.
        stretch: whether pictures are stretched to the square rather than cropped.
        memory_mb: bound on what is collected between two writes.
        chunk_images: images between two writes, what a kill may cost; None takes what fits.

    Raises:
        ConfigError: a group is called ``original``.
        SaeError: the SAE belongs to another site, or a group to another SAE.
    """

    backbone: Backbone
    sae: SparseAutoencoder
    groups: Mapping[str, Group]
    task: Task
    settings: HeadSettings
    keep_error: bool = True
    cache: CacheType = "float16"
    batch_size: int = 32
    workers: int = 0
    stretch: bool = False
    memory_mb: int = 2048
    chunk_images: int | None = None

    def __post_init__(self) -> None:
        check_fits(self.sae, self.backbone.site)
        if ORIGINAL in self.groups:
            raise ConfigError(
                f"'{ORIGINAL}' names the tokens as they are; name the group otherwise"
            )
        for group in self.groups.values():
            group_mask(group, self.sae.n_features)

    @property
    def variants(self) -> tuple[str, ...]:
        """The original first, then one per group."""
        return (ORIGINAL, *self.groups)

    @property
    def pixels(self) -> int:
        """Side of masks and depth maps."""
        wanted = getattr(self.settings, "pixels", None)
        return self.backbone.site.resolution if wanted is None else int(wanted)

    @property
    def image_token(self) -> str:
        """What is set beside every patch token: depth alone has any."""
        return self.settings.image_token if isinstance(self.settings, DepthSettings) else "none"

    def plan(self, n_images: int, pooled_width: int) -> CachePlan:
        """Return what the cache of ``n_images`` images holds.

        Args:
            n_images: N.
            pooled_width: width of the backbone's pooled output.
        """
        site = self.backbone.site
        shape = (site.width,) if self.task == "classification" else (site.n_patches, site.width)
        arrays = {variant: ArrayPlan(shape, self.cache) for variant in self.variants}
        if self.image_token != "none":
            width = pooled_width if self.image_token == "pooled" else site.width
            arrays[IMAGE_TOKEN] = ArrayPlan((width,), self.cache)
        arrays[TARGET] = {
            "classification": ArrayPlan((), "int64"),
            "segmentation": ArrayPlan((self.pixels, self.pixels), "uint8"),
            "depth": ArrayPlan((self.pixels, self.pixels), "float32"),
        }[self.task]
        return CachePlan(n_images, arrays)

    def fingerprint(self, images: LabelledImages, *, cropped: bool) -> str:
        """Hash of everything that decides the features of ``images``."""
        groups = {
            name: np.packbits(group_mask(group, self.sae.n_features).numpy()).tobytes().hex()
            for name, group in self.groups.items()
        }
        sae = self.sae
        weights = [_tensor_digest(t) for t in (sae.w_enc, sae.b_enc, sae.w_dec, sae.b_dec)]
        weights += [repr(part) for part in (sae.threshold, sae.k, sae.activation, sae.token_norm)]
        backbone = [self.backbone.site, self.backbone.preprocessing]
        chosen = [self.settings.probe_at, self.pixels, self.image_token, cropped]
        read = [self.keep_error, self.stretch, self.cache]
        return fingerprint([self.task, images.digest, groups, weights, backbone, chosen, read])


def cache_features(
    extraction: Extraction, images: LabelledImages, folder: Path, *, cropped: bool = False
) -> FeatureCache:
    """Run the backbone once over ``images`` and keep every variant's features in ``folder``.

    A standing cache of the same content is used, an unfinished one continued.

    Args:
        extraction: how.
        images: with their truth.
        folder: of this cache alone.
        cropped: keep depth within Eigen's crop alone (a validation set under that reading).

    Raises:
        VitscopeError: an image cannot be used, a feature does not fit the cache's type, or the
            disk has no room.
    """
    plan = extraction.plan(len(images), pooled_width(extraction.backbone))
    key = extraction.fingerprint(images, cropped=cropped)
    load = partial(load_example, extraction, images, cropped)
    with track(f"features for {extraction.task}", len(images), "images") as progress:

        def compute(chunk: range) -> Arrays:
            pieces: list[dict[str, Tensor]] = []
            ahead = PREFETCH_BATCHES * extraction.batch_size
            with closing(
                ordered_map(load, chunk, workers=extraction.workers, ahead=ahead)
            ) as loaded:
                for start in range(0, len(chunk), extraction.batch_size):
                    n = min(extraction.batch_size, len(chunk) - start)
                    rows = [next(loaded) for _ in range(n)]
                    pixels, truth = torch.stack([r[0] for r in rows]), [r[1] for r in rows]
                    features = _stored(features_of(extraction, pixels), extraction.cache)
                    pieces.append(features | {TARGET: torch.from_numpy(np.stack(truth))})
                    progress.advance(n)
            return {name: torch.cat([p[name] for p in pieces]).numpy() for name in plan.arrays}

        return fill_cache(
            folder,
            key,
            plan,
            chunk_images=extraction.chunk_images or _chunk_that_fits(plan, extraction.memory_mb),
            compute=compute,
            progress=progress,
        )


def load_example(
    extraction: Extraction, images: LabelledImages, cropped: bool, index: int
) -> tuple[Tensor, NDArray[Any]]:
    """Return a picture as the backbone takes it, and its truth under the same crop."""
    picture, truth = images.load(index)
    seen, site = extraction.backbone.preprocessing, extraction.backbone.site
    pixels = to_square(picture, site.resolution, seen.crop_share, stretch=extraction.stretch)
    if extraction.task == "classification":
        return pixels, np.asarray(truth, dtype=np.int64)
    if cropped:
        truth = eigen_crop(truth)
    square = map_to_square(
        truth,
        site.resolution,
        seen.crop_share,
        stretch=extraction.stretch,
        pixels=extraction.pixels,
    )
    return pixels, square.astype(np.uint8 if extraction.task == "segmentation" else np.float32)


@torch.inference_mode()
def features_of(extraction: Extraction, pixels: Tensor) -> dict[str, Tensor]:
    """Return every variant's features of a batch, on the CPU, in fp32."""
    backbone, settings = extraction.backbone, extraction.settings
    plain = backbone.tokens(pixels)
    if not bool(plain.patch.isfinite().all()):
        raise BackboneError(
            f"an activation of {backbone.site.model}, block {backbone.site.layer}, is NaN or "
            "infinite; check the weights"
        )
    removed = remove_groups(
        extraction.sae, plain.patch, extraction.groups, keep_error=extraction.keep_error
    )
    found: dict[str, Tensor] = {}
    for name in extraction.variants:
        patch = plain.patch if name == ORIGINAL else removed[name]
        pooled: Tensor | None = None
        if settings.probe_at == "final":
            last = backbone.resume(BlockTokens(patch, plain.prefix))
            patch, pooled = last.patch, last.pooled
        if name == ORIGINAL and extraction.image_token != "none":
            found[IMAGE_TOKEN] = _image_token(extraction, plain, patch, pooled)
        mean = extraction.task == "classification"
        found[name] = patch.float().mean(1) if mean else patch.float()
    return {name: value.float().cpu() for name, value in found.items()}


def _image_token(
    extraction: Extraction, plain: BlockTokens, patch: Tensor, pooled: Tensor | None
) -> Tensor:
    """Return what stands for the whole image, of the pass in which nothing was removed."""
    if extraction.image_token == "mean":
        return patch.mean(1)
    return extraction.backbone.resume(plain).pooled if pooled is None else pooled


def _stored(features: dict[str, Tensor], cache: CacheType) -> dict[str, Tensor]:
    dtype = torch.float16 if cache == "float16" else torch.float32
    for name, values in features.items():
        top = float(values.abs().max())
        if top > torch.finfo(dtype).max:
            raise ConfigError(
                f"a feature of '{name}' is {top:.3g}, beyond {cache}; set probes.cache = 'float32'"
            )
    return {name: values.to(dtype) for name, values in features.items()}


def _chunk_that_fits(plan: CachePlan, memory_mb: int) -> int:
    """Return how many images' entries fit twice, as pieces and joined, within reason."""
    per_image = max(plan.n_bytes // max(plan.n_images, 1), 1)
    fits = memory_mb * (1 << 20) // (2 * per_image)
    return min(max(fits, SMALLEST_CHUNK), LARGEST_CHUNK)


def pooled_width(backbone: Backbone) -> int:
    """Return the width of the pooled output, by a pass over one black image."""
    side = backbone.site.resolution
    black = torch.zeros(1, 3, side, side, dtype=torch.uint8)
    with torch.inference_mode():
        return backbone.resume(backbone.tokens(black)).pooled.shape[-1]


def _tensor_digest(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return bytes_checksum(flat.view(torch.uint8).numpy().data)
