"""Exported graphs of image towers of transformers: every tensor comes back, nothing is guessed."""

import shutil
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from tests.backbones.parity_comparison import TOLERANCE, randomise, relative_error
from tests.backbones.transformers_files import HF_VIT_TWIN, hf_blocks, hf_model
from tests.backbones.twins import (
    CLIP_TWIN,
    DINOV2_TWIN,
    SIDE,
    SIGLIP_TWIN,
    WIDTH,
    State,
    timm_blocks,
    twin,
)
from torch import Tensor, nn

from vitscope.backbones.weights import onnx_file
from vitscope.backbones.weights.onnx_export import read_onnx
from vitscope.backbones.weights.reading import weights_checksum
from vitscope.backbones.weights.strict import load_weights
from vitscope.errors import BackboneError

TWINS: dict[str, dict[str, Any]] = {
    "Dinov2Model": DINOV2_TWIN,
    "ViTModel": HF_VIT_TWIN,
    "CLIPVisionModel": {**CLIP_TWIN, "num_classes": 0},
    "SiglipVisionModel": SIGLIP_TWIN,
}
EXPORTERS: dict[str, dict[str, Any]] = {
    "legacy, any batch": {"dynamo": False, "dynamic_axes": {"pixel_values": {0: "batch"}}},
    "legacy, one batch": {"dynamo": False},
    "new, one batch": {"dynamo": True},
}


