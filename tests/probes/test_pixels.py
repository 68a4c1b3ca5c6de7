"""Sums between patches against the upsampled logits themselves, in float64, gradients included."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import batch_norm, interpolate, layer_norm

from vitscope.probes.heads import HeadInput, Heads, Normaliser
from vitscope.probes.pixels.maps import PixelMaps

MEMORY = 1 << 30


def slowly(logits: Tensor, side: int, centres: Tensor | None) -> tuple[Tensor, Tensor]:
    """(log Σ eᶻ, mean of the centres) of logits [V, B, P, h, C]: [V·B·h, S, S], by definition."""
    grid = round(logits.shape[2] ** 0.5)
    maps = logits.permute(0, 1, 3, 4, 2).reshape(-1, logits.shape[4], grid, grid)
    pixels = interpolate(maps, (side, side), mode="bilinear")
    shares = pixels.softmax(1)
    means = shares * (0 if centres is None else centres.to(logits.dtype).view(1, -1, 1, 1))
    return pixels.logsumexp(1), means.sum(1)


def loss_with(weights: Tensor) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    """Some loss that reads both, and differs from image to image; weights are [B, S, S]."""

    def loss_of(log_sum: Tensor, mean: Tensor, image: Tensor) -> Tensor:
        own = weights[image].to(log_sum.dtype)
        return (own * log_sum + own.flip(1) * (mean + 1).square()).sum((1, 2))

    return loss_of


@settings(max_examples=60, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 3)] * 2, st.integers(1, 6)),
    grid=st.integers(1, 5),
    side=st.integers(1, 19),
    n_classes=st.integers(1, 20),
    spread=st.sampled_from([0.0, 1.0, 10.0, 80.0, 400.0]),
    with_centres=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_losses_and_gradients_are_those_of_the_upsampled_logits(
    shape: tuple[int, int, int],
    grid: int,
    side: int,
    n_classes: int,
    spread: float,
    with_centres: bool,
    seed: int,
) -> None:
    g = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(*shape[:2], grid**2, shape[2], n_classes, generator=g)
    logits += 300 * torch.randn(*shape[:2], grid**2, shape[2], 1, generator=g)
    centres = torch.rand(n_classes, generator=g) * 9 if with_centres else None
    loss_of = loss_with(torch.randn(shape[1], side, side, generator=g))
    mine, exact = logits.requires_grad_(), logits.detach().double().requires_grad_()
    image = torch.arange(shape[0] * shape[1] * shape[2]) // shape[2] % shape[1]
    wanted = loss_of(*slowly(exact, side, centres), image).view(shape)
    found = PixelMaps(grid, side, MEMORY).losses(mine, centres, loss_of)
    of_losses = torch.randn(*shape, generator=g)
    (slope,) = torch.autograd.grad(found, mine, of_losses)
    (truth,) = torch.autograd.grad(wanted, exact, of_losses.double())
    # fp32 logits of some hundreds are known to 3·10⁻⁵, and so are their exponentials
    near = 1e-5 + 3e-7 * float(exact.detach().abs().max())
    with torch.no_grad():
        ones = loss_with(torch.ones(shape[1], side, side))
        size = float(ones(*slowly(exact, side, centres), image).abs().max())
    assert float((found - wanted).detach().abs().max()) <= near * max(size, 1) * 4
    assert float((slope - truth).abs().max()) <= near * max(float(truth.abs().max()), 1) * 40


@pytest.mark.parametrize("spread", [3.0, 300.0])
def test_both_readers_agree(spread: float) -> None:
    g = torch.Generator().manual_seed(0)
    logits = spread * torch.randn(2, 3, 16, 5, 24, generator=g)
    centres, maps = torch.linspace(0, 10, 24), PixelMaps(4, 14, MEMORY)
    exact = slowly(logits.double(), 14, centres)[1].view(2, 3, 5, 14, 14)
    torch.testing.assert_close(maps.means(logits, centres).double(), exact, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(maps.means(logits.double(), centres.double()), exact)


def test_infinite_logits_spoil_their_own_map_alone() -> None:
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(1, 1, 9, 4, 6, generator=g)
    spoilt = logits.clone()
    spoilt[:, :, :, 1, 2], spoilt[:, :, 4, 2] = torch.inf, torch.nan
    maps, centres = PixelMaps(3, 11, MEMORY), torch.linspace(1, 2, 6)
    loss_of = loss_with(torch.ones(1, 11, 11))
    found = [maps.losses(one, centres, loss_of)[0, 0] for one in (logits, spoilt)]
    assert found[1].isfinite().tolist() == [True, False, False, True]
    torch.testing.assert_close(found[0][[0, 3]], found[1][[0, 3]], rtol=1e-5, atol=1e-5)


def test_the_logits_of_labels_are_summed_at_patches() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(3, 4, 4, 5, generator=g)
    label = torch.randint(0, 6, (3, 10, 10), generator=g)
    maps = PixelMaps(4, 10, MEMORY)
    own = maps.upsampled(z).gather(3, (label - 1).clamp_min(0).unsqueeze(3))[..., 0]
    wanted = (own * (label > 0)).sum((1, 2))
    found = (z.flatten(1, 2) * maps.pulled_back(label, 5)).sum((1, 2))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("kind", ["none", "layer", "batch"])
def test_a_token_beside_patches_is_as_if_written_out(kind: str) -> None:
    g = torch.Generator().manual_seed(0)
    patches = torch.randn(2, 3, 4, 5, generator=g, dtype=torch.float64) * 3 + 1
    token = torch.randn(3, 7, generator=g, dtype=torch.float64) - 2
    beside = token[None, :, None].expand(2, 3, 4, 7)
    whole = torch.cat([patches, beside], -1).flatten(1, 2)
    normal = {
        "none": lambda x: x,
        "layer": lambda x: layer_norm(x, x.shape[-1:]),
        "batch": lambda x: torch.stack([batch_norm(v, None, None, training=True) for v in x]),
    }[kind](whole)
    weight = torch.randn(2, 12, 3, 4, generator=g, dtype=torch.float64)
    heads = Heads(weight, torch.randn(2, 3, 4, generator=g, dtype=torch.float64)).leaves()
    split = Normaliser(kind, 2, 12, token.device)  # pyright: ignore[reportArgumentType]
    split.mean, split.variance = split.mean.double(), split.variance.double()
    found, wanted = heads.logits(split.train(patches, token)), heads.logits(HeadInput(normal))
    torch.testing.assert_close(found, wanted)
    parameters, of_logits = [heads.weight, heads.bias], torch.randn_like(wanted)
    for one, other in zip(
        torch.autograd.grad(found, parameters, of_logits),
        torch.autograd.grad(wanted, parameters, of_logits),
        strict=True,
    ):
        torch.testing.assert_close(one, other)
    if kind == "batch":
        plain = Normaliser("batch", 2, 12, token.device)
        plain.mean, plain.variance = plain.mean.double(), plain.variance.double()
        plain.train(whole.unsqueeze(2))
        torch.testing.assert_close(split.mean, plain.mean)
        torch.testing.assert_close(split.variance, plain.variance)
        evaluated = heads.logits(split.evaluate(patches, token))
        torch.testing.assert_close(evaluated, heads.logits(plain.evaluate(whole.unsqueeze(2))))
