"""awCDS of tokens against a loop, and its course over the norms."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitscope.scope.awcds import norm_spectrum, token_awcds

NAN = float("nan")


def test_equals_a_loop_over_active_features() -> None:
    random = np.random.default_rng(0)
    codes = random.random((40, 12)) * (random.random((40, 12)) < 0.3)
    cds = np.where(random.random(12) < 0.3, NAN, random.random(12))
    found = token_awcds(torch.from_numpy(codes), torch.from_numpy(cds)).numpy()
    for token, ours in zip(codes, found, strict=True):
        above = below = 0.0
        for activation, score in zip(token, cds, strict=True):
            if activation > 0 and not np.isnan(score):
                above += activation * score
                below += activation
        assert ours == pytest.approx(above / below if below else NAN, nan_ok=True)
    assert np.isnan(found).any()
    assert np.isfinite(found).any()


def test_features_without_a_score_do_not_dilute() -> None:
    codes = torch.tensor([[1.0, 3.0, 100.0], [0.0, 0.0, 5.0], [0.0, 0.0, 0.0]])
    found = token_awcds(codes, torch.tensor([0.2, 0.6, NAN]))
    assert found[0].item() == pytest.approx(0.5)
    assert found[1:].isnan().all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 200), st.integers(2, 20), st.integers(0, 1000))
def test_the_spectrum_averages_sorted_tokens(n: int, bins: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    norms = random.exponential(size=n)
    scores = np.where(random.random(n) < 0.3, NAN, random.random(n))
    spectrum = norm_spectrum(norms, scores, bins)
    assert spectrum.n_tokens.sum() == n
    assert spectrum.n_tokens.max() - spectrum.n_tokens.min() <= 1
    assert len(spectrum.norm) == min(bins, n)
    order, start = sorted(range(n), key=lambda i: norms[i]), 0
    for index, size in enumerate(spectrum.n_tokens.tolist()):
        rows = order[start : start + size]
        kept = [float(scores[i]) for i in rows if not np.isnan(scores[i])]
        assert spectrum.percentile[index] == pytest.approx(100 * (start + size / 2) / n)
        assert spectrum.norm[index] == pytest.approx(np.mean(norms[rows]))
        assert spectrum.n_undefined[index] == size - len(kept)
        mean = sum(kept) / len(kept) if kept else NAN
        assert spectrum.awcds[index] == pytest.approx(mean, nan_ok=True)
        if len(kept) > 1:
            spread = (sum((x - mean) ** 2 for x in kept) / (len(kept) - 1)) ** 0.5
            assert spectrum.error[index] == pytest.approx(spread / len(kept) ** 0.5, abs=1e-12)
        else:
            assert np.isnan(spectrum.error[index])
        start += size


def test_a_rise_over_the_norms_is_seen() -> None:
    norms = np.random.default_rng(1).permutation(1000).astype(np.float64)
    spectrum = norm_spectrum(norms, norms / 1000, 10)
    assert (np.diff(spectrum.awcds) > 0.05).all()
    assert (np.diff(spectrum.norm) > 0).all()
