"""Features of all variants of a labelled set: one pass, one encoding, to shards and to batches."""

import shutil
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import accumulate, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitscope.axes import Float, ImageBatch
from vitscope.backbones.backbone import Backbone, BlockTokens
from vitscope.distributed import current_ranks
from vitscope.draws import generator
from vitscope.errors import ArtifactError, BackboneError, ConfigError
from vitscope.images.loading import ordered_map, to_square
from vitscope.probes.labelled_images import LabelledImages, eigen_crop, map_to_square
from vitscope.probes.results import ORIGINAL
from vitscope.probes.settings import CacheType, DepthSettings, HeadSettings, Task
from vitscope.progress import track
from vitscope.removal.remove import FeatureGroup, group_mask, remove_groups
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.storage import check_fits
from vitscope.store.atomic import bytes_checksum, fingerprint
from vitscope.store.parts import shared_parts
from vitscope.store.tensors import load_tensors

TARGET, IMAGE_TOKEN = "target", "image_token"
"""Names of what stands beside the variants in a shard."""

FEATURES_SCHEMA = 2
"""Counts up when shards hold other things: they are then computed anew."""

AHEAD = 2
"""Batches that are loaded ahead."""

SMALLEST_SHARD = 32
"""Images between two writes, however little memory there is."""

LARGEST_SHARD = 4096
"""However much there is: what a kill may cost."""

Shard = dict[str, Tensor]
"""Entries of some images: of every variant [n, d] or [n, P, d], ``target`` [n, …], and
``image_token`` [n, d] where the task has one."""


