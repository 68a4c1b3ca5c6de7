"""What a file says of its place, in the words of several libraries."""

from pathlib import Path
from typing import Any

import pytest
import torch

from vitscope.backbones.weights.reading import StoredWeights
from vitscope.sae.formats.source import Source, imported_sae
from vitscope.sae.model import Info


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
    info = info_of("x", hook=hook)
    assert info["declared_hook"] == hook
    assert info.get("declared_layer") == declared


@pytest.mark.parametrize("hook", ["in_block", "resid_9", "trainer_0", 7, None, "topk"])
def test_hooks_that_are_not_say_nothing(hook: object) -> None:
    assert "declared_hook" not in info_of("x", hook=hook)


def test_what_is_kept() -> None:
    info = info_of("lib kind", assumed=["one", "two"], caution=["careful"], model="CLIP")
    assert info == {
        "format": "lib kind",
        "file": "w.pt",
        "assumed": "b_dec is subtracted before the encoder; tokens are not normalised; W_enc is "
        "[d, m], W_dec is [m, d]; one; two",
        "caution": "careful",
        "declared_model": "CLIP",
    }


def test_an_encoder_that_does_not_subtract_is_said_to_and_gives_the_same_codes() -> None:
    x = torch.randn(5, 2)
    bias = torch.tensor([0.5, -1.0])
    sae = imported_sae(
        Source(Path("w.pt"), StoredWeights({})),
        "x",
        w_enc=torch.eye(2),
        b_enc=torch.zeros(2),
        w_dec=torch.eye(2),
        b_dec=bias,
        centred=False,
    )
    assert str(sae.info["assumed"]).startswith("b_dec is not subtracted before the encoder; ")
    torch.testing.assert_close(sae.encode(x), x.relu())
    torch.testing.assert_close(sae.decode(sae.encode(x), like=x), x.relu() + bias)


def info_of(library: str, **said: Any) -> Info:
    source = Source(Path("some/w.pt"), StoredWeights({}))
    zeros = torch.zeros(2)
    parts: dict[str, Any] = {"w_enc": torch.eye(2), "w_dec": torch.eye(2)}
    return imported_sae(source, library, **parts, b_enc=zeros, b_dec=zeros, **said).info
