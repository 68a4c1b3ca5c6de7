"""The embedded backbone: its file is what its header says, and it has learned what it claims."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch.nn import functional

from vitscope.backbones.loading import load_backbone
from vitscope.backbones.scenes_vit import HEADER_KEY, load_scenes_text, read_header, scenes_file
from vitscope.backbones.settings import BackboneSettings
from vitscope.backbones.user_model import check_backbone
from vitscope.embedded.files import SCENES_VIT, SCENES_VIT_SIZES, SCENES_VIT_UNTRAINED, WEIGHT_FILES
from vitscope.embedded.vocabulary import PLACES
from vitscope.errors import BackboneError
from vitscope.images.sources import SceneSet, open_image
from vitscope.scope.views import plain_view

CPU = torch.device("cpu")
FILE = scenes_file(BackboneSettings(name=SCENES_VIT))
MANY = 10**9
MEGABYTES = 1e6


def scenes(n: int, backbone: object) -> tuple[torch.Tensor, torch.Tensor]:
    found = SceneSet(n, seed=1, side=88)
    views = [
        plain_view(
            open_image(ref, max_pixels=MANY),
            site=backbone.site,  # pyright: ignore
            preprocessing=backbone.preprocessing,  # pyright: ignore
        )
        for ref in found
    ]
    return torch.stack(views), torch.tensor([PLACES.index(str(ref.label)) for ref in found])


def test_it_is_the_network_of_its_header_at_the_penultimate_block() -> None:
    backbone, header = load_backbone(SCENES_VIT, device="cpu"), read_header(FILE)
    plain = VisionTransformer(**header.vision).eval()
    state = {
        name.removeprefix("vision."): value.float()
        for name, value in load_file(FILE).items()
        if name.startswith("vision.")
    }
    plain.load_state_dict(state, strict=True)
    images, _ = scenes(4, backbone)
    mean, std = (torch.tensor(v)[:, None, None] for v in (header.mean, header.std))
    with torch.inference_mode():
        hidden = plain.patch_embed((images / 255 - mean) / std)
        hidden = plain._pos_embed(hidden)
        for block in plain.blocks[:-1]:  # pyright: ignore
            hidden = block(hidden)
        tokens = backbone.tokens(images)
        torch.testing.assert_close(tokens.patch, hidden[:, 1:])
        pooled = plain.norm(plain.blocks[-1](hidden))[:, 0]  # pyright: ignore
        torch.testing.assert_close(backbone.resume(tokens).pooled, pooled)
    assert backbone.site.layer == len(plain.blocks) - 1


@pytest.mark.parametrize("name", [*SCENES_VIT_SIZES, SCENES_VIT_UNTRAINED])
def test_it_keeps_the_contract_of_a_backbone(name: str) -> None:
    check_backbone(load_backbone(name, device="cpu"))


@pytest.mark.parametrize("size", SCENES_VIT_SIZES)
def test_it_knows_places_from_their_names_and_an_untrained_copy_does_not(size: str) -> None:
    trained = load_backbone(size, device="cpu")
    text = load_scenes_text(BackboneSettings(name=size), CPU)
    prompts = text.embed([f"a photo of a {place}" for place in PLACES])
    torch.testing.assert_close(prompts.norm(dim=-1), torch.ones(len(PLACES)))
    images, places = scenes(128, trained)

    def accuracy(backbone: object) -> float:
        pooled = backbone.resume(backbone.tokens(images)).pooled  # pyright: ignore
        found = (text.project(pooled) @ prompts.T).argmax(1)
        return float((found == places).float().mean())

    assert accuracy(trained) > 0.85
    if size == SCENES_VIT_SIZES[-1]:
        assert accuracy(load_backbone(SCENES_VIT_UNTRAINED)) < 0.3


def test_the_untrained_copy_is_one_and_the_same_and_leaves_the_generator_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    one = load_backbone(SCENES_VIT_UNTRAINED, device="cpu")
    assert torch.equal(torch.rand(3), expected)
    two = load_backbone(SCENES_VIT_UNTRAINED, device="cpu")
    images, _ = scenes(2, one)
    assert torch.equal(one.tokens(images).patch, two.tokens(images).patch)
    assert one.site == two.site
    other = load_backbone(SCENES_VIT, device="cpu").tokens(images).patch
    assert functional.cosine_similarity(one.tokens(images).patch, other, dim=-1).abs().mean() < 0.5


def test_a_caption_is_read_in_any_case_and_padding_changes_nothing() -> None:
    text = load_scenes_text(BackboneSettings(name=SCENES_VIT), CPU)
    alone = text.embed(["A PHOTO of a jetty"])
    torch.testing.assert_close(
        text.embed(["a photo of a jetty", "a photo of a place at noon, two objects"])[:1], alone
    )
    assert text.embed([""]).isfinite().all()


def test_all_sizes_fit_the_package() -> None:
    files = {scenes_file(BackboneSettings(name=name)) for name in WEIGHT_FILES}
    assert len(files) == len(SCENES_VIT_SIZES)
    assert sum(file.stat().st_size for file in files) < 12 * MEGABYTES
    assert [read_header(file).name for file in sorted(files)] == sorted(SCENES_VIT_SIZES)


def test_each_size_is_wider_and_deeper_than_the_last() -> None:
    headers = [read_header(scenes_file(BackboneSettings(name=name))) for name in SCENES_VIT_SIZES]
    shapes = [(h.vision["embed_dim"], h.vision["depth"]) for h in headers]
    assert shapes == [(64, 4), (96, 6), (128, 8)]
    assert {h.images_seen for h in headers} == {160_000}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"resolution": 160}, "backbone.resolution means nothing for 'scenes-vit'"),
        ({"layer": 9}, "scenes-vit has 8 blocks"),
        ({"weights": Path("none.safetensors")}, "none.safetensors does not exist; export one"),
        ({"name": "scenes-vit-l"}, "does not come with the package: train it"),
    ],
)
def test_what_it_does_not_have_is_refused(options: dict[str, object], says: str) -> None:
    with pytest.raises(BackboneError, match=says):
        load_backbone(BackboneSettings.model_validate({"name": SCENES_VIT, **options}))


def test_other_files_are_refused(tmp_path: Path) -> None:
    header = {"format": "vitscope-scenes-vit", "version": 1}
    tensors = {"vision.cls_token": torch.zeros(1)}
    path = tmp_path / "other.safetensors"
    for metadata, says in (
        (None, "is not the export of a reference backbone"),
        ({HEADER_KEY: json.dumps(header | {"version": 2})}, "version 2; this vitscope reads"),
        ({HEADER_KEY: json.dumps(header)}, "header of .* is damaged"),
        ({HEADER_KEY: "{"}, "header of .* is damaged"),
    ):
        save_file(tensors, path, metadata)
        with pytest.raises(BackboneError, match=says):
            load_backbone(SCENES_VIT, weights=path)
    path.write_text("no safetensors")
    with pytest.raises(BackboneError, match="is no safetensors file"):
        load_backbone(SCENES_VIT, weights=path)


def test_missing_and_surplus_weights_are_refused(tmp_path: Path) -> None:
    with safe_open(FILE, "pt") as file:
        metadata = file.metadata()
    tensors, path = load_file(FILE), tmp_path / "changed.safetensors"
    save_file({k: v for k, v in tensors.items() if k != "vision.norm.bias"}, path, metadata)
    with pytest.raises(BackboneError, match=r"does not hold what its header says: .*norm\.bias"):
        load_backbone(SCENES_VIT, weights=path)
    save_file(tensors | {"vision.more": torch.zeros(1)}, path, metadata)
    with pytest.raises(BackboneError, match="more"):
        load_backbone(SCENES_VIT, weights=path)


def test_the_untrained_copy_has_no_text_tower() -> None:
    with pytest.raises(BackboneError, match="has never seen a caption"):
        load_scenes_text(BackboneSettings(name=SCENES_VIT_UNTRAINED), CPU)
