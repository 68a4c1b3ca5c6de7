"""A text tower of other weights than the backbone's is refused; files as open_clip writes them."""

import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vitscope.backbones.backbone import Preprocessing, Site
from vitscope.backbones.timm_vit import TimmBackbone
from vitscope.backbones.weights.strict import load_weights
from vitscope.errors import ConfigError
from vitscope.probes.features import FeatureExtraction
from vitscope.probes.prompts import Prompts
from vitscope.probes.settings import ClassificationSettings
from vitscope.probes.text_towers import OpenClipTower, load_open_clip, require_same_weights
from vitscope.probes.zero_shot import ZeroShot
from vitscope.sae.model import SparseAutoencoder

open_clip = pytest.importorskip("open_clip")

NAME, SIDE, PATCH, WIDTH, OUT = "vitscope-tiny", 32, 8, 24, 12
CONFIG: dict[str, Any] = {
    "embed_dim": OUT,
    "vision_cfg": {
        "image_size": SIDE, "layers": 2, "width": WIDTH, "patch_size": PATCH, "head_width": 12,
    },
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}  # fmt: skip
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Two releases of one architecture, as open_clip saves a whole model."""
    folder = tmp_path_factory.mktemp("towers")
    (folder / f"{NAME}.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder)
    found: dict[str, Path] = {}
    for seed, name in enumerate(("one", "other")):
        torch.manual_seed(seed)
        model: Any = open_clip.create_model(NAME)
        with torch.no_grad():
            for parameter in model.visual.parameters():
                parameter.add_(0.3 * torch.randn_like(parameter))
        found[name] = folder / f"{name}.safetensors"
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, found[name])
    return found


def backbone_of(file: Path, side: int = SIDE, width: int = WIDTH) -> TimmBackbone:
    """The image tower in timm: of the file's weights, or random ones at another width."""
    model = VisionTransformer(
        img_size=side, patch_size=PATCH, embed_dim=width, depth=2, num_heads=2, num_classes=OUT,
        pre_norm=True, norm_layer=partial(nn.LayerNorm, eps=1e-5),
    ).eval()  # fmt: skip
    if width == WIDTH:
        load_weights(
            model, file, name="tiny", native_grid=(SIDE // PATCH, SIDE // PATCH), positions="timm"
        )
    site = Site("tiny", "file", 1, width, side // PATCH, PATCH)
    return TimmBackbone(model, site, Preprocessing(1.0, (0.5, 0.5, 0.5), (0.3, 0.3, 0.3)))


def tower(file: Path) -> OpenClipTower:
    return load_open_clip(NAME, str(file), CPU)


def test_a_tower_of_the_same_weights_passes_in_full_and_in_half_precision(
    files: dict[str, Path],
) -> None:
    for file in files.values():
        backbone = backbone_of(file)
        require_same_weights(backbone, tower(file))
        require_same_weights(replace(backbone, precision="bf16"), tower(file))


def test_a_tower_of_other_weights_is_refused_before_anything_is_predicted(
    files: dict[str, Path],
) -> None:
    backbone, foreign = backbone_of(files["one"]), tower(files["other"])
    with pytest.raises(ConfigError, match=r"does not belong to tiny: .* a cosine of") as caught:
        require_same_weights(backbone, foreign)
    assert "other.safetensors" in str(caught.value) and "\n" not in str(caught.value)
    rows = torch.eye(WIDTH)
    sae = SparseAutoencoder(rows, torch.zeros(WIDTH), rows, torch.zeros(WIDTH), 0.5, 4)
    made = FeatureExtraction(backbone, sae, {}, "classification", ClassificationSettings())
    prompts = Prompts(("kite", "crane"), ("a {}",))
    with pytest.raises(ConfigError, match="does not belong to tiny"):
        ZeroShot.prepare(made, foreign, prompts)
    assert ZeroShot.prepare(made, tower(files["one"]), prompts).classes.shape == (2, OUT)


@pytest.mark.parametrize(("precision", "refused"), [("fp32", True), ("bf16", False)])
def test_fp32_has_less_room_than_half_precision(
    files: dict[str, Path], precision: Any, refused: bool
) -> None:
    backbone = replace(backbone_of(files["one"]), precision=precision)
    near = tower(files["one"])
    with torch.no_grad():
        g = torch.Generator().manual_seed(0)
        for parameter in near.model.visual.parameters():
            parameter.mul_(1 + 0.06 * torch.randn(parameter.shape, generator=g))
    if refused:
        with pytest.raises(ConfigError, match=r"cosine of 0.99"):
            require_same_weights(backbone, near)
    else:
        require_same_weights(backbone, near)


def test_another_width_is_refused(files: dict[str, Path]) -> None:
    with pytest.raises(ConfigError, match="their widths differ"):
        require_same_weights(backbone_of(files["one"], width=36), tower(files["one"]))


def test_at_another_resolution_the_patch_embeddings_are_compared(
    files: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    backbone = backbone_of(files["one"], side=SIDE + PATCH)
    require_same_weights(backbone, tower(files["one"]))
    assert capsys.readouterr().err == ""
    with pytest.raises(ConfigError, match="their patch embeddings differ"):
        require_same_weights(backbone, tower(files["other"]))

    class Bare:
        """A backbone of which nothing but its site is seen."""

        site = backbone.site

    unknown: Any = Bare()
    require_same_weights(unknown, tower(files["one"]))
    assert "could not be checked" in capsys.readouterr().err
