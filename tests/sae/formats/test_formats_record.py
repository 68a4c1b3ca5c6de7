"""What a file says of its place, in the words of several libraries."""

from pathlib import Path

import pytest

from vitscope.sae.formats.reading import Stored
from vitscope.sae.formats.record import imported_info
from vitscope.sae.formats.source import Source


@pytest.mark.parametrize(
    ("hook", "declared"),
    [
        ("blocks.9.hook_resid_post", 10),
        ("blocks.9.hook_resid_pre", 9),
        ("vision_model.blocks.9.hook_resid_post", 10),
        ("vision_model.encoder.layers.9", 10),
        ("layers.22", 23),
        ("transformer.resblocks.0", 1),
        ("blocks.0.hook_resid_pre", None),
        ("blocks.9.hook_mlp_out", None),
        ("blocks.9.hook_resid_mid", None),
        ("layers.9.mlp", None),
        ("blocks.9.attn.hook_z", None),
    ],
)
def test_hooks_that_are_understood(hook: str, declared: int | None) -> None:
    info = imported_info(source(), "x", assumed=["a"], hook=hook)
    assert info["declared_hook"] == hook
    assert info.get("declared_layer") == declared


@pytest.mark.parametrize("hook", ["in_block", "resid_9", "trainer_0", 7, None, "topk"])
def test_hooks_that_are_not_say_nothing(hook: object) -> None:
    assert "declared_hook" not in imported_info(source(), "x", assumed=["a"], hook=hook)


def test_what_is_kept() -> None:
    info = imported_info(
        source(), "lib kind", assumed=["one", "two"], caution=["careful"], model="CLIP"
    )
    assert info == {
        "format": "lib kind",
        "file": "w.pt",
        "assumed": "one; two",
        "caution": "careful",
        "declared_model": "CLIP",
    }


def source() -> Source:
    return Source(Path("some/w.pt"), Stored({}))
