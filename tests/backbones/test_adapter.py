"""Designated blocks: from the front, from the end, by name."""

import pytest

from vitscope.backbones.adapter import designated_layer
from vitscope.backbones.settings import BackboneSettings
from vitscope.errors import BackboneError, ConfigError


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [(1, 1), (12, 12), (-1, 12), (-12, 1), ("penultimate", 11), (None, 7), (-2, 11)],
)
def test_a_block_is_counted_from_either_end(wanted: int | str | None, expected: int) -> None:
    assert designated_layer(wanted, 7, 12, "some-vit") == expected


@pytest.mark.parametrize("wanted", [0, 13, -13])
def test_a_block_that_is_not_there_is_refused(wanted: int) -> None:
    with pytest.raises(BackboneError, match=rf"backbone.layer = {wanted}, but some-vit has 12"):
        designated_layer(wanted, 7, 12, "some-vit")


def test_a_backbone_of_one_block_has_no_penultimate() -> None:
    with pytest.raises(BackboneError, match="layer = penultimate, but some-vit has 1 blocks"):
        designated_layer("penultimate", None, 1, "some-vit")


def test_a_backbone_outside_the_zoo_needs_a_choice() -> None:
    with pytest.raises(BackboneError, match="some-vit has no designated block of its own: set"):
        designated_layer(None, None, 12, "some-vit")


@pytest.mark.parametrize("layer", ["last", 1.5, "11", True])
def test_anything_else_is_no_layer(layer: object) -> None:
    with pytest.raises(ConfigError, match="layer"):
        BackboneSettings.parse({"layer": layer}, source="test")
