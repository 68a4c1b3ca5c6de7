"""What must not be loaded, with the reason in one line; and pickles, which must not run."""

import gzip
import io
import json
import os
import pickle
import shutil
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.sae.formats.cases import expected, parameters
from tests.sae.formats.layouts import FEATURES, WIDTH, K, random_parts, write_prisma, write_saev

from vitscope.backbones.weights import reading
from vitscope.errors import BackboneError, SaeError
from vitscope.sae.formats.load import load_sae
from vitscope.sae.formats.source import open_source, weights_file

PARTS = random_parts(1)
LINEAR = {
    "encoder.weight": PARTS["W_enc"].T.contiguous(),
    "encoder.bias": PARTS["b_enc"],
    "decoder.weight": PARTS["W_dec"].T.contiguous(),
    "b_dec": PARTS["b_dec"],
    "k": torch.tensor(K, dtype=torch.int32),
    "threshold": torch.tensor(1.0),
}
SAELENS = {
    "d_in": WIDTH,
    "d_sae": FEATURES,
    "architecture": "standard",
    "metadata": {"sae_lens_version": "6.5.0"},
}
SPARSIFY = {
    "encoder.weight": LINEAR["encoder.weight"],
    "encoder.bias": PARTS["b_enc"],
    "W_dec": PARTS["W_dec"],
    "b_dec": PARTS["b_dec"],
}


def refused(path: Path, match: str) -> str:
    with pytest.raises(SaeError, match=match) as caught:
        load_sae(path)
    message = str(caught.value)
    assert "\n" not in message
    assert str(path.name) in message or str(path) in message
    return message


def saelens(folder: Path, tensors: dict[str, torch.Tensor], **changes: Any) -> Path:
    folder.mkdir(exist_ok=True)
    save_file(tensors, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(SAELENS | changes))
    return folder


class Bomb:
    """A pickle that makes a folder when it is opened as an object."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


class Code:
    """The same by another route: any code at all."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({str(self.mark)!r}, 'w').close()",)


def in_saelens(folder: Path, content: Any) -> Path:
    (folder / "cfg.json").write_text(json.dumps(SAELENS))
    torch.save(content, folder / "sae_weights.pt")
    return folder


def in_dictionary_learning(folder: Path, content: Any) -> Path:
    config = {"trainer": {"dict_class": "AutoEncoderTopK"}}
    (folder / "config.json").write_text(json.dumps(config))
    torch.save(content, folder / "ae.pt")
    return folder


def in_dictionary_learning_legacy(folder: Path, content: Any) -> Path:
    in_dictionary_learning(folder, {})
    torch.save(content, folder / "ae.pt", _use_new_zipfile_serialization=False)
    return folder


def in_saev(folder: Path, content: Any) -> Path:
    return write_saev(folder / "sae.pt", {"schema": 4, "cfg": {}}, content)


def in_prisma(folder: Path, content: Any) -> Path:
    return write_prisma(folder, content)


def in_clipscope(folder: Path, content: Any) -> Path:
    torch.save({"model_state_dict": content, "k": K}, folder / "1.pt")
    return folder


def in_mapping(folder: Path, content: Any) -> Path:
    (folder / "mapping.toml").write_text('[tensors]\nw_enc = "a"\nw_dec = "b"\n')
    torch.save(content, folder / "any.pt")
    return folder


def bare(folder: Path, content: Any) -> Path:
    (folder / "weights.pt").write_bytes(pickle.dumps(content))
    return folder


def zipped_pickle(folder: Path, content: Any) -> Path:
    with zipfile.ZipFile(folder / "weights.pt", "w") as archive:
        archive.writestr("archive/data.pkl", pickle.dumps(content, protocol=2))
        archive.writestr("archive/version", "3\n")
    return folder


def packed(folder: Path, content: Any) -> Path:
    (folder / "weights.pt").write_bytes(gzip.compress(pickle.dumps(content)))
    return folder


HOSTS: list[Callable[[Path, Any], Path]] = [
    in_saelens,
    in_dictionary_learning,
    in_dictionary_learning_legacy,
    in_saev,
    in_prisma,
    in_clipscope,
    in_mapping,
    bare,
    zipped_pickle,
    packed,
]


@pytest.mark.parametrize("host", HOSTS, ids=lambda host: host.__name__)
@pytest.mark.parametrize("bomb", [Bomb, Code], ids=["mkdir", "exec"])
@pytest.mark.parametrize("place", ["beside tensors", "instead of them", "as a tensor's name"])
def test_a_hostile_pickle_is_refused_and_nothing_runs(
    host: Callable[[Path, Any], Path], bomb: type[Bomb] | type[Code], place: str, tmp_path: Path
) -> None:
    mark = tmp_path / "ran"
    content: Any = {
        "beside tensors": {**PARTS, "cfg": bomb(mark)},
        "instead of them": bomb(mark),
        "as a tensor's name": OrderedDict([(bomb(mark), PARTS["b_dec"])]),
    }[place]
    folder = host(tmp_path, content)
    with pytest.raises(SaeError) as caught:
        load_sae(folder)
    assert not mark.exists()
    assert "\n" not in str(caught.value)
    pickle.loads(pickle.dumps(bomb(mark)))  # the bomb is one
    assert mark.exists()


