import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.sae.dense_sae import random_parameters
from torch import Tensor

from vitscope.backbones.backbone import Site
from vitscope.errors import SaeError
from vitscope.sae.model import (
    AboveThresholds,
    Activation,
    ConstantNorm,
    GroupMax,
    LayerNorm,
    SparseAutoencoder,
    TokenNorm,
    TopK,
)
from vitscope.sae.storage import (
    CARD,
    SAE_SCHEMA,
    WEIGHTS,
    check_fits,
    load_saved_sae,
    sae_digest,
    save_sae,
)
from vitscope.store.tensors import load_tensors, save_tensors

SITE = Site(model="vit_toy.a", weights="abc", layer=3, width=12, grid=4, patch=8)


@pytest.fixture
def sae() -> SparseAutoencoder:
    p = random_parameters(12, 40, seed=2, dtype=torch.float32)
    info: dict[str, str | float | int] = {"method": "BatchTopK", "seed": 3, "rate": 0.1}
    return SparseAutoencoder(
        p.w_enc.T, p.b_enc, p.w_dec, p.b_dec, threshold=0.1 + 0.2, k=4, site=SITE, info=info
    )


@pytest.mark.parametrize("site", [SITE, None])
def test_a_loaded_sae_is_the_saved_one(
    sae: SparseAutoencoder, site: Site | None, tmp_path: Path
) -> None:
    sae = replace(sae, site=site)
    files = save_sae(tmp_path / "new" / "sae", sae)
    loaded = load_saved_sae(tmp_path / "new" / "sae")
    assert [p.name for p in files] == [WEIGHTS, CARD]
    assert all(p.is_file() for p in files)
    for name in ("w_enc", "b_enc", "w_dec", "b_dec"):
        assert torch.equal(getattr(loaded, name), getattr(sae, name))
    assert (loaded.threshold, loaded.k) == (sae.threshold, 4)
    assert (loaded.site, loaded.info) == (site, sae.info)
    x = torch.randn(20, 12)
    torch.testing.assert_close(loaded.decode(loaded.encode(x)), sae.decode(sae.encode(x)))


def test_the_card_says_what_the_metrics_mean(sae: SparseAutoencoder, tmp_path: Path) -> None:
    save_sae(tmp_path, sae)
    card = json.loads((tmp_path / CARD).read_text())
    assert card["schema"] == SAE_SCHEMA
    assert "mean over all evaluated tokens" in card["metrics"]["fvu"]
    assert card["site"]["model"] == "vit_toy.a"


@pytest.mark.parametrize("gone", [[WEIGHTS], [CARD], [WEIGHTS, CARD]])
def test_missing_files_are_named(sae: SparseAutoencoder, gone: list[str], tmp_path: Path) -> None:
    save_sae(tmp_path, sae)
    for name in gone:
        (tmp_path / name).unlink()
    with pytest.raises(SaeError, match=f"{' and '.join(gone)} missing"):
        load_saved_sae(tmp_path)


def test_a_folder_that_does_not_exist_and_a_file(tmp_path: Path) -> None:
    with pytest.raises(SaeError, match="holds no SAE"):
        load_saved_sae(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    with pytest.raises(SaeError, match="holds no SAE"):
        load_saved_sae(tmp_path / "file")


def without(name: str) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.__delitem__(name)


def with_tensor(name: str, value: Tensor) -> Callable[[dict[str, Tensor]], None]:
    return lambda tensors: tensors.__setitem__(name, value)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (without("b_enc"), "b_enc is missing"),
        (with_tensor("w_skip", torch.ones(2)), "w_skip is unexpected"),
        (with_tensor("w_enc", torch.ones(40, 12)), r"w_enc has shape \[40, 12\]"),
        (with_tensor("b_dec", torch.full((12,), torch.nan)), "12 of 12 values of b_dec are NaN"),
        (with_tensor("b_dec", torch.ones(12, dtype=torch.int64)), "not floating point"),
        (with_tensor("b_dec", torch.zeros(12)), "is not the file that sae.json describes"),
    ],
)
def test_damaged_weights_are_refused(
    sae: SparseAutoencoder,
    damage: Callable[[dict[str, Tensor]], None],
    message: str,
    tmp_path: Path,
) -> None:
    save_sae(tmp_path, sae)
    tensors, _ = load_tensors(tmp_path / WEIGHTS)
    damage(tensors)
    save_tensors(tmp_path / WEIGHTS, tensors, {})
    with pytest.raises(SaeError, match=message):
        load_saved_sae(tmp_path)


