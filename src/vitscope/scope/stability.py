"""How firm is a score? The same features under another choice: do ranks and groups stay?

Between two dictionaries, whose features are numbered differently, features are matched first.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from torch import Tensor

from vitscope.axes import Reals
from vitscope.draws import draw_key, generator
from vitscope.scope.bootstrap import interval_of
from vitscope.scope.cds import summarise_pairs
from vitscope.scope.pairs import PairScores
from vitscope.scope.partition import partition_features
from vitscope.scope.settings import ScopeSettings

AGREEMENT_DRAWS = 200
"""Resamples of the features behind an interval."""

DRAWN_AT_ONCE = 1_000_000
"""Values of resamples that are ranked in one go: some 60 MB."""

LEAST_FEATURES = 10
"""With fewer features in common, nothing is said but their number."""

LEAST_COSINE = 0.7
"""Below it, two features are not called the same."""

_ROWS_AT_ONCE = 2048


@dataclass(frozen=True)
class Agreement:
    """Two scores of the same features; intervals are 95 %, by bootstrap over features.

    All but ``n`` is NaN with fewer than ``LEAST_FEATURES`` in common.

    Attributes:
        change: what differs between the two, in words.
        n: features with both scores.
        spearman: rank correlation. Features that share one true score, as perfectly local ones do,
            have no true order, so that 1 is out of reach for any repetition.
        spearman_low: lower end of its interval.
        spearman_high: upper end.
        mean_shift: mean of (other - one).
        mean_gap: mean of |other - one|.
        gamma: γ of the first.
        other_gamma: γ of the other, found anew.
        same_group: share of features that stay in their group.
        kappa: Cohen's: 1 is the same partition, 0 what chance gives. NaN where a group is empty.
        kappa_low: lower end of its interval.
        kappa_high: upper end.
        high_overlap: features high in both, of those high in either (Jaccard).
    """

    change: str
    n: int
    spearman: float
    spearman_low: float
    spearman_high: float
    mean_shift: float
    mean_gap: float
    gamma: float
    other_gamma: float
    same_group: float
    kappa: float
    kappa_low: float
    kappa_high: float
    high_overlap: float


def agreement(
    change: str, one: Reals, other: Reals, *, gamma: float | None = None, seed: int = 0
) -> Agreement:
    """Compare two scores of the same features, NaN where there is none.

    Args:
        change: what differs, in words.
        one: [m], in [0, 1].
        other: [m], in [0, 1].
        gamma: γ by hand for both; None finds each score's own.
        seed: of the bootstrap.
    """
    common = np.isfinite(one) & np.isfinite(other)
    if common.sum() < LEAST_FEATURES:
        return Agreement(change, int(common.sum()), *[float("nan")] * (len(fields(Agreement)) - 2))
    one, other = one[common], other[common]
    gammas = [partition_features(s, gamma=gamma).gamma for s in (one, other)]
    high = one > gammas[0], other > gammas[1]
    random = generator(seed, "stability", change)
    draws = random.integers(0, one.size, (AGREEMENT_DRAWS, one.size))
    parts = np.array_split(draws, -(-draws.size // DRAWN_AT_ONCE))
    ranks = interval_of(np.concatenate([spearman(one[rows], other[rows]) for rows in parts]))
    kappas = interval_of(
        np.concatenate([cohens_kappa(high[0][rows], high[1][rows]) for rows in parts])
    )
    either = int((high[0] | high[1]).sum())
    return Agreement(
        change=change,
        n=int(one.size),
        spearman=float(spearman(one, other)),
        spearman_low=ranks.low,
        spearman_high=ranks.high,
        mean_shift=float((other - one).mean()),
        mean_gap=float(np.abs(other - one).mean()),
        gamma=gammas[0],
        other_gamma=gammas[1],
        same_group=float((high[0] == high[1]).mean()),
        kappa=float(cohens_kappa(*high)),
        kappa_low=kappas.low,
        kappa_high=kappas.high,
        high_overlap=int((high[0] & high[1]).sum()) / either if either else float("nan"),
    )


def within_run(
    pairs: PairScores,
    image_ids: list[str],
    n_features: int,
    diameter: float,
    settings: ScopeSettings,
    seed: int,
) -> Iterator[Agreement]:
    """Yield how a run's score compares with what its own pairs give under other choices.

    Args:
        pairs: every scored pair.
        image_ids: the exemplar image of each.
        n_features: m.
        diameter: D_grid in patches.
        settings: the run's choices.
        seed: of the bootstrap, and of the halves of the images.
    """

    def cds(
        rows: NDArray[np.bool_] | slice, missing: str = settings.missing, share: float = 1.0
    ) -> Reals:
        chosen = pairs.take(np.arange(len(pairs.feature))[rows])
        # of a part of the exemplars, that part of the pairs is enough
        fewest = max(1, math.ceil(settings.min_pairs * share))
        scores = summarise_pairs(chosen, n_features, diameter, settings.missing, fewest)
        return getattr(scores, f"cds_{missing}")

    def variants() -> Iterator[tuple[str, Reals, Reals]]:
        base = cds(slice(None))
        k = settings.top_images
        for fewer in sorted({k // 2, k // 4} - {0, k}, reverse=True):
            yield (
                f"{fewer} exemplars instead of {k}",
                base,
                cds(pairs.rank < fewer, share=fewer / k),
            )
        half = np.asarray([draw_key(seed, "half", name) % 2 == 0 for name in image_ids], bool)
        halves = cds(half, share=0.5), cds(~half, share=0.5)
        yield "exemplars of one half of the images, of the other", *halves
        for missing in ("max", "drop", "zero"):
            if missing != settings.missing:
                yield (
                    f"a miss counts «{missing}», not «{settings.missing}»",
                    base,
                    cds(slice(None), missing),
                )
        relative = summarise_pairs(
            pairs, n_features, diameter, settings.missing, settings.min_pairs
        ).relative
        yield "divided by the relocation null (at most 1)", base, np.minimum(relative, 1.0)

    for change, one, other in variants():
        yield agreement(change, one, other, gamma=settings.gamma, seed=seed)


def spearman(one: Reals, other: Reals) -> Reals:
    """Return the rank correlation along the last axis, ties at their mean rank.

    Args:
        one: [..., n].
        other: [..., n].

    Returns:
        [...]; NaN where one side does not vary.
    """
    a, b = (rankdata(values, axis=-1) for values in (one, other))
    a, b = (ranks - ranks.mean(-1, keepdims=True) for ranks in (a, b))
    scale = np.sqrt((a * a).sum(-1) * (b * b).sum(-1))
    return (a * b).sum(-1) / np.where(scale > 0, scale, np.nan)


def cohens_kappa(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> Reals:
    """Return chance-corrected agreement of two groupings in two along the last axis.

    Args:
        one: [..., n].
        other: [..., n].

    Returns:
        [...]; NaN where chance gives 1.
    """
    observed = (one == other).mean(-1)
    p, q = one.mean(-1), other.mean(-1)
    expected = p * q + (1 - p) * (1 - q)
    return (observed - expected) / np.where(expected < 1, 1 - expected, np.nan)


@dataclass(frozen=True)
class Matches:
    """Pairs of features, one of each dictionary, ascending in the first.

    Attributes:
        one: feature of the first dictionary, [n].
        other: its match in the second, [n].
        cosine: of their decoder rows, [n].
    """

    one: NDArray[np.int64]
    other: NDArray[np.int64]
    cosine: NDArray[np.float64]


def match_features(one: Tensor, other: Tensor, *, least: float = LEAST_COSINE) -> Matches:
    """Match decoders [m, d] and [n, d] with unit rows: each feature is the other's nearest.

    An assignment of all features at once (Hungarian) takes hours at 24,576; where a feature has a
    counterpart at all, the two are each other's nearest.

    Args:
        one: decoder of the first.
        other: decoder of the second.
        least: cosine from which two features count as the same.
    """
    forward, backward = _nearest(one, other), _nearest(other, one)
    rows = torch.arange(len(one))
    mutual = backward[forward] == rows
    a, b = rows[mutual], forward[mutual]
    cosine = (one[a].double() * other[b].double()).sum(1)
    kept = cosine >= least
    return Matches(a[kept].numpy(), b[kept].numpy(), cosine[kept].numpy())


def _nearest(one: Tensor, other: Tensor) -> Tensor:
    """Return the row of ``other`` with the largest cosine for every row of ``one``."""
    return torch.cat([(part @ other.T).argmax(1) for part in one.split(_ROWS_AT_ONCE)])
