"""Segmentation: cross entropy of every labelled pixel; mean intersection over union."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Float, Int64
from vitscope.probes.objective import (
    FLOATS_PER_LOGIT,
    LossAndGradient,
    as_maps,
    from_maps,
    maps_that_fit,
    softmax_and_entropy,
)
from vitscope.probes.upsampling import Upsampling


@dataclass(frozen=True)
class Segmentation:
    """Logits of patches upsampled bilinearly to pixels; label 0 is ignored, 1 … C are classes.

    Attributes:
        n_outputs: C.
        upsampling: from the grid to the masks' pixels.
        memory_bytes: bound on the upsampled arrays held at a time.
    """

    n_outputs: int
    upsampling: Upsampling
    memory_bytes: int

    @property
    def metric(self) -> str:
        """Mean over classes of intersection over union."""
        return "miou"

    @property
    def higher_is_better(self) -> bool:
        """More is better."""
        return True

    def loss(
        self, logits: Float[Tensor, "V B P h C"], target: Int64[Tensor, "B S S"]
    ) -> LossAndGradient:
        """Return the mean of -log p(label) over the batch's labelled pixels, and its gradient."""
        n_variants, n_images, _, n_heads, _ = logits.shape
        maps = as_maps(logits, self.upsampling.grid)
        labelled = target > 0
        per_pixel = labelled.float() / labelled.sum().clamp_min(1)
        image = torch.arange(len(maps), device=maps.device) % n_images
        losses, gradients = maps.new_empty(len(maps)), torch.empty_like(maps)
        for some in self._pieces(maps):
            place = (target[image[some]] - 1).clamp_min(0).unsqueeze(-1)
            share, entropy = softmax_and_entropy(self.upsampling(maps[some]), place)
            weight = per_pixel[image[some]]
            losses[some] = (entropy * weight).sum((1, 2))
            weight = weight.unsqueeze(-1)
            of_pixels = share.mul_(weight).scatter_add_(-1, place, -weight)
            gradients[some] = self.upsampling.transpose(of_pixels)
        loss = losses.view(n_variants, n_heads, n_images).sum(2)
        return LossAndGradient(loss, from_maps(gradients, logits))

    def score(self, n_variants: int, n_heads: int) -> "ConfusionScore":
        """Return an empty score."""
        shape = (n_variants * n_heads, self.n_outputs, self.n_outputs)
        return ConfusionScore(self, (n_variants, n_heads), torch.zeros(shape, dtype=torch.int64))

    def likeliest(self, logits: Float[Tensor, "V B P h C"]) -> Int64[Tensor, "K S S"]:
        """Return the class (from 0) of every pixel, one map per (variant, head, image)."""
        maps = as_maps(logits, self.upsampling.grid)
        found = [self.upsampling(maps[some]).argmax(-1) for some in self._pieces(maps)]
        return torch.cat(found)

    def _pieces(self, maps: Tensor) -> Iterator[slice]:
        map_bytes = 4 * FLOATS_PER_LOGIT * self.upsampling.side**2 * self.n_outputs
        return maps_that_fit(len(maps), map_bytes, self.memory_bytes, maps)


@dataclass
class ConfusionScore:
    """How often each class was taken for each other, over labelled pixels.

    Attributes:
        task: what makes classes of logits.
        shape: (V, h).
        counts: pixels of class i taken for class j, [V·h, C, C].
    """

    task: Segmentation
    shape: tuple[int, int]
    counts: Int64[Tensor, "Vh C C"]

    def update(self, logits: Float[Tensor, "V B P h C"], target: Int64[Tensor, "B S S"]) -> None:
        """Count a batch."""
        n = self.task.n_outputs
        found = self.task.likeliest(logits).unflatten(0, (-1, len(target)))
        labelled = target > 0
        truth = target[labelled] - 1
        for head, guess in enumerate(found):
            pairs = truth * n + guess[labelled]
            self.counts[head] += torch.bincount(pairs, minlength=n * n).view(n, n).cpu()

    def metrics(self) -> dict[str, Float[Tensor, "V h"]]:
        """Return mean IoU over the classes that occur, and the share of pixels named rightly."""
        counts = self.counts.double()
        right = counts.diagonal(dim1=1, dim2=2)
        # a class that is in no mask of the set has no IoU, whatever was guessed
        union = counts.sum(1) + counts.sum(2) - right
        occurs = counts.sum(2) > 0
        iou = torch.where(occurs, right / union.clamp_min(1), 0.0).sum(1) / occurs.sum(1)
        share = right.sum(1) / counts.sum((1, 2))
        return {"miou": iou.view(self.shape), "pixel_accuracy": share.view(self.shape)}