def test_a_flipped_bit_and_a_cut_file(sae: SparseAutoencoder, tmp_path: Path) -> None:
    save_sae(tmp_path, sae)
    content = bytearray((tmp_path / WEIGHTS).read_bytes())
    (tmp_path / WEIGHTS).write_bytes(content[:-10])
    with pytest.raises(SaeError, match="damaged"):
        load_saved_sae(tmp_path)
    content[-10] ^= 1
    (tmp_path / WEIGHTS).write_bytes(content)
    with pytest.raises(SaeError, match="checksum"):
        load_saved_sae(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": SAE_SCHEMA + 1}, "newer vitscope"),
        ({"schema": None}, "names no schema"),
        ({"threshold": None}, "incomplete or damaged"),
        ({"threshold": -1.0}, "threshold is -1"),
        ({"site": {"model": "x"}}, "incomplete or damaged"),
        ({"activation": {"kind": "softmax"}}, "no activation 'softmax'"),
        ({"activation": {"kind": "thresholds"}}, "incomplete or damaged: KeyError.'thresholds'"),
        ({"activation": None}, "incomplete or damaged"),
        ({"token_norm": {"kind": "batch"}}, "no token normalisation 'batch'"),
        ({"width": 13}, "says 40 of width 13"),
        ({"weights_sha256": "0"}, "is not the file"),
    ],
)
def test_a_wrong_card_is_refused(
    sae: SparseAutoencoder, change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    save_sae(tmp_path, sae)
    card = json.loads((tmp_path / CARD).read_text())
    (tmp_path / CARD).write_text(json.dumps(card | change))
    with pytest.raises(SaeError, match=message):
        load_saved_sae(tmp_path)


@pytest.mark.parametrize("text", ["{", "[1]", '{"schema": 1}'])
def test_a_card_that_is_none(sae: SparseAutoencoder, text: str, tmp_path: Path) -> None:
    save_sae(tmp_path, sae)
    (tmp_path / CARD).write_text(text)
    with pytest.raises(SaeError, match=CARD):
        load_saved_sae(tmp_path)


def test_weights_that_are_not_finite_are_not_saved(sae: SparseAutoencoder, tmp_path: Path) -> None:
    with pytest.raises(SaeError, match="b_enc"):
        save_sae(tmp_path, replace(sae, b_enc=sae.b_enc / 0))
    assert list(tmp_path.iterdir()) == []


def test_check_fits(sae: SparseAutoencoder) -> None:
    check_fits(sae, SITE)
    check_fits(sae, replace(SITE, grid=7))  # another resolution reads the same activations
    check_fits(replace(sae, site=None), replace(SITE, model="other", layer=9))
    for change, message in (
        ({"width": 16}, "width 12.*width 16"),
        ({"model": "vit_toy.b"}, r"backbone vit_toy\.a.*backbone vit_toy\.b"),
        ({"weights": "xyz"}, "weights abc.*weights xyz"),
        ({"layer": 4}, "layer 3.*layer 4"),
    ):
        with pytest.raises(SaeError, match=message):
            check_fits(sae, replace(SITE, **change))
    with pytest.raises(SaeError, match="width"):
        check_fits(replace(sae, site=None), replace(SITE, width=16))


@pytest.mark.parametrize(
    "activation",
    [AboveThresholds(torch.linspace(0, 1, 40)), TopK(), TopK(signed=True), GroupMax()],
    ids=["thresholds", "top-k", "signed top-k", "groupmax"],
)
@pytest.mark.parametrize("norm", [None, LayerNorm(1e-3), ConstantNorm()], ids=str)
def test_every_form_is_saved(
    sae: SparseAutoencoder, activation: Activation, norm: TokenNorm | None, tmp_path: Path
) -> None:
    sae = replace(sae, activation=activation, token_norm=norm)
    save_sae(tmp_path, sae)
    loaded = load_saved_sae(tmp_path)
    x = torch.randn(20, 12)
    assert (type(loaded.activation), loaded.token_norm) == (type(activation), norm)
    assert torch.equal(loaded.encode(x), sae.encode(x))
    assert torch.equal(loaded.decode(loaded.encode(x), like=x), sae.decode(sae.encode(x), like=x))


def test_a_card_of_the_first_schema_is_read(sae: SparseAutoencoder, tmp_path: Path) -> None:
    save_sae(tmp_path, sae)
    card = json.loads((tmp_path / CARD).read_text()) | {"schema": 1}
    del card["activation"], card["token_norm"]
    (tmp_path / CARD).write_text(json.dumps(card))
    x = torch.randn(20, 12)
    assert torch.equal(load_saved_sae(tmp_path).encode(x), sae.encode(x))


def test_thresholds_that_the_card_does_not_speak_of(sae: SparseAutoencoder, tmp_path: Path) -> None:
    save_sae(tmp_path, replace(sae, activation=AboveThresholds(torch.rand(40))))
    card = json.loads((tmp_path / CARD).read_text()) | {"activation": {"kind": "threshold"}}
    (tmp_path / CARD).write_text(json.dumps(card))
    with pytest.raises(SaeError, match="it says nothing of thresholds"):
        load_saved_sae(tmp_path)


def test_what_an_imported_sae_declares_is_compared(sae: SparseAutoencoder) -> None:
    imported = replace(sae, site=None, info={"declared_hook": "blocks.2.hook_resid_post"})
    here = replace(imported, info={**imported.info, "declared_layer": 3})
    check_fits(here, SITE)
    with pytest.raises(SaeError, match=r"on block 3 .*reads block 9.*backbone\.layer = 3"):
        check_fits(here, replace(SITE, layer=9))
    mlp = replace(imported, info={"declared_hook": "blocks.2.hook_mlp_out"})
    with pytest.raises(SaeError, match="hook_mlp_out, which is not the residual stream"):
        check_fits(mlp, SITE)


def test_the_digest_is_of_what_decides_the_codes(sae: SparseAutoencoder, tmp_path: Path) -> None:
    save_sae(tmp_path, sae)
    same = replace(load_saved_sae(tmp_path), info={"another": "story"}, site=None)
    assert sae_digest(same) == sae_digest(sae)
    others = [
        replace(sae, b_dec=sae.b_dec + 1e-6),
        replace(sae, w_enc=-sae.w_enc),
        replace(sae, threshold=0.31),
        replace(sae, k=5),
        replace(sae, activation=TopK()),
        replace(sae, activation=AboveThresholds(torch.full((40,), 0.3))),
        replace(sae, activation=AboveThresholds(torch.full((40,), 0.4))),
        replace(sae, token_norm=LayerNorm()),
    ]
    assert len({sae_digest(other) for other in [sae, *others]}) == len(others) + 1


def test_half_precision_on_disk_is_fp32_in_memory(sae: SparseAutoencoder, tmp_path: Path) -> None:
    halved = replace(sae, w_enc=sae.w_enc.half(), w_dec=sae.w_dec.bfloat16())
    save_sae(tmp_path, halved)
    loaded = load_saved_sae(tmp_path)
    assert loaded.w_enc.dtype == loaded.w_dec.dtype == loaded.b_enc.dtype == torch.float32
    assert torch.equal(loaded.w_enc, sae.w_enc.half().float())
    assert torch.equal(loaded.w_dec, sae.w_dec.bfloat16().float())
