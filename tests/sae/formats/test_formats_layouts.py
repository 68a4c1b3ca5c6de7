"""Files in the true layout of libraries that cannot be installed, against plain arithmetic."""

from pathlib import Path
from typing import Any

import pytest
import torch
from tests.sae.formats.layouts import (
    FEATURES,
    WIDTH,
    K,
    Parts,
    gated,
    layer_norm,
    random_parts,
    tokens,
    top_k,
    write_prisma,
    write_saev,
)
from torch import Tensor

from vitscope.sae.formats.load import SAE_FORMATS, load_sae
from vitscope.sae.formats.source import open_source

X = tokens()


def agree(library: str, path: Path, codes: Tensor, x_hat: Tensor) -> None:
    sae = load_sae(path)
    assert str(sae.info["format"]).startswith(library)
    source = open_source(path)
    assert [known.name for known in SAE_FORMATS if known.recognises(source)] == [library]
    found = sae.encode(X)
    assert torch.equal(found != 0, codes != 0)
    torch.testing.assert_close(found, codes, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(sae.decode(found, like=X), x_hat, rtol=1e-5, atol=1e-5)


CFG = {"d_model": WIDTH, "d_sae": FEATURES, "normalize_w_dec": True}
OLD = {"d_vit": WIDTH, "exp_factor": FEATURES // WIDTH, "seed": 0}


def with_activation(base: dict[str, Any], cls: str, **params: Any) -> dict[str, Any]:
    return {**base, "activation": {"cls": cls, "params": params}}


HEADERS: dict[str, tuple[dict[str, Any], str]] = {
    "none": ({**OLD, "sparsity_coeff": 4e-4, "ghost_grads": False}, "Relu"),
    "1, class outside, relu": ({"schema": 1, "cls": "Relu", "cfg": OLD}, "Relu"),
    "1, class outside, top-k": ({"schema": 1, "cls": "TopK", "cfg": {**OLD, "top_k": K}}, "TopK"),
    "1, class inside": (
        {
            "schema": 1,
            "cls": "SparseAutoencoderConfig",
            "cfg": with_activation(OLD, "TopK", top_k=K),
        },
        "TopK",
    ),
    "1, no activation": ({"schema": 1, "cls": "SparseAutoencoderConfig", "cfg": OLD}, "Relu"),
    "2": ({"schema": 2, "cfg": with_activation(OLD, "BatchTopK", top_k=K)}, "TopK"),
    "3": ({"schema": 3, "cfg": with_activation(CFG, "Relu")}, "Relu"),
    "4": ({"schema": 4, "cfg": with_activation(CFG, "BatchTopK", top_k=K, momentum=0.1)}, "Batch"),
    "5": (
        {"schema": 5, "cfg": with_activation(CFG, "BatchTopK", top_k=K), "commit": "c", "lib": "l"},
        "Batch",
    ),
}


@pytest.mark.parametrize("name", HEADERS)
def test_every_schema_of_saev(name: str, tmp_path: Path) -> None:
    header, activation = HEADERS[name]
    parts = random_parts(1)
    stored = dict(parts)
    if activation == "Batch":
        stored["activation.threshold"] = torch.tensor(1.3)
    centre = parts["b_dec"] if name == "none" else 0.0
    pre = (X - centre) @ parts["W_enc"] + parts["b_enc"]
    codes = {
        "Relu": pre.clamp_min(0),
        "TopK": top_k(pre, K),
        "Batch": torch.where(pre > 1.3, pre, 0.0),
    }[activation]
    agree(
        "saev",
        write_saev(tmp_path / "sae.pt", header, stored),
        codes,
        codes @ parts["W_dec"] + parts["b_dec"],
    )


def test_saev_keeps_negative_values_among_the_largest(tmp_path: Path) -> None:
    parts = random_parts(2)
    parts["b_enc"] = parts["b_enc"] - 12
    header = {"schema": 3, "cfg": with_activation(CFG, "TopK", top_k=K)}
    sae = load_sae(write_saev(tmp_path / "sae.pt", header, parts))
    assert bool((sae.encode(X) < 0).any())
    assert torch.equal((sae.encode(X) != 0).sum(1), torch.full((len(X),), K))


def prisma_reference(parts: Parts, norm: str, kind: str) -> tuple[Tensor, Tensor]:
    seen, scale, shift = X, torch.ones(len(X), 1), torch.zeros(len(X), 1)
    if norm == "layer_norm":
        seen, scale, shift = layer_norm(X)
    elif norm == "constant_norm_rescale":
        scale = X.norm(dim=1, keepdim=True) / WIDTH**0.5
        seen = X / scale
    seen = seen - parts["b_dec"]
    if kind == "gated":
        codes = gated(seen, parts)
    else:
        pre = seen @ parts["W_enc"] + parts["b_enc"]
        codes = pre.clamp_min(0) if kind == "relu" else top_k(pre, K).clamp_min(0)
    return codes, (codes @ parts["W_dec"] + parts["b_dec"]) * scale + shift


@pytest.mark.parametrize("norm", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("kind", ["relu", "topk", "gated"])
def test_prisma(norm: str, kind: str, tmp_path: Path) -> None:
    names = ("W_enc", "b_enc", "W_dec", "b_dec", "b_gate", "r_mag", "b_mag")
    parts = random_parts(3, *(names if kind == "gated" else names[:4]))
    options: dict[str, Any] = {"normalize_activations": norm}
    if kind == "gated":
        options["architecture"] = "gated"
    if kind == "topk":
        options |= {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": K}}
    folder = write_prisma(tmp_path, parts, **options)
    agree("ViT-Prisma", folder, *prisma_reference(parts, norm, kind))


def test_prisma_without_the_field_normalises_as_its_dataclass_does(tmp_path: Path) -> None:
    parts = random_parts(3)
    folder = write_prisma(tmp_path, parts, normalize_activations=None)
    agree("ViT-Prisma", folder, *prisma_reference(parts, "layer_norm", "relu"))


@pytest.mark.parametrize("name", ["n_images_2600058.pt", "anything.ckpt"])
def test_the_name_of_a_file_does_not_matter(name: str, tmp_path: Path) -> None:
    parts = random_parts(4)
    folder = write_prisma(tmp_path, parts)
    (folder / "weights.pt").rename(folder / name)
    agree("ViT-Prisma", folder, *prisma_reference(parts, "layer_norm", "relu"))
    agree("ViT-Prisma", folder / name, *prisma_reference(parts, "layer_norm", "relu"))


def test_a_backup_of_dictionary_learning_has_its_scale_folded_in(tmp_path: Path) -> None:
    parts, scale = random_parts(5), 3.5
    state = {
        "encoder.weight": parts["W_enc"].T.contiguous(),
        "encoder.bias": parts["b_enc"],
        "decoder.weight": parts["W_dec"].T.contiguous(),
        "b_dec": parts["b_dec"],
        "k": torch.tensor(K, dtype=torch.int32),
        "threshold": torch.tensor(1.1),
    }
    trainer = {"dict_class": "BatchTopKSAE", "k": K, "lm_name": "a", "submodule_name": "layer.9"}
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "config.json").write_text('{"trainer": ' + str(trainer).replace("'", '"') + "}")
    backup = {"step": 100, "ae": state, "optimizer": {"state": {}}, "norm_factor": scale}
    torch.save(backup, tmp_path / "checkpoints" / "ae_100.pt")
    pre = (X / scale - parts["b_dec"]) @ parts["W_enc"] + parts["b_enc"]
    codes = torch.where(pre > 1.1, pre, 0.0)
    x_hat = (codes @ parts["W_dec"] + parts["b_dec"]) * scale
    agree("dictionary_learning", tmp_path / "checkpoints" / "ae_100.pt", codes * scale, x_hat)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_any_precision_are_used_as_fp32(dtype: torch.dtype, tmp_path: Path) -> None:
    parts = {name: value.to(dtype) for name, value in random_parts(6).items()}
    wide = {name: value.float() for name, value in parts.items()}
    folder = write_prisma(tmp_path, parts, normalize_activations="none")
    agree("ViT-Prisma", folder, *prisma_reference(wide, "none", "relu"))
