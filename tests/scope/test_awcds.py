"""awCDS of tokens against a loop, its course over the norms, and intervals over images."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from vitscope.scope import awcds as module
from vitscope.scope.awcds import NormSpectrum, norm_spectrum, token_scope
from vitscope.scope.bootstrap import image_weights

NAN = float("nan")
Values = NDArray[np.float64]


def spectrum_of(norms: Values, awcds: Values, bins: int, seed: int = 0) -> NormSpectrum:
    ones = np.ones_like(norms)
    return norm_spectrum(norms, awcds, np.isfinite(awcds) * ones, ones, bins, seed=seed)


def test_equals_a_loop_over_active_features() -> None:
    random = np.random.default_rng(0)
    codes = random.random((40, 12)) * (random.random((40, 12)) < 0.3)
    cds = np.where(random.random(12) < 0.3, NAN, random.random(12))
    found = token_scope(torch.from_numpy(codes), torch.from_numpy(cds))
    for index, token in enumerate(codes):
        above = below = 0.0
        for activation, score in zip(token, cds, strict=True):
            if activation > 0 and not np.isnan(score):
                above += activation * score
                below += activation
        expected = above / below if below else NAN
        assert found.awcds[index].item() == pytest.approx(expected, nan_ok=True)
        assert found.scored[index].item() == pytest.approx(below)
        assert found.active[index].item() == pytest.approx(token.sum())
    assert found.awcds.isnan().any()
    assert found.awcds.isfinite().any()


def test_features_without_a_score_do_not_dilute_and_are_told_from_silence() -> None:
    codes = torch.tensor([[1.0, 3.0, 100.0], [0.0, 0.0, 5.0], [0.0, 0.0, 0.0]])
    found = token_scope(codes, torch.tensor([0.2, 0.6, NAN]))
    assert found.awcds[0].item() == pytest.approx(0.5)
    assert found.awcds[1:].isnan().all()
    assert found.scored.tolist() == [4, 0, 0]
    assert found.active.tolist() == [104, 5, 0]
    nothing = token_scope(torch.zeros(0, 3), torch.ones(3))
    assert nothing.awcds.shape == (0,)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 40), st.integers(1, 9), st.integers(2, 20), st.integers(0, 1000))
def test_the_spectrum_averages_sorted_tokens(
    n_images: int, per_image: int, bins: int, seed: int
) -> None:
    random, shape = np.random.default_rng(seed), (n_images, per_image)
    n = n_images * per_image
    norms = random.exponential(size=shape)
    active = random.random(shape) * (random.random(shape) < 0.9)
    scored = active * (random.random(shape) < 0.7)
    scores = np.where(scored > 0, random.random(shape), NAN)
    spectrum = norm_spectrum(norms, scores, scored, active, bins, seed=seed)
    assert spectrum.n_tokens.sum() == n
    assert spectrum.n_tokens.max() - spectrum.n_tokens.min() <= 1
    assert len(spectrum.norm) == min(bins, n)
    order, start = np.argsort(norms.ravel(), kind="stable"), 0
    for index, size in enumerate(spectrum.n_tokens.tolist()):
        rows = order[start : start + size]
        values, on_all, on_scored = (a.ravel()[rows] for a in (scores, active, scored))
        kept = values[np.isfinite(values)]
        assert spectrum.percentile[index] == pytest.approx(100 * (start + size / 2) / n)
        assert spectrum.norm[index] == pytest.approx(norms.ravel()[rows].mean())
        assert spectrum.n_silent[index] == (on_all == 0).sum()
        assert spectrum.n_unscored[index] == ((on_all > 0) & (on_scored == 0)).sum()
        assert spectrum.n_silent[index] + spectrum.n_unscored[index] + kept.size == size
        mean = kept.mean() if kept.size else NAN
        assert spectrum.awcds[index] == pytest.approx(mean, nan_ok=True)
        share = on_scored.sum() / on_all.sum() if on_all.any() else NAN
        assert spectrum.scored_share[index] == pytest.approx(share, nan_ok=True)
        start += size
    assert (np.isnan(spectrum.low) == np.isnan(spectrum.high)).all()
    assert not (spectrum.low > spectrum.high).any()


def test_a_rise_over_the_norms_is_seen() -> None:
    norms = np.random.default_rng(1).permutation(1000).astype(np.float64).reshape(50, 20)
    spectrum = spectrum_of(norms, norms / 1000, 10)
    assert (np.diff(spectrum.awcds) > 0.05).all()
    assert (np.diff(spectrum.norm) > 0).all()


def test_intervals_are_those_of_images_drawn_again() -> None:
    random = np.random.default_rng(2)
    norms = random.exponential(size=(30, 40))
    scores = np.where(random.random((30, 40)) < 0.1, NAN, random.random((30, 1)) + 0.1 * norms)
    found = spectrum_of(norms, scores, 5)
    means = []
    for weights in np.concatenate(list(image_weights(30, 0, "awcds"))):
        rows = np.repeat(np.arange(30), weights.astype(int))
        drawn, values = norms[rows].ravel(), scores[rows].ravel()
        order = np.argsort(drawn, kind="stable")
        means.append([np.nanmean(chunk) for chunk in np.array_split(values[order], 5)])
    low, high = np.quantile(means, [0.025, 0.975], axis=0)
    np.testing.assert_allclose(found.low, low, atol=0.01)
    np.testing.assert_allclose(found.high, high, atol=0.01)


def test_tokens_of_an_image_that_agree_widen_the_interval() -> None:
    random = np.random.default_rng(3)
    norms = random.random((40, 100))
    alike = np.repeat(random.random((40, 1)), 100, axis=1)
    apart = random.permutation(alike.ravel()).reshape(40, 100)

    def width(scores: Values) -> float:
        spectrum = spectrum_of(norms, scores, 4)
        return float((spectrum.high - spectrum.low).mean())

    assert width(alike) > 3 * width(apart)


def test_cells_hardly_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(4)
    norms = random.random((20, 300))
    scores = norms**3 + 0.2 * random.random((20, 1))
    coarse = spectrum_of(norms, scores, 10)
    monkeypatch.setattr(module, "_CELLS_PER_BIN", 600)
    fine = spectrum_of(norms, scores, 10)
    np.testing.assert_allclose(coarse.low, fine.low, atol=1e-3)
    np.testing.assert_allclose(coarse.high, fine.high, atol=1e-3)
    assert (coarse.awcds == fine.awcds).all()


def test_equal_seeds_give_equal_intervals_and_others_others() -> None:
    random = np.random.default_rng(5)
    norms, scores = random.random((10, 20)), random.random((10, 20))
    one, same, other = (spectrum_of(norms, scores, 4, seed) for seed in (0, 0, 1))
    assert (one.low == same.low).all()
    assert (one.low != other.low).any()
