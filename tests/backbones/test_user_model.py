"""A plain torch module through the twenty-line adapter that the docs show, and broken ones."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from tests.backbones.pictures import noise_batch

from vitscope.backbones.backbone import Backbone, BlockTokens
from vitscope.backbones.loading import load_backbone
from vitscope.backbones.user_model import check_backbone
from vitscope.errors import BackboneError

DOCS = Path(__file__).parents[2] / "docs" / "backbones.md"


def documented_adapter() -> str:
    """The adapter as the docs show it: the Python block that defines `build`."""
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.S)
    (adapter,) = [block for block in blocks if "def build(" in block]
    return adapter


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))  # where its `my_vit` is
    (tmp_path / "my_backbone.py").write_text(documented_adapter())
    return tmp_path


@pytest.fixture
def backbone(folder: Path) -> Backbone:
    return load_backbone(f"{folder}/my_backbone.py:build", layer=2)


def test_the_documented_adapter_has_twenty_lines() -> None:
    lines = [line for line in documented_adapter().splitlines() if line.strip()]
    adapter = lines[next(i for i, line in enumerate(lines) if line.startswith("class ")) :]
    assert len(adapter) <= 20


@torch.inference_mode()
def test_the_documented_adapter_gives_the_modules_own_numbers(backbone: Backbone) -> None:
    model: Any = cast(Any, backbone).model
    images = noise_batch(2, 48)
    seen: list[torch.Tensor] = []
    block = model.blocks[1]
    handle = block.register_forward_hook(lambda _m, _i, output: seen.append(output))
    pixels = (images.float() / 255 - 0.5) / 0.5
    pooled = model(pixels)
    handle.remove()
    tokens = backbone.tokens(images)
    assert torch.equal(tokens.patch, seen[0])
    assert torch.equal(backbone.resume(tokens).pooled, pooled)
    # attention against torch's own weights
    hidden: Any = model.embed(pixels).flatten(2).transpose(1, 2) + model.position
    z = block.norm(model.blocks[0](hidden))
    _, expected = block.attend(z, z, z, need_weights=True, average_attn_weights=False)
    torch.testing.assert_close(backbone.attention(images).patch_rows(), expected)


def test_a_dotted_module_is_found_on_the_path(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(folder))
    assert load_backbone("my_backbone:build", layer=1).site.layer == 1


BROKEN: dict[str, tuple[Callable[[Backbone], object], str]] = {
    "transposed": (
        lambda b: setattr(b, "tokens", _changed(b.tokens, lambda t: t.transpose(1, 2))),
        r"tokens\(\).patch is \[2, 48, 36\], wanted \[2, 36, 48\]",
    ),
    "NaN": (
        lambda b: setattr(b, "tokens", _changed(b.tokens, lambda t: t * float("nan"))),
        r"tokens\(\).patch \(torch.float32\) is not all finite",
    ),
    "batch statistics": (
        lambda b: setattr(b, "tokens", _changed(b.tokens, lambda t: t - t.mean(0))),
        r"tokens\(\) of an image depend on the other images",
    ),
    "blind": (
        lambda b: setattr(b, "tokens", _changed(b.tokens, torch.ones_like)),
        r"tokens\(\) of two different images are the same",
    ),
    "logits": (
        lambda b: setattr(b, "attention", lambda _: _Logits()),
        r"attention\(\).rows\(\) are not probabilities",
    ),
    "prefix forgotten": (
        lambda b: setattr(b, "attention", lambda _: _Logits(n_prefix=1)),
        r"attention\(\) has 1 prefix tokens of 36, tokens\(\) has 0 of 36",
    ),
}


def _changed(
    tokens: Callable[[torch.Tensor], BlockTokens], change: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[torch.Tensor], BlockTokens]:
    def other(images: torch.Tensor) -> BlockTokens:
        found = tokens(images)
        return BlockTokens(change(found.patch), found.prefix)

    return other


class _Logits:
    n_tokens = 36

    def __init__(self, n_prefix: int = 0) -> None:
        self.n_prefix = n_prefix

    def rows(self, queries: torch.Tensor) -> torch.Tensor:
        return torch.randn(2, 3, len(queries), 36)


@pytest.mark.parametrize("fault", BROKEN)
def test_a_backbone_that_breaks_its_word_is_told_where(fault: str, backbone: Backbone) -> None:
    spoil, message = BROKEN[fault]
    check_backbone(backbone)
    spoil(backbone)
    with pytest.raises(BackboneError, match=message):
        check_backbone(backbone)


@pytest.mark.parametrize(
    ("text", "name", "message"),
    [
        ("", "nowhere.py:build", r"nowhere.py does not exist; backbone.name takes file.py"),
        ("x = 1", "own.py:build", r"own.py has no function 'build' to build a backbone with"),
        ("def build(:", "own.py:build", r"own.py, line 1: "),
        ("import nothing_of_the_kind", "own.py:build", r"cannot be imported: No module named"),
        ("def build(s): return 3", "own.py:build", r"returned a int without site, preprocessing"),
        ("def build(s):\n    return 1 / 0", "own.py:build", r"failed at .*own.py:2: ZeroDivision"),
    ],
)
def test_what_is_wrong_with_a_users_file_is_said(
    text: str, name: str, message: str, tmp_path: Path
) -> None:
    (tmp_path / "own.py").write_text(text)
    with pytest.raises(BackboneError, match=message):
        load_backbone(f"{tmp_path}/{name}")


def test_a_module_that_is_not_there() -> None:
    with pytest.raises(BackboneError, match="module 'no_such_module' cannot be imported"):
        load_backbone("no_such_module:build")
