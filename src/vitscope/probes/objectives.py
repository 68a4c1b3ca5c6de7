"""What a task asks of its heads: a loss that heads descend, and a score that chooses among them.

Axes beside those of ``axes``: V variants of the tokens, P positions, h heads of a variant, C
outputs of a head, K = V·h·B maps, S pixels a side.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, interpolate

from vitscope.axes import Float, Int64

CPU_BYTES = 1 << 24
"""On a CPU, maps are worked on in pieces that stay in its caches: twice as fast as all at once."""

FLOATS_PER_LOGIT = 4
"""Arrays of the size of the upsampled logits that a dense task holds at once: logits, softmax, and
the gradients of both."""


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
class PixelMaps:
    """Logits of a grid of patches upsampled to pixels, some maps at a time.

    Attributes:
        grid: p, cells per side.
        side: S, pixels per side.
        memory_bytes: bound on the upsampled arrays held at a time; one map at least.
    """

    grid: int
    side: int
    memory_bytes: int

    def upsampled(self, maps: Float[Tensor, "K p p C"]) -> Float[Tensor, "K S S C"]:
        """Upsample maps bilinearly, channels last."""
        size = (self.side, self.side)
        return interpolate(maps.permute(0, 3, 1, 2), size, mode="bilinear").permute(0, 2, 3, 1)

    def losses(
        self,
        logits: Float[Tensor, "V B P h C"],
        loss_of: Callable[[Float[Tensor, "n S S C"], Int64[Tensor, "n"]], Float[Tensor, "n"]],
    ) -> Float[Tensor, "V h B"]:
        """Return ``loss_of`` (pixels' logits, place of their images in the batch) of every map."""
        maps, image = self._maps(logits)

        def of_piece(piece: Tensor, some: slice) -> Tensor:
            return loss_of(self.upsampled(piece), image[some])

        found: Tensor = _LossesInPieces.apply(maps, of_piece, list(self._pieces(maps)))  # pyright: ignore[reportAssignmentType]
        return found.view(logits.shape[0], logits.shape[3], -1)

    def values(
        self,
        logits: Float[Tensor, "V B P h C"],
        value_of: Callable[[Float[Tensor, "n S S C"]], Tensor],
    ) -> Tensor:
        """Return ``value_of`` the pixels' logits of every map, [V, h, B, S, S]."""
        maps, _ = self._maps(logits)
        found = torch.cat([value_of(self.upsampled(maps[some])) for some in self._pieces(maps)])
        return found.unflatten(0, (logits.shape[0], logits.shape[3], -1))

    def _maps(self, logits: Float[Tensor, "V B P h C"]) -> tuple[Tensor, Tensor]:
        """Return one map per (variant, head, image), the images innermost, and their images."""
        ordered = logits.permute(0, 3, 1, 2, 4).reshape(-1, self.grid, self.grid, logits.shape[4])
        return ordered, torch.arange(len(ordered), device=logits.device) % logits.shape[1]

    def _pieces(self, maps: Tensor) -> Iterator[slice]:
        map_bytes = 4 * FLOATS_PER_LOGIT * self.side**2 * maps.shape[-1]
        memory = self.memory_bytes
        if maps.device.type == "cpu":
            memory = min(memory, CPU_BYTES)
        step = max(memory // map_bytes, 1)
        for start in range(0, len(maps), step):
            yield slice(start, min(start + step, len(maps)))


class _LossesInPieces(torch.autograd.Function):
    """Losses L_k of maps x_k, of which only a piece's pixels are in memory at a time.

    As L_k depends on x_k alone, the gradient of Σ g_k·L_k is g_k·∂L_k/∂x_k: each piece's ∂L/∂x is
    taken by autograd within the forward pass, after which its pixels are let go, and is only scaled
    by g in the backward pass.
    """

    @staticmethod
    def forward(
        ctx: Any, maps: Tensor, loss_of: Callable[[Tensor, slice], Tensor], pieces: list[slice]
    ) -> Tensor:
        losses, gradient = maps.new_empty(len(maps)), torch.empty_like(maps)
        for some in pieces:
            with torch.enable_grad():
                piece = maps[some].detach().requires_grad_()
                found = loss_of(piece, some)
                (gradient[some],) = torch.autograd.grad(found.sum(), piece)
            losses[some] = found.detach()
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *of_losses: Tensor) -> tuple[Tensor, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        (gradient,) = ctx.saved_tensors
        return gradient * of_losses[0].view(-1, 1, 1, 1), None, None


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
        """Return the mean of -log p(label) over the batch's labelled pixels."""

        def summed(pixels: Tensor, image: Tensor) -> Tensor:
            label = (target[image] - 1).flatten()
            entropy = cross_entropy(pixels.flatten(0, 2), label, ignore_index=-1, reduction="none")
            return entropy.view(len(image), -1).sum(1)

        return self.maps.losses(logits, summed).sum(2) / (target > 0).sum().clamp_min(1)

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
        found = self.task.maps.values(logits, partial(torch.argmax, dim=-1)).flatten(0, 1)
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

    def depth_of(self, pixels: Float[Tensor, "n S S C"]) -> Float[Tensor, "n S S"]:
        """Return the depth of every pixel in metres."""
        return torch.softmax(pixels, -1) @ self.centres(pixels.device)

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

        def scale_invariant(pixels: Tensor, image: Tensor) -> Tensor:
            gap = (self.depth_of(pixels).log() - log_truth[image]) * counted[image]
            mean = gap.sum((1, 2)) / n[image]
            return gap.square().sum((1, 2)) / n[image] - self.loss_lambda * mean.square()

        return self.maps.losses(logits, scale_invariant).mean(2)

    def score(self, n_variants: int, n_heads: int) -> "DepthScore":
        """Return an empty score."""
        return DepthScore(self, torch.zeros(4, n_variants, n_heads, dtype=torch.float64))


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
        depth = self.task.maps.values(logits, self.task.depth_of)
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
