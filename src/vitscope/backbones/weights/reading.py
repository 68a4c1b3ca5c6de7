"""The one reader of files of weights: tensors and plain values, and nothing that could run.

Backbones and SAEs of others come as safetensors, as pickles of PyTorch (zip or legacy), as
TorchScript, as such a pickle behind a line of JSON, or in shards; they are told apart by their
contents. Image towers also come as ``.onnx``, known by that ending. No code of a file is run:
pickles are opened with ``weights_only=True``, TorchScript archives as in
:mod:`vitscope.backbones.weights.torchscript`, graphs as in
:mod:`vitscope.backbones.weights.onnx_export`.
"""

import io
import json
import re
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from vitscope.backbones.weights.onnx_export import read_onnx
from vitscope.backbones.weights.onnx_file import ONNX_SUFFIX, external_files
from vitscope.backbones.weights.torchscript import is_torchscript, read_torchscript
from vitscope.errors import BackboneError, first_line
from vitscope.store.atomic import bytes_checksum, file_checksum

IN_A_FOLDER = (
    "model.safetensors",
    "model.safetensors.index.json",
    "open_clip_model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "open_clip_pytorch_model.bin",
)
"""Files that the hub's folders keep weights in, the first that is there wins."""

INDEX_SUFFIX = ".index.json"

WRAPPERS = (
    *("state_dict", "state_dict_ema", "model", "model_ema", "model_state_dict"),
    *("teacher", "student", "ae", "sae"),
)
"""Names under which training scripts keep a model beside their optimiser and epoch."""

CONTAINER_PREFIXES = ("module.", "_orig_mod.")
"""Put before every name by data-parallel and compiled modules."""

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
MAX_TEXT_BYTES = 16 * 2**20
"""A configuration or header beyond this is none: real ones have kilobytes."""

MOST_INFLATION = 100
"""Bytes of an archive's content per byte of its file; weights do not compress to that."""

LFS_POINTER = b"version https://git-lfs"
ZIP = b"PK\x03\x04"
SAFETENSORS_LENGTH = 8
"""Bytes of a safetensors file before its JSON: the length of it."""


@dataclass(frozen=True, eq=False)
class StoredWeights:
    """What one file of weights holds.

    Attributes:
        tensors: by name, floating-point ones as fp32; safetensors map the file until they are used.
        values: whatever else it holds beside them, by name.
        header: the JSON line before the tensors, where there is one.
        wrapper: name under which the tensors were kept; empty where they were not.
    """

    tensors: dict[str, Tensor]
    values: dict[str, Any] = field(default_factory=dict[str, Any])
    header: dict[str, Any] | None = None
    wrapper: str = ""


class InflatedError(ValueError):
    """An archive that would unfold to far more than it is."""


