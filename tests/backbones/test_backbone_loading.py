"""From settings to a backbone: CLIP-B/16's real architecture, random weights; and refusals."""

from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pytest
import timm
import torch
from openai_layout import openai_state
from pictures import noise_batch
from safetensors.torch import save_file
from tiny_vit import randomise, tiny_vit
from torch import Tensor

from vitscope.artifacts.checksum import file_checksum
from vitscope.backbones import loading
from vitscope.backbones.backbone import BackboneSettings, Site
from vitscope.backbones.loading import choose_device, load_backbone
from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.backbones.timm_vit import TimmBackbone
from vitscope.backbones.zoo import ZOO, zoo_entry
from vitscope.errors import BackboneError

CLIP = "vit_base_patch16_clip_quickgelu_224.openai"
State = dict[str, Tensor]


@pytest.fixture(scope="module")
def clip_state() -> State:
    model = timm.create_model(CLIP, pretrained=False)
    randomise(model, 0)
    return model.state_dict()


@pytest.fixture(scope="module")
def clip_file(clip_state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    save_file(clip_state, path)
    return path


def clip(weights: Path | None = None, **changes: Any) -> TimmBackbone:
    settings = BackboneSettings(name="clip-b16", weights=weights, device="cpu", **changes)
    backbone = load_backbone(settings)
    assert isinstance(backbone, TimmBackbone)
    return backbone


def assert_holds(backbone: TimmBackbone, expected: State) -> None:
    for name, value in backbone.model.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(value, expected[name]), name


def test_clip_from_a_safetensors_file(clip_file: Path, clip_state: State) -> None:
    backbone = clip(clip_file)
    assert_holds(backbone, clip_state)
    assert backbone.site == Site(CLIP, file_checksum(clip_file), 11, 768, 14, 16)
    assert (backbone.n_prefix, backbone.n_heads) == (1, 12)
    assert not backbone.model.training
    images = noise_batch(1, 224)
    tokens, attention = backbone.tokens(images), backbone.attention(images)
    assert tokens.patch.shape == (1, 196, 768)
    assert attention.shape == (1, 12, 196, 197)
    assert tokens.patch.isfinite().all()
    # quick GELU, OpenAI's activation: the plain one is another model
    block: Any = backbone.model.blocks[0]
    assert "QuickGELU" in type(block.mlp.act).__name__


def test_clip_from_openais_layout(tmp_path: Path, clip_state: State) -> None:
    torch.save(openai_state(clip_state), tmp_path / "ViT-B-16.pt")
    backbone = clip(tmp_path / "ViT-B-16.pt", layer=5)
    assert_holds(backbone, clip_state)
    assert backbone.site.layer == 5
    assert backbone.site.weights == file_checksum(tmp_path / "ViT-B-16.pt")


def test_another_models_file_is_refused(tmp_path: Path) -> None:
    save_file(tiny_vit().state_dict(), tmp_path / "tiny.safetensors")
    with pytest.raises(BackboneError, match="37 position embeddings, clip-b16 at this resolution"):
        clip(tmp_path / "tiny.safetensors")


def test_planted_takes_neither_weights_nor_block_nor_size(tmp_path: Path) -> None:
    assert isinstance(load_backbone(BackboneSettings()), PlantedBackbone)
    meaningless: dict[str, Any] = {"weights": tmp_path, "layer": 3, "resolution": 224}
    for key, value in meaningless.items():
        with pytest.raises(BackboneError, match=rf"backbone.{key} means nothing for 'planted'"):
            load_backbone(BackboneSettings(**{key: value}))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("clip-b61", "did you mean 'clip-b16'?"),
        ("CLIP-B16", "did you mean 'clip-b16'?"),
        ("plnted", "did you mean 'planted'?"),
        ("resnet50", "known: planted, clip-b16"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(BackboneError) as caught:
        load_backbone(BackboneSettings(name=name))
    assert f"unknown backbone '{name}'" in str(caught.value)
    assert hint in str(caught.value)


def never(*_args: Any, **_keys: Any) -> Any:
    raise AssertionError("weights were looked at although the settings are impossible")


@pytest.fixture
def small_clip(monkeypatch: pytest.MonkeyPatch) -> None:
    """The zoo's model two blocks deep and narrow: what is refused needs no 86 M parameters."""
    real = timm.create_model

    def small(name: str, **keys: Any) -> Any:
        assert name == CLIP
        if keys.pop("pretrained"):
            raise OSError("We couldn't connect to 'https://huggingface.co'\nto load this file")
        return real(name, pretrained=False, depth=12, embed_dim=24, num_heads=3, **keys)

    monkeypatch.setattr(loading.timm, "create_model", small)


@pytest.mark.usefixtures("small_clip")
@pytest.mark.parametrize("layer", [13, 100])
def test_a_block_it_does_not_have_is_refused_before_any_weights(
    layer: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(loading, "load_weights", never)
    with pytest.raises(BackboneError, match=rf"backbone.layer = {layer}, but clip-b16 has 12"):
        clip(tmp_path / "weights.pt", layer=layer)


@pytest.mark.usefixtures("small_clip")
@pytest.mark.parametrize(("resolution", "nearest"), [(100, 96), (231, 224), (3, 16)])
def test_a_size_that_cuts_patches_is_refused(resolution: int, nearest: int) -> None:
    with pytest.raises(
        BackboneError, match=rf"backbone.resolution = {resolution} is no mul.*nearest is {nearest}$"
    ):
        clip(resolution=resolution)


@pytest.mark.usefixtures("small_clip")
def test_an_unreachable_hub_is_one_line_with_the_way_out() -> None:
    with pytest.raises(BackboneError) as caught:
        clip()
    message = str(caught.value)
    assert "\n" not in message
    assert f"the weights of {CLIP} could not be fetched" in message
    assert "set backbone.weights to a local checkpoint file" in message


def test_hubs_own_offline_error_is_understood(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackboneError, match="could not be fetched from the Hugging Face hub"):
        clip()


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:99"):
        with pytest.raises(BackboneError, match=rf"backbone.device = '{name}' cannot be used"):
            choose_device(name)


def test_the_zoo_names_models_with_their_weights_tag() -> None:
    for entry in ZOO.values():
        assert "." in entry.timm_name
        assert timm.is_model(entry.timm_name.partition(".")[0])
    clip_entry = zoo_entry("clip-b16")
    configuration = timm.get_pretrained_cfg(clip_entry.timm_name)
    assert configuration is not None
    assert clip_entry.preprocessing.mean == pytest.approx(configuration.mean)
    assert clip_entry.preprocessing.std == pytest.approx(configuration.std)
