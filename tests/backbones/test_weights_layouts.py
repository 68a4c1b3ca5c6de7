"""Every layout's small file computes in timm what its own library computes with it."""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.backbones.parity_comparison import TOLERANCE, WIDE, randomise, relative_error
from tests.backbones.transformers_files import HF, hf_model, saved
from tests.backbones.twins import (
    CLIP_TWIN,
    N_CLASSES,
    WIDTH,
    Case,
    State,
    state_of,
    timm_blocks,
    twin,
)
from tests.backbones.weight_files import CASES, timm_case
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor

from vitscope.backbones.weights.layouts import LAYOUTS, layout_of, to_timm
from vitscope.backbones.weights.strict import LoadedWeights, load_state, load_weights

every_case = pytest.mark.parametrize("name", CASES)


def pixels(case: Case) -> Tensor:
    return torch.randn(2, 3, case.side, case.side, generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def emptied(model: VisionTransformer) -> VisionTransformer:
    """Return the model with NaN for every parameter: none may be left."""
    for parameter in model.parameters():
        parameter.fill_(torch.nan)
    return model


def loaded(case: Case, state: State | None = None) -> tuple[VisionTransformer, LoadedWeights]:
    model = emptied(case.build())
    found = load_state(model, case.state if state is None else state, name="tiny", source="a file")
    assert not any(value.isnan().any() for value in model.state_dict().values())
    return model, found


def worst_block(case: Case, model: VisionTransformer) -> float:
    found, expected = timm_blocks(model, pixels(case)), case.blocks(pixels(case))
    assert len(found) == len(expected) == len(model.blocks)
    return max(relative_error(a, b) for a, b in zip(found, expected, strict=True))


@every_case
@torch.no_grad()
def test_every_block_computes_what_its_own_library_computes(name: str) -> None:
    case = CASES[name]()
    model, found = loaded(case)
    assert found == LoadedWeights(case.layout, "head.weight" in model.state_dict(), False)
    assert worst_block(case, model) < TOLERANCE
    if case.head is not None:
        assert relative_error(model(pixels(case)), case.head(pixels(case))) < TOLERANCE


@every_case
def test_one_weight_swapped_is_seen_by_the_comparison(name: str) -> None:
    """The comparison above is worth what it can see: the smallest mistake of a converter."""
    case = CASES[name]()
    model, _ = loaded(case)
    weight = model.get_parameter("blocks.1.attn.qkv.weight")
    with torch.no_grad():  # the keys for the queries, in one block
        width = len(weight) // 3
        weight.copy_(torch.cat([weight[width : 2 * width], weight[:width], weight[2 * width :]]))
    assert worst_block(case, model) > WIDE


@every_case
def test_a_model_without_storage_comes_out_the_same(name: str) -> None:
    case = CASES[name]()
    expected, _ = loaded(case)
    with torch.device("meta"):
        model = case.build()
    load_state(model, case.state, name="tiny", source="a file")
    assert model.state_dict().keys() == expected.state_dict().keys()
    for key, value in model.state_dict().items():
        assert torch.equal(value, expected.state_dict()[key]), key


@every_case
def test_the_callers_state_dict_is_left_alone(name: str) -> None:
    case = CASES[name]()
    before = {key: value.clone() for key, value in case.state.items()}
    loaded(case)
    assert case.state.keys() == before.keys()
    assert all(torch.equal(value, before[key]) for key, value in case.state.items())


@every_case
def test_conversion_lets_go_of_what_it_is_given(name: str) -> None:
    """Otherwise a large model is in memory twice before it is in its own."""
    case = CASES[name]()
    assert to_timm(case.state)
    assert not case.state


@every_case
def test_a_file_is_of_one_layout(name: str) -> None:
    case = CASES[name]()
    assert layout_of(case.state).name == case.layout
    claimed = [layout.name for layout in LAYOUTS if layout.tower_in(case.state) is not None]
    # timm's names are a part of Meta's, which carry more
    inside = {"timm"} if case.layout in {"Meta DINOv2", "DeiT3"} else set[str]()
    assert set(claimed) - inside == {case.layout}
    assert claimed[0] == case.layout


@pytest.mark.parametrize("kind", HF)
def test_the_hubs_names_and_those_in_memory_give_the_same_weights(
    tmp_path: Path, kind: str
) -> None:
    source = hf_model(kind)
    randomise(source)
    case = CASES[f"transformers {kind}"]()
    from_memory, _ = loaded(case, state_of(source))
    on_disk = saved(source, tmp_path)
    if "Dinov2" in kind or "ViT" in kind:
        assert on_disk.keys() != source.state_dict().keys()  # otherwise this tests nothing
    from_disk, _ = loaded(case, on_disk)
    for key, value in from_disk.state_dict().items():
        assert torch.equal(value, from_memory.state_dict()[key]), key


@pytest.mark.parametrize("kind", ["CLIPVisionModel", "SiglipVisionModel"])
def test_the_older_names_of_vision_towers_alone(kind: str) -> None:
    """Files of 4.x have the tower under ``vision_model.`` and the numbers of its positions."""
    case = CASES[f"transformers {kind}"]()
    older = {f"vision_model.{name}": value for name, value in case.state.items()}
    older["vision_model.embeddings.position_ids"] = torch.arange(17)[None]
    model, _ = loaded(case, older)
    assert worst_block(case, model) < TOLERANCE


@pytest.mark.parametrize("options", [{}, {"max_shard_size": "10KB"}])
@pytest.mark.parametrize("kind", ["CLIPModel", "Dinov2Model (SwiGLU)"])
def test_a_folder_of_the_hub_loads_whole_or_in_shards(
    tmp_path: Path, kind: str, options: dict[str, Any]
) -> None:
    source = hf_model(kind)
    randomise(source)
    source.save_pretrained(tmp_path, **options)
    n_files = len(list(tmp_path.glob("*.safetensors")))
    assert (n_files > 3) is bool(options)
    case = CASES[f"transformers {kind}"]()
    model = emptied(case.build())
    assert load_weights(model, tmp_path, name="tiny").layout == case.layout
    assert worst_block(case, model) < TOLERANCE


TIMM_CONVERTS = [
    name
    for name in CASES
    if not name.startswith("transformers") and name not in {"OpenAI tower", "Meta DINOv2 chunked"}
]


@pytest.mark.parametrize("name", TIMM_CONVERTS)
def test_conversion_agrees_with_timms_own(name: str) -> None:
    case = CASES[name]()
    model = case.build()
    expected = checkpoint_filter_fn(dict(case.state), model, adapt_layer_scale=True)
    found = to_timm(dict(case.state))
    assert found.keys() == expected.keys()
    assert all(torch.equal(value, expected[key]) for key, value in found.items())


def test_self_distillation_keeps_its_backbone_beside_its_heads() -> None:
    case = CASES["Meta DINOv2"]()
    state = {f"backbone.{name}": value for name, value in case.state.items()}
    state["dino_head.mlp.0.weight"] = torch.randn(4, 4)
    model, _ = loaded(case, state)
    assert worst_block(case, model) < TOLERANCE


def test_half_precision_is_widened() -> None:
    case = timm_case({})
    half = {name: value.half() for name, value in case.state.items()}
    model, _ = loaded(case, half)
    for name, value in model.state_dict().items():
        assert torch.equal(value, half[name].float())


class TestHead:
    """The head is the file's or there is none: it is never random."""

    def test_it_is_taken_off_where_the_file_has_none(self) -> None:
        case = CASES["transformers CLIPVisionModel"]()
        model, found = loaded(case)
        assert not found.has_head
        assert isinstance(model.head, torch.nn.Identity)
        assert (model.num_classes, model.global_pool) == (0, "token")

    def test_taking_it_off_changes_no_pooling(self) -> None:
        case = timm_case({"global_pool": "avg", "class_token": False})
        bare = {name: value for name, value in case.state.items() if "head." not in name}
        model, found = loaded(case, bare)
        assert not found.has_head
        whole, _ = loaded(case)
        with torch.no_grad():
            x = pixels(case)
            assert torch.equal(model(x), whole.forward_head(whole.forward_features(x), True))
        assert not isinstance(model.fc_norm, torch.nn.Identity)

    def test_other_classes_come_with_their_own_classifier(self) -> None:
        case = timm_case({})
        state = case.state | {"head.weight": torch.randn(9, WIDTH), "head.bias": torch.randn(9)}
        model, found = loaded(case, state)
        assert found.has_head
        assert torch.equal(model.state_dict()["head.weight"], state["head.weight"])
        assert model.num_classes == 9

    def test_a_model_without_one_takes_none(self) -> None:
        model = emptied(twin())
        found = load_state(model, timm_case({}).state, name="tiny", source="a file")
        assert not found.has_head
        assert isinstance(model.head, torch.nn.Identity)

    def test_clips_projection_has_no_bias(self) -> None:
        model, _ = loaded(CASES["OpenAI"]())
        assert torch.equal(model.state_dict()["head.bias"], torch.zeros(N_CLASSES))


def test_siglips_pooling_is_left_where_the_model_averages() -> None:
    case = CASES["transformers SiglipVisionModel"]()
    model = emptied(
        twin(class_token=False, global_pool="avg", fc_norm=False, act_layer="gelu_tanh")
    )
    load_state(model, case.state, name="tiny", source="a file")
    assert worst_block(case, model) < TOLERANCE


def test_a_file_and_its_state_give_the_same(tmp_path: Path) -> None:
    case = CASES["OpenAI"]()
    save_file(case.state, tmp_path / "clip.safetensors")
    model = emptied(twin(**CLIP_TWIN))
    found = load_weights(model, tmp_path / "clip.safetensors", name="tiny")
    expected, by_state = loaded(case)
    assert found == by_state
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected.state_dict()[name])
