"""Verdicts on attention: outliers move more, most at shifts of 3 and 4, others ever more."""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from vitscope.paper.claims import Found, Outcome, Verdict, all_of, decide, of_chance, told
from vitscope.paper.findings import is_percentile
from vitscope.scope.bootstrap import image_weights
from vitscope.store.tables import read_table
from vitscope.study import Study

MORE = 1.5
"""D̄_out over D̄_non from which «much more» is said; the paper's smallest is 1.9."""

PEAK = (3, 4)
"""Shifts between which the paper's outlier EMD is largest."""

NO_OUTLIERS = "the norms have no second mode, so that nothing is an outlier here: τ is a percentile"

Curves = NDArray[np.float64]
"""Mean EMD over images, one row per resample: [draws, S]."""


def outliers_move_more(found: Sequence[Found]) -> tuple[Verdict, ...]:
    """Judge D̄_out ≫ D̄_non at every shift compared."""
    verdicts: list[Verdict] = []
    for one in _compared(found):
        ratios = {s: one.numbers[f"emd.ratio.{s}"] for s in shifts_of(one)}
        outcome = all_of([decide(ratio, MORE) for ratio in ratios.values()])
        text = "; ".join(f"s = {s}: {told(ratio, 2)}" for s, ratio in ratios.items())
        verdicts.append(_verdict("outliers-move-more", one, outcome, f"D̄_out / D̄_non {text}"))
    return tuple(verdicts)


def outliers_peak(found: Sequence[Found]) -> tuple[Verdict, ...]:
    """Judge that D̄_out is largest at a shift of 3 or 4."""
    verdicts: list[Verdict] = []
    for one in _with_curves(found):
        shifts, curves = shifts_of(one), resampled_curves(one, "outlier")
        if curves is None:
            verdicts.append(_verdict("outliers-peak", one, Outcome.OPEN, _FEW))
            continue
        peaks = np.asarray(shifts)[np.nanargmax(curves, axis=1)]
        share = float(np.isin(peaks, PEAK).mean())
        where = _mean_by_shift(one, "out")
        why = f"in {share:.0%} of resamples of the images the largest is at s = 3 or 4 ({where})"
        verdicts.append(_verdict("outliers-peak", one, of_chance(share), why))
    return tuple(verdicts)


def others_rise(found: Sequence[Found]) -> tuple[Verdict, ...]:
    """Judge that D̄_non rises from each shift to the next."""
    verdicts: list[Verdict] = []
    for one in _with_curves(found):
        curves = resampled_curves(one, "other")
        if curves is None:
            verdicts.append(_verdict("others-rise", one, Outcome.OPEN, _FEW, outliers=False))
            continue
        share = float((np.diff(curves, axis=1) > 0).all(1).mean())
        where = _mean_by_shift(one, "non")
        why = f"in {share:.0%} of resamples of the images every step rises ({where})"
        verdicts.append(_verdict("others-rise", one, of_chance(share), why, outliers=False))
    return tuple(verdicts)


_FEW = "too few images have such tokens at every shift"


def resampled_curves(one: Found, tokens: str) -> Curves | None:
    """Return mean EMD over the shifts for resamples of the images, drawn with all their shifts.

    Args:
        one: a run.
        tokens: ``outlier`` or ``other``.

    Returns:
        [draws, S]; None where fewer than two images have such tokens, or a draw has none.
    """
    study = one.run.study
    table = read_table(one.run.run.outliers)
    rows = (
        (table["reading"] == study.outliers.attention)
        & (table["membership"] == study.outliers.membership)
        & (table["tokens"] == tokens)
    )
    shifts = shifts_of(one)
    images, index = np.unique(table["image_id"][rows], return_inverse=True)
    values = np.full((images.size, len(shifts)), np.nan)
    values[index, np.searchsorted(shifts, table["shift"][rows])] = table["emd"][rows]
    has = np.isfinite(values)
    if min(has.sum(0), default=0) < 2:
        return None
    known = np.where(has, values, 0.0)
    draws = [
        (weights @ known) / np.where(counts := weights @ has, counts, np.nan)
        for weights in image_weights(images.size, study.seed, f"curve of {tokens} tokens")
    ]
    curves = np.concatenate(draws)
    curves = curves[np.isfinite(curves).all(1)]
    return curves if len(curves) else None


def shifts_of(one: Found) -> tuple[int, ...]:
    """Return the shifts at which a run has compared attention, ascending."""
    prefix = "emd.ratio."
    return tuple(sorted(int(k.removeprefix(prefix)) for k in one.numbers if k.startswith(prefix)))


def _compared(found: Sequence[Found]) -> Iterator[Found]:
    return (one for one in found if shifts_of(one))


def _with_curves(found: Sequence[Found]) -> Iterator[Found]:
    return (one for one in _compared(found) if set(PEAK) < set(shifts_of(one)))


def _mean_by_shift(one: Found, group: str) -> str:
    means = (f"{one.numbers[f'emd.{group}.{s}'].value:.2f}" for s in shifts_of(one))
    return f"s = {', '.join(map(str, shifts_of(one)))}: {', '.join(means)} patches"


def _verdict(key: str, one: Found, outcome: Outcome, why: str, *, outliers: bool = True) -> Verdict:
    """Return a verdict; one on outliers needs a model that has some."""
    if outliers and is_percentile(one.run.run):
        return Verdict(key, (one.run.model,), Outcome.OPEN, f"{NO_OUTLIERS}; {why}")
    return Verdict(key, (one.run.model,), outcome, why + _reading(one.run.study))


def _reading(study: Study) -> str:
    return f", attention = {study.outliers.attention}"
