"""Batches of cached features: all variants of some images at once, in fp32."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from vitscope.axes import Float
from vitscope.draws import generator
from vitscope.probes.cache import FeatureCache
from vitscope.probes.features import IMAGE_TOKEN, TARGET


@dataclass(frozen=True)
class Batch:
    """Some images.

    Attributes:
        features: per variant; classification has one position per image, P = 1.
        target: label, mask or depth map of each.
    """

    features: Float[Tensor, "V B P d"]
    target: Tensor


class CachedFeatures:
    """The arrays of a cache as tensors: mapped from the disk, or held where they are used.

    Args:
        cache: complete.
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
        self.n_images, self.device, self.variants = len(cache), device, variants
        token = (IMAGE_TOKEN,) if IMAGE_TOKEN in cache.plan.arrays else ()
        self.is_held = cache.plan.n_bytes <= memory_bytes
        self._arrays = {name: self._tensor(cache, name) for name in (*variants, *token, TARGET)}

    def __len__(self) -> int:
        return self.n_images

    @property
    def width(self) -> int:
        """d, of the patch token and what is set beside it."""
        beside = self._arrays.get(IMAGE_TOKEN)
        own = self._arrays[self.variants[0]].shape[-1]
        return own if beside is None else own + beside.shape[-1]

    def batch(self, rows: Tensor) -> Batch:
        """Return the images at ``rows`` [B], int64 on the CPU."""
        features = torch.stack([self._take(name, rows).float() for name in self.variants])
        if features.ndim == 3:
            features = features.unsqueeze(2)
        if IMAGE_TOKEN in self._arrays:
            token = self._take(IMAGE_TOKEN, rows).float()[None, :, None]
            features = torch.cat([features, token.expand(*features.shape[:3], -1)], -1)
        target = self._take(TARGET, rows)
        return Batch(features, target.long() if target.dtype == torch.uint8 else target)

    def _tensor(self, cache: FeatureCache, name: str) -> Tensor:
        mapped = torch.from_numpy(cache.array(name))
        if not self.is_held:
            return mapped
        # a map stays on the disk until it is copied
        return mapped.clone() if self.device.type == "cpu" else mapped.to(self.device)

    def _take(self, name: str, rows: Tensor) -> Tensor:
        array = self._arrays[name]
        return array.index_select(0, rows.to(array.device)).to(self.device)


def epoch_order(n_images: int, batch_size: int, *key: int | str) -> list[Tensor]:
    """Return the rows of every batch of an epoch: a permutation, a pure function of ``key``.

    Rows ascend within a batch: its order does not matter, and the disk reads forwards.
    """
    order = generator("probe batches", *key).permutation(n_images)
    starts = range(0, n_images, batch_size)
    return [torch.from_numpy(np.sort(order[start : start + batch_size])) for start in starts]
