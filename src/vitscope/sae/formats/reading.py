"""Files of others opened safely: tensors and plain values, and nothing that could run."""

import io
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vitscope.backbones.weights.reading import InflatedError, is_expanded, require_modest
from vitscope.errors import SaeError

MAX_TEXT_BYTES = 16 * 2**20
"""A configuration or header beyond this is none: real ones have kilobytes."""

LFS_POINTER = b"version https://git-lfs"
LENGTH_BYTES = 8
"""A safetensors file begins with the length of its JSON header."""

WRAPPERS = ("state_dict", "model_state_dict", "ae", "model", "sae")
"""Names under which training scripts keep the SAE beside step, optimiser and settings."""


@dataclass(frozen=True, eq=False)
class Stored:
    """What a weights file holds.

    Attributes:
        tensors: by name, floating-point ones as fp32.
        values: numbers and texts stored beside them.
        header: the JSON line before the tensors, where there is one.
        wrapper: name under which the tensors were kept; empty where they were not.
    """

    tensors: dict[str, Tensor]
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    header: dict[str, Any] | None = None
    wrapper: str = ""


def read_stored(file: Path) -> Stored:
    """Read safetensors, ``torch.save`` (state dict or plain values), or such with a JSON line.

    Told apart by contents. Pickles are opened with ``weights_only=True``: no code of a file is run.

    Raises:
        SaeError: nothing there, damaged, or more than tensors and plain values.
    """
    try:
        with file.open("rb") as stream:
            start = stream.read(len(LFS_POINTER))
        if not start:
            raise SaeError(f"{file} is empty")
        if start.startswith(LFS_POINTER):
            raise SaeError(f"{file} is a Git LFS pointer, not weights; run `git lfs pull`")
        if file.suffix == ".safetensors" or _is_safetensors(file, start):
            return Stored(_widened(load_file(file), file))
        if start.startswith(b"{"):
            return _read_with_header(file)
        return _unwrapped(_load(file), file)
    except OSError as error:
        raise SaeError(f"{file} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise SaeError(
            f"{file} is damaged or truncated, or is no safetensors file: {_first_line(error)}"
        ) from None


def read_object(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        SaeError: missing, too long, or no JSON object.
    """
    try:
        with file.open("rb") as stream:
            return _json_object(stream.read(MAX_TEXT_BYTES + 1), file)
    except OSError as error:
        raise SaeError(f"{file} cannot be read: {error.strerror or error}") from None


def _is_safetensors(file: Path, start: bytes) -> bool:
    length = int.from_bytes(start[:LENGTH_BYTES], "little")
    return start[LENGTH_BYTES:].startswith(b"{") and length < file.stat().st_size


def _read_with_header(file: Path) -> Stored:
    with file.open("rb") as stream:
        header = _json_object(stream.readline(MAX_TEXT_BYTES + 1), file)
        stored = _unwrapped(_load(io.BytesIO(stream.read()), name=file), file)
    return Stored(stored.tensors, stored.values, header)


def _load(file: Path | io.BytesIO, *, name: Path | None = None) -> Any:
    try:
        size = file.stat().st_size if isinstance(file, Path) else file.getbuffer().nbytes
        require_modest(file, size)
        return torch.load(file, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # unpicklers raise nearly anything on bytes that are no pickle
        raise _unopened(name or file, error) from None


def _unopened(file: object, error: Exception) -> SaeError:
    refused = re.search(r"GLOBAL ([\w.]+)", str(error))
    if refused:
        return SaeError(
            f"{file} holds a pickled {refused[1]} beside its tensors and was not opened, as that "
            "could run code; save its state dict alone with the library that made it"
        )
    if isinstance(error, InflatedError):
        return SaeError(f"{file} was not opened: {error}")
    return SaeError(
        f"{file} cannot be read as weights: it is damaged or truncated, or neither safetensors "
        "nor a PyTorch state dict"
    )


def _unwrapped(loaded: Any, file: Path) -> Stored:
    if not isinstance(loaded, dict):
        raise SaeError(f"{file} holds a {type(loaded).__name__}, not tensors under names")
    content = {str(name): value for name, value in loaded.items()}
    values = {name: v for name, v in content.items() if isinstance(v, int | float | str)}
    if any(isinstance(value, Tensor) for value in content.values()):
        tensors = {name: v for name, v in content.items() if isinstance(v, Tensor)}
        return Stored(_widened(tensors, file), values)
    held = [name for name in WRAPPERS if isinstance(content.get(name), dict)]
    if len(held) != 1:
        raise SaeError(f"{file} is not a state dict of tensors, nor does it hold just one")
    inner = content[held[0]]
    tensors = {str(name): v for name, v in inner.items() if isinstance(v, Tensor)}
    return Stored(_widened(tensors, file), values, wrapper=held[0])


def _widened(tensors: dict[str, Tensor], file: Path) -> dict[str, Tensor]:
    if not tensors:
        raise SaeError(f"{file} holds no tensors")
    wide: dict[str, Tensor] = {}
    for name, value in tensors.items():
        if value.is_meta or value.layout != torch.strided or is_expanded(value):
            raise SaeError(f"{file}: {name} is sparse, repeated or without values; save it dense")
        # a copy, in rows: safetensors maps the file, which may be written over while we use it
        dtype = torch.float32 if value.is_floating_point() else value.dtype
        wide[name] = value.detach().to(dtype, copy=True, memory_format=torch.contiguous_format)
    return wide


def _json_object(text: bytes, file: Path) -> dict[str, Any]:
    if len(text) > MAX_TEXT_BYTES:
        raise SaeError(f"{file}: its JSON is longer than {MAX_TEXT_BYTES} bytes; it is no header")
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SaeError(f"{file} is not JSON: {_first_line(error)}") from None
    if not isinstance(value, dict):
        raise SaeError(f"{file} holds JSON, but no object with named values")
    return {str(name): item for name, item in value.items()}


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
