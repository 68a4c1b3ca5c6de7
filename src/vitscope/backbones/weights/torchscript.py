"""Tensors of a TorchScript archive, read without running it.

``torch.jit.load`` runs code of the archive while it opens it (``__setstate__`` of any class in it),
and PyTorch's documentation warns against files that are not trusted. Only the tensors are wanted
here, so the archive is read as data: the pickle of its attributes is rebuilt from a short list of
harmless names, with inert objects in place of its classes, and no code in it is compiled or called.
"""

import pickle
import re
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

OWN_CLASSES = "__torch__"
"""Package under which an archive keeps the classes of its modules."""

STORAGE_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
}


class _Module:
    """Stands where the archive has an object of one of its own classes: attributes, no methods."""


def is_torchscript(path: Path) -> bool:
    """Tell an archive of ``torch.jit.save`` from other zip files, those of ``torch.save`` too."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(
            name.count("/") == 1 and name.endswith("/constants.pkl") for name in _names(archive)
        )


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """Return the parameters and buffers under the names ``state_dict`` gives them.

    Scalars that are no weights (OpenAI's ``input_resolution``, ``context_length``, ``vocab_size``)
    are left out.

    Raises:
        pickle.UnpicklingError: the archive holds anything that is not of a plain module.
        zipfile.BadZipFile, KeyError, RuntimeError, ValueError: damaged or truncated.
    """
    with zipfile.ZipFile(path) as archive:
        root = next(name for name in _names(archive) if name.endswith("/constants.pkl"))
        reader = _Reader(archive, root.removesuffix("constants.pkl"))
        state = dict(_tensors(reader.load(), "", reader.listed))
    return {k: v for k, v in state.items() if v.ndim or v.is_floating_point()}


def _names(archive: zipfile.ZipFile) -> list[str]:
    return [entry.filename for entry in archive.infolist()]


class _Reader(pickle.Unpickler):
    def __init__(self, archive: zipfile.ZipFile, root: str) -> None:
        super().__init__(archive.open(f"{root}data.pkl"))
        self._archive, self._root = archive, root
        self._storages: dict[str, Tensor] = {}
        self._classes: dict[tuple[str, str], type[_Module]] = {}
        self.listed: dict[type[_Module], frozenset[str] | None] = {}

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        if module_name == OWN_CLASSES or module_name.startswith(f"{OWN_CLASSES}."):
            return self._inert_class(module_name, global_name)
        match module_name, global_name:
            case "torch", storage if storage in STORAGE_DTYPES:
                return STORAGE_DTYPES[storage]
            case "torch._utils", "_rebuild_tensor_v2":
                return _rebuild_tensor
            case "torch.jit._pickle", builder if builder in _BUILDERS:
                return _BUILDERS[builder]
            case "collections", "OrderedDict":
                return OrderedDict
            case _:
                raise pickle.UnpicklingError(f"GLOBAL {module_name}.{global_name} is not allowed")

    def persistent_load(self, pid: Any, /) -> Tensor:
        kind, dtype, key, _location, n_elements = pid
        if kind != "storage" or not isinstance(dtype, torch.dtype):
            raise pickle.UnpicklingError(f"a reference to {kind!r} is not allowed")
        if key not in self._storages:
            data = bytearray(self._archive.read(f"{self._root}data/{key}"))
            stored = torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)
            if len(stored) != n_elements:
                raise ValueError(f"storage {key} holds {len(stored)} elements, not {n_elements}")
            self._storages[key] = stored
        return self._storages[key]

    def _inert_class(self, module_name: str, class_name: str) -> type[_Module]:
        known = self._classes.get((module_name, class_name))
        if known is None:
            # one class a name and a load: nothing that an archive sets on it outlives the load
            known = self._classes[module_name, class_name] = type(class_name, (_Module,), {})
            self.listed[known] = self._weights_listed(module_name, class_name)
        return known

    def _weights_listed(self, module_name: str, class_name: str) -> frozenset[str] | None:
        """Return the parameters and buffers that a class of the archive declares, if it does."""
        source = f"{self._root}code/{module_name.replace('.', '/')}.py"
        try:
            code = self._archive.read(source).decode()
        except KeyError:
            return None
        header = rf"^class {re.escape(class_name)}\(Module\):\n((?:  __\w+__ = \[.*\]\n)+)"
        declared = re.search(header, code, re.MULTILINE)
        return frozenset(re.findall(r'"([^"]+)"', declared[1])) if declared else None


def _rebuild_tensor(
    storage: Tensor, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any
) -> Tensor:
    # a view that reaches past its storage is refused by PyTorch
    return storage.as_strided(size, stride, offset)


def _restore_type_tag(value: Any, _tag: str) -> Any:
    return value


_BUILDERS: dict[str, Callable[..., Any]] = {
    "restore_type_tag": _restore_type_tag,
    "build_intlist": list,
    "build_doublelist": list,
    "build_boollist": list,
    "build_tensorlist": list,
}


def _tensors(
    module: Any, prefix: str, listed: dict[type[_Module], frozenset[str] | None]
) -> Iterator[tuple[str, Tensor]]:
    if not isinstance(module, _Module):
        raise pickle.UnpicklingError("the archive holds no module")
    weights = listed[type(module)]
    for name, value in vars(module).items():
        if isinstance(value, _Module):
            yield from _tensors(value, f"{prefix}{name}.", listed)
        # an attribute that is merely a tensor (a mask) is no weight
        elif isinstance(value, Tensor) and (weights is None or name in weights):
            yield f"{prefix}{name}", value
