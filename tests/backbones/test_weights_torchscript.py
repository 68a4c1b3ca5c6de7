"""TorchScript archives give their tensors and run nothing."""

import os
import pickle
import warnings
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.backbones.twins import CLIP_TWIN, State, state_of, twin
from tests.backbones.weight_files import CASES
from torch import Tensor, nn

from vitscope.backbones.weights.layouts import layout_of
from vitscope.backbones.weights.reading import read_state
from vitscope.backbones.weights.strict import load_weights
from vitscope.backbones.weights.torchscript import is_torchscript, read_torchscript
from vitscope.errors import BackboneError


@pytest.fixture(autouse=True)
def torchscript_may_be_written() -> Iterator[None]:
    """PyTorch warns that TorchScript is deprecated; the released files are there all the same."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


class Holder(nn.Module):
    """A module under which any state dict can be hung."""

    def forward(self, x: Tensor) -> Tensor:
        return x + 1


def hung(state: State) -> nn.Module:
    """Return a module whose state dict is ``state``; OpenAI's scalars become buffers."""
    root = Holder()
    for name, value in state.items():
        *path, last = name.split(".")
        module: nn.Module = root
        for part in path:
            if part not in module._modules:
                module.add_module(part, Holder())
            module = module.get_submodule(part)
        if value.is_floating_point():
            module.register_parameter(last, nn.Parameter(value))
        else:
            module.register_buffer(last, value)
    return root


def archived(module: nn.Module, path: Path, *, how: str = "trace") -> Path:
    """Save a module as OpenAI did."""
    scripted: Any = (
        torch.jit.trace(module, torch.zeros(1)) if how == "trace" else torch.jit.script(module)
    )
    torch.jit.save(scripted, str(path))
    return path


