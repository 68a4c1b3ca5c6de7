"""The rules of the verdicts: bounds, intervals, and what the paper's own numbers would get."""

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from vitscope.paper import attention_claims, feature_claims
from vitscope.paper.attention_claims import outliers_move_more
from vitscope.paper.claims import Found, Outcome, all_of, decide, of_chance
from vitscope.paper.feature_claims import fewer_active_on_outliers
from vitscope.paper.measured import Measured, jackknife, of_proportion
from vitscope.paper.probe_claims import (
    high_removal_improves,
    high_removal_spares_dense,
    low_loss_shrinks,
    low_removal_hurts_dense,
)
from vitscope.paper.reference import load_reference
from vitscope.paper.runs import FinishedRun
from vitscope.paper.sources import Sources
from vitscope.paper.studies import scenes_study
from vitscope.paper.targets import FAMILIES, TARGETS, families
from vitscope.paper.verdicts import CLAIMS
from vitscope.store.run_directory import RunDirectory

SUPPORTED, CONTRADICTED, OPEN = Outcome.SUPPORTED, Outcome.CONTRADICTED, Outcome.OPEN


def around(value: float, half: float = 1e-6) -> Measured:
    return Measured(value, value - half, value + half, "images")


def found(model: str, **numbers: Measured) -> Found:
    """A run of which nothing but its numbers is read."""
    study = scenes_study("scenes-vit", (), Sources())
    run = FinishedRun(model, {}, (), study, RunDirectory(Path("nowhere")))
    return Found(run, {name.replace("__", "."): value for name, value in numbers.items()})


def printed(model: str, target: str) -> dict[str, float]:
    return {n.quantity: n.value for n in load_reference().of(target, model)}


