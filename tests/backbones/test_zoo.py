"""The zoo against timm's own configurations and the architectures that timm builds."""

import math

import pytest
import timm

from vitscope.backbones.settings import BackboneSettings
from vitscope.backbones.timm_vit import build_timm, native_grid, timm_preprocessing
from vitscope.backbones.zoo import PAPER_ZOO, ZOO, position_method

every_name = pytest.mark.parametrize("name", ZOO)

PAPER = {  # the supplement's Table 5: block and outlier threshold
    "dinov2-b": (11, 100),
    "dinov2-l": (23, 100),
    "dinov2-g": (40, 150),
    "deit3-s": (10, 500),
    "deit3-b": (9, 500),
    "deit3-l": (18, 1000),
    "siglip2-b": (12, 150),
    "siglip2-l": (24, 150),
    "siglip2-g": (27, 300),
}


def test_the_twelve_models_of_the_paper_are_there() -> None:
    assert len(PAPER_ZOO) == 12
    assert {n: (e.layer, e.tau) for n, e in PAPER_ZOO.items() if e.tau is not None} == PAPER
    clip = {name: (e.layer, e.depth) for name, e in PAPER_ZOO.items() if e.tau is None}
    assert clip == {"clip-b16": (11, 12), "clip-l14": (23, 24), "clip-l14-336": (23, 24)}


def test_others_are_marked_and_have_no_threshold_of_the_paper() -> None:
    others = {name: entry for name, entry in ZOO.items() if name not in PAPER_ZOO}
    assert others.keys() == {"dinov2-s", "focus-s"}
    assert all((e.layer, e.tau, e.in_paper) == (11, None, False) for e in others.values())
    assert others["dinov2-s"].is_release
    focus = others["focus-s"]
    assert not focus.is_release
    assert "not Meta's weights" in focus.note


def test_positions_are_resized_as_the_zoo_says_unless_the_settings_do() -> None:
    assert position_method(BackboneSettings(name="focus-s")) == "bicubic"
    assert position_method(BackboneSettings(name="focus-s", positions="meta")) == "meta"
    assert position_method(BackboneSettings(name="dinov2-s")) == "timm"
    assert position_method(BackboneSettings(name="vit_tiny_patch16_224")) == "timm"


@every_name
def test_an_entry_says_what_timm_builds(name: str) -> None:
    entry = ZOO[name]
    model = build_timm(entry.timm_name, entry.resolution, entry.activation)
    found = (model.embed_dim, len(model.blocks), model.patch_embed.grid_size)
    assert found == (entry.width, entry.depth, (entry.grid, entry.grid))
    assert entry.layer <= entry.depth
    assert model.num_prefix_tokens == (0 if name.startswith("siglip") else 1)


@every_name
def test_a_name_carries_the_tag_of_its_weights(name: str) -> None:
    entry = ZOO[name]
    configuration = timm.get_pretrained_cfg(entry.timm_name)
    assert configuration is not None
    assert f"{configuration.architecture}.{configuration.tag}" == entry.timm_name
    assert configuration.hf_hub_id
    model = build_timm(entry.timm_name, entry.resolution)
    assert entry.preprocessing.mean == pytest.approx(timm_preprocessing(model).mean)
    assert entry.preprocessing.std == pytest.approx(timm_preprocessing(model).std)
    assert native_grid(model)[0] == (37 if "dinov2" in entry.timm_name else entry.grid)


@pytest.mark.parametrize(
    ("name", "activation"),
    [("clip-b16", "QuickGELU"), ("siglip2-b", "GELUTanh"), ("dinov2-b", "GELU")],
)
def test_the_blocks_have_the_activation_of_the_release(name: str, activation: str) -> None:
    entry = ZOO[name]
    model = build_timm(entry.timm_name, entry.resolution, entry.activation)
    kinds = {type(m).__name__ for m in model.blocks.modules() if "GELU" in type(m).__name__}
    assert kinds == {activation}


def test_widths_give_the_papers_dictionaries() -> None:
    sizes = {32 * entry.width for entry in PAPER_ZOO.values()}
    assert sizes == {12288, 24576, 32768, 36864, 49152}


@every_name
def test_a_shifted_crop_keeps_whole_patches(name: str) -> None:
    entry = ZOO[name]
    assert math.gcd(entry.resolution, entry.patch) == entry.patch
