"""Named arrays as safetensors, checked by a checksum of their bytes on read."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from vitscope.errors import ArtifactError
from vitscope.store.atomic import atomic_path, bytes_checksum

TENSOR_METADATA = "vitscope"
"""All metadata under one key, as sorted JSON: safetensors writes several keys in random order, and
equal content would give unequal files."""

CHECKSUM_KEY = "sha256"


def save_tensors(
    path: Path, tensors: Mapping[str, Tensor | NDArray[Any]], metadata: Mapping[str, str]
) -> None:
    """Save ``tensors`` to ``path`` atomically, with string ``metadata`` and a checksum."""
    whole = {name: _as_tensor(value) for name, value in tensors.items()}
    with atomic_path(path) as temporary:
        header = {**metadata, CHECKSUM_KEY: _checksum(whole, metadata)}
        try:
            save_file(whole, temporary, {TENSOR_METADATA: json.dumps(header, sort_keys=True)})
        except SafetensorError as error:  # a full disk, in safetensors' own words
            raise ArtifactError(f"cannot write {path}: {error}") from error


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Load every tensor and the metadata of ``path``.

    Raises:
        ArtifactError: the file is missing, not safetensors, or its bytes have changed.
    """
    try:
        with safe_open(path, framework="pt") as handle:  # pyright: ignore[reportUnknownVariableType]
            header = (handle.metadata() or {}).get(TENSOR_METADATA, "{}")
            # the handle is no mapping: it has keys() and cannot be iterated
            tensors: dict[str, Tensor] = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise ArtifactError(f"{path} does not exist") from None
    except (SafetensorError, OSError) as error:
        raise ArtifactError(f"{path} is damaged ({error}); delete it and run again") from error
    try:
        metadata: dict[str, str] = dict(json.loads(header))
    except ValueError:
        metadata = {}  # no checksum either: refused below
    if metadata.pop(CHECKSUM_KEY, "") != _checksum(tensors, metadata):
        raise ArtifactError(f"{path}: its checksum does not match; delete it and run again")
    return tensors, metadata


def _as_tensor(value: Tensor | NDArray[Any]) -> Tensor:
    tensor = value if isinstance(value, Tensor) else torch.from_numpy(np.ascontiguousarray(value))
    return tensor.detach().cpu().contiguous()


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    header = [sorted(metadata.items())]
    header += [(name, str(t.dtype), tuple(t.shape)) for name, t in sorted(tensors.items())]
    chunks: list[bytes | memoryview] = [repr(header).encode()]
    for name in sorted(tensors):
        chunks.append(tensors[name].reshape(-1).view(torch.uint8).numpy().data)
    return bytes_checksum(*chunks)