def test_a_pickled_configuration_is_named(tmp_path: Path) -> None:
    class Config:
        pass

    Config.__module__, Config.__qualname__ = "fractions", "Fraction"
    folder = write_prisma(tmp_path, {"cfg": __import__("fractions").Fraction(1, 2), **PARTS})
    refused(folder, r"pickled fractions\.Fraction .* state dict alone")


def test_transcoders(tmp_path: Path) -> None:
    skip = {"W_skip": torch.eye(WIDTH)}
    a = saelens(tmp_path / "a", PARTS, architecture="skip_transcoder")
    refused(a, "transcoder: it predicts another place's activations")
    for name, tensors, config in (
        ("b", SPARSIFY, {"transcode": True, "k": K}),
        ("c", SPARSIFY | skip, {"k": K}),
    ):
        (tmp_path / name).mkdir()
        save_file(tensors, tmp_path / name / "sae.safetensors")
        (tmp_path / name / "cfg.json").write_text(json.dumps(config | {"d_in": WIDTH}))
        refused(tmp_path / name, "transcoder")
    refused(write_prisma(tmp_path / "d", PARTS, is_transcoder=True), "transcoder")
    out = {"b_dec_out": PARTS["b_dec"]}
    refused(write_prisma(tmp_path / "e", PARTS | out), "transcoder")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "batchtopk"}, "save_inference_model"),
        ({"architecture": "temporal"}, "'temporal' is not supported; supported: standard, topk"),
        ({"normalize_activations": "softmax"}, "normalize_activations = 'softmax'"),
        ({"reshape_activations": "hook_z"}, "attention heads"),
        ({"architecture": "topk"}, "k is None, not a whole number"),
        ({"architecture": "topk", "k": 2.5}, "k is 2.5"),
        ({"architecture": "topk", "k": 99}, "k is 99; with 32 features it must be 1 to 32"),
        ({"architecture": "gated"}, "lacks b_gate"),
        ({"architecture": "jumprelu"}, "lacks threshold"),
        ({"metadata": {}, "activation_fn_str": "tanh-relu"}, "tanh-relu"),
        ({"metadata": {}, "hook_point": "blocks.3.attn.hook_z"}, "attention heads"),
    ],
)
def test_options_of_saelens(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    refused(saelens(tmp_path / "sae", PARTS, **changes), message)


def test_other_options(tmp_path: Path) -> None:
    header = {"schema": 4, "cfg": {"activation": {"cls": "AbsBatchTopK", "params": {}}}}
    refused(write_saev(tmp_path / "a.pt", header, PARTS), "AbsBatchTopK.*depend on the batch")
    refused(write_saev(tmp_path / "b.pt", {"schema": 6}, PARTS), "saev schema 6; known are 1 to 5")
    extra = PARTS | {"W_third": PARTS["b_dec"]}
    refused(write_saev(tmp_path / "c.pt", {"schema": 4}, extra), "W_third, which an SAE")
    refused(write_prisma(tmp_path / "d", PARTS, activation_fn_str="tanh-relu"), "tanh-relu")
    refused(write_prisma(tmp_path / "e", PARTS, architecture="jumprelu"), "'jumprelu'")
    torch.save(LINEAR, tmp_path / "f.pt")
    refused(tmp_path / "f.pt", "may be AutoEncoderTopK or BatchTopKSAE.*config.json")
    (tmp_path / "g").mkdir()
    in_dictionary_learning(tmp_path / "g", LINEAR)
    (tmp_path / "g" / "config.json").write_text('{"trainer": {"dict_class": "IdentityDict"}}')
    refused(tmp_path / "g", "dict_class 'IdentityDict' is not supported; supported: AutoEncoder")


def test_a_transposed_matrix_is_seen(tmp_path: Path) -> None:
    turned = PARTS | {"W_dec": PARTS["W_dec"].T.contiguous()}
    refused(saelens(tmp_path / "sae", turned), r"w_enc has shape \[8, 32\].*must be \[32, 8\]")


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    bad = PARTS | {"b_dec": PARTS["b_dec"] / 0}
    refused(saelens(tmp_path / "sae", bad), "8 of 8 values of b_dec are NaN or infinite")


def test_an_unknown_file_says_what_it_holds_and_what_to_do(tmp_path: Path) -> None:
    torch.save({"encoder": PARTS["W_enc"], "decoder": PARTS["W_dec"]}, tmp_path / "x.pt")
    message = refused(tmp_path / "x.pt", "of no known format")
    assert "it holds decoder, encoder, and no JSON beside it says more" in message
    assert "mapping.toml" in message


def test_nothing_or_too_much_at_a_path(tmp_path: Path) -> None:
    refused(tmp_path / "nowhere", "holds no SAE: it does not exist")
    refused(tmp_path, "holds no SAE: no file ends in .safetensors, .pt")
    for name in ("layers.5", "layers.6"):
        saelens(tmp_path / name, PARTS)
    refused(tmp_path, r"in folders of its own \(layers.5, layers.6\)")
    torch.save(PARTS, tmp_path / "one.pt")
    torch.save(PARTS, tmp_path / "two.pt")
    refused(tmp_path, r"several files of tensors \(one.pt, two.pt\)")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "git lfs pull"),
        (b"not a pickle at all", "damaged or truncated"),
        (struct.pack("<Q", 1 << 40) + b"{", "damaged or truncated"),
        (b"{not json\n", "is not JSON"),
        (b"[1]\n", "damaged or truncated"),
    ],
)
@pytest.mark.parametrize("name", ["sae.pt", "sae.bin"])
def test_damaged_files(content: bytes, message: str, name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, message)


