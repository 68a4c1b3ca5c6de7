"""The paper's numbers as data: whole, in the right units, and consistent among themselves."""

import pytest

from vitscope.backbones.zoo import ZOO
from vitscope.errors import ConfigError
from vitscope.paper.reference import load_reference, parse_reference
from vitscope.paper.studies import targets_of
from vitscope.paper.targets import TARGETS, chosen_targets
from vitscope.stages.partition import PAPER_GAMMA

HEAD = 'paper = "a title"\narxiv = "1"\n'


def test_every_number_belongs_to_a_target_and_to_a_model_that_it_names() -> None:
    reference = load_reference()
    assert len(reference.numbers) == 18 + 12 + 18 + 72 + 6 + 18 + 12 + 4
    for number in reference.numbers:
        assert number.model in TARGETS[number.target].models
        assert number.model in ZOO
    for target in TARGETS.values():
        with_numbers = {number.model for number in reference.of(target.name)}
        assert with_numbers in (set(), set(target.models))


def test_both_groups_of_table_4_add_up_to_the_dictionary() -> None:
    reference = load_reference()
    for model in TARGETS["table4"].models:
        sizes = {n.quantity: n.value for n in reference.of("table4", model)}
        assert sizes["low"] + sizes["high"] == sizes["dictionary"] == 32 * ZOO[model].width
        assert sizes["gamma"] == PAPER_GAMMA[model]


def test_layers_and_thresholds_are_those_of_the_zoo() -> None:
    for number in load_reference().of("table5"):
        entry = ZOO[number.model]
        assert number.value == {"layer": entry.layer, "tau": entry.tau}[number.quantity]


def test_units_and_digits_are_this_projects() -> None:
    reference = load_reference()
    top1 = reference.find("table3", "clip-b16", "classification.original")
    assert top1 is not None
    assert (top1.value, top1.digits) == (0.7482, 4)  # printed: 74.82 %
    depth = reference.find("table8", "dinov2-b", "depth.original")
    assert depth is not None
    assert (depth.value, depth.digits, depth.rounding) == (0.75, 4, 5e-5)  # printed: 0.7500
    count = reference.find("table4", "clip-b16", "low")
    assert count is not None
    assert (count.value, count.digits) == (17_329, 0)
    assert reference.find("table4", "dinov2-b", "low") is None


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (HEAD + "[a", "not a TOML file"),
        ('paper = "x"\n', "lacks 'arxiv'"),
        (
            HEAD + '[t]\nsource = "s"\nquantities = ["a"]\nheadings = ["A"]\nrows = {m = [1, 2]}',
            "row m: 2 numbers for 1 columns",
        ),
        (
            HEAD + '[t]\nsource = "s"\nquantities = ["a", "a"]\nheadings = ["A", "B"]\nrows = {}',
            "each once",
        ),
        (HEAD + '[f]\nsource = "s"\nfeatures = [1, 2]\ncds = [0.1]', "2 features for 1 scores"),
    ],
)
def test_a_damaged_table_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse_reference(text, source="made up")


def test_targets_are_chosen_by_name_in_the_papers_order() -> None:
    assert [t.name for t in chosen_targets(("table7", "table4"))] == ["table4", "table7"]
    assert chosen_targets(("all",)) == tuple(TARGETS.values())
    with pytest.raises(ConfigError, match="no target 'table1'"):
        chosen_targets(("table1",))


def test_every_model_of_the_zoo_is_in_some_target() -> None:
    assert all(targets_of(model) for model in ZOO)
