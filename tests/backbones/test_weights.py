"""Checkpoint files into a model, strictly: what does not fit is refused, and says why."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from openai_layout import openai_state
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from tiny_vit import randomise, tiny_vit
from torch import Tensor

from vitscope.backbones.weights import load_weights
from vitscope.errors import BackboneError

State = dict[str, Tensor]
CLIP: dict[str, Any] = {"pre_norm": True, "norm_layer": torch.nn.LayerNorm}
SOURCE = tiny_vit(seed=1, **CLIP)


def fresh(**changes: Any) -> VisionTransformer:
    return tiny_vit(seed=2, **CLIP | changes)


def source_state() -> State:
    return {name: value.clone() for name, value in SOURCE.state_dict().items()}


def without(state: State, *parts: str) -> State:
    return {k: v for k, v in state.items() if not any(part in k for part in parts)}


def assert_loaded(model: VisionTransformer, expected: State | None = None) -> None:
    for name, value in without(model.state_dict(), "head.").items():
        assert torch.equal(value, (expected or source_state())[name]), name


def write_safetensors(path: Path, state: State) -> None:
    save_file({name: value.contiguous() for name, value in state.items()}, path)


WRITERS: dict[str, Callable[[Path, State], None]] = {
    "weights.safetensors": write_safetensors,
    "weights.pt": lambda path, state: torch.save(state, path),
    "weights.bin": lambda path, state: torch.save({"state_dict": state, "epoch": 3}, path),
}


def refused(path: Path, model: VisionTransformer | None = None) -> str:
    """Return the message; the model must be as it was."""
    model = model or fresh()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(BackboneError) as caught:
        load_weights(model, path, name="clip-b16")
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message
    return message


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_loads_to_the_same_bits(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, source_state())
    model = fresh()
    load_weights(model, tmp_path / name, name="clip-b16")
    assert_loaded(model)


@pytest.mark.parametrize("name", WRITERS)
def test_openais_layout_loads_to_the_same_bits(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, openai_state(without(source_state(), "patch_embed.proj.bias")))
    model = fresh()
    load_weights(model, tmp_path / name, name="clip-b16")
    assert_loaded(model)


def test_the_classifier_may_be_there_or_not_and_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, without(source_state(), "head."))
    model = fresh()
    own = model.state_dict()["head.weight"].clone()
    load_weights(model, path, name="clip-b16")
    assert_loaded(model)
    assert torch.equal(model.state_dict()["head.weight"], own)


def test_half_precision_is_widened(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    half = {name: value.half() for name, value in source_state().items()}
    write_safetensors(path, half)
    model = fresh()
    load_weights(model, path, name="clip-b16")
    assert_loaded(model, {name: value.float() for name, value in half.items()})


def test_layer_scale_under_its_old_name(tmp_path: Path) -> None:
    source = tiny_vit(seed=1, init_values=1e-4)
    state = {k.replace(".ls1.gamma", ".gamma_1"): v for k, v in source.state_dict().items()}
    state = {k.replace(".ls2.gamma", ".gamma_2"): v for k, v in state.items()}
    torch.save(state, tmp_path / "weights.pt")
    model = tiny_vit(seed=2, init_values=1e-4)
    load_weights(model, tmp_path / "weights.pt", name="deit")
    assert_loaded(model, source.state_dict())


@pytest.mark.parametrize("write", WRITERS.values())
def test_a_partial_file_names_what_is_missing(
    tmp_path: Path, write: Callable[[Path, State], None]
) -> None:
    path = tmp_path / ("weights.safetensors" if write is write_safetensors else "weights.pt")
    write(path, without(source_state(), "blocks.3.mlp"))
    message = refused(path)
    assert "does not hold weights of clip-b16" in message
    assert "missing: blocks.3.mlp.fc1.bias, blocks.3.mlp.fc1.weight" in message
    write(path, without(source_state(), "blocks.3", "blocks.2"))
    assert "and 20 more" in refused(path)


def test_what_does_not_belong_there_is_named(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, source_state() | {"blocks.4.norm1.weight": torch.ones(48)})
    assert "unexpected: blocks.4.norm1.weight" in refused(path)
    # a model with a part more than the file has
    write_safetensors(path, source_state())
    assert "missing: blocks.0.ls1.gamma" in refused(path, fresh(init_values=1.0))


def test_another_width_names_the_shapes(tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    write_safetensors(path, fresh(embed_dim=24).state_dict())
    assert "of another shape: blocks.0.attn.proj.bias" in refused(path)


@pytest.mark.parametrize("layout", ["timm", "openai"])
def test_another_grid_is_not_resampled_in_silence(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "weights.safetensors"
    other = without(fresh(img_size=32).state_dict(), "patch_embed.proj.bias")
    write_safetensors(path, other if layout == "timm" else openai_state(other))
    message = refused(path)
    assert "has 17 position embeddings, clip-b16 at this resolution 37" in message
    assert "set backbone.resolution" in message


@pytest.mark.parametrize("layout", ["timm", "openai"])
def test_another_patch_side_is_not_resampled_in_silence(tmp_path: Path, layout: str) -> None:
    path = tmp_path / "weights.safetensors"
    # the same 6×6 grid, from larger patches
    other = without(fresh(img_size=96, patch_size=16).state_dict(), "patch_embed.proj.bias")
    write_safetensors(path, other if layout == "timm" else openai_state(other))
    assert "has patches of 16 pixels, clip-b16 of 8" in refused(path)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, bad: float) -> None:
    state = source_state()
    state["blocks.2.mlp.fc1.weight"][5, 7] = bad
    write_safetensors(tmp_path / "weights.safetensors", state)
    assert "holds NaN or infinite weights" in refused(tmp_path / "weights.safetensors")


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_text_file_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("the weights are on the other machine\n" * 20)
    message = refused(tmp_path / name)
    assert "cannot be read as weights" in message or "not a plain state dict" in message


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
@pytest.mark.parametrize("share", [0.0, 0.6])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    WRITERS[name](path, source_state())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "cannot be read as weights" in refused(path)


class Surprise:
    """Runs code when it is unpickled."""

    opened = False

    def __reduce__(self) -> tuple[Any, ...]:
        return (setattr, (Surprise, "opened", True))


@pytest.mark.parametrize("writer", ["torch", "pickle"])
def test_a_pickled_object_is_refused_and_not_opened(tmp_path: Path, writer: str) -> None:
    path = tmp_path / "weights.pt"
    if writer == "torch":
        torch.save({"state_dict": source_state(), "extra": Surprise()}, path)
    else:
        path.write_bytes(pickle.dumps(Surprise(), protocol=2))
    assert "is not a plain state dict and was not opened" in refused(path)
    assert not Surprise.opened


@pytest.mark.parametrize("held", [[1, 2, 3], {"epoch": 4}, torch.ones(3), {"a": {"b": 1}}])
def test_a_file_of_something_else_is_refused(tmp_path: Path, held: Any) -> None:
    torch.save(held, tmp_path / "weights.pt")
    assert "is not a state dict of tensors" in refused(tmp_path / "weights.pt")


def test_a_state_dict_of_something_else_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(3, 4).state_dict(), tmp_path / "weights.pt")
    message = refused(tmp_path / "weights.pt")
    assert "does not hold weights of clip-b16: missing: " in message
    assert "unexpected: bias, weight" in message


def test_a_missing_file_and_a_folder_are_told_apart(tmp_path: Path) -> None:
    assert "does not exist; give the path" in refused(tmp_path / "nothing.pt")
    assert "is a folder; give the path" in refused(tmp_path)


def test_randomised_models_differ_in_every_parameter() -> None:
    """Otherwise a loader that skips a parameter would go unseen."""
    model = fresh()
    randomise(model, 5)
    for name, value in model.state_dict().items():
        assert not torch.equal(value, source_state()[name]), name