@dataclass(frozen=True)
class FeatureExtraction:
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
        shard_images: images between two writes, what a kill may cost; None takes what fits.

    Raises:
        ConfigError: a group is called ``original``.
        SaeError: the SAE belongs to another site, or a group to another SAE.
    """

    backbone: Backbone
    sae: SparseAutoencoder
    groups: Mapping[str, FeatureGroup]
    task: Task
    settings: HeadSettings
    keep_error: bool = True
    cache: CacheType = "float16"
    batch_size: int = 32
    workers: int = 0
    stretch: bool = False
    memory_mb: int = 2048
    shard_images: int | None = None

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

    @property
    def bytes_per_image(self) -> int:
        """What an image takes on disk; an image token counts as wide as a patch token."""
        site, size = self.backbone.site, 4 if self.cache == "float32" else 2
        positions = 1 if self.task == "classification" else site.n_patches
        vectors = len(self.variants) * positions + (self.image_token != "none")
        of_target = {"classification": 8, "segmentation": 1, "depth": 4}[self.task]
        pixels = 1 if self.task == "classification" else self.pixels**2
        return vectors * site.width * size + pixels * of_target

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


@dataclass(frozen=True, eq=False)
class FeatureCache:
    """The features of a set, mapped from the disk shard by shard.

    Attributes:
        shards: in the order of the images; every tensor is a map of its file.
        fingerprint: of everything that decided them.
    """

    shards: list[Shard]
    fingerprint: str

    def __len__(self) -> int:
        return sum(len(shard[TARGET]) for shard in self.shards)

    def tensor(self, name: str) -> Tensor:
        """Return ``target``, ``image_token`` or a variant of all images, in memory."""
        return torch.cat([shard[name] for shard in self.shards])

    @classmethod
    def open(cls, folder: Path) -> "FeatureCache":
        """Open features that a study has kept (``probes.keep_features``).

        Raises:
            ArtifactError: there are none, or a shard is damaged.
        """
        paths = sorted(folder.glob("part-*.safetensors"))
        if not paths:
            raise ArtifactError(f"{folder} holds no features; set probes.keep_features")
        parts = [load_tensors(path) for path in paths]
        return cls([tensors for tensors, _ in parts], parts[0][1].get("fingerprint", ""))


def cache_features(
    extraction: FeatureExtraction, images: LabelledImages, folder: Path, *, cropped: bool = False
) -> FeatureCache:
    """Run the backbone once over ``images`` and keep every variant's features in ``folder``.

    Shards of the same content that stand there are used, several ranks share the others.

    Args:
        extraction: how.
        images: with their truth.
        folder: of this cache alone.
        cropped: keep depth within Eigen's crop alone (a validation set under that reading).

    Raises:
        VitscopeError: an image cannot be used, a feature does not fit the cache's type, or the
            disk has no room.
        ShareDone: on ranks but the first, once their share is done.
    """
    size = extraction.shard_images or _shard_that_fits(extraction)
    shards = [range(i, min(i + size, len(images))) for i in range(0, len(images), size)]
    # where shards are cut decides what each file holds
    key = fingerprint([FEATURES_SCHEMA, extraction.fingerprint(images, cropped=cropped), size])
    if current_ranks().rank == 0:
        _require_room(folder, len(images) * extraction.bytes_per_image)
    with track(f"features for {extraction.task}", len(images), "images") as progress:

        def compute(rows: range) -> Shard:
            pieces: list[Shard] = []
            for pixels, truth in labelled_batches(extraction, images, rows, cropped=cropped):
                features = as_stored(features_of(extraction, pixels), extraction.cache)
                pieces.append(features | {TARGET: truth})
                progress.advance(len(pixels))
            return {name: torch.cat([piece[name] for piece in pieces]) for name in pieces[0]}

        parts = shared_parts(
            folder,
            key,
            shards,
            compute,
            on_reuse=lambda rows: progress.skip(len(rows)),
            on_others=lambda rows: progress.advance(len(rows)),
        )
        found = list(parts)
    for leftover in sorted(folder.glob("part-*.safetensors"))[len(found) :]:
        leftover.unlink()  # of an earlier, larger set
    return FeatureCache(found, key)


def labelled_batches(
    extraction: FeatureExtraction, images: LabelledImages, rows: range, *, cropped: bool = False
) -> Generator[tuple[ImageBatch, Tensor]]:
    """Yield pictures as the backbone takes them and their truth, batch by batch, in order."""
    load, size = partial(load_example, extraction, images, cropped), extraction.batch_size
    with closing(ordered_map(load, rows, workers=extraction.workers, ahead=AHEAD * size)) as loaded:
        while examples := list(islice(loaded, size)):
            truth = torch.from_numpy(np.stack([truth for _, truth in examples]))
            yield torch.stack([picture for picture, _ in examples]), truth


def load_example(
    extraction: FeatureExtraction, images: LabelledImages, cropped: bool, index: int
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


def variant_tokens(
    extraction: FeatureExtraction, pixels: ImageBatch
) -> tuple[BlockTokens, dict[str, Tensor]]:
    """Return the tokens as they are, and every variant's patch tokens, by one pass and encoding.

    Raises:
        BackboneError: an activation is NaN or infinite.
    """
    backbone = extraction.backbone
    plain = backbone.tokens(pixels)
    if not bool(plain.patch.isfinite().all()):
        raise BackboneError(
            f"an activation of {backbone.site.model}, block {backbone.site.layer}, is NaN or "
            "infinite; check the weights"
        )
    removed = remove_groups(
        extraction.sae, plain.patch, extraction.groups, keep_error=extraction.keep_error
    )
    return plain, {ORIGINAL: plain.patch} | removed


@torch.inference_mode()
def features_of(extraction: FeatureExtraction, pixels: ImageBatch) -> dict[str, Tensor]:
    """Return every variant's features of a batch, on the CPU, in fp32."""
    plain, variants = variant_tokens(extraction, pixels)
    found: dict[str, Tensor] = {}
    for name, edited in variants.items():
        patch, pooled = edited, None
        if extraction.settings.probe_at == "final":
            last = extraction.backbone.resume(BlockTokens(patch, plain.prefix))
            patch, pooled = last.patch, last.pooled
        if name == ORIGINAL and extraction.image_token != "none":
            found[IMAGE_TOKEN] = _image_token(extraction, plain, patch, pooled)
        mean = extraction.task == "classification"
        found[name] = patch.float().mean(1) if mean else patch.float()
    return {name: value.float().cpu() for name, value in found.items()}


def _image_token(
    extraction: FeatureExtraction, plain: BlockTokens, patch: Tensor, pooled: Tensor | None
) -> Tensor:
    """Return what stands for the whole image, of the pass in which nothing was removed."""
    if extraction.image_token == "mean":
        return patch.mean(1)
    return extraction.backbone.resume(plain).pooled if pooled is None else pooled


def as_stored(features: dict[str, Tensor], cache: CacheType) -> dict[str, Tensor]:
    """Return features in the type of the cache.

    Raises:
        ConfigError: one is beyond it.
    """
    dtype = torch.float16 if cache == "float16" else torch.float32
    for name, values in features.items():
        top = float(values.abs().max())
        if top > torch.finfo(dtype).max:
            raise ConfigError(
                f"a feature of '{name}' is {top:.3g}, beyond {cache}; set probes.cache = 'float32'"
            )
    return {name: values.to(dtype) for name, values in features.items()}


