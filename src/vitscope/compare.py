"""Do SAEs find the same features? Those of several dictionaries matched by their directions."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torch.nn.functional import normalize

from vitscope.errors import ConfigError, SaeError
from vitscope.run import Run
from vitscope.sae.formats.load import load_sae
from vitscope.scope.stability import LEAST_COSINE, Matches, match_features, spearman
from vitscope.store.run_directory import RunDirectory
from vitscope.store.tables import tables_of

ASSIGN_UP_TO = 8192
"""Features up to which all are assigned at once: a minute; the time grows with the third power."""

LEAST_FOR_CORRELATION = 3


@dataclass(frozen=True, eq=False)
class Candidate:
    """An SAE to compare.

    Attributes:
        name: as it was given.
        directions: decoder rows of norm 1.
        cds: CDS of every feature, where its run has scored it.
    """

    name: str
    directions: Tensor
    cds: NDArray[np.float64] | None


@dataclass(frozen=True)
class PairComparison:
    """Two SAEs.

    Attributes:
        one: name of the first.
        other: name of the second.
        method: ``hungarian``, all features assigned at once; ``mutual nearest`` where there are
            too many for that: the mean cosine is then of those alone.
        mean_cosine: of the matched pairs, those below 0.7 included.
        recovered: share of the smaller dictionary's features with a match of cosine ≥ 0.7.
        n_matched: matches of cosine ≥ 0.7.
        n_scored: of those, pairs with a CDS on both sides.
        cds_correlation: Spearman's, over those; NaN where there are fewer than three.
        cds_difference: median of |CDS − CDS′| over those; NaN where there are none.
    """

    one: str
    other: str
    method: str
    mean_cosine: float
    recovered: float
    n_matched: int
    n_scored: int
    cds_correlation: float
    cds_difference: float


@dataclass(frozen=True)
class Comparison:
    """Several SAEs.

    Attributes:
        pairs: every two of them.
        recovered_in_all: share of the first's features that every other one has.
    """

    pairs: tuple[PairComparison, ...]
    recovered_in_all: float


def compare_saes(paths: Sequence[Path]) -> Comparison:
    """Match the features of every two SAEs.

    Args:
        paths: two or more: run directories (their ``features.parquet`` then says whether matched
            features agree in CDS), or SAEs of any format.

    Raises:
        ConfigError: fewer than two are given.
        SaeError: one cannot be read, or widths differ.
    """
    if len(paths) < 2:
        raise ConfigError("compare needs two SAEs or more; give their folders, or run directories")
    saes = [_candidate(path) for path in paths]
    widths = {one.directions.shape[1] for one in saes}
    if len(widths) > 1:
        raise SaeError(f"SAEs of widths {sorted(widths)} cannot be matched; compare equal widths")
    everywhere = np.ones(saes[0].directions.shape[0], dtype=bool)
    pairs: list[PairComparison] = []
    for one, other in combinations(saes, 2):
        matches, method = match_all(one.directions, other.directions)
        good = matches.cosine >= LEAST_COSINE
        if one is saes[0]:
            found = np.zeros_like(everywhere)
            found[matches.one[good]] = True
            everywhere &= found
        pairs.append(_compared(one, other, matches, good, method))
    return Comparison(tuple(pairs), float(everywhere.mean()))


def match_all(one: Tensor, other: Tensor) -> tuple[Matches, str]:
    """Match unit rows [m, d] and [n, d] one to one, and say how; no match is left out as poor.

    The best assignment of all (Hungarian) up to 8,192 features, mutual nearest neighbours beyond.
    """
    if max(len(one), len(other)) > ASSIGN_UP_TO:
        return match_features(one, other, least=-1.0), "mutual nearest"
    cosine = (one @ other.T).double().numpy()
    rows, columns = linear_sum_assignment(cosine, maximize=True)
    return Matches(rows.astype(np.int64), columns.astype(np.int64), cosine[rows, columns]), (
        "hungarian"
    )


def _compared(
    one: Candidate, other: Candidate, matches: Matches, good: NDArray[np.bool_], method: str
) -> PairComparison:
    correlation = difference = float("nan")
    n_scored = 0
    if one.cds is not None and other.cds is not None:
        a, b = one.cds[matches.one[good]], other.cds[matches.other[good]]
        both = np.isfinite(a) & np.isfinite(b)
        a, b, n_scored = a[both], b[both], int(both.sum())
        if n_scored:
            difference = float(np.median(np.abs(a - b)))
        if n_scored >= LEAST_FOR_CORRELATION:
            correlation = float(spearman(a, b))
    smaller = min(one.directions.shape[0], other.directions.shape[0])
    return PairComparison(
        one=one.name,
        other=other.name,
        method=method,
        mean_cosine=float(matches.cosine.mean()) if matches.cosine.size else float("nan"),
        recovered=float(good.sum()) / smaller,
        n_matched=int(good.sum()),
        n_scored=n_scored,
        cds_correlation=correlation,
        cds_difference=difference,
    )


def _candidate(path: Path) -> Candidate:
    run = Run(path) if RunDirectory(path).study.is_file() else None
    sae = load_sae(path if run is None else run.directory.sae)
    cds = None
    if run is not None and run.has("partition"):
        with tables_of(path):
            cds = run.partition.cds
        if cds.shape != (sae.n_features,):
            raise SaeError(
                f"{run.directory.features} has {cds.size} features, the SAE of {path} "
                f"{sae.n_features}; run `vitscope run` on its study again"
            )
    return Candidate(str(path), normalize(sae.w_dec.float(), dim=1).cpu(), cds)


def comparison_lines(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells of the comparison as it is printed."""
    headings = ["SAE", "SAE", "matched by", "cosine", "recovered", "CDS ρ", "|ΔCDS|"]
    cells = [
        [
            pair.one,
            pair.other,
            pair.method,
            f"{pair.mean_cosine:.3f}",
            f"{pair.recovered:.1%}",
            _or_dash(pair.cds_correlation),
            _or_dash(pair.cds_difference),
        ]
        for pair in found.pairs
    ]
    return headings, cells


def _or_dash(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
