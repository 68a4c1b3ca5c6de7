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

    def logits(self, seen: "HeadInput") -> Float[Tensor, "V N h C"]:
        """Return what every head makes of the (normalised) features of its variant."""
        weight, bias = self.weight, self.bias
        if self.gain is not None and self.shift is not None:
            # the learned scaling is linear too: folded in, all heads still share their input
            weight = weight * self.gain.transpose(1, 2).unsqueeze(-1)
            bias = bias + torch.einsum("vhd,vdhc->vhc", self.shift, self.weight)
        weight = weight.flatten(2)
        if seen.rows is not None:
            n_patch = weight.shape[1] - seen.rows.shape[2]
            of_patch, of_token = weight.split([n_patch, seen.rows.shape[2]], 1)
            weight = torch.cat([of_patch, seen.rows @ of_token], 1)
        flat = torch.baddbmm(bias.flatten(1).unsqueeze(1), seen.x, weight)
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
            gradients: of every parameter, in the order of ``Heads.parameters``; overwritten.
            schedule: of this step.
        """
        rates = self.learning_rate * schedule
        three = zip(self.heads.parameters(), self.velocity.parameters(), gradients, strict=True)
        for (value, axis), (velocity, _), gradient in three:
            per_head = [-1 if a == axis else 1 for a in range(value.ndim)]
            # in place: with thousands of outputs these arrays are large, and their memory is slow
            gradient.addcmul_(value, self.weight_decay.view(per_head))
            torch.add(gradient, velocity, alpha=self.momentum, out=velocity)
            value.addcmul_(velocity, rates.view(per_head), value=-1)

    def retire(self, dead: Tensor) -> None:
        """Set the heads [V, h] marked in ``dead`` to 0, momentum and all: NaN would spread."""
        for heads in (self.heads, self.velocity):
            for value, axis in heads.parameters():
                mask = dead if axis == 1 else dead.unsqueeze(1)
                value.masked_fill_(mask.view(*mask.shape, *[1] * (value.ndim - mask.ndim)), 0.0)


@dataclass(frozen=True)
class HeadInput:
    """Normalised features of V variants, factored where a token stands beside every patch.

    A token of e numbers is the same for all P patches of its image, and after a norm still spans
    few directions: the features are [x₁ | m·rows], and a head w = [w₁ | w₂] makes
    x₁·w₁ + m·(rows·w₂) of them. So w₂ meets r rows in place of B·P, and x = [x₁ | m] is all that
    meets the heads, d + r columns wide in place of d + e.

    Attributes:
        x: [x₁ | m], or the features themselves where nothing is factored.
        rows: directions of the tokens, [V, r, e].
    """

    x: Float[Tensor, "V N k"]
    rows: Float[Tensor, "V r e"] | None = None


class Normaliser:
    """What comes before the linear layers; its learned scaling is theirs.

    Attributes:
        kind: none, layer or batch.
        mean: running mean of batch norm, [V, d + e].
        variance: its running variance, unbiased.
    """

    def __init__(self, kind: Norm, n_variants: int, width: int, device: torch.device) -> None:
        self.kind: Norm = kind
        self.mean = torch.zeros(n_variants, width, device=device)
        self.variance = torch.ones(n_variants, width, device=device)

    def train(
        self, patches: Float[Tensor, "V B P d"], token: Float[Tensor, "B e"] | None = None
    ) -> HeadInput:
        """Normalise a training batch, batch norm by the batch's own mean and variance."""
        if self.kind != "batch":
            return self.evaluate(patches, token)
        variance, mean = torch.var_mean(patches.flatten(1, 2), 1, correction=0)
        if token is not None:  # every image has as many patches: over images is over tokens
            of_token = torch.var_mean(token, 0, correction=0)
            wide = [value.expand(len(patches), -1) for value in of_token]
            variance, mean = torch.cat([variance, wide[0]], 1), torch.cat([mean, wide[1]], 1)
        n = patches.shape[1] * patches.shape[2]
        self.mean.lerp_(mean, RUNNING_SHARE)
        self.variance.lerp_(variance * (n / max(n - 1, 1)), RUNNING_SHARE)
        return _standardised(patches, token, mean, variance)

    def evaluate(
        self, patches: Float[Tensor, "V B P d"], token: Float[Tensor, "B e"] | None = None
    ) -> HeadInput:
        """Normalise without learning, batch norm by what was seen in training."""
        if self.kind == "batch":
            return _standardised(patches, token, self.mean, self.variance)
        if self.kind == "layer":
            return _layer_normed(patches, token)
        if token is None:
            return HeadInput(patches.flatten(1, 2))
        rows = token.expand(len(patches), -1, -1)
        return _factored(patches, torch.ones_like(patches[..., :1]), rows)


def _standardised(
    patches: Tensor, token: Tensor | None, mean: Tensor, variance: Tensor
) -> HeadInput:
    d, scale = patches.shape[-1], (variance + NORM_EPSILON).rsqrt().unsqueeze(1)
    flat = (patches.flatten(1, 2) - mean[:, None, :d]) * scale[..., :d]
    if token is None:
        return HeadInput(flat)
    rows = (token - mean[:, None, d:]) * scale[..., d:]
    return _factored(flat.view_as(patches), torch.ones_like(patches[..., :1]), rows)


def _layer_normed(patches: Tensor, token: Tensor | None) -> HeadInput:
    """Layer norm over patch token and token together.

    With the mean μ and the inverse deviation s of a position, its token becomes s·token - s·μ·1:
    one row an image, and one of ones.
    """
    if token is None:
        return HeadInput(layer_norm(patches, patches.shape[-1:], eps=NORM_EPSILON).flatten(1, 2))
    d, e = patches.shape[-1], token.shape[-1]
    var_p, mean_p = torch.var_mean(patches, -1, correction=0, keepdim=True)
    var_t, mean_t = (v[:, None] for v in torch.var_mean(token, -1, correction=0, keepdim=True))
    share = d / (d + e)
    mean = share * mean_p + (1 - share) * mean_t
    # within both parts, and between their means
    between = share * (1 - share) * (mean_p - mean_t).square()
    scale = (share * var_p + (1 - share) * var_t + between + NORM_EPSILON).rsqrt()
    rows = torch.cat([token, torch.ones_like(token[:1])]).expand(len(patches), -1, -1)
    return _factored((patches - mean) * scale, scale, rows, -scale * mean)


def _factored(
    patches: Float[Tensor, "V B P d"],
    scale: Float[Tensor, "V B P 1"],
    rows: Float[Tensor, "V r e"],
    last: Float[Tensor, "V B P 1"] | None = None,
) -> HeadInput:
    """Return [patches | m] and ``rows``: m has ``scale`` in the column of the patch's image.

    Args:
        patches: normalised.
        scale: of the token of a patch's image.
        rows: one an image, and one more where there is ``last``.
        last: of the last row.
    """
    own = torch.eye(patches.shape[1], device=patches.device)[None, :, None]
    parts = [patches, scale * own]
    if last is not None:
        parts.append(last)
    return HeadInput(torch.cat(parts, -1).flatten(1, 2), rows)
