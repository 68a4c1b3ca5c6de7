"""Weights that are not exactly the model's are refused, in words, and the model stays as it was."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.backbones.parity_comparison import randomise
from tests.backbones.transformers_files import HF_TEXT, hf_model
from tests.backbones.twins import DEPTH, DINOV2_TWIN, SIDE, WIDTH, Case, State, state_of, twin
from tests.backbones.weight_files import CASES, openai_case, timm_case
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from vitscope.backbones.weights.layouts import LAYOUTS
from vitscope.backbones.weights.strict import load_state, load_weights, refuse_what_is_no_number
from vitscope.errors import BackboneError

every_case = pytest.mark.parametrize("name", CASES)

FAMILIES = {
    "CLIP": "OpenAI",
    "CLIP (Hugging Face)": "transformers CLIPModel",
    "DINOv2": "Meta DINOv2",
    "DINOv2 (Hugging Face)": "transformers Dinov2Model",
    "DINOv2 giant": "Meta DINOv2 giant",
    "DINOv2 with registers": "Meta DINOv2 registers",
    "DeiT3": "DeiT3",
    "SigLIP": "transformers SiglipModel",
}
"""One case of each family; all have the same width, depth, patch and grid."""

SAME_MODEL = [{"CLIP", "CLIP (Hugging Face)"}, {"DINOv2", "DINOv2 (Hugging Face)"}]


def refused(model: VisionTransformer, state: State, **options: Any) -> str:
    """Return the message; the model must be as it was."""
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(BackboneError) as caught:
        load_state(model, state, name="tiny", source="weights.pt", **options)
    after = model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, before[name]) for name, value in after.items())
    message = str(caught.value)
    assert message.startswith("weights.pt does not hold weights of tiny: ")
    assert "\n" not in message
    return message.removeprefix("weights.pt does not hold weights of tiny: ")


NOT_NEEDED = re.compile(
    # the heads
    r"head\.(weight|bias)|classifier\..*|visual_projection\..*|(visual\.)?proj"
    r"|visual\.head\.proj\.weight"
    # the passengers
    r"|text.*|logit_.*|(\w+\.)*mask_token|pooler\..*|transformer\..*|token_embedding\.weight"
    r"|positional_embedding|ln_final\..*|attn_mask"
)


def parts(case: Case) -> list[str]:
    """Return the names that a file cannot do without: outside the blocks, and in one of them."""
    if case.layout.endswith("tower"):  # the same names without their prefix
        whole = parts(CASES["OpenAI"]())
        return [name.removeprefix("visual.") for name in whole]
    one_block = re.compile(rf"\.{DEPTH - 1}\.")
    return [
        name
        for name in case.state
        if not NOT_NEEDED.fullmatch(name)
        and (one_block.search(name) or not re.search(r"\.\d+\.", name))
    ]


@every_case
def test_a_file_that_lacks_any_one_part_is_refused(name: str) -> None:
    case = CASES[name]()
    model, needed = case.build(), parts(case)
    assert len(needed) >= 12 + 4
    for part in needed:
        message = refused(model, {k: v for k, v in case.state.items() if k != part})
        assert message.startswith("missing: "), part


@every_case
@pytest.mark.parametrize("change", ["scalar", "flat", "deeper", "one more", "empty"])
def test_a_part_of_any_other_shape_is_refused(name: str, change: str) -> None:
    case = CASES[name]()
    model = case.build()
    changes: dict[str, Callable[[Tensor], Tensor]] = {
        "scalar": lambda value: value.flatten()[0],
        "flat": lambda value: value.flatten() if value.ndim > 1 else value[None],
        "deeper": lambda value: value[None, None],
        "one more": lambda value: torch.cat([value, value[:1]]),
        "empty": lambda value: value[:0],
    }
    for part in parts(case):
        value = case.state[part]
        changed = changes[change](value)
        if value.numel() == changed.numel() and value.squeeze().shape == changed.squeeze().shape:
            continue  # the same but for axes of length 1
        refused(model, case.state | {part: changed})


@every_case
def test_what_belongs_to_no_image_tower_is_refused(name: str) -> None:
    case = CASES[name]()
    stranger = {"adapter.down.weight": torch.ones(WIDTH)}
    assert refused(case.build(), case.state | stranger) == "unexpected: adapter.down.weight"


@every_case
@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
def test_weights_that_are_no_numbers_are_refused(name: str, bad: float) -> None:
    case = CASES[name]()
    part = next(part for part in parts(case) if "mlp" in part and part.endswith("weight"))
    state = dict(case.state)
    state[part] = state[part].clone()
    state[part][3, 5] = bad
    assert "holds NaN or infinite values" in refused(case.build(), state)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_one_bad_number_is_found_wherever_it_is(bad: float) -> None:
    for index in range(0, 1000, 7):  # vectorised loops treat ends and middles differently
        value = torch.linspace(-1, 1, 1000)
        value[index] = bad
        with pytest.raises(BackboneError, match="a holds NaN or infinite values"):
            refuse_what_is_no_number({"a": value})
    refuse_what_is_no_number({"a": torch.linspace(-1, 1, 1000), "b": torch.zeros(0)})


def test_quantised_weights_are_refused() -> None:
    case = timm_case({})
    whole = (case.state["blocks.1.mlp.fc1.weight"] * 100).to(torch.int8)
    message = refused(case.build(), case.state | {"blocks.1.mlp.fc1.weight": whole})
    assert message == (
        "blocks.1.mlp.fc1.weight holds torch.int8, not real numbers; is it quantised?"
    )


@pytest.mark.parametrize("theirs", FAMILIES)
@pytest.mark.parametrize("ours", FAMILIES)
def test_another_familys_file_of_the_same_size_is_refused(ours: str, theirs: str) -> None:
    file, model = CASES[FAMILIES[theirs]](), CASES[FAMILIES[ours]]().build()
    if ours == theirs or {ours, theirs} in SAME_MODEL:
        load_state(model, file.state, name="tiny", source="weights.pt")
        return
    message = refused(model, file.state)
    assert message.startswith(("missing: ", "unexpected: ", "of another shape: ", "its position"))


@pytest.mark.parametrize("layout", ["timm", "OpenAI"])
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"depth": DEPTH + 2, "embed_dim": 48},
            "it has 3 blocks of width 24, tiny has 5 of width 48: it is another model's file",
        ),
        (
            {"depth": DEPTH + 1},
            "it has 3 blocks of width 24, tiny has 4 of width 24: it is another model's file, or "
            "a part of one",
        ),
        (
            {"depth": DEPTH - 1},
            "it has 3 blocks of width 24, tiny has 2 of width 24: it is another model's file",
        ),
        (
            {"patch_size": 16, "img_size": 64},
            "its patches are 8×8 pixels, those of tiny 16×16: it is another model's file",
        ),
    ],
)
def test_another_size_is_said_in_words(layout: str, changes: dict[str, Any], expected: str) -> None:
    file = timm_case({}) if layout == "timm" else openai_case()
    assert refused(twin(**changes), file.state) == expected


def test_the_first_few_names_are_given_and_the_rest_counted() -> None:
    case = timm_case({})
    bare = {k: v for k, v in case.state.items() if ".1.attn." not in k and ".1.mlp" not in k}
    assert refused(case.build(), bare) == (
        "missing: blocks.1.attn.proj.bias, blocks.1.attn.proj.weight, blocks.1.attn.qkv.bias, "
        "blocks.1.attn.qkv.weight and 4 more"
    )


def test_a_part_of_another_shape_is_shown_with_both() -> None:
    case = timm_case({})
    state = case.state | {"blocks.2.mlp.fc1.bias": torch.zeros(47)}
    assert refused(case.build(), state) == (
        "of another shape: blocks.2.mlp.fc1.bias ([47], not [48])"
    )


def test_a_query_without_its_key_is_named() -> None:
    case = CASES["transformers CLIPVisionModel"]()
    del case.state["encoder.layers.1.self_attn.k_proj.weight"]
    assert refused(case.build(), case.state) == (
        "missing: blocks.1.attn.qkv.weight; "
        "unexpected: blocks.1.attn.q.weight, blocks.1.attn.v.weight"
    )


def test_a_weight_under_two_names_is_refused() -> None:
    """Older and newer names of one matrix: which of them would be loaded is anyone's guess."""
    case = CASES["transformers Dinov2Model"]()
    doubled = "encoder.layer.1.attention.attention.query.weight"
    case.state[doubled] = case.state["encoder.layer.1.attention.q_proj.weight"] + 1
    assert refused(case.build(), case.state) == f"unexpected: {doubled}"


