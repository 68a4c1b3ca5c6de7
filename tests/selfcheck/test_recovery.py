"""Matching a trained dictionary with the true atoms, and comparing the two orders of scores."""

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.backbones.planted.spec import Kind
from vitscope.sae.model import SparseAutoencoder
from vitscope.selfcheck.checks import (
    MATCHED_COSINE,
    Check,
    Recovery,
    check_recovery,
    match_atoms,
    ordered_concordance,
)
from vitscope.selfcheck.truth import oracle_sae

BACKBONE = PlantedBackbone()
N_ATOMS = BACKBONE.spec.n_atoms
ORACLE_CDS = np.where([a.kind is Kind.LOCAL for a in BACKBONE.truth], 0.0, np.arange(N_ATOMS) / 200)
EVERY = np.ones(N_ATOMS, bool)


def dictionary(rows: torch.Tensor) -> SparseAutoencoder:
    """An SAE with these decoder rows, whose encoder plays no part."""
    unit = rows / rows.norm(dim=1, keepdim=True)
    return SparseAutoencoder(
        unit.T.contiguous(), torch.zeros(len(rows)), unit, BACKBONE.bias, 1.0, 3
    )


def concordance_by_hand(one: NDArray[np.float64], other: NDArray[np.float64], gap: float) -> float:
    agreeing = opposed = pairs = 0
    for i, j in combinations(range(len(one)), 2):
        if abs(one[i] - one[j]) > gap:
            pairs += 1
            product = (one[i] - one[j]) * (other[i] - other[j])
            agreeing += product > 0
            opposed += product < 0
    return (agreeing - opposed) / pairs


SCORE = st.integers(0, 12).map(lambda n: n / 12)


@given(st.lists(st.tuples(SCORE, SCORE), min_size=2, max_size=24), st.sampled_from([0.02, 0.3]))
def test_concordance_is_the_count_over_pairs(
    scores: list[tuple[float, float]], resolution: float
) -> None:
    one, other = np.asarray(scores).T
    found = ordered_concordance(one, other, resolution)
    if one.max() - one.min() <= resolution:
        assert np.isnan(found)
    else:
        assert found == pytest.approx(concordance_by_hand(one, other, resolution))


def test_concordance_knows_its_ends_and_its_ties() -> None:
    truth = np.array([0.0, 0.0, 0.005, 0.4, 0.8])
    assert ordered_concordance(truth, truth**2 + np.array([0.01, 0, 0, 0, 0]), 0.02) == 1.0
    assert ordered_concordance(truth, -truth, 0.02) == -1.0
    # scores that tell nothing apart earn nothing
    assert ordered_concordance(truth, np.zeros(5), 0.02) == 0.0
    assert np.isnan(ordered_concordance(truth[:3], truth[:3], 0.02))


def test_shuffled_atoms_are_all_found_again() -> None:
    order = torch.randperm(N_ATOMS, generator=torch.Generator().manual_seed(0))
    noise = torch.randn(40, BACKBONE.spec.width, generator=torch.Generator().manual_seed(1))
    found = match_atoms(BACKBONE, dictionary(torch.cat([noise, BACKBONE.atoms[order]])))
    np.testing.assert_array_equal(found.feature, 40 + torch.argsort(order).numpy())
    np.testing.assert_allclose(found.cosine, 1.0, atol=1e-5)


def test_the_match_is_one_to_one_and_the_best_in_sum() -> None:
    # row 0 is nearest to atoms 0 and 1; only one of them may have it
    rows = BACKBONE.atoms.clone()
    rows[0] = BACKBONE.atoms[0] + 0.9 * BACKBONE.atoms[1]
    rows[1] = BACKBONE.atoms[0] - 0.2 * BACKBONE.atoms[1]
    found = match_atoms(BACKBONE, dictionary(rows))
    assert sorted(found.feature) == list(range(N_ATOMS))
    assert list(found.feature[:2]) == [1, 0]


