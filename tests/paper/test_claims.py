"""The rules of the verdicts: bounds, intervals, and what the paper's own numbers would get."""

import math
from types import SimpleNamespace
from typing import cast

import pytest

from vitscope.paper.claims import (
    ABSENT,
    CLAIMS,
    FIRM,
    SIGNIFICANCE,
    Bound,
    Judgement,
    Relation,
    all_of,
    decide,
    judge_claims,
    verdicts_on,
)
from vitscope.paper.findings import Finding, FinishedRun
from vitscope.paper.reference import numbers_of
from vitscope.paper.studies import Sources, scenes_study
from vitscope.paper.targets import PAPER_FAMILIES, TARGETS, families
from vitscope.run import Run

SUPPORTED, CONTRADICTED, OPEN = Judgement.SUPPORTED, Judgement.CONTRADICTED, Judgement.OPEN
BY_KEY = {claim.key: claim for claim in CLAIMS}


def around(value: float, half: float = 1e-6) -> Finding:
    return Finding(value, value - half, value + half, "images")


def found(model: str, numbers: dict[str, Finding]) -> FinishedRun:
    """A run of which nothing but its numbers is read."""
    study = scenes_study("scenes-vit", (), Sources())
    return FinishedRun(model, {}, (), cast(Run, SimpleNamespace(study=study)), numbers)


def outcomes(key: str, *runs: FinishedRun) -> list[Judgement]:
    return [verdict.outcome for verdict in verdicts_on(BY_KEY[key], runs)]


def printed(model: str, target: str) -> dict[str, float]:
    return {n.quantity: n.value for n in numbers_of(target, model)}


@pytest.mark.parametrize(
    ("relation", "ends", "outcome"),
    [
        ("above", (1.1, 2.0), SUPPORTED),
        ("above", (0.2, 0.9), CONTRADICTED),
        ("above", (0.9, 1.1), OPEN),
        ("above", (math.nan, 2.0), OPEN),
        ("below", (0.2, 0.9), SUPPORTED),
        ("below", (1.1, 2.0), CONTRADICTED),
        ("below", (0.9, 1.1), OPEN),
        ("within", (-0.9, 0.9), SUPPORTED),
        ("within", (1.1, 2.0), CONTRADICTED),
        ("within", (-2.0, -1.1), CONTRADICTED),
        ("within", (-1.1, 0.5), OPEN),
        ("within", (math.nan, math.nan), OPEN),
    ],
)
def test_a_number_decides_only_with_its_whole_interval_on_one_side(
    relation: Relation, ends: tuple[float, float], outcome: Judgement
) -> None:
    assert decide(Finding(0.5, *ends), Bound("", relation, 1.0)) is outcome


def test_parts_and_chances() -> None:
    assert all_of([SUPPORTED, SUPPORTED]) is SUPPORTED
    assert all_of([SUPPORTED, OPEN]) is OPEN
    assert all_of([OPEN, CONTRADICTED]) is CONTRADICTED
    assert all_of([]) is OPEN
    sure = Bound("", "sure", 0.95)
    shares = (0.95, 0.5, 0.04, math.nan)
    assert [decide(Finding(p), sure) for p in shares] == [SUPPORTED, OPEN, CONTRADICTED, OPEN]


def test_the_papers_own_numbers_support_its_claims_on_attention_and_l0() -> None:
    for target in ("table7", "table9"):
        for model in TARGETS[target].models:
            values = printed(model, target)
            ratios = {
                f"emd.ratio.{s}": around(values[f"emd.outlier.{s}"] / values[f"emd.other.{s}"])
                for s in range(1, 7)
                if f"emd.outlier.{s}" in values
            }
            assert outcomes("outliers-move-more", found(model, ratios)) == [SUPPORTED], model
    for model in TARGETS["table6"].models:
        values = printed(model, "table6")
        gap = around(values["l0.outlier"] - values["l0.all"])
        assert outcomes("l0-lower", found(model, {"l0.gap": gap})) == [SUPPORTED], model


