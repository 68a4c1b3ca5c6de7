"""Classification: cross entropy of one label per image; top-1 and top-5."""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Float, Int64
from vitscope.probes.objective import LossAndGradient, softmax_and_entropy


@dataclass(frozen=True)
class Classification:
    """Cross entropy over classes; logits have one position per image, P = 1.

    Attributes:
        n_outputs: number of classes.
    """

    n_outputs: int

    @property
    def metric(self) -> str:
        """Share of images whose class is the likeliest."""
        return "top1"

    @property
    def higher_is_better(self) -> bool:
        """More is better."""
        return True

    def loss(
        self, logits: Float[Tensor, "V B 1 h C"], target: Int64[Tensor, "B"]
    ) -> LossAndGradient:
        """Return the mean over images of -log p(label), and its gradient."""
        place = target.view(1, -1, 1, 1, 1).expand(*logits.shape[:-1], 1)
        share, entropy = softmax_and_entropy(logits, place)
        gradient = share.scatter_add_(-1, place, torch.full_like(share[..., :1], -1.0))
        return LossAndGradient(entropy.mean((1, 2)), gradient.div_(len(target)))

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