def test_a_torn_head_is_refused() -> None:
    case = timm_case({})
    bare = {k: v for k, v in case.state.items() if k != "head.bias"}
    assert refused(case.build(), bare) == (
        "missing: head.bias, though the rest of the head is there"
    )
    wide = case.state | {"head.weight": torch.randn(5, WIDTH + 1)}
    assert "head.weight ([5, 25], not [classes, 24])" in refused(case.build(), wide)


def text_states() -> dict[str, State]:
    from tests.backbones.untyped import transformers

    whole = hf_model("CLIPModel").state_dict()
    alone = transformers.CLIPTextModel(transformers.CLIPTextConfig(**HF_TEXT))
    openai = openai_case().state
    return {
        "of a whole model": {k: v for k, v in whole.items() if k.startswith("text_")},
        "alone": state_of(alone),
        "of OpenAI": {k: v for k, v in openai.items() if not k.startswith("visual.")},
    }


@pytest.mark.parametrize("which", ["of a whole model", "alone", "of OpenAI"])
def test_a_text_tower_is_called_one(which: str) -> None:
    state = text_states()[which]
    assert refused(twin(), state) == "it holds a text tower and no image tower"


@pytest.mark.parametrize(
    "state",
    [
        {"encoder.weight": torch.ones(8, 4), "decoder.weight": torch.ones(4, 8)},  # an SAE's
        torch.nn.Linear(3, 4).state_dict(),
        {f"layer{i}.0.conv1.weight": torch.ones(2) for i in range(9)},  # a ResNet's
    ],
)
def test_an_unknown_layout_is_shown_beside_those_known(state: State) -> None:
    message = refused(twin(), state)
    assert message.startswith(f"its names are of no known layout: {min(state)}")
    assert message.endswith(", ".join(layout.name for layout in LAYOUTS))
    assert ("and 5 more" in message) is (len(state) == 9)


def test_a_siglip_for_any_aspect_is_called_one() -> None:
    case = CASES["transformers SiglipVisionModel"]()
    flat = case.state["embeddings.patch_embedding.weight"].flatten(1)
    message = refused(case.build(), case.state | {"embeddings.patch_embedding.weight": flat})
    assert message.startswith("it is a NaFlex SigLIP2")


def test_files_are_named_in_the_message(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    save_file(timm_case({}).state, path)
    with pytest.raises(BackboneError, match="does not hold weights of clip-b16: it has 3") as e:
        load_weights(twin(depth=12), path, name="clip-b16")
    assert str(e.value).startswith(str(path))


def test_two_random_models_differ_in_every_parameter() -> None:
    """Otherwise a loader that skips one would go unseen."""
    one, two = twin(**DINOV2_TWIN, img_size=SIDE), twin(**DINOV2_TWIN, img_size=SIDE)
    randomise(one, 1)
    randomise(two, 2)
    for name, value in one.state_dict().items():
        assert not torch.equal(value, two.state_dict()[name]), name
