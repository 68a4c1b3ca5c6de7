"""Many linear heads as one: the heads of a variant share a single matrix product.

Axes beside those of ``axes``: V variants of the tokens, h heads of a variant, C outputs of a head.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import layer_norm

from vitscope.axes import Float
from vitscope.draws import generator
from vitscope.probes.settings import HeadSettings, Norm, Range, Search

FIRST_SPREAD = 0.01
"""Standard deviation of the weights before training."""

NORM_EPSILON = 1e-5
RUNNING_SHARE = 0.1
"""Both as torch's norms have them by default."""


@dataclass(frozen=True)
class Trial:
    """One head of every variant: a draw of the random search.

    Attributes:
        seed: which search it belongs to.
        number: within the search, from 0.
        learning_rate: at the first step; a cosine brings it to 0.
        weight_decay: of every parameter, as torch's SGD has it.
    """

    seed: int
    number: int
    learning_rate: float
    weight_decay: float


def draw_trials(
    task: str, settings: HeadSettings, *, n: int, seeds: range, search: Search
) -> tuple[Trial, ...]:
    """Draw ``n`` trials for each seed: a pure function of (seed, task, number).

    All variants of the tokens share them, so that variants are compared like with like.
    """
    trials: list[Trial] = []
    for seed in seeds:
        for number in range(n):
            random = generator(seed, "probe", task, number)
            rate = _between(settings.learning_rate, random.random(), search)
            decay = _between(settings.weight_decay, random.random(), search)
            trials.append(Trial(seed, number, rate, decay))
    return tuple(trials)


def _between(bounds: Range, share: float, search: Search) -> float:
    low, high = bounds
    if search == "linear":
        return low + share * (high - low)
    return math.exp(math.log(low) + share * (math.log(high) - math.log(low)))


@dataclass(eq=False)
class Heads:
    """Parameters of V·h linear layers, or anything of their shape (velocities).

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

    def leaves(self) -> "Heads":
        """Return the same memory as leaves of a new autograd graph."""
        return Heads(*(value.detach().requires_grad_() for value, _ in self.parameters()))

    def zeros(self) -> "Heads":
        """Return zeros of the same shapes."""
        return Heads(*(torch.zeros_like(value) for value, _ in self.parameters()))


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

    @torch.no_grad()
    def step(self, gradients: Sequence[Tensor], schedule: float) -> None:
        """Take one step; ``schedule`` multiplies every learning rate.

        Args:
            gradients: of every parameter, in the order of ``Heads.parameters``.
            schedule: of this step.
        """
        rates = self.learning_rate * schedule
        three = zip(self.heads.parameters(), self.velocity.parameters(), gradients, strict=True)
        for (value, axis), (velocity, _), gradient in three:
            per_head = [-1 if a == axis else 1 for a in range(value.ndim)]
            decayed = torch.addcmul(gradient, value, self.weight_decay.view(per_head))
            velocity.mul_(self.momentum).add_(decayed)
            value.addcmul_(velocity, rates.view(per_head), value=-1)

    def retire(self, dead: Tensor) -> None:
        """Set the heads [V, h] marked in ``dead`` to 0, momentum and all: NaN would spread."""
        for heads in (self.heads, self.velocity):
            for value, axis in heads.parameters():
                mask = dead if axis == 1 else dead.unsqueeze(1)
                value.masked_fill_(mask.view(*mask.shape, *[1] * (value.ndim - mask.ndim)), 0.0)


class Normaliser:
    """What comes before the linear layers, on features [V, N, d]; its learned scaling is theirs.

    Attributes:
        kind: none, layer or batch.
        mean: running mean of batch norm, [V, d].
        variance: its running variance, unbiased.
    """

    def __init__(self, kind: Norm, n_variants: int, width: int, device: torch.device) -> None:
        self.kind: Norm = kind
        self.mean = torch.zeros(n_variants, width, device=device)
        self.variance = torch.ones(n_variants, width, device=device)

    def train(self, x: Float[Tensor, "V N d"]) -> Float[Tensor, "V N d"]:
        """Normalise a training batch, batch norm by the batch's own mean and variance."""
        if self.kind != "batch":
            return self.evaluate(x)
        variance, mean = torch.var_mean(x, 1, correction=0)
        unbiased = variance * (x.shape[1] / max(x.shape[1] - 1, 1))
        self.mean.lerp_(mean, RUNNING_SHARE)
        self.variance.lerp_(unbiased, RUNNING_SHARE)
        return _standardised(x, mean, variance)

    def evaluate(self, x: Float[Tensor, "V N d"]) -> Float[Tensor, "V N d"]:
        """Normalise without learning, batch norm by what was seen in training."""
        if self.kind == "none":
            return x
        if self.kind == "layer":
            return layer_norm(x, x.shape[-1:], eps=NORM_EPSILON)
        return _standardised(x, self.mean, self.variance)


def _standardised(x: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    return (x - mean.unsqueeze(1)) * (variance + NORM_EPSILON).rsqrt().unsqueeze(1)
