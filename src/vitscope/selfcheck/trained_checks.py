"""What training must recover of the planted dictionary, and whether its scores agree."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from scipy.stats import spearmanr

from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.backbones.planted.spec import Kind
from vitscope.sae.model import SparseAutoencoder
from vitscope.selfcheck.check import Check, at_least, reported

LEAST_COSINE = {Kind.LOCAL: 0.95, Kind.GLOBAL: 0.85}
LEAST_RANK_CORRELATION = 0.9
CDS_RESOLUTION = 0.02
"""Scores closer than this are ties: it is what the oracle's own bound vouches for."""

MATCHED_COSINE = 0.8
"""A pair of atom and feature below this is no match, and its CDS is not compared."""


@dataclass(frozen=True)
class Recovery:
    """One-to-one match of planted atoms with SAE features (Hungarian).

    Attributes:
        feature: matched feature of each atom, [n_atoms].
        cosine: of atom and decoder row, [n_atoms].
    """

    feature: NDArray[np.int64]
    cosine: NDArray[np.float64]


def match_atoms(backbone: PlantedBackbone, sae: SparseAutoencoder) -> Recovery:
    """Assign every atom its own feature so that the sum of cosines is largest."""
    rows = sae.w_dec / sae.w_dec.norm(dim=1, keepdim=True).clamp_min(1e-12)
    cosine = (backbone.atoms @ rows.T).double().numpy()
    atom, feature = linear_sum_assignment(-cosine)
    order = np.argsort(atom)
    return Recovery(feature[order], cosine[atom, feature][order])


def check_recovery(
    backbone: PlantedBackbone,
    recovery: Recovery,
    seen: NDArray[np.bool_],
    oracle_cds: NDArray[np.float64],
    trained_cds: NDArray[np.float64],
    *,
    bounded: bool,
) -> list[Check]:
    """Compare with the truth per kind, and the scores of matched features with the oracle's.

    Args:
        backbone: whose atoms they are.
        recovery: the match.
        seen: atoms that are active anywhere in the training images, [n_atoms]: no other can be
            learned.
        oracle_cds: the oracle's scores, [n_atoms].
        trained_cds: the trained SAE's scores, [m].
        bounded: whether the bounds apply, or the figures are only reported.
    """
    checks: list[Check] = []
    kinds = np.asarray([atom.kind for atom in backbone.truth])
    for kind in Kind:
        cosine = float(recovery.cosine[(kinds == kind) & seen].mean())
        name = f"recovered atoms, cosine, {kind.value}"
        least = LEAST_COSINE.get(kind) if bounded else None
        checks.append(reported(name, cosine) if least is None else at_least(name, cosine, least))
    matched = trained_cds[recovery.feature]
    usable = (recovery.cosine >= MATCHED_COSINE) & np.isfinite(matched) & np.isfinite(oracle_cds)
    checks.append(reported("atoms matched and scored, share", float(usable[seen].mean())))
    one, other = oracle_cds[usable], matched[usable]
    concordance = ordered_concordance(one, other, CDS_RESOLUTION)
    name = "CDS rank agreement with the oracle"
    checks.append(
        at_least(name, concordance, LEAST_RANK_CORRELATION)
        if bounded
        else reported(name, concordance)
    )
    checks.append(reported("  Spearman, true ties broken by noise", _spearman(one, other)))
    local = (kinds == Kind.LOCAL)[usable]
    checks.append(reported("  mean CDS, matched local", _mean(other[local]), _mean(one[local])))
    return checks


def ordered_concordance(
    reference: NDArray[np.float64], scores: NDArray[np.float64], resolution: float
) -> float:
    """Somers' d over pairs whose reference values differ by more than ``resolution``.

    A pair in the same order counts 1, in the other order -1, a tie of the scores 0. All local atoms
    have the same true CDS, 0: the order of their measured scores is noise in the oracle too, and a
    rank correlation that counts it could not reach 1 for a perfect SAE.
    """
    apart = reference[:, None] - reference[None, :] > resolution
    if not apart.any():
        return float("nan")
    return float(np.sign(scores[:, None] - scores[None, :])[apart].mean())


def _spearman(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    if one.size < 3:
        return float("nan")
    result: Any = spearmanr(one, other)
    return float(result.statistic)


def _mean(values: NDArray[np.float64]) -> float:
    return float(values.mean()) if values.size else float("nan")