def test_the_scale_of_a_row_does_not_matter() -> None:
    sae = dictionary(BACKBONE.atoms)
    scaled = replace(sae, w_dec=sae.w_dec * torch.linspace(0.1, 9, N_ATOMS)[:, None])
    np.testing.assert_allclose(match_atoms(BACKBONE, scaled).cosine, 1.0, atol=1e-5)


def recovered(
    cosine: NDArray[np.float64] | None = None,
    cds: NDArray[np.float64] | None = None,
    *,
    seen: NDArray[np.bool_] = EVERY,
    bounded: bool = True,
) -> dict[str, Check]:
    recovery = Recovery(np.arange(N_ATOMS), np.ones(N_ATOMS) if cosine is None else cosine)
    trained = ORACLE_CDS if cds is None else cds
    checks = check_recovery(BACKBONE, recovery, seen, ORACLE_CDS, trained, bounded=bounded)
    return {check.name.strip(): check for check in checks}


def of_kind(kind: Kind) -> NDArray[np.bool_]:
    return np.asarray([atom.kind is kind for atom in BACKBONE.truth])


def red(checks: dict[str, Check]) -> set[str]:
    return {name for name, check in checks.items() if check.passed is False}


def test_a_perfect_dictionary_passes() -> None:
    checks = recovered()
    assert red(checks) == set()
    assert checks["CDS rank agreement with the oracle"].measured == 1.0
    assert checks["atoms matched and scored, share"].measured == 1.0


@pytest.mark.parametrize(("kind", "cosine"), [(Kind.LOCAL, 0.94), (Kind.GLOBAL, 0.84)])
def test_each_kind_has_its_own_bound(kind: Kind, cosine: float) -> None:
    checks = recovered(np.where(of_kind(kind), cosine, 1.0))
    assert red(checks) == {f"recovered atoms, cosine, {kind.value}"}


def test_atoms_that_training_never_saw_are_not_held_against_it() -> None:
    unseen = of_kind(Kind.LOCAL) & (np.arange(N_ATOMS) % 2 == 0)
    cosine = np.where(unseen, 0.1, 1.0)
    assert red(recovered(cosine, seen=~unseen)) == set()
    assert red(recovered(cosine)) == {"recovered atoms, cosine, local"}


def test_scores_in_the_wrong_order_are_red() -> None:
    assert red(recovered(cds=1 - ORACLE_CDS)) == {"CDS rank agreement with the oracle"}


def test_a_dictionary_without_a_single_match_is_red_and_no_crash() -> None:
    checks = recovered(np.full(N_ATOMS, MATCHED_COSINE - 0.1))
    assert checks["atoms matched and scored, share"].measured == 0.0
    assert "CDS rank agreement with the oracle" in red(checks)


def test_features_without_a_score_are_left_out() -> None:
    cds = np.where(np.arange(N_ATOMS) % 3 == 0, np.nan, ORACLE_CDS)
    checks = recovered(cds=cds)
    assert red(checks) == set()
    assert checks["atoms matched and scored, share"].measured == pytest.approx(
        np.isfinite(cds).mean()
    )


def test_without_bounds_nothing_fails() -> None:
    checks = recovered(np.zeros(N_ATOMS), 1 - ORACLE_CDS, bounded=False)
    assert {check.passed for check in checks.values()} == {None}


def test_the_oracle_is_made_of_the_atoms_and_fits_the_backbone() -> None:
    oracle = oracle_sae(BACKBONE)
    found = match_atoms(BACKBONE, oracle)
    np.testing.assert_array_equal(found.feature, np.arange(N_ATOMS))
    assert oracle.site == BACKBONE.site
    codes = torch.zeros(5, N_ATOMS)
    codes[torch.arange(5), torch.arange(5) * 30] = torch.tensor([2.0, 2.5, 3.0, 4.0, 40.0])
    tokens = BACKBONE.bias + codes @ BACKBONE.atoms
    torch.testing.assert_close(oracle.encode(tokens), codes, atol=1e-4, rtol=0)
    torch.testing.assert_close(oracle.decode(codes), tokens, atol=1e-4, rtol=0)
