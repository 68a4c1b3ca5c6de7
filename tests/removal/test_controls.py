"""Matched controls: outside the group, near it in energy and rate, honest where they are not."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitscope.errors import ConfigError
from vitscope.removal.controls import matched_controls
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.quality import FeatureActivity


def dictionary(seed: int, m: int = 300) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    rate = 10.0 ** random.uniform(-4, -1, m)
    return rate * 10.0 ** random.uniform(-1, 1, m), rate


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000))
def test_stand_ins_are_distinct_and_outside(seed: int) -> None:
    energy, rate = dictionary(seed)
    group = np.random.default_rng(seed + 1).random(300) < 0.15
    energy[:30] = 0.0
    for control in matched_controls(group, energy, rate, seeds=(0, 1)):
        assert not group[control.features].any()
        assert len(np.unique(control.features)) == len(control.features) <= control.n_group
        assert (energy[control.features] > 0).all()
        ratio = energy[control.features].sum() / energy[group].sum()
        assert control.energy_ratio == pytest.approx(ratio)


def test_a_small_group_of_a_large_dictionary_is_matched_and_seeds_differ() -> None:
    energy, rate = dictionary(3, 5000)
    group = np.zeros(5000, dtype=bool)
    group[::20] = True
    one, other, same = matched_controls(group, energy, rate, seeds=(0, 1, 0))
    for control in (one, other):
        assert control.is_matched and abs(control.energy_ratio - 1) < 0.2
        assert "stand in for 250" in control.message
    assert not np.array_equal(one.features, other.features)
    assert np.array_equal(one.features, same.features)
    # feature by feature, not in total alone: as evenly spread over the energies
    ours, theirs = (np.sort(np.log(energy[f])) for f in (one.features, np.flatnonzero(group)))
    assert np.abs(ours - theirs).mean() < 0.2


def test_fewer_and_stronger_features_stand_in_where_all_outside_are_strong() -> None:
    energy, rate = dictionary(6, 2000)
    group = np.arange(2000) % 2 == 0
    energy[~group] *= 4
    rate[~group] *= 3
    one, other = matched_controls(group, energy, rate, seeds=(0, 1))
    for control in (one, other):
        assert control.is_matched and 200 < len(control.features) < 600 < control.n_group
        assert not group[control.features].any()
        assert 1 <= control.energy_ratio < 1.1 and 1 <= control.rate_ratio < 1.1
    assert len(np.intersect1d(one.features, other.features)) < 0.8 * len(one.features)


def test_where_the_group_is_most_of_the_dictionary_no_match_exists_and_it_says_so() -> None:
    energy, rate = dictionary(4)
    group = np.ones(300, dtype=bool)
    group[:40] = False
    (control,) = matched_controls(group, energy, rate, seeds=(0,))
    assert not control.is_matched and len(control.features) == 40
    assert control.message.startswith("no matched control exists, only 40 features")


def test_a_group_of_giants_has_no_match() -> None:
    energy, rate = dictionary(5)
    group = np.zeros(300, dtype=bool)
    group[:10] = True
    energy[:10] *= 1e4
    (control,) = matched_controls(group, energy, rate, seeds=(0,))
    assert len(control.features) == 10 and not control.is_matched
    assert control.energy_ratio < 0.1 and control.message.startswith("no matched control exists:")
    (silent,) = matched_controls(group, np.zeros(300), rate, seeds=(0,))
    assert not silent.is_matched and np.isnan(silent.energy_ratio) and not len(silent.features)
    with pytest.raises(ConfigError, match="same SAE"):
        matched_controls(group[:-1], energy, rate, seeds=(0,))


def toy() -> tuple[SparseAutoencoder, torch.Tensor]:
    torch.manual_seed(0)
    w_dec = 2 * torch.randn(30, 8, dtype=torch.float64)
    zeros = torch.zeros(30, dtype=torch.float64)
    sae = SparseAutoencoder(w_dec.T / 4, zeros, w_dec, zeros[:8], threshold=0.5, k=3)
    return sae, torch.randn(200, 8, dtype=torch.float64)


def test_energy_is_the_mean_square_of_what_each_feature_adds() -> None:
    sae, x = toy()
    codes = sae.encode(x)
    activity = FeatureActivity(30)
    activity.update(codes, x[:, 0] > 1)
    added = codes[:, :, None] * sae.w_dec[None]
    torch.testing.assert_close(activity.energy(sae.w_dec), added.square().sum(2).mean(0))
    torch.testing.assert_close(activity.contribution_rate(), (codes > 0).double().mean(0))
