"""Ten seconds that tell whether an SAE and a backbone belong together."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tests.sae.formats.cases import FIXTURES, expected
from torch import Tensor

from vitscope.errors import SaeError
from vitscope.sae.formats.load import check_reconstruction, diagnose, load_sae
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.quality import ReconstructionSums

WIDTH, FEATURES, TOKENS = 6, 12, 700


def good_sae() -> SparseAutoencoder:
    """Reconstructs all but the thresholds' worth: each direction and its opposite is a feature."""
    both = torch.cat([torch.eye(WIDTH), -torch.eye(WIDTH)])
    mean = torch.linspace(-2, 3, WIDTH)
    return SparseAutoencoder(both.T, torch.zeros(FEATURES), both, mean, threshold=0.3, k=3)


def tokens() -> Tensor:
    g = torch.Generator().manual_seed(4)
    return torch.randn(TOKENS, WIDTH, generator=g) + torch.linspace(-2, 3, WIDTH)


def test_the_figures_are_those_of_the_metrics() -> None:
    sae, x = good_sae(), tokens()
    found = check_reconstruction(sae, x)
    sums = ReconstructionSums(WIDTH)
    codes = sae.encode(x)
    sums.update(x, sae.decode(codes), codes, torch.zeros(TOKENS, dtype=torch.bool))
    metrics = sums.metrics().all
    assert found.fvu == pytest.approx(metrics.fvu, rel=1e-9)
    assert found.l0 == pytest.approx(metrics.l0)
    ratio = (sae.decode(codes).norm(dim=1) / x.norm(dim=1)).mean()
    assert found.norm_ratio == pytest.approx(float(ratio), rel=1e-5)
    assert (found.n_tokens, found.dead_share) == (TOKENS, 0.0)
    assert 0 < found.fvu < 0.1


def test_features_that_never_fire_are_counted() -> None:
    sae = good_sae()
    silent = replace(sae, b_enc=torch.where(torch.arange(FEATURES) < 3, -1e3, 0.0))
    assert diagnose(silent, tokens()).dead_share == 0.25


@pytest.mark.parametrize(
    "wrong",
    [
        lambda sae: replace(sae, b_enc=sae.b_enc + 5),
        lambda sae: replace(sae, w_dec=-sae.w_dec),
        lambda sae: replace(sae, w_enc=sae.w_enc * 3),
        lambda sae: replace(sae, w_dec=sae.w_dec.flip(0)),
        lambda sae: replace(sae, threshold=1e6),
    ],
    ids=["bias", "sign", "scale", "order", "nothing active"],
)
def test_an_sae_no_better_than_the_mean_is_refused(wrong: object) -> None:
    sae = wrong(good_sae())  # pyright: ignore
    sae = replace(sae, info={"assumed": "b_dec is subtracted", "caution": "beware"})
    with pytest.raises(SaeError, match="no better than their mean") as caught:
        check_reconstruction(sae, tokens() + (sae.threshold > 1) * 0.1)
    message = str(caught.value)
    assert "assumed: b_dec is subtracted (beware); another reading" in message
    assert "\n" not in message


def test_a_file_read_wrongly_is_seen(tmp_path: Path) -> None:
    """An SAE that subtracts its bias, taken for one that does not, and the other way round."""
    sae, x = good_sae(), tokens()
    shifted = replace(sae, b_enc=sae.b_enc + (x.mean(0) + 6) @ sae.w_enc)
    assert diagnose(shifted, x).fvu > 1


def test_random_saes_of_other_libraries_do_not_pass() -> None:
    folder = FIXTURES / "dictionary-learning-0.1.0" / "BatchTopKSAE"
    with pytest.raises(SaeError, match="assumed: b_dec is subtracted before the encoder; tokens"):
        check_reconstruction(load_sae(folder), expected(folder).x)


def test_tokens_that_cannot_be_used() -> None:
    sae, x = good_sae(), tokens()
    for bad, message in (
        (x[:0], "no tokens"),
        (x[:, 1:], "of width 6, the tokens have 5"),
        (x / 0, "NaN or infinity"),
        (x[:1].repeat(5, 1), "FVU nan"),
    ):
        with pytest.raises(SaeError, match=message):
            check_reconstruction(sae, bad)
