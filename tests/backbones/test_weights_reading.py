"""Checkpoints of every format are read, and anything else is refused in one line, unopened."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from vitscope.backbones.weights.reading import read_state, weights_checksum
from vitscope.errors import BackboneError

State = dict[str, Tensor]


def sample() -> State:
    g = torch.Generator().manual_seed(5)
    names = ("norm.weight", "norm.bias", "blocks.0.mlp.fc1.weight", "blocks.1.mlp.fc1.weight")
    return {name: torch.randn(8, 3, generator=g) for name in names}


def legacy(path: Path, state: State) -> None:
    torch.save(state, path, _use_new_zipfile_serialization=False)


WRITERS: dict[str, Callable[[Path, State], None]] = {
    "weights.safetensors": lambda path, state: save_file(state, path),
    "0f3a9c": lambda path, state: save_file(state, path),  # as the hub's cache names blobs
    "weights.pt": lambda path, state: torch.save(state, path),
    "weights.bin": lambda path, state: torch.save({"state_dict": state, "epoch": 3}, path),
    "legacy.pth": legacy,
    "deit.pth": lambda path, state: torch.save({"model": state}, path),
    "teacher.pth": lambda path, state: torch.save({"teacher": state}, path),
    "loop.pt": lambda path, state: torch.save({"model_state_dict": state, "step": 1}, path),
    "parallel.pt": lambda path, state: torch.save(
        {f"module.{k}": v for k, v in state.items()}, path
    ),
    "compiled.pt": lambda path, state: torch.save(
        {"model": {f"module._orig_mod.{k}": v for k, v in state.items()}}, path
    ),
}


def refused(path: Path) -> str:
    with pytest.raises(BackboneError) as caught:
        read_state(path)
    message = str(caught.value)
    assert "\n" not in message
    assert "weights_only" not in message  # PyTorch's own advice is to open it all the same
    return message


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16, torch.float64])
def test_every_format_gives_the_same_tensors(tmp_path: Path, name: str, dtype: torch.dtype) -> None:
    state = {key: value.to(dtype) for key, value in sample().items()}
    WRITERS[name](tmp_path / name, state)
    found = read_state(tmp_path / name)
    assert found.keys() == state.keys()
    for key, value in found.items():
        assert value.dtype == torch.float32
        assert torch.equal(value, state[key].float())


def test_integers_keep_their_type(tmp_path: Path) -> None:
    torch.save(sample() | {"position_ids": torch.arange(4)}, tmp_path / "weights.pt")
    assert read_state(tmp_path / "weights.pt")["position_ids"].dtype == torch.int64


class TestShards:
    """A model in several files is whole or refused."""

    def write(self, folder: Path, suffix: str = ".safetensors") -> Path:
        stem = "model" if suffix == ".safetensors" else "pytorch_model"
        places: dict[str, str] = {}
        for number, (name, value) in enumerate(sample().items(), 1):
            places[name] = f"{stem}-{number:05}-of-00004{suffix}"
            WRITERS["weights" + suffix](folder / places[name], {name: value})
        index = folder / f"{stem}{suffix}.index.json"
        index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": places}))
        return index

    @pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
    @pytest.mark.parametrize("by", ["folder", "index"])
    def test_they_are_read_by_their_folder_or_their_index(
        self, tmp_path: Path, suffix: str, by: str
    ) -> None:
        index = self.write(tmp_path, suffix)
        found = read_state(tmp_path if by == "folder" else index)
        assert found.keys() == sample().keys()
        assert all(torch.equal(value, sample()[name]) for name, value in found.items())

    def test_a_shard_that_is_not_there_is_named(self, tmp_path: Path) -> None:
        index = self.write(tmp_path)
        (tmp_path / "model-00002-of-00004.safetensors").unlink()
        assert refused(tmp_path) == (
            f"{index} lists model-00002-of-00004.safetensors, which is not beside it; fetch all "
            "shards"
        )

    def test_a_shard_of_an_impossible_name_is_named(self, tmp_path: Path) -> None:
        index = self.write(tmp_path)
        index.write_text(json.dumps({"weight_map": {"w": "x" * 5000}}))
        assert refused(tmp_path).startswith(f"{index} lists xxx")

    def test_a_shard_without_what_its_index_promises_is_refused(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        shard = tmp_path / "model-00002-of-00004.safetensors"
        save_file({"other": torch.ones(1)}, shard)
        assert refused(tmp_path) == f"{shard} lacks norm.bias, which its index says it holds"

    def test_one_shard_alone_is_called_one(self, tmp_path: Path) -> None:
        self.write(tmp_path)
        shard = tmp_path / "model-00002-of-00004.safetensors"
        assert refused(shard).startswith(f"{shard} is one of 4 shards; give their folder")
        only = tmp_path / "model-00001-of-00001.safetensors"
        save_file(sample(), only)
        assert len(read_state(only)) == 4

    @pytest.mark.parametrize(
        "text",
        [
            "",
            "[]",
            "{}",
            '{"weight_map": []}',
            '{"weight_map": {"a": 1',
            "\0\0",
            '{"weight_map": 3}',
        ],
    )
    def test_an_index_of_something_else_is_refused(self, tmp_path: Path, text: str) -> None:
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(text)
        assert "is not an index of shards" in refused(index)

    def test_an_empty_index_is_refused(self, tmp_path: Path) -> None:
        index = tmp_path / "model.safetensors.index.json"
        index.write_text('{"weight_map": {}}')
        assert "lists no shards" in refused(index)

    def test_an_index_reaches_no_files_elsewhere(self, tmp_path: Path) -> None:
        (tmp_path / "inner").mkdir()
        save_file(sample(), tmp_path / "secret.safetensors")
        index = tmp_path / "inner" / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": {"norm.weight": "../secret.safetensors"}}))
        assert "which is not beside it" in refused(index)


def test_a_folder_without_weights_says_what_it_looked_for(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("{}")
    message = refused(tmp_path)
    assert message.startswith(f"{tmp_path} is a folder without weights; give the path of")
    assert "model.safetensors" in message


def test_a_folder_gives_safetensors_before_pickles(tmp_path: Path) -> None:
    save_file(sample(), tmp_path / "model.safetensors")
    torch.save({"other": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert read_state(tmp_path).keys() == sample().keys()


def test_what_is_not_there_is_said_to_be_so(tmp_path: Path) -> None:
    path = tmp_path / "nothing.pt"
    assert refused(path) == f"{path} does not exist; give the path of a checkpoint file or folder"


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt", "weights.bin"])
def test_an_empty_file_is_called_empty(tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    assert refused(tmp_path / name) == f"{tmp_path / name} is empty"


@pytest.mark.parametrize("name", WRITERS)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.6, 0.99])
def test_a_truncated_file_is_refused(tmp_path: Path, name: str, share: float) -> None:
    path = tmp_path / name
    WRITERS[name](path, sample())
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert "damaged or truncated" in refused(path)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
@pytest.mark.parametrize(
    "content",
    [b"the weights are on the other machine\n" * 20, b"\0" * 400, bytes(range(256)), b"PK\3\4abc"],
)
def test_garbage_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    assert "damaged or truncated, or" in refused(tmp_path / name)


def test_a_pointer_of_git_lfs_is_called_one(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n")
    assert refused(path) == f"{path} is a Git LFS pointer, not weights; run `git lfs pull`"


class Surprise:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def raw(path: Path, trap: Any) -> None:
    path.write_bytes(pickle.dumps(trap, protocol=2))


HOSTILE: dict[str, Callable[[Path, Any], None]] = {
    "zip.pt": lambda path, trap: torch.save({"state_dict": sample(), "args": trap}, path),
    "zip.bin": lambda path, trap: torch.save({"norm.weight": trap}, path),
    "legacy.pth": lambda path, trap: torch.save(
        {"state_dict": sample(), "args": trap}, path, _use_new_zipfile_serialization=False
    ),
    "plain.pkl": raw,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickled_object_is_refused_and_not_opened(tmp_path: Path, name: str) -> None:
    path, made = tmp_path / name, tmp_path / "made"
    HOSTILE[name](path, Surprise(made))
    message = refused(path)
    assert not made.exists()
    assert f"holds a pickled {os.name}.mkdir" in message
    assert "was not opened, as that could run code; save the state dict alone" in message


def test_the_trap_above_works(tmp_path: Path) -> None:
    pickle.loads(pickle.dumps(Surprise(tmp_path / "made")))
    assert (tmp_path / "made").exists()


@pytest.mark.parametrize("held", [[1, 2, 3], {"epoch": 4}, torch.ones(3), {"a": {"b": 1}}])
def test_a_file_of_something_else_is_refused(tmp_path: Path, held: Any) -> None:
    torch.save(held, tmp_path / "weights.pt")
    assert "is not a state dict of tensors" in refused(tmp_path / "weights.pt")


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_a_file_without_tensors_is_refused(tmp_path: Path, name: str) -> None:
    WRITERS[name](tmp_path / name, {})
    assert refused(tmp_path / name) == f"{tmp_path / name} holds no tensors"


def test_several_models_in_one_file_are_not_chosen_between(tmp_path: Path) -> None:
    path = tmp_path / "weights.pt"
    torch.save({"model": sample(), "model_ema": sample(), "epoch": 3}, path)
    assert refused(path) == f"{path} holds several models (model, model_ema); save one alone"


@pytest.mark.parametrize(
    "value",
    [
        torch.ones(3, 4).to(torch.float8_e4m3fn),
        torch.ones(3, 4, device="meta"),
    ],
    ids=["float8", "meta"],
)
def test_tensors_that_are_not_plainly_there_are_refused(tmp_path: Path, value: Tensor) -> None:
    path = tmp_path / "weights.pt"
    torch.save(sample() | {"odd": value}, path)
    assert refused(path).startswith(f"{path}: odd is torch.")


def test_checksums_are_of_all_that_is_read(tmp_path: Path) -> None:
    index = TestShards().write(tmp_path)
    before = weights_checksum(tmp_path)
    assert weights_checksum(index) == before
    shard = tmp_path / "model-00003-of-00004.safetensors"
    save_file({"blocks.0.mlp.fc1.weight": torch.ones(2)}, shard)
    assert weights_checksum(tmp_path) != before
    one = tmp_path / "one.safetensors"
    save_file(sample(), one)
    assert len({weights_checksum(one), before, weights_checksum(tmp_path)}) == 3