@dataclass(frozen=True)
class FeatureBatch:
    """Some images.

    Attributes:
        patches: per variant, in fp32; classification has one position per image, P = 1.
        token: set beside every patch token of its image, in every variant; None where there is
            none.
        target: label, mask or depth map of each.
    """

    patches: Float[Tensor, "V B P d"]
    token: Float[Tensor, "B e"] | None
    target: Tensor

    @property
    def features(self) -> Float[Tensor, "V B P w"]:
        """Both side by side, w = d + e: what the heads read, here written out."""
        if self.token is None:
            return self.patches
        beside = self.token[None, :, None].expand(*self.patches.shape[:3], -1)
        return torch.cat([self.patches, beside], -1)


class LabelledFeatures:
    """Features of a set as batches: held where they are used, or read from the disk as needed.

    Args:
        cache: of all images.
        variants: those wanted, in order.
        device: where batches are wanted.
        memory_bytes: what fits is held on ``device``; a larger cache is read batch by batch.
    """

    def __init__(
        self,
        cache: FeatureCache,
        variants: tuple[str, ...],
        device: torch.device,
        memory_bytes: int,
    ) -> None:
        self.device, self.variants, self._shards = device, variants, cache.shards
        self.is_held = sum(t.nbytes for s in cache.shards for t in s.values()) <= memory_bytes
        if self.is_held:
            self._shards = [{name: cache.tensor(name).to(device) for name in cache.shards[0]}]
        self._stops = torch.tensor(list(accumulate(len(s[TARGET]) for s in self._shards)))

    def __len__(self) -> int:
        return int(self._stops[-1])

    @property
    def width(self) -> int:
        """d, of the patch token and what is set beside it."""
        names = (self.variants[0], *self._token())
        return sum(self._shards[0][name].shape[-1] for name in names)

    def batch(self, rows: Tensor) -> FeatureBatch:
        """Return the images at ``rows`` [B], int64 on the CPU, ascending."""
        patches = torch.stack([self._take(name, rows).float() for name in self.variants])
        if patches.ndim == 3:
            patches = patches.unsqueeze(2)
        tokens = [self._take(name, rows).float() for name in self._token()]
        target = self._take(TARGET, rows)
        truth = target.long() if target.dtype == torch.uint8 else target
        return FeatureBatch(patches, tokens[0] if tokens else None, truth)

    def _token(self) -> tuple[str, ...]:
        return (IMAGE_TOKEN,) if IMAGE_TOKEN in self._shards[0] else ()

    def _take(self, name: str, rows: Tensor) -> Tensor:
        ends = torch.searchsorted(rows, self._stops).tolist()
        pieces: list[Tensor] = []
        for shard, first, last, stop in zip(
            self._shards, [0, *ends], ends, self._stops.tolist(), strict=False
        ):
            if last > first:
                own = rows[first:last] - (stop - len(shard[TARGET]))
                pieces.append(shard[name].index_select(0, own.to(shard[name].device)))
        return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).to(self.device)


def epoch_order(n_images: int, batch_size: int, *key: int | str) -> list[Tensor]:
    """Return the rows of every batch of an epoch: a permutation, a pure function of ``key``.

    Rows ascend within a batch: its order does not matter, and the disk reads forwards.
    """
    order = generator("probe batches", *key).permutation(n_images)
    starts = range(0, n_images, batch_size)
    return [torch.from_numpy(np.sort(order[start : start + batch_size])) for start in starts]


def _shard_that_fits(extraction: FeatureExtraction) -> int:
    """Return how many images' entries fit twice, as pieces and joined, within reason."""
    fits = extraction.memory_mb * (1 << 20) // (2 * extraction.bytes_per_image)
    return min(max(fits, SMALLEST_SHARD), LARGEST_SHARD)


def _require_room(folder: Path, n_bytes: int) -> None:
    """Refuse a set whose features the disk cannot take, before hours are spent on them."""
    there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
    standing = sum(path.stat().st_size for path in folder.glob("part-*.safetensors"))
    free = shutil.disk_usage(there).free
    if n_bytes - standing > free:
        raise ConfigError(
            f"the features take {n_bytes / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB left; "
            "use fewer images or variants, or another --out"
        )


def _tensor_digest(tensor: Tensor) -> str:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return bytes_checksum(flat.view(torch.uint8).numpy().data)
