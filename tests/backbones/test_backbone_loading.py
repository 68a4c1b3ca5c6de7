"""From settings to a backbone: real architectures, random weights from local files; refusals."""

from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from tests.backbones.openai_layout import openai_state
from tests.backbones.pictures import noise_batch
from tests.backbones.tiny_vit import randomise, tiny_vit
from torch import Tensor

from vitscope.backbones import timm_vit
from vitscope.backbones.backbone import BackboneDescription, Site, describe_backbone
from vitscope.backbones.loading import choose_device, load_backbone, weights_files
from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.backbones.settings import BackboneSettings
from vitscope.backbones.timm_vit import TimmBackbone
from vitscope.backbones.user_model import check_backbone
from vitscope.errors import BackboneError, ConfigError
from vitscope.store.atomic import file_checksum

CLIP = "vit_base_patch16_clip_quickgelu_224.openai"
REGISTERS = "vit_small_patch14_reg4_dinov2.lvd142m"
SMALLEST = "vit_tiny_patch16_224.augreg_in21k"
State = dict[str, Tensor]


def random_state(name: str, **options: Any) -> State:
    model = timm.create_model(name, pretrained=False, **options)
    randomise(model, 0)
    return model.state_dict()


def saved(state: State, path: Path) -> Path:
    save_file(state, path)
    return path


@pytest.fixture(scope="module")
def clip_state() -> State:
    return random_state(CLIP)


