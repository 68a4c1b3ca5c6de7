"""A state dict nobody knows, with a small file that says what is what."""

from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch
from safetensors.torch import save_file
from tests.sae.formats.layouts import (
    FEATURES,
    WIDTH,
    K,
    gated,
    layer_norm,
    random_parts,
    tokens,
    top_k,
)
from torch import Tensor

from vitscope.errors import SaeError
from vitscope.sae.formats.load import load_sae

X = tokens()
PARTS = random_parts(8, "W_enc", "b_enc", "W_dec", "b_dec", "b_gate", "r_mag", "b_mag")
STORED = {
    **{name: PARTS[name] for name in ("b_enc", "b_dec", "b_gate", "r_mag", "b_mag")},
    "lift": PARTS["W_enc"].T.contiguous(),
    "drop": PARTS["W_dec"],
    "theta": torch.linspace(0.1, 1.4, FEATURES),
    "mean": torch.linspace(0, 3, WIDTH),
    "scale": torch.tensor(2.5),
}
NAMES = {"w_enc": "lift.T", "w_dec": "drop", "b_enc": "b_enc", "b_dec": "b_dec"}


def write(folder: Path, names: dict[str, str] | None = None, **options: Any) -> Path:
    save_file(STORED, folder / "x.safetensors")
    values = {**options, "tensors": {**NAMES, **(names or {})}}
    (folder / "mapping.toml").write_text(tomli_w.dumps(values))
    return folder


def agree(folder: Path, codes: Tensor, x_hat: Tensor | None = None) -> None:
    sae = load_sae(folder)
    torch.testing.assert_close(sae.encode(X), codes, rtol=1e-5, atol=1e-5)
    if x_hat is None:
        x_hat = codes @ PARTS["W_dec"] + PARTS["b_dec"]
    torch.testing.assert_close(sae.decode(codes, like=X), x_hat, rtol=1e-5, atol=1e-5)


def pre(x: Tensor, *, centred: bool = True) -> Tensor:
    return (x - PARTS["b_dec"] * centred) @ PARTS["W_enc"] + PARTS["b_enc"]


def test_every_activation(tmp_path: Path) -> None:
    agree(write(tmp_path), pre(X).clamp_min(0))
    agree(write(tmp_path, activation="topk", k=K), top_k(pre(X).clamp_min(0), K))
    agree(write(tmp_path, activation="signed_topk", k=30), top_k(pre(X), 30))
    one = torch.where(pre(X) > 1.5, pre(X), 0.0)
    agree(write(tmp_path, activation="threshold", threshold=1.5), one)
    each = torch.where(pre(X) > STORED["theta"], pre(X), 0.0)
    agree(write(tmp_path, {"threshold": "theta"}, activation="threshold"), each)
    each = torch.where(pre(X) > STORED["theta"].exp(), pre(X), 0.0)
    agree(write(tmp_path, {"log_threshold": "theta"}, activation="threshold"), each)
    names = {"b_gate": "b_gate", "r_mag": "r_mag", "b_enc": "b_mag"}
    agree(write(tmp_path, names), gated(X - PARTS["b_dec"], PARTS))


def test_encoders_and_decoders_of_other_kinds(tmp_path: Path) -> None:
    agree(write(tmp_path, subtract_b_dec=False), pre(X, centred=False).clamp_min(0))
    seen, deviation, mean = layer_norm(X)
    codes = pre(seen).clamp_min(0)
    x_hat = (codes @ PARTS["W_dec"] + PARTS["b_dec"]) * deviation + mean
    agree(write(tmp_path, token_norm="layer_norm"), codes, x_hat)
    unit = PARTS["W_dec"] / PARTS["W_dec"].norm(dim=1, keepdim=True)
    codes = pre(X).clamp_min(0)
    agree(write(tmp_path, unit_rows=True), codes, codes @ unit + PARTS["b_dec"])
    codes = pre((X - STORED["mean"]) / 2.5).clamp_min(0)
    x_hat = (codes @ PARTS["W_dec"] + PARTS["b_dec"]) * 2.5 + STORED["mean"]
    agree(write(tmp_path, {"input_mean": "mean", "input_deviation": "scale"}), codes, x_hat)


def test_statistics_may_lie_in_a_file_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "sae").mkdir()
    folder = write(
        tmp_path / "sae",
        {"input_mean": "m", "input_deviation": "s"},
        weights="x.safetensors",
        statistics="moments.pt",
    )
    torch.save({"m": STORED["mean"], "s": STORED["scale"]}, folder / "moments.pt")
    codes = pre((X - STORED["mean"]) / 2.5).clamp_min(0)
    x_hat = (codes @ PARTS["W_dec"] + PARTS["b_dec"]) * 2.5 + STORED["mean"]
    agree(folder, codes, x_hat)
    agree(folder / "mapping.toml", codes, x_hat)


def test_biases_may_be_absent(tmp_path: Path) -> None:
    save_file(STORED, tmp_path / "x.safetensors")
    (tmp_path / "mapping.json").write_text('{"tensors": {"w_enc": "lift.T", "w_dec": "drop"}}')
    codes = (X @ PARTS["W_enc"]).clamp_min(0)
    agree(tmp_path, codes, codes @ PARTS["W_dec"])


def test_what_it_says_of_model_and_hook_is_kept(tmp_path: Path) -> None:
    sae = load_sae(write(tmp_path, model="CLIP", hook="blocks.10.hook_resid_post"))
    assert (sae.info["declared_model"], sae.info["declared_layer"]) == ("CLIP", 11)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        ({"w_enk": "lift"}, {}, r"unknown key 'tensors.w_enk' \(did you mean 'w_enc'\?\)"),
        ({}, {"activation": "relux"}, "activation: .*relux"),
        ({"w_enc": "lift"}, {}, r"w_enc has shape \[32, 8\].*must be \[8, 32\]"),
        ({"w_enc": "nothing"}, {}, "lacks nothing; it holds b_dec, b_enc"),
        ({"w_enc": "b_enc"}, {}, r"b_enc has shape \[32\]; a matrix is expected"),
        ({}, {"activation": "topk"}, "k is 0; with 32 features it must be 1 to 32"),
        ({}, {"activation": "threshold"}, "needs threshold, or tensors.threshold"),
        ({}, {"threshold": -1.0}, "greater than or equal to 0"),
        ({}, {"weights": "../x.safetensors"}, "names files beside it"),
        ({}, {"weights": "x" * 5000}, "which is not beside it"),
        ({"input_mean": "mean"}, {"token_norm": "layer_norm"}, "normalises tokens"),
        ({"b_gate": "b_dec", "r_mag": "r_mag"}, {}, r"b_gate has shape \[8\]"),
    ],
)
def test_mistakes(
    names: dict[str, str], options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(SaeError, match=message) as caught:
        load_sae(write(tmp_path, names, **options))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = ", "is not a TOML file"),
        ("k = 3", "tensors: required, but not given"),
        ("\xff", "TOML"),
    ],
)
def test_a_mapping_that_is_none(text: str, message: str, tmp_path: Path) -> None:
    save_file(STORED, tmp_path / "x.safetensors")
    (tmp_path / "mapping.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(SaeError, match=message) as caught:
        load_sae(tmp_path)
    assert "\n" not in str(caught.value)
