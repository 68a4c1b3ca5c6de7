"""The paper's numbers as data: whole, in the right units, and consistent among themselves."""

import hashlib

import pytest

from vitscope.backbones.zoo import PAPER_ZOO
from vitscope.errors import ConfigError
from vitscope.paper.reference import find_number, load_reference, numbers_of
from vitscope.paper.studies import targets_of
from vitscope.paper.targets import TARGETS, chosen_targets
from vitscope.stages.partition import PAPER_GAMMA


def test_every_number_belongs_to_a_target_and_to_a_model_that_it_names() -> None:
    numbers = load_reference().numbers
    assert len(numbers) == 18 + 12 + 18 + 72 + 6 + 18 + 12 + 4
    for number in numbers:
        assert number.model in TARGETS[number.target].models
        assert number.model in PAPER_ZOO
    for target in TARGETS.values():
        with_numbers = {number.model for number in numbers_of(target.name)}
        assert with_numbers in (set(), set(target.models))


def test_no_number_has_changed_since_all_were_read_against_the_paper() -> None:
    reference = load_reference()
    printed = [(n.target, n.model, n.quantity, n.heading, n.printed) for n in reference.numbers]
    text = repr((printed, sorted(reference.shown.items())))
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "b8a22891c0f0495e"


def test_both_groups_of_table_4_add_up_to_the_dictionary() -> None:
    for model in TARGETS["table4"].models:
        sizes = {n.quantity: n.value for n in numbers_of("table4", model)}
        assert sizes["low"] + sizes["high"] == sizes["dictionary"] == 32 * PAPER_ZOO[model].width
        assert sizes["gamma"] == PAPER_GAMMA[model]


def test_layers_and_thresholds_are_those_of_the_zoo() -> None:
    for number in numbers_of("table5"):
        entry = PAPER_ZOO[number.model]
        assert number.value == {"layer": entry.layer, "tau": entry.tau}[number.quantity]


def test_units_and_digits_are_this_projects() -> None:
    top1 = find_number("table3", "clip-b16", "classification.original")
    assert top1 is not None
    assert (top1.value, top1.digits) == (0.7482, 4)  # printed: 74.82 %
    depth = find_number("table8", "dinov2-b", "depth.original")
    assert depth is not None
    assert (depth.value, depth.digits, depth.rounding) == (0.75, 4, 5e-5)  # printed: 0.7500
    count = find_number("table4", "clip-b16", "low")
    assert count is not None
    assert (count.value, count.digits) == (17_329, 0)
    assert find_number("table4", "dinov2-b", "low") is None


def test_targets_are_chosen_by_name_in_the_papers_order() -> None:
    assert [t.name for t in chosen_targets(("table7", "table4"))] == ["table4", "table7"]
    assert chosen_targets(("all",)) == tuple(TARGETS.values())
    with pytest.raises(ConfigError, match="no target 'table1'"):
        chosen_targets(("table1",))


def test_every_model_of_the_zoo_is_in_some_target() -> None:
    assert all(targets_of(model) for model in PAPER_ZOO)
