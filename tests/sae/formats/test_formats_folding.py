"""Folding changes the weights and nothing else: codes and outputs against plain arithmetic."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from vitscope.errors import SaeError
from vitscope.sae.formats.folding import (
    gated,
    of_raw_input,
    scaled_rows,
    uncentred_bias,
    unit_rows,
)
from vitscope.sae.model import (
    AboveThreshold,
    AboveThresholds,
    Activation,
    GroupMax,
    LayerNorm,
    SparseAutoencoder,
    TopK,
)

WIDTH, FEATURES, TOKENS = 6, 24, 30
SEEDS = st.integers(0, 2**31 - 1)


def make(seed: int, activation: Activation | None = None, k: int = 4) -> SparseAutoencoder:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64)

    return SparseAutoencoder(
        w_enc=draw(WIDTH, FEATURES),
        b_enc=draw(FEATURES),
        w_dec=draw(FEATURES, WIDTH) * 3,
        b_dec=draw(WIDTH) * 5,
        threshold=0.7,
        k=k,
        activation=activation or AboveThresholds(draw(FEATURES).abs()),
    )


def tokens(seed: int) -> Tensor:
    g = torch.Generator().manual_seed(seed + 1)
    return 4 * torch.randn(TOKENS, WIDTH, generator=g, dtype=torch.float64) + 2


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_an_encoder_that_does_not_subtract(seed: int) -> None:
    sae, x = make(seed), tokens(seed)
    folded = replace(sae, b_enc=uncentred_bias(sae.w_enc, sae.b_enc, sae.b_dec))
    torch.testing.assert_close(folded.pre_activations(x), x @ sae.w_enc + sae.b_enc)


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_a_gated_sae_is_a_jumprelu_sae(seed: int) -> None:
    sae, x = make(seed), tokens(seed)
    g = torch.Generator().manual_seed(seed)
    b_gate, r_mag = torch.randn(2, FEATURES, generator=g, dtype=torch.float64)
    b_mag = sae.b_enc
    seen = (x - sae.b_dec) @ sae.w_enc
    theirs = (seen + b_gate > 0) * (seen * r_mag.exp() + b_mag).clamp_min(0)
    w_enc, thresholds = gated(sae.w_enc, b_gate, r_mag, b_mag)
    ours = replace(sae, w_enc=w_enc, activation=thresholds).encode(x)
    torch.testing.assert_close(ours, theirs)
    assert 0 < int((ours > 0).sum()) < ours.numel()


@given(SEEDS)
@settings(max_examples=40, deadline=None)
def test_inputs_that_were_standardised(seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    mean = torch.randn(WIDTH, generator=g, dtype=torch.float64) * 10
    deviation = torch.rand(WIDTH, generator=g, dtype=torch.float64) * 3 + 0.1
    sae, x = make(seed, TopK()), tokens(seed)
    seen = (x - mean) / deviation
    folded = of_raw_input(sae, mean, deviation)
    torch.testing.assert_close(folded.encode(x), sae.encode(seen))
    expected = sae.decode(sae.encode(seen)) * deviation + mean
    torch.testing.assert_close(folded.decode(folded.encode(x)), expected)


@pytest.mark.parametrize("activation", [AboveThreshold(), None], ids=["one", "per feature"])
@given(SEEDS)
@settings(max_examples=20, deadline=None)
def test_unit_rows_keep_support_and_output(activation: Activation | None, seed: int) -> None:
    sae, x = make(seed, activation), tokens(seed)
    unit = unit_rows(sae)
    torch.testing.assert_close(unit.w_dec.norm(dim=1), torch.ones(FEATURES, dtype=torch.float64))
    assert torch.equal(unit.encode(x) > 0, sae.encode(x) > 0)
    torch.testing.assert_close(unit.decode(unit.encode(x)), sae.decode(sae.encode(x)))


def test_scaling_a_plain_relu_needs_no_thresholds() -> None:
    sae = replace(make(1, AboveThreshold()), threshold=0.0)
    assert scaled_rows(sae, torch.full((FEATURES,), 2.0)).activation == AboveThreshold()


def test_what_cannot_be_folded_is_refused() -> None:
    sae, one = make(1), torch.ones(WIDTH, dtype=torch.float64)
    with pytest.raises(SaeError, match="top-k"):
        unit_rows(make(1, TopK()))
    with pytest.raises(SaeError, match="1 decoder rows are zero"):
        unit_rows(replace(sae, w_dec=sae.w_dec * (torch.arange(FEATURES) != 3)[:, None]))
    with pytest.raises(SaeError, match="normalises tokens"):
        of_raw_input(replace(sae, token_norm=LayerNorm()), one, one)
    with pytest.raises(SaeError, match=r"input mean has shape \[5\], not \[6\]"):
        of_raw_input(sae, one[1:], one)
    with pytest.raises(SaeError, match="positive"):
        of_raw_input(sae, one, one * 0)


def test_group_max_takes_one_of_each_group() -> None:
    sae, x = make(3, GroupMax()), tokens(3)
    pre = sae.pre_activations(x).clamp_min(0)
    codes = sae.encode(x)
    for group in range(4):
        columns = slice(group * 6, group * 6 + 6)
        assert torch.equal(codes[:, columns].amax(1), pre[:, columns].amax(1))
        assert int((codes[:, columns] > 0).sum(1).max()) == 1
