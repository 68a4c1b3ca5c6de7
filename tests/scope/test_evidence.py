"""How firm γ and τ are: intervals, tests, alternatives, and the sentences about them."""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from vitscope.scope.bootstrap import Interval
from vitscope.scope.outliers import propose_tau, tau_evidence
from vitscope.scope.partition import gamma_evidence, partition_features
from vitscope.scope.settings import OutlierSettings
from vitscope.scope.thresholds import ThresholdEvidence
from vitscope.store.records import load_record, save_record

Values = NDArray[np.float64]
NAN = float("nan")


def scores(share: float, n: int = 1500, seed: int = 0) -> Values:
    random = np.random.default_rng(seed)
    low = random.normal(0.14, 0.03, int(n * (1 - share)))
    high = random.normal(0.5, 0.06, int(n * share))
    return np.clip(np.concatenate([low, high, np.full(50, NAN)]), 0, 1)


def token_norms(n_images: int = 80, outliers: int = 3, between: float = 0.05) -> Values:
    random = np.random.default_rng(0)
    offsets = random.normal(np.log(30), between, (n_images, 1))
    norms = np.exp(offsets + random.normal(0, 0.12, (n_images, 60)))
    norms[:, :outliers] *= random.lognormal(np.log(8), 0.1, (n_images, outliers))
    return norms


@cache
def of_gamma(share: float = 0.25, gamma: float | None = None) -> ThresholdEvidence:
    cds = scores(share)
    return gamma_evidence(cds, partition_features(cds, gamma=gamma), seed=0, paper=0.14)


@cache
def of_tau(outliers: int = 3, between: float = 0.05) -> ThresholdEvidence:
    norms, settings = token_norms(outliers=outliers, between=between), OutlierSettings()
    return tau_evidence(norms, propose_tau(norms, settings), settings, seed=0, known=150.0)


def test_gamma_lies_in_its_interval_and_both_tests_see_two_modes() -> None:
    found, gamma = of_gamma(), partition_features(scores(0.25)).gamma
    assert found.interval.low < gamma < found.interval.high
    assert found.interval.high - found.interval.low < 0.15
    assert (found.method, found.valley_found) == ("valley", 1.0)
    assert max(found.dip_p, found.silverman_p) < 0.01
    assert found.n_effective == 1500


def test_with_one_mode_otsus_threshold_is_bootstrapped() -> None:
    found, part = of_gamma(0.0), partition_features(scores(0.0))
    assert part.source == "otsu"
    assert found.method == "Otsu"
    assert found.interval.found == 1
    assert found.valley_found < 0.2
    assert found.interval.low < part.gamma < found.interval.high
    assert min(found.dip_p, found.silverman_p) > 0.05


def test_alternatives_of_gamma_split_all_scored_features() -> None:
    found, cds = of_gamma(gamma=0.9), scores(0.25)
    cuts = {other.name: other for other in found.alternatives}
    assert list(cuts) == ["valley", "otsu", "mixture", "paper"]
    assert cuts["valley"].threshold == partition_features(cds).gamma
    assert cuts["paper"].threshold == 0.14
    for other in cuts.values():
        assert other.n_below == (cds <= other.threshold).sum()
        assert other.n_above == (cds > other.threshold).sum()
    for name in ("valley", "otsu", "mixture"):
        assert 0.22 < cuts[name].threshold < 0.4


def test_a_valley_that_half_the_draws_miss_says_so() -> None:
    cds = np.clip(np.random.default_rng(1).normal(0.3, 0.07, 400), 0, 1)
    cds[:22] = np.random.default_rng(2).normal(0.62, 0.02, 22)
    part = partition_features(cds)
    found = gamma_evidence(cds, part, seed=0)
    assert part.source == "valley"
    assert 0.3 < found.valley_found < 0.9
    text = found.describe("γ", "features", "high-CDS features")
    assert f"only {100 * found.valley_found:.3g} % of them have a valley" in text