SCALARS = {
    "input_resolution": torch.tensor(32),
    "context_length": torch.tensor(77),
    "vocab_size": torch.tensor(50),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_openais_release_loads_as_its_state_dict_does(tmp_path: Path, dtype: torch.dtype) -> None:
    case = CASES["OpenAI"]()
    state = {name: value.to(dtype) for name, value in case.state.items()}
    path = archived(hung(state | SCALARS), tmp_path / "ViT-B-16.pt")
    found = read_state(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(value, state[name].float()) for name, value in found.items())
    assert layout_of(found).name == "OpenAI CLIP"
    model = twin(**CLIP_TWIN)
    assert load_weights(model, path, name="tiny").has_head
    assert torch.equal(
        model.state_dict()["blocks.1.attn.qkv.weight"],
        state["visual.transformer.resblocks.1.attn.in_proj_weight"].float(),
    )


class Mixed(nn.Module):
    """Attributes of every kind: shared and strided weights, buffers, and tensors that are none."""

    lengths: list[int]
    table: dict[str, Tensor]
    tensors: list[Tensor]

    def __init__(self) -> None:
        super().__init__()
        both = torch.randn(6, 4)
        self.upper, self.turned = nn.Parameter(both[2:]), nn.Parameter(both.T)
        self.inner = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
        self.again = self.inner
        self.register_buffer("long", torch.tensor([3, 4]))
        self.register_buffer("scalar", torch.tensor(0.5))
        self.register_buffer("nothing", torch.zeros(0))
        self.register_buffer("flags", torch.tensor([True, False]))
        self.plain = torch.ones(3)
        self.lengths, self.table, self.tensors = [1, 2], {"a": torch.ones(2)}, [torch.ones(1)]

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + self.plain


def test_what_is_read_is_what_pytorch_loads(tmp_path: Path) -> None:
    path = archived(Mixed(), tmp_path / "mixed.pt", how="script")
    expected = torch.jit.load(str(path)).state_dict()
    integers = {n for n, v in expected.items() if not v.ndim and not v.is_floating_point()}
    assert len(integers) == 2  # the batch counters
    found = read_torchscript(path)
    assert found.keys() == expected.keys() - integers
    assert "plain" not in found
    for name, value in found.items():
        assert value.dtype == expected[name].dtype, name
        assert torch.equal(value, expected[name]), name


class Trap(nn.Module):
    """Makes a file when PyTorch opens its archive."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3))
        self.path = str(path)

    def forward(self, x: Tensor) -> Tensor:
        return x

    @torch.jit.export
    def __getstate__(self) -> tuple[Tensor, str, bool]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return (self.weight, self.path, self.training)

    @torch.jit.export
    def __setstate__(self, state: tuple[Tensor, str, bool]) -> None:
        self.weight = torch.from_file(state[1], True, 4)
        self.path = state[1]
        self.training = state[2]


def test_code_in_an_archive_is_not_run(tmp_path: Path) -> None:
    made = tmp_path / "made"
    path = archived(Trap(made), tmp_path / "trap.pt", how="script")
    with pytest.raises(BackboneError, match="cannot be read as weights"):
        read_state(path)
    assert not made.exists()
    torch.jit.load(str(path))  # what the reader is there to avoid
    assert made.exists()


class Surprise:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.path),))


def rewritten(path: Path, changes: dict[str, bytes]) -> Path:
    """Write an archive again with some of its records replaced."""
    target = path.with_name(f"rewritten-{path.name}")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(target, "w") as new:
        for entry in old.infolist():
            inner = entry.filename.partition("/")[2]
            new.writestr(entry.filename, changes.get(inner, old.read(entry)))
    return target


def test_a_pickle_in_an_archive_is_not_run(tmp_path: Path) -> None:
    path, made = archived(Holder(), tmp_path / "a.pt"), tmp_path / "made"
    payload = pickle.dumps({"a": Surprise(made)}, protocol=2)
    hostile = rewritten(path, {"data.pkl": payload})
    assert is_torchscript(hostile)
    with pytest.raises(BackboneError, match=rf"holds a pickled {os.name}\.mkdir") as caught:
        read_state(hostile)
    assert "was not opened" in str(caught.value)
    assert not made.exists()
    pickle.loads(payload)  # what the reader is there to avoid
    assert made.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\x80\x02}q\x00.",  # an empty dictionary: no module
        b"\x80\x02(X\x03\x00\x00\x00abcctorch\nFloatStorage\nX\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x01tQ.",
        b"not a pickle at all",
    ],
)
def test_an_archive_of_something_else_is_refused(tmp_path: Path, payload: bytes) -> None:
    path = archived(hung({"weight": torch.randn(3)}), tmp_path / "a.pt")
    with pytest.raises(BackboneError, match="cannot be read as weights") as caught:
        read_state(rewritten(path, {"data.pkl": payload}))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("n_bytes", [0, 8, 11, 16])
def test_a_storage_of_another_length_is_refused(tmp_path: Path, n_bytes: int) -> None:
    path = archived(hung({"weight": torch.randn(3)}), tmp_path / "a.pt")
    with pytest.raises(BackboneError, match="cannot be read as weights"):
        read_state(rewritten(path, {"data/0": b"\0" * n_bytes}))


def test_an_archive_that_contains_itself_is_refused(tmp_path: Path) -> None:
    """A module that is its own child; following it would never end."""
    path = archived(hung({"weight": torch.randn(3)}), tmp_path / "a.pt")
    module = b"c__torch__\nHolder\n)\x81q\x01}X\x01\x00\x00\x00ah\x01sb."
    with pytest.raises(BackboneError, match="cannot be read as weights"):
        read_state(rewritten(path, {"data.pkl": b"\x80\x02" + module}))


def test_a_checkpoint_of_torch_save_is_no_torchscript(tmp_path: Path) -> None:
    torch.save(state_of(twin()), tmp_path / "a.pt")
    assert not is_torchscript(tmp_path / "a.pt")
    (tmp_path / "b.pt").write_bytes(b"PK")
    assert not is_torchscript(tmp_path / "b.pt")