def read_state(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, an index of shards or a folder with either, floats as fp32.

    Raises:
        BackboneError: nothing there, damaged, incomplete, or not tensors under names alone.
    """
    state: dict[str, Tensor] = {}
    for file, promised in checkpoint_files(path).items():
        found = read_checkpoint(file)
        if found.values and not found.wrapper:
            raise BackboneError(f"{file} is not a state dict of tensors alone")
        if promised is not None and (absent := promised - found.tensors.keys()):
            raise BackboneError(f"{file} lacks {min(absent)}, which its index says it holds")
        state |= found.tensors
    return state


def read_checkpoint(file: Path) -> StoredWeights:
    """Read one file of any of the formats above.

    Raises:
        BackboneError: nothing there, damaged, or more than tensors and plain values.
    """
    header = None
    try:
        with file.open("rb") as stream:
            start = stream.read(len(LFS_POINTER))
        if not start:
            raise BackboneError(f"{file} is empty")
        if start.startswith(LFS_POINTER):
            raise BackboneError(f"{file} is a Git LFS pointer, not weights; run `git lfs pull`")
        if file.suffix == ONNX_SUFFIX:
            loaded: Any = read_onnx(file)
        elif file.suffix == ".safetensors" or _is_safetensors(file, start):
            loaded = load_file(file)
        elif start.startswith(b"{"):
            with file.open("rb") as stream:
                header = _json_object(stream.readline(MAX_TEXT_BYTES + 1), file)
                loaded = _open_archive(io.BytesIO(stream.read()), file)
        else:
            loaded = _open_archive(file, file)
    except OSError as error:
        raise BackboneError(f"{file} cannot be read: {error.strerror or error}") from None
    except SafetensorError as error:
        raise BackboneError(
            f"{file} is damaged or truncated, or is no safetensors file: {first_line(error)}"
        ) from None
    tensors, values, wrapper = _unwrapped(loaded, file)
    del loaded
    for name in list(tensors):  # one at a time: a large model fits in memory twice, not three times
        tensors[name] = _widened(tensors[name], name, file)
    return StoredWeights(tensors, values, header, wrapper)


def read_json_object(file: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        BackboneError: missing, too long, or no JSON object.
    """
    try:
        with file.open("rb") as stream:
            return _json_object(stream.read(MAX_TEXT_BYTES + 1), file)
    except OSError as error:
        raise BackboneError(f"{file} cannot be read: {error.strerror or error}") from None


def checkpoint_files(path: Path) -> dict[Path, frozenset[str] | None]:
    """Return the files under ``path`` that hold tensors, each with the names it must hold.

    Args:
        path: a file, an index of shards (``model.safetensors.index.json``), or a folder with one.

    Returns:
        Names are None for a file that stands alone: it holds what it holds.

    Raises:
        BackboneError: nothing there, nothing readable there, or not all of the shards.
    """
    if path.is_dir():
        present = [path / name for name in IN_A_FOLDER if (path / name).is_file()]
        if not present:
            raise BackboneError(
                f"{path} is a folder without weights; give the path of a checkpoint file, or a "
                f"folder with one of {', '.join(IN_A_FOLDER)}"
            )
        path = present[0]
    if not path.is_file():
        problem = "is no regular file" if path.exists() else "does not exist"
        raise BackboneError(f"{path} {problem}; give the path of a checkpoint file or folder")
    if path.name.endswith(INDEX_SUFFIX):
        return _shards(path)
    numbered = re.search(r"-\d{5}-of-(\d{5})\.", path.name)
    if numbered and int(numbered[1]) > 1:
        raise BackboneError(
            f"{path} is one of {int(numbered[1])} shards; give their folder, or the "
            f"'{INDEX_SUFFIX}' file beside them"
        )
    return {path: None}


def weights_checksum(path: Path) -> str:
    """Return the SHA-256 of a file, or one of those of all shards, in the order of their names.

    Files beside a graph of ONNX, in which it keeps tensors, count as shards.

    Raises:
        BackboneError: as :func:`checkpoint_files`.
    """
    files = [*checkpoint_files(path)]
    graphs = [file for file in files if file.suffix == ONNX_SUFFIX]
    beside = [held for graph in graphs for held in external_files(graph)]
    checksums = [file_checksum(file) for file in (*files, *beside)]
    if len(checksums) == 1:
        return checksums[0]
    return bytes_checksum(*(checksum.encode() for checksum in checksums))


def some_of(names: Iterable[str], most: int = 4) -> str:
    """List the first few names, sorted, and how many more there are."""
    listed = sorted(names)
    more = len(listed) - most
    return ", ".join(listed[:most]) + (f" and {more} more" if more > 0 else "")


def is_expanded(tensor: Tensor) -> bool:
    """Whether a tensor repeats its values: a copy of it would take more than its file holds."""
    return tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes()


def require_modest(file: Path | IO[bytes], n_bytes: int) -> None:
    """Refuse an archive whose compressed entries would unfold to far more than its ``n_bytes``.

    What is no zip archive passes: its reader says so.

    Raises:
        InflatedError: with the size that it would take.
    """
    unfolded = 0
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            unfolded = sum(entry.file_size for entry in archive.infolist())
    if not isinstance(file, Path):
        file.seek(0)  # both looks have moved it
    if unfolded > MOST_INFLATION * n_bytes:
        raise InflatedError(
            f"its {n_bytes} bytes would unfold to {unfolded / 1e9:.1f} GB, as no weights do"
        )


def _is_safetensors(file: Path, start: bytes) -> bool:
    length = int.from_bytes(start[:SAFETENSORS_LENGTH], "little")
    return start[SAFETENSORS_LENGTH:].startswith(b"{") and length < file.stat().st_size


def _open_archive(content: Path | io.BytesIO, file: Path) -> Any:
    try:
        if not isinstance(content, Path):
            require_modest(content, content.getbuffer().nbytes)
            return torch.load(content, map_location="cpu", weights_only=True)
        require_modest(content, content.stat().st_size)
        if is_torchscript(content):
            return read_torchscript(content)
        # mapped where the format allows: the file is not in memory a second time
        with content.open("rb") as stream:
            mapped = stream.read(len(ZIP)) == ZIP
        return torch.load(content, map_location="cpu", weights_only=True, mmap=mapped)
    except OSError:
        raise
    except Exception as error:  # unpicklers raise nearly anything on bytes that are no pickle
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        if refused:
            why = (
                f"holds a pickled {refused[1]} beside its tensors and was not opened, as that "
                "could run code; save the state dict alone, best as safetensors"
            )
        elif isinstance(error, InflatedError):
            why = f"was not opened: {error}"
        else:
            why = (
                "cannot be read as weights: it is damaged or truncated, or neither safetensors, "
                "a PyTorch state dict nor TorchScript"
            )
        raise BackboneError(f"{file} {why}") from None


def _unwrapped(loaded: Any, file: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Return the tensors, what stands beside them, and the name that they were under."""
    if not isinstance(loaded, dict):
        raise BackboneError(f"{file} is not a state dict of tensors")
    content = {str(name): value for name, value in loaded.items()}
    held = [name for name in WRAPPERS if isinstance(content.get(name), dict)]
    if len(held) > 1:
        raise BackboneError(f"{file} holds several models ({', '.join(held)}); save one alone")
    wrapper = held[0] if held else ""
    inner = {str(n): v for n, v in content.pop(wrapper).items()} if wrapper else content
    state = {name: value for name, value in inner.items() if isinstance(value, Tensor)}
    if not inner:
        raise BackboneError(f"{file} holds no tensors")
    if not state or (wrapper and len(state) < len(inner)):
        raise BackboneError(f"{file} is not a state dict of tensors")
    values = content if wrapper else {n: v for n, v in content.items() if n not in state}
    for prefix in CONTAINER_PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): value for name, value in state.items()}
    return state, values, wrapper


def _widened(value: Tensor, name: str, file: Path) -> Tensor:
    if value.is_meta or (value.is_floating_point() and value.dtype not in FLOATS):
        raise BackboneError(
            f"{file}: {name} is {value.dtype} or without values; give weights of 16 bits or more"
        )
    if value.layout != torch.strided or is_expanded(value):
        raise BackboneError(
            f"{file}: {name} is sparse, or repeats few values to a shape of {list(value.shape)}; "
            "save it dense"
        )
    return value.detach().float() if value.is_floating_point() else value


def _json_object(text: bytes, file: Path) -> dict[str, Any]:
    if len(text) > MAX_TEXT_BYTES:
        raise BackboneError(
            f"{file}: its JSON is longer than {MAX_TEXT_BYTES} bytes; it is no header"
        )
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BackboneError(f"{file} is not JSON: {first_line(error)}") from None
    if not isinstance(value, dict):
        raise BackboneError(f"{file} holds JSON, but no object with named values")
    return {str(name): item for name, item in value.items()}


def _shards(index: Path) -> dict[Path, frozenset[str] | None]:
    try:
        places = read_json_object(index)["weight_map"]
        shards = sorted({str(shard) for shard in places.values()})
    except (BackboneError, KeyError, AttributeError):
        raise BackboneError(f"{index} is not an index of shards (a JSON 'weight_map')") from None
    if not shards:
        raise BackboneError(f"{index} lists no shards")
    # looked up in the list of what is there: a name may be too long, or a path to elsewhere
    beside = {file.name for file in index.parent.iterdir()}
    for shard in shards:
        if shard not in beside:
            raise BackboneError(f"{index} lists {shard}, which is not beside it; fetch all shards")
    return {
        index.parent / shard: frozenset(key for key, place in places.items() if place == shard)
        for shard in shards
    }
