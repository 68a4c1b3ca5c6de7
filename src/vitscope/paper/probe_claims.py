"""Verdicts on removal: what probes lose or gain without each group, and how that goes with size."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

from vitscope.paper.claims import Found, Outcome, Verdict, all_of, decide, told
from vitscope.paper.measured import Measured
from vitscope.paper.targets import families

MUCH = 0.05
"""Share of the original's figure: a loss beyond is much, a change within it is little. In the
paper's tables the least loss without low-CDS is 7 %, the largest change without high-CDS 3.4 %."""

DENSE = {"segmentation": 1, "depth": -1}
"""Task -> sign with which its metric improves."""


def high_removal_improves(found: Sequence[Found]) -> tuple[Verdict, ...]:
    """Judge that removing high-CDS features improves classification at every size of a family."""
    verdicts: list[Verdict] = []
    for family, by_model in _families(found, "classification.high.change"):
        changes = {m: by_model[m].numbers["classification.high.change"] for m in by_model}
        outcome = all_of([decide(change, 0.0) for change in changes.values()])
        text = "; ".join(f"{model}: {told(change, 4)}" for model, change in changes.items())
        missing = [model for model in family if model not in by_model]
        why = f"change of top-1 without high-CDS features {text}"
        if missing and outcome is Outcome.SUPPORTED:
            outcome, why = Outcome.OPEN, f"{why}; not run: {', '.join(missing)}"
        verdicts.append(Verdict("high-removal-improves", tuple(by_model), outcome, why))
    return tuple(verdicts)


def low_loss_shrinks(found: Sequence[Found]) -> tuple[Verdict, ...]:
    """Judge that what removing low-CDS features costs is less in each larger model of a family."""
    verdicts: list[Verdict] = []
    key = "classification.low.change"
    for family, by_model in _families(found, key):
        models = tuple(by_model)
        text = "; ".join(f"{model}: {told(by_model[model].numbers[key], 4)}" for model in models)
        why = f"change of top-1 without low-CDS features {text}"
        if set(models) != set(family):
            missing = ", ".join(model for model in family if model not in models)
            why = f"a trend over sizes needs every size; not run: {missing}; {why}"
            verdicts.append(Verdict("low-loss-shrinks", models, Outcome.OPEN, why))
            continue
        steps = [
            _difference(by_model[large].numbers[key], by_model[small].numbers[key])
            for small, large in pairwise(models)
        ]
        outcome = all_of([decide(step, 0.0) for step in steps])
        verdicts.append(Verdict("low-loss-shrinks", models, outcome, why))
    return tuple(verdicts)


def low_removal_hurts_dense(found: Sequence[Found]) -> tuple[Verdict, ...]:
    """Judge that without low-CDS features segmentation and depth lose much."""
    return _dense(found, "low", "low-removal-hurts-dense", _lost_much)


def high_removal_spares_dense(found: Sequence[Found]) -> tuple[Verdict, ...]:
    """Judge that without high-CDS features segmentation and depth change little."""
    return _dense(found, "high", "high-removal-spares-dense", _changed_little)


def _dense(
    found: Sequence[Found], group: str, key: str, judge: Callable[[Measured, int], Outcome]
) -> tuple[Verdict, ...]:
    verdicts: list[Verdict] = []
    for one in found:
        shares = {
            task: one.numbers[name]
            for task in DENSE
            if (name := f"{task}.{group}.share") in one.numbers
        }
        if not shares:
            continue
        outcome = all_of([judge(share, DENSE[task]) for task, share in shares.items()])
        text = "; ".join(f"{task} {told(_percent(share), 1)} %" for task, share in shares.items())
        why = f"change of the original's figure without {group}-CDS features: {text}"
        missing = [task for task in DENSE if task not in shares]
        if missing and outcome is Outcome.SUPPORTED:
            outcome, why = Outcome.OPEN, f"{why}; not run: {', '.join(missing)}"
        verdicts.append(Verdict(key, (one.run.model,), outcome, why))
    return tuple(verdicts)


def _lost_much(share: Measured, sign: int) -> Outcome:
    lost = share if sign < 0 else Measured(-share.value, -share.high, -share.low, share.over)
    return decide(lost, MUCH)


def _changed_little(share: Measured, sign: int) -> Outcome:
    del sign  # either way
    if not share.has_interval:
        return Outcome.OPEN
    if share.low > -MUCH and share.high < MUCH:
        return Outcome.SUPPORTED
    beyond = share.low > MUCH or share.high < -MUCH
    return Outcome.CONTRADICTED if beyond else Outcome.OPEN


def _percent(share: Measured) -> Measured:
    return Measured(100 * share.value, 100 * share.low, 100 * share.high, share.over)


def _difference(larger: Measured, smaller: Measured) -> Measured:
    """Return the difference of two independent means; intervals add as their squares do."""
    gap = larger.value - smaller.value
    below = ((larger.value - larger.low) ** 2 + (smaller.high - smaller.value) ** 2) ** 0.5
    above = ((larger.high - larger.value) ** 2 + (smaller.value - smaller.low) ** 2) ** 0.5
    return Measured(gap, gap - below, gap + above, larger.over)


def _families(
    found: Sequence[Found], key: str
) -> list[tuple[tuple[str, ...], Mapping[str, Found]]]:
    """Return each family of which a run has ``key``, with these runs from small to large."""
    by_model = {one.run.model: one for one in found if key in one.numbers}
    return [
        (family, {model: by_model[model] for model in family if model in by_model})
        for family in families(by_model)
    ]