def test_tau_lies_in_its_interval_and_others_beside_it() -> None:
    norms, found = token_norms(), of_tau()
    tau = propose_tau(norms, OutlierSettings()).tau
    assert found.interval.low <= tau <= found.interval.high
    assert found.valley_found == 1
    cuts = {other.name: other for other in found.alternatives}
    assert list(cuts) == ["valley", "otsu", "mixture", "percentile", "paper"]
    assert cuts["valley"].threshold == tau
    assert cuts["percentile"].threshold == np.percentile(norms, 98)
    for other in cuts.values():
        assert (other.n_below, other.n_above) == ((norms <= other.threshold).sum(),
                                                  (norms > other.threshold).sum())  # fmt: skip
    for name in ("valley", "otsu", "mixture"):
        assert cuts[name].n_above == 3 * 80


def test_without_a_high_norm_mode_the_percentile_is_bootstrapped() -> None:
    found, norms = of_tau(outliers=0), token_norms(outliers=0)
    assert found.method == "percentile"
    assert found.interval.low < np.percentile(norms, 98) < found.interval.high
    assert found.valley_found < 0.2


def test_tokens_of_one_image_are_not_independent() -> None:
    loose, tight = of_tau(outliers=0, between=0.0), of_tau(outliers=0, between=0.3)
    assert loose.n_effective == pytest.approx(80 * 60, rel=0.2)
    assert tight.n_effective < 80 * 60 / 10

    def width(found: ThresholdEvidence) -> float:
        return np.log(found.interval.high / found.interval.low)

    assert width(tight) > 4 * width(loose)


def test_equal_seeds_give_equal_evidence_and_others_another() -> None:
    cds = scores(0.25, 300)
    part = partition_features(cds)
    assert gamma_evidence(cds, part, seed=1) == gamma_evidence(cds, part, seed=1)
    assert gamma_evidence(cds, part, seed=1) != gamma_evidence(cds, part, seed=2)
    norms, settings = token_norms(), OutlierSettings()
    threshold = propose_tau(norms, settings)
    assert tau_evidence(norms, threshold, settings, seed=0, known=150.0) == of_tau()
    assert tau_evidence(norms, threshold, settings, seed=9, known=150.0) != of_tau()


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_handful_of_features_is_no_error(n: int) -> None:
    cds = np.linspace(0.1, 0.6, n)
    found = gamma_evidence(cds, partition_features(cds), seed=0)
    assert np.isnan(found.silverman_p)
    assert found.describe("γ", "features", "high-CDS features")


@pytest.mark.parametrize("value", [0.0, 17.0])
def test_norms_that_are_all_alike_are_no_error(value: float) -> None:
    norms, settings = np.full((3, 4), value), OutlierSettings()
    found = tau_evidence(norms, propose_tau(norms, settings), settings, seed=0)
    assert found.describe("τ", "images", "outlier tokens")
    assert np.isnan(found.changed)


def test_a_wide_interval_is_called_wide_by_what_it_moves() -> None:
    found = replace(of_gamma(), interval=Interval(0.1, 0.4, 1.0, 1000))
    assert "wide" not in replace(found, changed=0.2).describe("γ", "features", "high ones")
    text = replace(found, changed=0.43).describe("γ", "features", "high ones")
    assert "The interval is wide" in text
    assert "the number of high ones changes by 43 %" in text


def test_the_change_is_the_share_of_the_group_between_the_ends() -> None:
    found, cds = of_gamma(), scores(0.25)
    low, high = found.interval.low, found.interval.high
    gamma = partition_features(cds).gamma
    between = (cds > low).sum() - (cds > high).sum()
    assert found.changed == pytest.approx(between / (cds > gamma).sum())


def test_no_valley_in_any_draw_has_no_interval() -> None:
    found = replace(of_gamma(), interval=Interval(NAN, NAN, 0.0, 1000), valley_found=0.0)
    assert "has no interval" in found.describe("γ", "features", "high ones")


def test_evidence_survives_its_table(tmp_path: Path) -> None:
    found = replace(of_gamma(), changed=NAN)
    values, files = save_record(found, tmp_path, {})
    assert not files
    back = load_record(ThresholdEvidence, json.loads(json.dumps(values, allow_nan=False)), tmp_path)
    assert repr(back) == repr(found)