def test_the_papers_own_numbers_support_its_claims_on_removal() -> None:
    for target in ("table3", "table8"):
        for model in TARGETS[target].models:
            values = printed(model, target)
            shares = {
                f"{task}.{group}.share": around(
                    values[f"{task}.{group}-removed"] / values[f"{task}.original"] - 1
                )
                for task in ("segmentation", "depth")
                for group in ("low", "high")
            }
            run = found(model, shares)
            assert outcomes("low-removal-hurts-dense", run) == [SUPPORTED], model
            assert outcomes("high-removal-spares-dense", run) == [SUPPORTED], model
    clip: list[FinishedRun] = []
    for model in TARGETS["table3"].models:
        values = printed(model, "table3")
        changes = {
            f"classification.{group}.change": around(
                values[f"classification.{group}-removed"] - values["classification.original"]
            )
            for group in ("low", "high")
        }
        clip.append(found(model, changes))
    assert outcomes("high-removal-improves", *clip) == [SUPPORTED]
    assert outcomes("low-loss-shrinks", *clip) == [SUPPORTED]


@pytest.mark.parametrize("key", ["outliers-move-more", "outliers-peak", "awcds-rises", "l0-lower"])
def test_a_model_without_outliers_says_nothing_of_them(key: str) -> None:
    numbers = {f"emd.{name}.{s}": around(2.0) for name in ("ratio", "outlier") for s in range(1, 7)}
    numbers |= {"emd.peak": Finding(1.0), "l0.gap": around(-3.0)}
    numbers |= {f"awcds.{name}": around(2.0) for name in ("ratio", "outlier", "middle")}
    for second_mode, outcome in ((1.0, SUPPORTED), (0.0, OPEN)):
        run = found("dinov2-b", {**numbers, "second-mode": Finding(second_mode)})
        (verdict,) = verdicts_on(BY_KEY[key], [run])
        assert verdict.outcome is outcome
        assert ("no second mode" in verdict.why) is (outcome is OPEN)


def test_too_few_images_leave_the_course_over_shifts_open() -> None:
    numbers = {f"emd.{name}.{s}": around(2.0) for name in ("ratio", "other") for s in range(1, 7)}
    run = found("dinov2-b", {**numbers, "emd.rise": Finding(math.nan)})
    (verdict,) = verdicts_on(BY_KEY["others-rise"], [run])
    assert verdict.outcome is OPEN
    assert "too few images" in verdict.why


@pytest.mark.parametrize(
    ("p", "valleys", "gap", "outcome"),
    [
        ((0.01, 0.04), 0.95, around(100), SUPPORTED),
        ((0.01, 0.06), 0.95, around(100), OPEN),  # one of the tests does not reject
        ((0.01, 0.04), 0.85, around(100), OPEN),
        ((0.01, 0.04), 0.95, around(0, 10), OPEN),
        ((0.01, 0.04), 0.95, around(-100), CONTRADICTED),
        ((0.3, 0.06), 0.05, around(100), CONTRADICTED),
        ((0.3, 0.06), 0.5, around(100), OPEN),
        ((0.01, 0.04), 0.95, Finding(100), OPEN),  # γ by hand
    ],
)
def test_two_modes_need_both_tests_a_valley_and_a_smaller_high_group(
    p: tuple[float, float], valleys: float, gap: Finding, outcome: Judgement
) -> None:
    numbers = {"dip-p": Finding(p[0]), "silverman-p": Finding(p[1]), "gap": gap}
    numbers |= {"gamma": Finding(0.2), "valley-found": Finding(valleys)}
    numbers |= {"high": Finding(50.0), "low": Finding(150.0)}
    assert outcomes("two-modes", found("dinov2-b", numbers)) == [outcome]


def losses(*values: float) -> list[FinishedRun]:
    return [
        found(model, {"classification.low.change": around(value, 0.001)})
        for model, value in zip(PAPER_FAMILIES[0], values, strict=False)
    ]


