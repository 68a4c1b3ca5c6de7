"""Depth as a mean over bins, under a scale-invariant loss; root mean square error in metres."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Float
from vitscope.probes.objective import (
    FLOATS_PER_LOGIT,
    LossAndGradient,
    as_maps,
    from_maps,
    maps_that_fit,
)
from vitscope.probes.upsampling import Upsampling


@dataclass(frozen=True)
class Depth:
    """Logits of patches upsampled to pixels; depth = Σ softmax · bin centre (protocol, section 9).

    Attributes:
        n_outputs: number of bins.
        depth_range: metres between which they lie; 0 and what is beyond counts nowhere.
        loss_lambda: λ of the scale-invariant loss.
        upsampling: from the grid to the maps' pixels.
        memory_bytes: bound on the upsampled arrays held at a time.
    """

    n_outputs: int
    depth_range: tuple[float, float]
    loss_lambda: float
    upsampling: Upsampling
    memory_bytes: int

    @property
    def metric(self) -> str:
        """Root mean square error in metres, over the set's pixels."""
        return "rmse"

    @property
    def higher_is_better(self) -> bool:
        """Less is better."""
        return False

    def centres(self, device: torch.device) -> Float[Tensor, "C"]:
        """Return the middle of each bin, in metres."""
        low, high = self.depth_range
        width = (high - low) / self.n_outputs
        return low + width * (torch.arange(self.n_outputs, device=device) + 0.5)

    def counted(self, target: Float[Tensor, "B S S"]) -> Tensor:
        """Return which pixels have a depth within range."""
        return (target >= self.depth_range[0]) & (target <= self.depth_range[1])

    def loss(
        self, logits: Float[Tensor, "V B P h C"], target: Float[Tensor, "B S S"]
    ) -> LossAndGradient:
        """Return mean(g²) - λ·mean(g)², g = log depth - log truth, mean over images; and gradient.

        Means are over an image's counted pixels; an image without any adds nothing.
        """
        n_variants, n_images, _, n_heads, _ = logits.shape
        maps, centres = as_maps(logits, self.upsampling.grid), self.centres(logits.device)
        image = torch.arange(len(maps), device=maps.device) % n_images
        counted = self.counted(target)
        log_truth = torch.where(counted, target, 1.0).log()
        losses, gradients = maps.new_empty(len(maps)), torch.empty_like(maps)
        for some in self._pieces(maps):
            share = torch.softmax(self.upsampling(maps[some]), -1)
            depth = share @ centres
            mask = counted[image[some]].float()
            n = mask.sum((1, 2), keepdim=True).clamp_min(1)
            gap = (depth.log() - log_truth[image[some]]) * mask
            total = gap.sum((1, 2), keepdim=True)
            loss = gap.square().sum((1, 2), keepdim=True) / n
            losses[some] = (loss - self.loss_lambda * (total / n).square())[:, 0, 0]
            of_depth = 2 * (gap / n - self.loss_lambda * total / n**2) * mask / depth
            off_centre = centres - depth.unsqueeze(-1)
            of_pixels = off_centre.mul_(share).mul_((of_depth / n_images).unsqueeze(-1))
            gradients[some] = self.upsampling.transpose(of_pixels)
        loss = losses.view(n_variants, n_heads, n_images).mean(2)
        return LossAndGradient(loss, from_maps(gradients, logits))

    def score(self, n_variants: int, n_heads: int) -> "DepthScore":
        """Return an empty score."""
        return DepthScore(self, torch.zeros(4, n_variants, n_heads, dtype=torch.float64))

    def depths(self, logits: Float[Tensor, "V B P h C"]) -> Float[Tensor, "K S S"]:
        """Return the depth of every pixel in metres, one map per (variant, head, image)."""
        maps, centres = as_maps(logits, self.upsampling.grid), self.centres(logits.device)
        return torch.cat(
            [
                torch.softmax(self.upsampling(maps[some]), -1) @ centres
                for some in self._pieces(maps)
            ]
        )

    def _pieces(self, maps: Tensor) -> Iterator[slice]:
        map_bytes = 4 * FLOATS_PER_LOGIT * self.upsampling.side**2 * self.n_outputs
        return maps_that_fit(len(maps), map_bytes, self.memory_bytes, maps)


@dataclass
class DepthScore:
    """Squared errors over the counted pixels.

    Attributes:
        task: what makes depths of logits.
        sums: squared errors, pixels, per-image root mean squares, images with pixels, [4, V, h].
    """

    task: Depth
    sums: Float[Tensor, "4 V h"]

    def update(self, logits: Float[Tensor, "V B P h C"], target: Float[Tensor, "B S S"]) -> None:
        """Take in a batch."""
        depth = self.task.depths(logits).unflatten(0, (*self.sums.shape[1:], len(target)))
        mask = self.task.counted(target).double()
        squares = ((depth.double() - target) ** 2 * mask).sum((3, 4))
        n = mask.sum((1, 2))
        pixels = n.sum().expand_as(self.sums[0])
        roots = (squares / n.clamp_min(1)).sqrt().sum(2)
        images = (n > 0).sum().expand_as(self.sums[0])
        self.sums += torch.stack([squares.sum(2), pixels, roots, images]).cpu()

    def metrics(self) -> dict[str, Float[Tensor, "V h"]]:
        """Return the error over all pixels, and the mean of the images' errors, in metres."""
        squares, pixels, roots, images = self.sums
        return {"rmse": (squares / pixels).sqrt(), "rmse_per_image": roots / images}
