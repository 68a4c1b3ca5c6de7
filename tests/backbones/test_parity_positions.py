"""DINOv2 away from its own resolution: positions resized by us and by `transformers`, compared."""

from typing import Any

import pytest
import torch
from tests.backbones.parity_comparison import (
    GRID,
    TINY,
    TOLERANCE,
    WIDE,
    as_pixels,
    joined,
    read_at,
    relative_error,
    small,
)
from tests.backbones.parity_transformers import build_rival, run_rival
from tests.backbones.pictures import noise_batch

from vitscope.backbones.settings import PositionMethod
from vitscope.backbones.weights.strict import load_state

PATCH = 14
LARGER = (GRID + 3, GRID + 3)
"""Patch grid that the weights are of, as DINOv2's 37×37 is to the 16×16 of 224 pixels."""


# transformers resizes the positions of one with antialiasing and those of the other without
CASES: dict[str, PositionMethod] = {
    "vit_base_patch14_dinov2.lvd142m": "bicubic",
    "vit_base_patch14_reg4_dinov2.lvd142m": "timm",
}


@pytest.mark.parametrize("name", CASES)
def test_positions_resized_by_both(name: str) -> None:
    rival = build_rival(small(name, img_size=LARGER[0] * PATCH), "dinov2")
    images = noise_batch(2, GRID * PATCH)
    expected = run_rival(rival, as_pixels(images))
    methods: tuple[PositionMethod, ...] = ("bicubic", "timm", "meta")
    errors: dict[str, float] = {}
    for method in methods:
        model = small(name)
        state: dict[str, Any] = dict(rival.state_dict())
        options: dict[str, Any] = {"native_grid": LARGER, "positions": method}
        load_state(model, state, name="parity", source="memory", **options)
        backbone = read_at(model, TINY["depth"])
        tokens = backbone.tokens(images)
        errors[method] = relative_error(joined(tokens), expected.hidden[-1])
        pooled = backbone.resume(tokens).pooled
        assert torch.isfinite(pooled).all()
    assert errors.pop(CASES[name]) <= TOLERANCE
    assert min(errors.values()) > WIDE
