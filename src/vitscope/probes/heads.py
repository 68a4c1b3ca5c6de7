"""Many linear heads as one: the heads of a variant share a single matrix product.

Axes beside those of ``axes``: V variants of the tokens, h heads of a variant, C outputs of a head.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from vitscope.axes import Float
from vitscope.draws import generator
from vitscope.probes.search import Trial

FIRST_SPREAD = 0.01
"""Standard deviation of the weights before training."""


@dataclass(eq=False)
class Heads:
    """Parameters of V·h linear layers, or anything of their shape (gradients, velocities).

    Attributes:
        weight: of the linear layers, [V, d, h, C].
        bias: [V, h, C].
        gain: learned factor of each normalised input, [V, h, d]; None without a norm.
        shift: what is added to it, [V, h, d].
    """

    weight: Float[Tensor, "V d h C"]
    bias: Float[Tensor, "V h C"]
    gain: Float[Tensor, "V h d"] | None = None
    shift: Float[Tensor, "V h d"] | None = None

    def parameters(self) -> list[tuple[Tensor, int]]:
        """Return every tensor, with the axis that counts heads."""
        found = [(self.weight, 2), (self.bias, 1)]
        if self.gain is not None and self.shift is not None:
            found += [(self.gain, 1), (self.shift, 1)]
        return found

    def logits(self, x: Float[Tensor, "V N d"]) -> Float[Tensor, "V N h C"]:
        """Return what every head makes of the (normalised) features ``x`` of its variant."""
        weight, bias = self.weight, self.bias
        if self.gain is not None and self.shift is not None:
            # the learned scaling is linear too: folded in, all heads still share their input
            weight = weight * self.gain.transpose(1, 2).unsqueeze(-1)
            bias = bias + torch.einsum("vhd,vdhc->vhc", self.shift, self.weight)
        flat = torch.baddbmm(bias.flatten(1).unsqueeze(1), x, weight.flatten(2))
        return flat.unflatten(2, self.bias.shape[1:])

    def gradients(self, x: Float[Tensor, "V N d"], of_logits: Float[Tensor, "V N h C"]) -> "Heads":
        """Return the gradient of every parameter, given that of the logits of ``x``."""
        flat = of_logits.flatten(2)
        weight = torch.bmm(x.mT, flat).unflatten(2, self.bias.shape[1:])
        bias = flat.sum(1).unflatten(1, self.bias.shape[1:])
        if self.gain is None or self.shift is None:
            return Heads(weight, bias)
        of_gain = (weight * self.weight).sum(3).transpose(1, 2)
        of_shift = torch.einsum("vhc,vdhc->vhd", bias, self.weight)
        gain, shift = (part.transpose(1, 2).unsqueeze(-1) for part in (self.gain, self.shift))
        return Heads(weight * gain + shift * bias.unsqueeze(1), bias, of_gain, of_shift)

    def zeros(self) -> "Heads":
        """Return zeros of the same shapes."""
        tensors = [torch.zeros_like(tensor) for tensor, _ in self.parameters()]
        return Heads(*tensors)


def first_heads(
    trials: tuple[Trial, ...],
    *,
    n_variants: int,
    width: int,
    n_outputs: int,
    scaled: bool,
    device: torch.device,
) -> Heads:
    """Return untrained heads: a pure function of each trial's (seed, number), equal over variants.

    Args:
        trials: one head each.
        n_variants: V.
        width: d.
        n_outputs: C.
        scaled: whether a norm comes first, whose output the heads learn to scale.
        device: where they lie.
    """
    drawn = [
        generator(t.seed, "first weights", t.number).standard_normal((width, n_outputs))
        for t in trials
    ]
    one = FIRST_SPREAD * torch.stack([torch.from_numpy(rows) for rows in drawn], 1)
    weight = one.float().expand(n_variants, -1, -1, -1).contiguous().to(device)
    n = len(trials)
    bias = torch.zeros(n_variants, n, n_outputs, device=device)
    if not scaled:
        return Heads(weight, bias)
    gain = torch.ones(n_variants, n, width, device=device)
    return Heads(weight, bias, gain, torch.zeros_like(gain))


@dataclass(eq=False)
class Descent:
    """SGD with momentum over all heads, each with its own rates, in torch's order of operations.

    Attributes:
        heads: the parameters, changed in place.
        velocity: their momentum buffers.
        learning_rate: per head, before the schedule, [h].
        weight_decay: per head, [h].
        momentum: of all heads.
    """

    heads: Heads
    velocity: Heads
    learning_rate: Float[Tensor, "h"]
    weight_decay: Float[Tensor, "h"]
    momentum: float

    @classmethod
    def start(cls, heads: Heads, trials: tuple[Trial, ...], momentum: float) -> "Descent":
        """Return the descent before its first step."""
        device = heads.bias.device
        rates = torch.tensor([trial.learning_rate for trial in trials], device=device)
        decays = torch.tensor([trial.weight_decay for trial in trials], device=device)
        return cls(heads, heads.zeros(), rates, decays, momentum)

    def step(self, gradients: Heads, schedule: float) -> None:
        """Take one step; ``schedule`` multiplies every learning rate."""
        rates = self.learning_rate * schedule
        three = zip(
            self.heads.parameters(),
            self.velocity.parameters(),
            gradients.parameters(),
            strict=True,
        )
        for (value, axis), (velocity, _), (gradient, _) in three:
            per_head = [-1 if a == axis else 1 for a in range(value.ndim)]
            gradient.addcmul_(value, self.weight_decay.view(per_head))
            velocity.mul_(self.momentum).add_(gradient)
            value.addcmul_(velocity, rates.view(per_head), value=-1)

    def retire(self, dead: Tensor) -> None:
        """Set the heads [V, h] marked in ``dead`` to 0, momentum and all: NaN would spread."""
        for heads in (self.heads, self.velocity):
            for value, axis in heads.parameters():
                mask = dead if axis == 1 else dead.unsqueeze(1)
                value.masked_fill_(mask.view(*mask.shape, *[1] * (value.ndim - mask.ndim)), 0.0)
