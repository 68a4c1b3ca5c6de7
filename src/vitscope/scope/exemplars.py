"""The images on which each feature is strongest: a streaming, mergeable top-k per feature."""

from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor

NO_IMAGE = -1


@dataclass
class TopImages:
    """The ``k`` strongest images of every feature seen so far.

    Attributes:
        activation: maximum over patch tokens, descending, 0 where there is no image, [m, k].
        image: index of the image in its set, ``NO_IMAGE`` where there is none, [m, k].
    """

    activation: Float32[Tensor, "m k"]
    image: Int64[Tensor, "m k"]

    @classmethod
    def empty(cls, n_features: int, k: int) -> "TopImages":
        """Start with no image at all."""
        return cls(torch.zeros(n_features, k), torch.full((n_features, k), NO_IMAGE))

    def update(self, strongest: Float32[Tensor, "B m"], images: Int64[Tensor, "B"]) -> None:
        """Take in a batch: each feature's maximum activation on each image, and the image indices.

        An image on which a feature is silent never becomes its exemplar.
        """
        values = strongest.T.float().cpu()
        fired = values > 0
        index = torch.where(fired, images.cpu().expand_as(values), NO_IMAGE)
        # a NaN would sort before every number and crowd them out
        self._keep_best(values.where(fired, 0.0), index)

    def merge(self, other: "TopImages") -> None:
        """Take in what another chunk or rank has found; the order of merging is irrelevant."""
        self._keep_best(other.activation, other.image)

    def _keep_best(self, activation: Tensor, image: Tensor) -> None:
        k = self.activation.shape[1]
        values = torch.cat([self.activation, activation], 1)
        images = torch.cat([self.image, image], 1)
        # ties go to the lower image index: sort by index first, then stably by activation
        order = torch.where(images == NO_IMAGE, torch.iinfo(torch.int64).max, images).argsort(1)
        values, images = values.gather(1, order), images.gather(1, order)
        best = torch.sort(values, dim=1, descending=True, stable=True).indices[:, :k]
        self.activation, self.image = values.gather(1, best), images.gather(1, best)