class Saliency(nn.Module):
    """A backbone under a name of its own, and a decoder of its patches."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.decoder = nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH, bias=False), nn.Linear(48, 1))

    def forward(self, pixel_values: Tensor) -> Tensor:
        hidden: Any = self.backbone(pixel_values=pixel_values)
        return self.decoder(hidden.last_hidden_state[:, 1:])


@cache
def model_of(kind: str) -> Any:
    model = hf_model(kind).eval()
    randomise(model)
    return model


def export(model: nn.Module, exporter: str, side: int = SIDE) -> Path:
    file = Path(mkdtemp()) / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporters, about themselves
        torch.onnx.export(
            model, (torch.randn(2, 3, side, side),), str(file), input_names=["pixel_values"],
            verbose=False, **EXPORTERS[exporter],
        )  # fmt: skip
    return file


@cache
def exported(kind: str, exporter: str) -> Path:
    return export(model_of(kind), exporter)


def expected_state(model: Any) -> State:
    state = dict(model.state_dict())
    state.pop("embeddings.mask_token", None)  # of training alone: no graph uses it
    state.pop("embeddings.position_ids", None)
    return state


def assert_equal(found: State, expected: State) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """An exported DINOv2, to be damaged."""
    return Path(shutil.copy(exported("Dinov2Model", "legacy, any batch"), tmp_path / "model.onnx"))


def changed(file: Path, change: Callable[[Any], None]) -> Path:
    model = onnx.load(str(file))
    change(model.graph)
    onnx.save(model, str(file))
    return file


def refused(file: Path, match: str) -> None:
    with pytest.raises(BackboneError, match=match) as caught:
        read_onnx(file)
    assert "\n" not in str(caught.value)
    assert str(file) in str(caught.value) or file.name in str(caught.value)


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("kind", TWINS)
@torch.no_grad()
def test_every_tensor_and_every_block_comes_back(kind: str, exporter: str) -> None:
    file, source = exported(kind, exporter), model_of(kind)
    assert_equal(read_onnx(file), expected_state(source))
    model = twin(**TWINS[kind])
    load_weights(model, file, name="tiny")
    pixels = torch.randn(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(7))
    blocks = zip(timm_blocks(model, pixels), hf_blocks(source, pixels), strict=True)
    assert max(relative_error(found, expected) for found, expected in blocks) <= TOLERANCE


def test_positions_come_as_they_were_before_the_exporter_resized_them() -> None:
    source = model_of("Dinov2Model")
    assert_equal(read_onnx(export(source, "legacy, any batch", 2 * SIDE)), expected_state(source))


def test_a_decoder_after_the_last_norm_is_left_aside() -> None:
    source = model_of("Dinov2Model")
    file = export(Saliency(source).eval(), "legacy, any batch")
    assert_equal(read_onnx(file), expected_state(source))


def test_a_matrix_without_a_bias_is_refused_by_name() -> None:
    from tests.backbones.untyped import transformers

    source = hf_model("Dinov2Model")
    plain = transformers.Dinov2Model(
        transformers.Dinov2Config.from_dict({**source.config.to_dict(), "qkv_bias": False})
    )
    randomise(plain)
    refused(export(plain.eval(), "legacy, any batch"), r"matrix onnx::MatMul_\d+ \[24, 24\]")


def test_a_renamed_bias_leaves_its_matrix_without_a_name(copied: Path) -> None:
    def rename(graph: Any) -> None:
        old = "encoder.layer.1.mlp.fc1.bias"
        for tensor in graph.initializer:
            tensor.name = "anonymous" if tensor.name == old else tensor.name
        for node in graph.node:
            node.input[:] = ["anonymous" if name == old else name for name in node.input]

    refused(changed(copied, rename), "has no named bias")


def test_a_constant_that_no_rule_names_is_refused(copied: Path) -> None:
    def shift(graph: Any) -> None:
        graph.initializer.append(helper.make_tensor("strange", 1, [WIDTH], [0.5] * WIDTH))
        norm = next(n for n in graph.node if "layernorm.weight" in n.input)
        place = list(graph.node).index(norm)
        graph.node.insert(place, helper.make_node("Add", [norm.input[0], "strange"], ["shifted"]))
        norm.input[0] = "shifted"

    refused(changed(copied, shift), r"strange \[24\] stands before the last norm")


def test_quantised_and_rewritten_graphs_are_refused(copied: Path) -> None:
    def quantise(graph: Any) -> None:
        graph.node.append(helper.make_node("DequantizeLinear", ["a", "b"], ["c"]))

    def fuse(graph: Any) -> None:
        graph.node.append(helper.make_node("Attention", ["a"], ["c"], domain="com.microsoft"))

    def whole(graph: Any) -> None:
        name = "encoder.layer.0.norm1.weight"
        place = next(i for i, t in enumerate(graph.initializer) if t.name == name)
        tensor = helper.make_tensor(name, TensorProto.INT8, [WIDTH], [1] * WIDTH)
        graph.initializer[place].CopyFrom(tensor)

    original = copied.read_bytes()
    for change, match in ((quantise, "is quantised"), (fuse, "rewritten by an optimiser")):
        copied.write_bytes(original)
        refused(changed(copied, change), match)
    copied.write_bytes(original)
    with pytest.raises(BackboneError, match=r"missing: blocks\.0\.norm1\.weight"):
        load_weights(twin(**DINOV2_TWIN), changed(copied, whole), name="tiny")


def test_other_graphs_and_no_graphs_are_refused(tmp_path: Path, copied: Path) -> None:
    refused(export(nn.Sequential(nn.Conv2d(3, 4, 8)), "legacy, any batch"), "of no known layout")
    copied.write_bytes(copied.read_bytes()[:-5000])
    with pytest.raises(BackboneError):
        load_weights(twin(**DINOV2_TWIN), copied, name="tiny")
    garbage = tmp_path / "garbage.onnx"
    for change in (lambda g: g.node.reverse(), lambda g: g.node.append(g.node[0])):
        shutil.copy(exported("Dinov2Model", "legacy, any batch"), garbage)
        refused(changed(garbage, change), "is damaged")
    text = exported("Dinov2Model", "legacy, any batch").read_bytes()
    garbage.write_bytes(text.replace(b"layernorm.weight", b"layernorm.\xff\xfeight"))
    refused(garbage, "a name in it is no text")
    for content in (b"no graph at all", bytes(64), b"\xff" * 64):
        garbage.write_bytes(content)
        refused(garbage, "no ONNX file")


def test_without_the_package_the_error_says_how_to_install_it(
    copied: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def absent(name: str) -> Any:
        raise ImportError(name)

    monkeypatch.setattr(onnx_file, "import_module", absent)
    refused(copied, r"pip install 'vitscope\[onnx\]'")


def test_tensors_in_a_file_of_their_own(copied: Path) -> None:
    expected, alone = read_onnx(copied), weights_checksum(copied)
    model, data = onnx.load(str(copied)), copied.with_name("model.data")
    onnx.save(model, str(copied), save_as_external_data=True, location=data.name, size_threshold=0)
    assert_equal(read_onnx(copied), expected)
    kept = weights_checksum(copied)
    content = bytearray(data.read_bytes())
    content[0] ^= 1
    data.write_bytes(content)
    assert len({alone, kept, weights_checksum(copied)}) == 3, "the data are part of the hash"
    data.write_bytes(content[:-100])
    with pytest.raises(BackboneError, match="damaged or truncated"):
        read_onnx(copied)
    data.unlink()
    refused(copied, r"keeps its tensors in model\.data, which is not beside it")


@pytest.mark.parametrize("place", ["../secret", "/etc/passwd", "link", "", "a\0b"])
def test_tensors_are_read_from_nowhere_else(copied: Path, tmp_path: Path, place: str) -> None:
    folder = tmp_path / "inner"
    folder.mkdir()
    file = Path(shutil.move(copied, folder / "model.onnx"))
    (tmp_path / "secret").write_bytes(bytes(10**5))
    (folder / "link").symlink_to(tmp_path / "secret")

    def point(graph: Any) -> None:
        tensor = next(t for t in graph.initializer if t.name == "layernorm.weight")
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=place)

    model = onnx.load(str(file))
    point(model.graph)
    file.write_bytes(model.SerializeToString())
    refused(file, "outside its own folder")
