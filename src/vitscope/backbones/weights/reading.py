"""A checkpoint of any format as a state dict in fp32; what is more than tensors is not opened."""

import re
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vitscope.backbones.weights.inflated import InflatedError, is_expanded, require_modest
from vitscope.backbones.weights.shards import weight_files
from vitscope.backbones.weights.torchscript import is_torchscript, read_torchscript
from vitscope.errors import BackboneError

WRAPPERS = (
    "state_dict",
    "state_dict_ema",
    "model",
    "model_ema",
    "model_state_dict",
    "teacher",
    "student",
)
"""Names under which training scripts keep a model beside their optimiser and epoch."""

CONTAINER_PREFIXES = ("module.", "_orig_mod.")
"""Put before every name by data-parallel and compiled modules."""

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)

LFS_POINTER = b"version https://git-lfs"
ZIP = b"PK\x03\x04"
SAFETENSORS_HEADER = 8
"""Bytes of a safetensors file before its JSON: the length of it."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a checkpoint under their own names, floats as fp32.

    Args:
        path: safetensors, ``torch.save`` (zip or legacy), TorchScript as OpenAI released CLIP, an
            index of shards, or a folder of the hub's with any of these. Told apart by contents.

    No code of a file is run: pickles are opened with ``weights_only=True``, TorchScript archives
    as in :mod:`vitscope.backbones.weights.torchscript`.

    Raises:
        BackboneError: nothing there, damaged, incomplete, or not tensors under names.
    """
    state: dict[str, Tensor] = {}
    for file, promised in weight_files(path).items():
        found = _read_file(file)
        if promised is not None and (absent := promised - found.keys()):
            raise BackboneError(f"{file} lacks {min(absent)}, which its index says it holds")
        state |= found
    if not state:
        raise BackboneError(f"{path} holds no tensors")
    for name in list(state):  # one at a time: a large model fits in memory twice, not three times
        state[name] = _widened(state[name], name, path)
    return state


def _read_file(file: Path) -> dict[str, Tensor]:
    try:
        with file.open("rb") as stream:
            start = stream.read(len(LFS_POINTER))
        if not start:
            raise BackboneError(f"{file} is empty")
        if start.startswith(LFS_POINTER):
            raise BackboneError(f"{file} is a Git LFS pointer, not weights; run `git lfs pull`")
        if file.suffix == ".safetensors" or start[SAFETENSORS_HEADER:].startswith(b"{"):
            return load_file(file)
        require_modest(file, file.stat().st_size)
        if is_torchscript(file):
            return read_torchscript(file)
        # mapped where the format allows: the file is not in memory a second time
        loaded: Any = torch.load(
            file, map_location="cpu", weights_only=True, mmap=start.startswith(ZIP)
        )
    except BackboneError:
        raise
    except OSError as error:
        raise BackboneError(f"{file} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise BackboneError(
            f"{file} is damaged or truncated, or is no safetensors file: {_first_line(error)}"
        ) from None
    except Exception as error:  # unpicklers raise nearly anything on bytes that are no pickle
        raise _unopened(file, error) from None
    return _unwrapped(loaded, file)


def _unopened(file: Path, error: Exception) -> BackboneError:
    refused = re.search(r"GLOBAL ([\w.]+)", str(error))
    if refused:
        return BackboneError(
            f"{file} holds a pickled {refused[1]} beside its tensors and was not opened, as that "
            "could run code; save the state dict alone, best as safetensors"
        )
    if isinstance(error, InflatedError):
        return BackboneError(f"{file} was not opened: {error}")
    return BackboneError(
        f"{file} cannot be read as weights: it is damaged or truncated, or neither safetensors, "
        "a PyTorch state dict nor TorchScript"
    )


def _unwrapped(loaded: Any, file: Path) -> dict[str, Tensor]:
    if isinstance(loaded, dict):
        held = [name for name in WRAPPERS if isinstance(loaded.get(name), dict)]
        if len(held) > 1:
            raise BackboneError(f"{file} holds several models ({', '.join(held)}); save one alone")
        loaded = loaded[held[0]] if held else loaded
    if not isinstance(loaded, dict) or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise BackboneError(f"{file} is not a state dict of tensors")
    state = {str(name): value for name, value in loaded.items()}
    for prefix in CONTAINER_PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state


def _widened(value: Tensor, name: str, path: Path) -> Tensor:
    if value.is_meta or (value.is_floating_point() and value.dtype not in FLOATS):
        raise BackboneError(
            f"{path}: {name} is {value.dtype} or without values; give weights of 16 bits or more"
        )
    if value.layout != torch.strided or is_expanded(value):
        raise BackboneError(
            f"{path}: {name} is sparse, or repeats few values to a shape of {list(value.shape)}; "
            "save it dense"
        )
    return value.float() if value.is_floating_point() else value


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