@pytest.fixture(scope="module")
def clip_file(clip_state: State, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(clip_state, tmp_path_factory.mktemp("clip") / "clip.safetensors")


@pytest.fixture(scope="module")
def smallest_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(random_state(SMALLEST), tmp_path_factory.mktemp("tiny") / "tiny.safetensors")


def load(name: str, weights: Path | None = None, **changes: Any) -> TimmBackbone:
    values = {"name": name, "weights": weights, "device": "cpu", **changes}
    backbone = load_backbone(BackboneSettings.parse(values, source="test"))
    assert isinstance(backbone, TimmBackbone)
    return backbone


def assert_holds(backbone: TimmBackbone, expected: State) -> None:
    for name, value in backbone.model.state_dict().items():
        # the projection of OpenAI's layout has no bias
        assert name == "head.bias" or torch.equal(value, expected[name]), name
    assert not any(parameter.is_meta for parameter in backbone.model.parameters())


def test_clip_from_a_safetensors_file(clip_file: Path, clip_state: State) -> None:
    backbone = load("clip-b16", clip_file)
    assert_holds(backbone, clip_state)
    assert backbone.site == Site(CLIP, file_checksum(clip_file), 11, 768, 14, 16)
    assert backbone.n_prefix == 1
    assert not backbone.model.training
    images = noise_batch(1, 224)
    tokens, attention = backbone.tokens(images), backbone.attention(images).patch_rows()
    assert tokens.patch.shape == (1, 196, 768)
    assert attention.shape == (1, 12, 196, 197)
    assert tokens.patch.isfinite().all()


def test_a_description_says_what_needs_no_weights(smallest_file: Path) -> None:
    backbone = load(SMALLEST, smallest_file, layer=6)
    n_parameters = sum(value.numel() for value in backbone.model.parameters())
    assert describe_backbone(backbone) == BackboneDescription(
        backbone.site, backbone.preprocessing, n_parameters
    )
    assert n_parameters > 5_000_000
    planted = load_backbone("planted")
    assert describe_backbone(planted).n_parameters is None


def files_of(name: str, weights: Path | None = None) -> tuple[Path, ...]:
    return weights_files(BackboneSettings(name=name, weights=weights))


def test_the_files_that_a_backbone_comes_from(tmp_path: Path) -> None:
    for name in ("planted", "scenes-vit", "clip-b16", "transformers:owner/name", "package.m:f"):
        assert files_of(name) == ()
    one, absent, own = tmp_path / "a.pt", tmp_path / "absent.pt", tmp_path / "own.py"
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    parts = [folder / "config.json", folder / "m.index.json", folder / "m.safetensors"]
    for file in (one, own, *parts):
        file.touch()
    assert files_of("clip-b16", one) == (one,)
    assert files_of("clip-b16", absent) == (absent,)
    assert files_of("clip-b16", folder) == files_of("clip-b16", parts[1]) == tuple(parts)
    assert files_of(f"transformers:{folder}") == tuple(parts)
    assert files_of(f"transformers:{folder}", parts[2]) == tuple(parts)
    assert files_of(f"{own}:build") == (own,)
    assert files_of(f"{own}:build", one) == (one, own)


def test_clip_from_openais_layout(tmp_path: Path, clip_state: State) -> None:
    torch.save(openai_state(clip_state), tmp_path / "ViT-B-16.pt")
    backbone = load("clip-b16", tmp_path / "ViT-B-16.pt", layer=5)
    assert_holds(backbone, clip_state)
    assert backbone.site.layer == 5
    assert backbone.site.weights == file_checksum(tmp_path / "ViT-B-16.pt")


def test_dinov2_at_another_resolution_with_registers(tmp_path: Path) -> None:
    state = random_state(REGISTERS)
    file = saved(state, tmp_path / "reg4.safetensors")
    backbone = load(REGISTERS, file, layer="penultimate", resolution=112)
    assert (backbone.site.layer, backbone.site.grid, backbone.n_prefix) == (11, 8, 5)
    assert backbone.site.model == REGISTERS
    check_backbone(backbone)
    other = load(REGISTERS, file, layer=-2, resolution=112, positions="meta")
    untouched = backbone.model.state_dict()
    gap = (untouched["pos_embed"] - other.model.state_dict()["pos_embed"]).abs().max()
    assert gap > 1e-3
    for name, value in other.model.state_dict().items():
        assert torch.equal(value, untouched[name]) or name == "pos_embed"


def test_any_timm_vit_by_name(smallest_file: Path) -> None:
    backbone = load("vit_tiny_patch16_224", smallest_file, layer=-1)
    # a name without a tag is recorded with the tag it stands for
    assert backbone.site.model.startswith("vit_tiny_patch16_224.augreg_in21k")
    assert backbone.site.layer == 12
    configuration = timm.get_pretrained_cfg(backbone.site.model)
    assert configuration is not None
    assert backbone.preprocessing.crop_share == configuration.crop_pct
    check_backbone(backbone)
    cropped = load("vit_tiny_patch16_224", smallest_file, layer=-1, crop_share=0.5)
    assert cropped.preprocessing.crop_share == 0.5


def test_options_reach_the_model(smallest_file: Path) -> None:
    images = noise_batch(1, 224)
    plain = load(SMALLEST, smallest_file, layer=6)
    for changes in ({"activation": "quick_gelu"}, {"precision": "bf16"}, {"layer": 5}):
        other = load(SMALLEST, smallest_file, **{"layer": 6, **changes})
        gap = (other.tokens(images).patch - plain.tokens(images).patch).abs().max()
        assert gap > 1e-4, changes


def test_a_backbone_outside_the_zoo_needs_a_layer(smallest_file: Path) -> None:
    with pytest.raises(BackboneError, match="no designated block of its own: set"):
        load(SMALLEST, smallest_file)


def test_another_models_file_is_refused(tmp_path: Path) -> None:
    file = saved(tiny_vit().state_dict(), tmp_path / "tiny.safetensors")
    with pytest.raises(BackboneError, match=r"tiny\.safetensors .*clip-b16"):
        load("clip-b16", file)


def test_planted_takes_no_setting_of_a_real_backbone(tmp_path: Path) -> None:
    assert isinstance(load_backbone(BackboneSettings()), PlantedBackbone)
    meaningless: dict[str, Any] = {
        "weights": tmp_path,
        "layer": 3,
        "resolution": 224,
        "crop_share": 0.9,
        "activation": "gelu",
    }
    for key, value in meaningless.items():
        with pytest.raises(BackboneError, match=rf"backbone.{key} means nothing for 'planted'"):
            load_backbone(BackboneSettings(**{key: value}))


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("clip-b61", "did you mean 'clip-b16'?"),
        ("CLIP-B16", "did you mean 'clip-b16'?"),
        ("plnted", "did you mean 'planted'?"),
        ("vit_base_patch16_clip_quickgelu_225", "did you mean 'vit_base_patch16_clip_quickgelu_"),
        ("gpt2", "known: planted, clip-b16"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(BackboneError) as caught:
        load_backbone(BackboneSettings(name=name))
    assert f"unknown backbone '{name}'" in str(caught.value)
    assert hint in str(caught.value)


def test_an_unknown_tag_is_answered_with_those_there_are() -> None:
    with pytest.raises(BackboneError, match=r"has no weights 'openia'; it has: .*openai"):
        load_backbone(BackboneSettings(name="vit_base_patch16_clip_quickgelu_224.openia"))


@pytest.mark.parametrize(
    "name", ["swin_tiny_patch4_window7_224", "resnet50", "samvit_base_patch16"]
)
def test_what_is_no_plain_vision_transformer_is_refused(name: str) -> None:
    with pytest.raises(BackboneError, match=f"{name} .*(not a plain vision|cannot build)"):
        load_backbone(BackboneSettings(name=name, layer=-1))


def never(*_args: Any, **_keys: Any) -> Any:
    raise AssertionError("weights were looked at although the settings are impossible")


@pytest.mark.parametrize("layer", [13, 100, -13, 0])
def test_a_block_it_does_not_have_is_refused_before_any_weights(
    layer: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(timm_vit, "load_weights", never)
    with pytest.raises(BackboneError, match=rf"backbone.layer = {layer}, but clip-b16 has 12"):
        load("clip-b16", tmp_path / "weights.pt", layer=layer)


@pytest.mark.parametrize(("resolution", "nearest"), [(100, 96), (231, 224), (3, 16)])
def test_a_size_that_cuts_patches_is_refused(resolution: int, nearest: int) -> None:
    with pytest.raises(
        BackboneError, match=rf"backbone.resolution = {resolution} is no mul.*nearest is {nearest}$"
    ):
        load("clip-b16", resolution=resolution)


def test_without_a_hub_the_way_out_is_a_local_file(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BackboneError, match=r"of clip-b16 could not be.*set backbone.weights"):
        load("clip-b16")


@pytest.mark.parametrize(
    ("key", "value"), [("precision", "fp8"), ("activation", "relu"), ("positions", "nearest")]
)
def test_an_option_out_of_range_is_refused_with_the_choices(key: str, value: str) -> None:
    with pytest.raises(ConfigError, match=rf"{key}: .*'.*' or '.*'"):
        load_backbone("clip-b16", **{key: value})


def test_devices() -> None:
    assert choose_device("cpu") == torch.device("cpu")
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")
    for name in ("gpu", "cuda:99"):
        with pytest.raises(BackboneError, match=rf"backbone.device = '{name}' cannot be used"):
            choose_device(name)