@pytest.mark.parametrize("keep", [0.2, 0.9, 0.99])
def test_truncated_files(keep: float, tmp_path: Path) -> None:
    for write, name in ((torch.save, "a.pt"), (save_file, "a.safetensors")):
        write(PARTS, tmp_path / name)
        whole = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(whole[: int(len(whole) * keep)])
        refused(tmp_path / name, "damaged or truncated")


def test_a_header_without_end_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    class Counting(io.BytesIO):
        def readline(self, size: int | None = -1, /) -> bytes:
            asked.append(-1 if size is None else size)
            return super().readline(size)

    monkeypatch.setattr(reading, "MAX_TEXT_BYTES", 1000)
    path = tmp_path / "sae.pt"
    path.write_bytes(b'{"a": "' + b"x" * 5000)
    refused(path, "longer than 1000 bytes")
    content = path.read_bytes()
    monkeypatch.setattr(Path, "open", lambda *_, **__: Counting(content))
    with pytest.raises(BackboneError):
        reading.read_checkpoint(path)
    assert asked == [1001]


def test_a_configuration_without_end_and_one_that_is_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = saelens(tmp_path / "sae", PARTS)
    for text, message in (("[1]", "no object"), ("{", "is not JSON"), ("[" * 99999, "not JSON")):
        (folder / "cfg.json").write_text(text)
        with pytest.raises(SaeError, match=message):
            load_sae(folder)
    monkeypatch.setattr(reading, "MAX_TEXT_BYTES", 1000)
    (folder / "cfg.json").write_text('{"a": "' + "x" * 5000 + '"}')
    with pytest.raises(SaeError, match=r"cfg\.json: its JSON is longer than 1000 bytes"):
        load_sae(folder)


def tampered(tensors: dict[str, torch.Tensor], name: str, how: str) -> dict[str, torch.Tensor]:
    value = tensors[name]
    changed = {
        "absent": None,
        "a number": torch.tensor(1.0),
        "a column": value.reshape(-1, 1),
        "flat": value.reshape(-1),
        "cut": value[:-1] if value.ndim else value.reshape(1, 1, 1),
        "three axes": value[None, None] if value.ndim < 2 else value[None],
        "empty": torch.zeros(0),
        "whole numbers": torch.ones(value.shape, dtype=torch.int64),
    }[how]
    others = {key: one for key, one in tensors.items() if key != name}
    return others if changed is None else others | {name: changed.contiguous()}


HOWS = ["absent", "a number", "a column", "flat", "cut", "three axes", "empty", "whole numbers"]


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("folder", parameters())
def test_a_tensor_that_does_not_belong_is_one_line_or_makes_no_difference(
    folder: Path, how: str, tmp_path: Path
) -> None:
    copy = tmp_path / "sae"
    shutil.copytree(folder, copy)
    stored = open_source(copy).checkpoint
    x = expected(folder).x
    for name in stored.tensors:
        tensors = tampered(stored.tensors, name, how)
        write_like(weights_file(copy), tensors, stored)
        try:
            sae = load_sae(copy)
        except SaeError as error:
            assert "\n" not in str(error)
            assert str(copy) in str(error)
        else:
            assert sae.encode(x).shape == (len(x), sae.n_features)


def write_like(file: Path, tensors: dict[str, torch.Tensor], stored: reading.StoredWeights) -> None:
    """Write tensors in the way the file has them."""
    if file.suffix == ".safetensors":
        save_file(tensors, file)
    elif stored.header is not None:
        write_saev(file, stored.header, tensors)
    else:
        whole = {stored.wrapper: tensors} if stored.wrapper else tensors
        torch.save({**stored.values, **whole}, file)
