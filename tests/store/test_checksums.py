import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitscope.errors import ArtifactError
from vitscope.store.atomic import bytes_checksum, file_checksum, fingerprint
from vitscope.store.tensors import load_tensors, save_tensors

plain_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


def test_file_checksum_is_sha256(tmp_path: Path) -> None:
    data = b"vitscope" * 100_000  # more than one read's worth
    (tmp_path / "a").write_bytes(data)
    assert file_checksum(tmp_path / "a") == hashlib.sha256(data).hexdigest()
    assert bytes_checksum(data[:7], data[7:]) == hashlib.sha256(data).hexdigest()


@given(st.dictionaries(st.text(max_size=3), plain_json, min_size=2))
def test_a_fingerprint_ignores_the_order_of_keys(value: dict[str, object]) -> None:
    assert fingerprint(value) == fingerprint(dict(reversed(value.items())))


@given(plain_json, plain_json)
def test_different_values_have_different_fingerprints(a: object, b: object) -> None:
    if a != b:
        assert fingerprint(a) != fingerprint(b)
    assert fingerprint([a, b]) != fingerprint([[a, b]])


def test_tensors_come_back_as_they_were_saved(tmp_path: Path) -> None:
    saved = {
        "half": torch.arange(6, dtype=torch.float16).reshape(2, 3),
        "brain": torch.tensor([1.5, float("nan"), float("-inf")], dtype=torch.bfloat16),
        "empty": torch.zeros(0, 5),
        "scalar": torch.tensor(3, dtype=torch.int64),
        "mask": torch.tensor([True, False]),
        "strided": torch.arange(12).reshape(3, 4).T,
        "numpy": np.arange(6.0).reshape(2, 3)[:, ::-1],
    }
    save_tensors(tmp_path / "a.safetensors", saved, {"site": "block 11"})
    loaded, metadata = load_tensors(tmp_path / "a.safetensors")
    assert metadata == {"site": "block 11"}
    assert loaded.keys() == saved.keys()
    for name, value in saved.items():
        expected = torch.from_numpy(value.copy()) if isinstance(value, np.ndarray) else value
        assert loaded[name].dtype == expected.dtype
        assert torch.equal(loaded[name].nan_to_num(), expected.nan_to_num()), name


def test_every_flipped_bit_of_a_tensor_file_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"x": torch.arange(3.0)}, {"fingerprint": "ab"})
    whole = path.read_bytes()
    assert load_tensors(path)[0]["x"].tolist() == [0.0, 1.0, 2.0]
    for place in range(len(whole)):
        for bit in range(8):
            damaged = bytearray(whole)
            damaged[place] ^= 1 << bit
            path.write_bytes(damaged)
            with pytest.raises(ArtifactError, match=r"a\.safetensors.*delete it and run again"):
                load_tensors(path)


@pytest.mark.parametrize(
    ("old", "new"), [(b'"F32"', b'"I32"'), (b"[2,3]", b"[3,2]"), (b'"x"', b'"y"')]
)
def test_a_header_that_reads_the_same_bytes_otherwise_is_detected(
    tmp_path: Path, old: bytes, new: bytes
) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"x": torch.arange(6.0).reshape(2, 3)}, {})
    whole = path.read_bytes()
    assert whole.count(old) == 1
    path.write_bytes(whole.replace(old, new))
    with pytest.raises(ArtifactError, match="checksum does not match"):
        load_tensors(path)


@pytest.mark.parametrize("kept", [0, 7, 40, -1])
def test_a_truncated_tensor_file_is_detected(tmp_path: Path, kept: int) -> None:
    path = tmp_path / "a.safetensors"
    save_tensors(path, {"x": torch.arange(64.0)}, {})
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ArtifactError, match="is damaged"):
        load_tensors(path)


def test_a_tensor_file_of_another_program_has_no_checksum_and_is_refused(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    save_file({"x": torch.arange(3.0)}, tmp_path / "a.safetensors")
    with pytest.raises(ArtifactError, match="checksum does not match"):
        load_tensors(tmp_path / "a.safetensors")


def test_a_missing_tensor_file_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"a\.safetensors does not exist"):
        load_tensors(tmp_path / "a.safetensors")
