"""What a task asks of its heads: a loss that heads descend, and a score that chooses among them.

Axes beside those of ``axes``: V variants of the tokens, P positions, h heads of a variant, C
outputs of a head, S pixels a side.
"""

import math
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from vitscope.axes import Float, Int64
from vitscope.probes.pixels.maps import PixelMaps

STUCK_SPREAD = 1e-3
"""A depth head whose depths deviate by less than this share of their mean gives one depth."""


class Score(Protocol):
    """Accumulates a validation set, batch by batch."""

    def update(self, logits: Float[Tensor, "V B P h C"], target: Tensor) -> None:
        """Take in a batch."""
        ...

    def metrics(self) -> dict[str, Float[Tensor, "V h"]]:
        """Return every metric of every head, in float64 on the CPU."""
        ...


class ProbeObjective(Protocol):
    """A task: its losses and scores, from the logits of all heads."""

    metric: ClassVar[str]
    """The metric that chooses among trials."""

    higher_is_better: ClassVar[bool]
    """Which way ``metric`` improves."""

    @property
    def n_outputs(self) -> int:
        """C."""
        ...

    def loss(self, logits: Float[Tensor, "V B P h C"], target: Tensor) -> Float[Tensor, "V h"]:
        """Return the mean loss of a batch, of every head, for autograd."""
        ...

    def score(self, n_variants: int, n_heads: int) -> Score:
        """Return an empty score."""
        ...


@dataclass(frozen=True)
class Classification:
    """Cross entropy of one label per image; logits have one position per image, P = 1.

    Attributes:
        n_outputs: number of classes.
    """

    n_outputs: int
    metric: ClassVar[str] = "top1"
    higher_is_better: ClassVar[bool] = True

    def loss(
        self, logits: Float[Tensor, "V B 1 h C"], target: Int64[Tensor, "B"]
    ) -> Float[Tensor, "V h"]:
        """Return the mean over images of -log p(label)."""
        n_variants, n_images, _, n_heads, _ = logits.shape
        label = target.view(1, -1, 1).expand(n_variants, -1, n_heads)
        entropy = cross_entropy(logits.flatten(0, 3), label.flatten(), reduction="none")
        return entropy.view(n_variants, n_images, n_heads).mean(1)

    def score(self, n_variants: int, n_heads: int) -> "TopScore":
        """Return an empty score."""
        return TopScore(torch.zeros(2, n_variants, n_heads, dtype=torch.float64))


@dataclass
class TopScore:
    """Images whose class is the likeliest, or among the five likeliest.

    Attributes:
        hits: how many, [2, V, h].
        n_images: images counted.
    """

    hits: Float[Tensor, "2 V h"]
    n_images: int = 0

    def update(self, logits: Float[Tensor, "V B 1 h C"], target: Int64[Tensor, "B"]) -> None:
        """Count a batch."""
        one = logits[:, :, 0]
        of_label = one.gather(-1, target.view(1, -1, 1, 1).expand(*one.shape[:-1], 1))
        # ties count against the head: a constant one must not score
        rivals = (one >= of_label).sum(-1) - 1
        for row, places in enumerate((1, 5)):
            self.hits[row] += (rivals < places).sum(1).double().cpu()
        self.n_images += len(target)

    def metrics(self) -> dict[str, Float[Tensor, "V h"]]:
        """Return top-1 and top-5 accuracy."""
        return {"top1": self.hits[0] / self.n_images, "top5": self.hits[1] / self.n_images}


@dataclass(frozen=True)
class Segmentation:
    """Cross entropy of every labelled pixel; label 0 is ignored, 1 … C are classes.

    Attributes:
        n_outputs: C.
        maps: from the grid to the masks' pixels.
    """

    n_outputs: int
    maps: PixelMaps
    metric: ClassVar[str] = "miou"
    higher_is_better: ClassVar[bool] = True

    def loss(
        self, logits: Float[Tensor, "V B P h C"], target: Int64[Tensor, "B S S"]
    ) -> Float[Tensor, "V h"]:
        """Return the mean of -log p(label) over the batch's labelled pixels.

        -log p = log Σ eᶻ - z[label], whose second part is linear in the logits of patches.
        """
        labelled = target > 0
        n, mask = labelled.sum().clamp_min(1), labelled.float()

        def log_sums(log_sum: Tensor, _: Tensor, image: Tensor) -> Tensor:
            return (log_sum * mask[image]).sum((1, 2)) / n

        of_labels = self.maps.pulled_back(target, self.n_outputs) / n
        named = torch.einsum("vbphc,bpc->vh", logits, of_labels.to(logits.dtype))
        return self.maps.losses(logits, None, log_sums).sum(1) - named

    def score(self, n_variants: int, n_heads: int) -> "ConfusionScore":
        """Return an empty score."""
        shape = (n_variants * n_heads, self.n_outputs, self.n_outputs)
        return ConfusionScore(self, (n_variants, n_heads), torch.zeros(shape, dtype=torch.int64))


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
        found = self.task.maps.classes(logits).transpose(1, 2).flatten(0, 1)
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


