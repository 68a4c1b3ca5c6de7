"""τ between the bulk and the high-norm mode, or a percentile that says what it is."""

import numpy as np
import pytest
from numpy.typing import NDArray

from vitscope.errors import BackboneError
from vitscope.scope.outliers import outlier_membership, propose_tau
from vitscope.scope.settings import OutlierSettings

Norms = NDArray[np.float64]


def bulk(n: int = 6000, seed: int = 0) -> Norms:
    return np.random.default_rng(seed).lognormal(np.log(30), 0.15, n)


def with_outliers(n: int = 200) -> Norms:
    high = np.random.default_rng(1).lognormal(np.log(300), 0.2, n)
    mixed = np.random.default_rng(2).permutation(np.concatenate([bulk(), high]))
    return mixed.reshape(62, 100)


def test_tau_lies_between_the_two_modes() -> None:
    found = propose_tau(with_outliers(), OutlierSettings())
    assert found.source == "valley"
    assert 55 < found.tau < 170
    assert found.share == pytest.approx(200 / 6200, abs=0.002)
    assert found.mode_peaks[0] == pytest.approx(30, rel=0.1)
    assert found.mode_peaks[-1] == pytest.approx(300, rel=0.2)
    assert f"{found.tau:.4g}" in found.message


def test_without_a_second_mode_a_percentile_stands_in_and_says_so() -> None:
    norms = bulk().reshape(60, 100)
    found = propose_tau(norms, OutlierSettings(tau_percentile=95))
    assert found.source == "percentile"
    assert found.tau == pytest.approx(np.percentile(norms, 95))
    assert found.share == pytest.approx(0.05, abs=1e-3)
    assert "no second mode" in found.message
    assert "95th percentile" in found.message


def test_a_mode_below_the_bulk_makes_no_outliers() -> None:
    low = np.random.default_rng(1).lognormal(np.log(2), 0.1, 800)
    found = propose_tau(np.concatenate([bulk(), low]).reshape(68, 100), OutlierSettings())
    assert found.source == "percentile"
    assert found.tau > 30


def test_a_given_tau_comes_before_the_known_one_and_that_before_the_valley() -> None:
    norms = with_outliers()
    given = propose_tau(norms, OutlierSettings(tau=42), known=150)
    assert (given.tau, given.source) == (42, "given")
    known = propose_tau(norms, OutlierSettings(), known=150)
    assert (known.tau, known.source) == (150, "zoo")
    assert known.share == pytest.approx((norms > 150).mean())


@pytest.mark.parametrize("value", [0.0, 17.0])
def test_norms_that_are_all_alike_are_no_error(value: float) -> None:
    found = propose_tau(np.full((4, 25), value), OutlierSettings())
    assert found.source == "percentile"
    assert found.share == 0


def test_which_image_a_token_is_of_does_not_matter_to_tau() -> None:
    norms = with_outliers()
    assert propose_tau(norms.reshape(31, 200), OutlierSettings()) == propose_tau(
        norms, OutlierSettings()
    )


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_norms_that_are_no_numbers_are_an_error(value: float) -> None:
    norms = with_outliers()
    norms[3, 7] = value
    with pytest.raises(BackboneError, match="1 of 6200 token norms"):
        propose_tau(norms, OutlierSettings())


def test_membership_combines_what_the_views_say() -> None:
    first = np.asarray([True, True, False, False])
    second = np.asarray([True, False, True, False])
    assert outlier_membership(first, second, "either").tolist() == [True, True, True, False]
    assert outlier_membership(first, second, "first").tolist() == [True, True, False, False]
    assert outlier_membership(first, second, "both").tolist() == [True, False, False, False]