@pytest.mark.parametrize(
    ("values", "outcome"),
    [
        ((-0.10, -0.06, -0.02), SUPPORTED),
        ((-0.10, -0.06, -0.08), CONTRADICTED),
        ((-0.10, -0.0999, -0.02), OPEN),
        ((-0.10, -0.06), OPEN),  # a size was not run
    ],
)
def test_a_trend_over_sizes_needs_every_size_and_every_step(
    values: tuple[float, ...], outcome: Judgement
) -> None:
    assert outcomes("low-loss-shrinks", *losses(*values)) == [outcome]


@pytest.mark.parametrize(
    ("models", "family"),
    [
        (("scenes-vit",), ("scenes-vit-t", "scenes-vit-xs", "scenes-vit")),
        (("scenes-vit-t",), ("scenes-vit-t", "scenes-vit-xs", "scenes-vit-s")),
        (
            ("scenes-vit", "scenes-vit-s", "scenes-vit-m"),
            ("scenes-vit-t", "scenes-vit-xs", "scenes-vit-s", "scenes-vit-m"),
        ),
    ],
)
def test_the_embedded_family_grows_with_the_sizes_that_were_run(
    models: tuple[str, ...], family: tuple[str, ...]
) -> None:
    assert families(models) == (family,)
    assert families((*models, "deit3-l")) == (PAPER_FAMILIES[1], family)
    runs = [
        found(m, {"classification.low.change": around(-0.1 / i)}) for i, m in enumerate(family, 1)
    ]
    assert outcomes("low-loss-shrinks", *runs) == [SUPPORTED]


def test_what_was_not_run_leaves_a_claim_open_unless_the_rest_contradicts() -> None:
    lost = found("dinov2-b", {"segmentation.low.share": around(-0.4)})
    kept = found("dinov2-b", {"segmentation.low.share": around(-0.01)})
    (verdict,) = verdicts_on(BY_KEY["low-removal-hurts-dense"], [lost])
    assert verdict.outcome is OPEN
    assert verdict.why.endswith("not run: depth")
    assert outcomes("low-removal-hurts-dense", kept) == [CONTRADICTED]
    assert outcomes("low-removal-hurts-dense", found("dinov2-b", {})) == []
    for change, outcome in ((0.01, OPEN), (-0.01, CONTRADICTED)):
        one_size = found("dinov2-b", {"classification.high.change": around(change)})
        assert outcomes("high-removal-improves", one_size) == [outcome]


def test_depth_is_hurt_when_its_error_rises_and_segmentation_when_its_score_falls() -> None:
    both = {"segmentation.low.share": around(-0.3), "depth.low.share": around(0.3)}
    assert outcomes("low-removal-hurts-dense", found("dinov2-b", both)) == [SUPPORTED]
    both["depth.low.share"] = around(-0.3)
    assert outcomes("low-removal-hurts-dense", found("dinov2-b", both)) == [CONTRADICTED]


def test_every_claim_has_a_name_of_its_own_a_rule_and_targets() -> None:
    assert len(BY_KEY) == len(CLAIMS) == 10
    for claim in CLAIMS:
        assert set(claim.targets) <= set(TARGETS)
        for bound in claim.bounds.values():  # the rule as it is read says what is computed
            size = abs(bound.value)
            if not size:
                continue
            assert f"{size:g}" in claim.rule or f"{size:.0%}" in claim.rule
            assert bound.relation != "sure" or f"{1 - size:.0%}" in claim.rule
    assert [key for key, claim in BY_KEY.items() if not claim.bounds] == ["two-modes"]
    for number in (f"{SIGNIFICANCE:g}", f"{FIRM:.0%}", f"{ABSENT:.0%}"):
        assert number in BY_KEY["two-modes"].rule
    assert judge_claims([]) == judge_claims([found("dinov2-b", {})]) == ()