@dataclass(frozen=True)
class Depth:
    """Depth as a mean over bins, Σ softmax · bin centre, scale-invariant (protocol, section 9).

    Attributes:
        n_outputs: number of bins.
        depth_range: metres between which they lie; 0 and what is beyond counts nowhere.
        loss_lambda: λ of the scale-invariant loss.
        maps: from the grid to the depth maps' pixels.
    """

    n_outputs: int
    depth_range: tuple[float, float]
    loss_lambda: float
    maps: PixelMaps
    metric: ClassVar[str] = "rmse"
    higher_is_better: ClassVar[bool] = False

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
    ) -> Float[Tensor, "V h"]:
        """Return mean(g²) - λ·mean(g)², g = log depth - log truth, mean over images.

        Means are over an image's counted pixels; an image without any adds nothing.
        """
        counted = self.counted(target)
        log_truth = torch.where(counted, target, 1.0).log()
        n = counted.sum((1, 2)).clamp_min(1)

        def scale_invariant(_: Tensor, depth: Tensor, image: Tensor) -> Tensor:
            gap = (depth.log() - log_truth[image]) * counted[image]
            mean = gap.sum((1, 2)) / n[image]
            spread = gap.square().sum((1, 2)) / n[image] - self.loss_lambda * mean.square()
            return spread / len(target)

        return self.maps.losses(logits, self.centres(logits.device), scale_invariant).sum(1)

    def score(self, n_variants: int, n_heads: int) -> "DepthScore":
        """Return an empty score."""
        return DepthScore(self, torch.zeros(6, n_variants, n_heads, dtype=torch.float64))


@dataclass
class DepthScore:
    """Squared errors over the counted pixels.

    A head that gives one depth everywhere has no score. At the high learning rates that the paper
    draws for depth, one step on long tokens can drive every softmax into a single bin; no gradient
    comes back through it, and what the tokens hold no longer matters.

    Attributes:
        task: what makes depths of logits.
        sums: squared errors, pixels, per-image root mean squares, images with pixels, depths,
            squared depths, [6, V, h].
    """

    task: Depth
    sums: Float[Tensor, "6 V h"]

    def update(self, logits: Float[Tensor, "V B P h C"], target: Float[Tensor, "B S S"]) -> None:
        """Take in a batch."""
        depth = self.task.maps.means(logits, self.task.centres(logits.device)).transpose(1, 2)
        mask = self.task.counted(target).double()
        squares = ((depth.double() - target) ** 2 * mask).sum((3, 4))
        n = mask.sum((1, 2))
        pixels = n.sum().expand_as(self.sums[0])
        roots = (squares / n.clamp_min(1)).sqrt().sum(2)
        images = (n > 0).sum().expand_as(self.sums[0])
        given = depth.double() * mask
        means = given.sum((2, 3, 4)), (given * depth).sum((2, 3, 4))
        self.sums += torch.stack([squares.sum(2), pixels, roots, images, *means]).cpu()

    def metrics(self) -> dict[str, Float[Tensor, "V h"]]:
        """Return the error over all pixels, and the mean of the images' errors, in metres."""
        squares, pixels, roots, images, depths, squared_depths = self.sums
        mean = depths / pixels
        is_stuck = (squared_depths / pixels - mean.square()) < (STUCK_SPREAD * mean).square()
        found = {"rmse": (squares / pixels).sqrt(), "rmse_per_image": roots / images}
        return {name: value.masked_fill(is_stuck, math.nan) for name, value in found.items()}