@pytest.fixture
def with_outliers(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (attention_claims, feature_claims):
        monkeypatch.setattr(module, "is_percentile", lambda _: False)


@pytest.mark.parametrize(
    ("low", "high", "outcome"),
    [(1.1, 2.0, SUPPORTED), (0.2, 0.9, CONTRADICTED), (0.9, 1.1, OPEN), (math.nan, 2.0, OPEN)],
)
def test_a_number_decides_only_with_its_whole_interval_on_one_side(
    low: float, high: float, outcome: Outcome
) -> None:
    assert decide(Measured(1.0, low, high), 1.0) is outcome


def test_parts_and_chances() -> None:
    assert all_of([SUPPORTED, SUPPORTED]) is SUPPORTED
    assert all_of([SUPPORTED, OPEN]) is OPEN
    assert all_of([OPEN, CONTRADICTED]) is CONTRADICTED
    assert all_of([]) is OPEN
    assert [of_chance(p) for p in (0.95, 0.5, 0.05)] == [SUPPORTED, OPEN, CONTRADICTED]


@pytest.mark.usefixtures("with_outliers")
def test_the_papers_own_numbers_support_its_claims_on_attention_and_l0() -> None:
    for target in ("table7", "table9"):
        for model in TARGETS[target].models:
            values = printed(model, target)
            shifts = [s for s in range(1, 7) if f"emd.out.{s}" in values]
            ratios = {
                f"emd__ratio__{s}": around(values[f"emd.out.{s}"] / values[f"emd.non.{s}"])
                for s in shifts
            }
            (verdict,) = outliers_move_more([found(model, **ratios)])
            assert verdict.outcome is SUPPORTED, verdict
    for model in TARGETS["table6"].models:
        values = printed(model, "table6")
        gap = around(values["l0.outlier"] - values["l0.all"])
        (verdict,) = fewer_active_on_outliers([found(model, l0__gap=gap)])
        assert verdict.outcome is SUPPORTED


def test_the_papers_own_numbers_support_its_claims_on_removal() -> None:
    for target in ("table3", "table8"):
        for model in TARGETS[target].models:
            values = printed(model, target)
            shares = {
                f"{task}__{group}__share": around(
                    values[f"{task}.{group}-removed"] / values[f"{task}.original"] - 1
                )
                for task in ("segmentation", "depth")
                for group in ("low", "high")
            }
            run = [found(model, **shares)]
            assert [v.outcome for v in low_removal_hurts_dense(run)] == [SUPPORTED], model
            assert [v.outcome for v in high_removal_spares_dense(run)] == [SUPPORTED], model
    clip = [
        found(
            model,
            classification__high__change=around(
                printed(model, "table3")["classification.high-removed"]
                - printed(model, "table3")["classification.original"]
            ),
            classification__low__change=around(
                printed(model, "table3")["classification.low-removed"]
                - printed(model, "table3")["classification.original"]
            ),
        )
        for model in TARGETS["table3"].models
    ]
    assert [v.outcome for v in high_removal_improves(clip)] == [SUPPORTED]
    assert [v.outcome for v in low_loss_shrinks(clip)] == [SUPPORTED]


def losses(*values: float) -> list[Found]:
    return [
        found(model, classification__low__change=around(value, 0.001))
        for model, value in zip(FAMILIES[0], values, strict=False)
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
    values: tuple[float, ...], outcome: Outcome
) -> None:
    (verdict,) = low_loss_shrinks(losses(*values))
    assert verdict.outcome is outcome


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
    assert families((*models, "deit3-l")) == (FAMILIES[1], family)
    verdicts = low_loss_shrinks(
        [found(m, classification__low__change=around(-0.1 / i)) for i, m in enumerate(family, 1)]
    )
    assert [verdict.outcome for verdict in verdicts] == [SUPPORTED]


def test_a_task_that_was_not_run_leaves_the_claim_open_unless_the_other_contradicts() -> None:
    lost = found("dinov2-b", segmentation__low__share=around(-0.4))
    kept = found("dinov2-b", segmentation__low__share=around(-0.01))
    assert low_removal_hurts_dense([lost])[0].outcome is OPEN
    assert low_removal_hurts_dense([kept])[0].outcome is CONTRADICTED
    assert low_removal_hurts_dense([found("dinov2-b")]) == ()


def test_depth_is_hurt_when_its_error_rises_and_segmentation_when_its_score_falls() -> None:
    both = {"segmentation__low__share": around(-0.3), "depth__low__share": around(0.3)}
    assert low_removal_hurts_dense([found("dinov2-b", **both)])[0].outcome is SUPPORTED
    both["depth__low__share"] = around(-0.3)
    assert low_removal_hurts_dense([found("dinov2-b", **both)])[0].outcome is CONTRADICTED


def test_every_claim_has_a_name_of_its_own_a_rule_and_targets() -> None:
    assert len({claim.key for claim in CLAIMS}) == len(CLAIMS) == 10
    for claim in CLAIMS:
        assert claim.rule
        assert set(claim.targets) <= set(TARGETS)
        assert claim.judge([]) == ()


@dataclass
class Sample:
    values: Any = field(default_factory=lambda: np.random.default_rng(0).normal(3, 2, 40))


def test_the_jackknife_of_a_mean_is_students_interval() -> None:
    values = Sample().values
    left_out = np.asarray([np.delete(values, i).mean() for i in range(values.size)])
    ours = jackknife(float(values.mean()), left_out, "images")
    low, high = stats.t.interval(0.95, values.size - 1, values.mean(), stats.sem(values))
    assert (ours.low, ours.high) == pytest.approx((low, high))
    assert not jackknife(1.0, np.asarray([1.0]), "images").has_interval
    assert not jackknife(1.0, np.asarray([1.0, math.nan, 2.0]), "images").has_interval


def test_a_proportions_interval_is_wilsons() -> None:
    ours = of_proportion(0.8, 50, "images")
    expected = stats.binomtest(40, 50).proportion_ci(method="wilson")
    assert (ours.low, ours.high) == pytest.approx((expected.low, expected.high))
