"""A file of ONNX as a graph: nodes, who makes and who takes a value, constants as tensors.

The format alone; what a graph of a vision transformer means is read in
:mod:`vitscope.backbones.weights.onnx_export`. Nothing of a graph is run. Tensors kept in files of
their own are read from beside the graph and from nowhere else.
"""

import math
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from torch import Tensor

from vitscope.errors import BackboneError, first_line

ONNX_SUFFIX = ".onnx"
INSTALL_ONNX = "install it with: pip install 'vitscope[onnx]'"

QUANTISED_OPS = (
    "QuantizeLinear",
    "DequantizeLinear",
    "DynamicQuantizeLinear",
    "Integer",
    "QLinear",
)
"""Parts of the names of operators that work on quantised numbers."""

_DTYPES = {
    "FLOAT": torch.float32,
    "DOUBLE": torch.float64,
    "FLOAT16": torch.float16,
    "BFLOAT16": torch.bfloat16,
    "INT64": torch.int64,
    "INT32": torch.int32,
    "BOOL": torch.bool,
}


@dataclass(frozen=True, eq=False)
class OnnxGraph:
    """The nodes of one graph, and its constants, whose values are read when they are asked for.

    Attributes:
        file: where it was read.
        nodes: in an order in which they could run (``onnx.NodeProto``).
        constants: value's name -> ``onnx.TensorProto``: initializers and constant nodes.
        makers: value's name -> the node that makes it.
        takers: value's name -> the nodes that take it.
    """

    file: Path
    nodes: tuple[Any, ...]
    constants: dict[str, Any]
    makers: dict[str, Any]
    takers: dict[str, list[Any]]

    def shape(self, name: str) -> tuple[int, ...]:
        """Return the shape of a constant."""
        return tuple(int(side) for side in self.constants[name].dims)

    def is_float(self, name: str) -> bool:
        """Whether a constant holds real numbers."""
        dtype = _DTYPES.get(_type_name(self.constants[name]))
        return dtype is not None and dtype.is_floating_point

    def tensor(self, name: str) -> Tensor:
        """Return the values of a constant.

        Raises:
            BackboneError: damaged, of a type that no weights have, or its own file is not there.
        """
        proto = self.constants[name]
        shape, kind = self.shape(name), _type_name(proto)
        dtype = _DTYPES.get(kind)
        if dtype is None:
            raise BackboneError(
                f"{self.file}: {name} holds {kind}; is it quantised? give 16 bits or more"
            )
        n_bytes = math.prod(shape) * dtype.itemsize
        if is_external(proto):
            content = _external_bytes(self.file, proto, n_bytes)
        elif proto.HasField("raw_data"):
            content = bytearray(proto.raw_data)
        else:
            return _typed_values(self.file, proto)
        if min(shape, default=1) < 0 or len(content) != n_bytes:
            raise BackboneError(
                f"{self.file} is damaged: {name} has {len(content)} bytes, not the {n_bytes} "
                f"of its shape {list(shape)}"
            )
        return torch.frombuffer(content, dtype=dtype).reshape(shape) if n_bytes else torch.empty(0)


def read_graph(file: Path) -> OnnxGraph:
    """Read a graph; constants stay where they are until they are asked for.

    Raises:
        BackboneError: the package ``onnx`` is not there, the file is damaged or no ONNX, or the
            graph is quantised, rewritten for one runtime, or holds graphs of its own.
    """
    model = _read_model(file)
    graph = model.graph
    if not graph.node:
        raise BackboneError(f"{file} is no ONNX file, or its graph is empty")
    _refuse_rewritten(file, model)
    _require_order(file, graph)
    constants: dict[str, Any] = {tensor.name: tensor for tensor in graph.initializer}
    makers: dict[str, Any] = {}
    takers: dict[str, list[Any]] = defaultdict(list)
    for node in graph.node:
        for name in node.output:
            makers[name] = node
        for name in filter(None, node.input):
            takers[name].append(node)
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            constants[node.output[0]] = value
        # an exporter keeps one of several equal parameters, and gives the others as its copies
        if node.op_type == "Identity" and node.input[0] in constants:
            constants[node.output[0]] = constants[node.input[0]]
    return OnnxGraph(file, tuple(graph.node), constants, makers, dict(takers))


def external_files(file: Path) -> tuple[Path, ...]:
    """Return the files beside a graph in which it keeps tensors, sorted.

    Raises:
        BackboneError: as :func:`read_graph`; or one is not there, or not beside the graph.
    """
    protos = [proto for proto in _all_tensors(_read_model(file).graph) if is_external(proto)]
    return tuple(sorted({_external_place(file, proto) for proto in protos}))


def is_external(proto: Any) -> bool:
    """Whether the values of a tensor lie in a file of their own."""
    return proto.data_location == proto.EXTERNAL


def require_onnx(what: str) -> Any:
    """Return the package ``onnx``.

    Raises:
        BackboneError: it is not installed; ``what`` says what needs it.
    """
    try:
        return import_module("onnx")
    except ImportError:
        raise BackboneError(f"{what} needs the package onnx; {INSTALL_ONNX}") from None


def _read_model(file: Path) -> Any:
    onnx = require_onnx(f"reading {file.name}")
    try:
        model = onnx.load_model(str(file), format="protobuf", load_external_data=False)
        # protobuf hands over as bytes what is no text
        if not all(isinstance(text, str) for text in _texts(model.graph)):
            raise ValueError("a name in it is no text")
        return model
    except OSError as error:
        raise BackboneError(f"{file} cannot be read: {error.strerror or error}") from None
    except Exception as error:  # of protobuf, whichever implementation of it is there
        raise BackboneError(
            f"{file} is damaged or truncated, or is no ONNX file: {first_line(error)}"
        ) from None


def _all_tensors(graph: Any) -> Iterable[Any]:
    yield from graph.initializer
    for node in graph.node:
        yield from (a.t for a in node.attribute if a.name == "value" and a.HasField("t"))


def _refuse_rewritten(file: Path, model: Any) -> None:
    """Refuse what an exporter does not leave: then a tensor's name no longer tells what it is."""
    graph = model.graph
    for node in graph.node:
        if any(part in node.op_type for part in QUANTISED_OPS):
            raise BackboneError(
                f"{file} is quantised ({node.op_type} in it); give the graph as exported, in "
                "weights of 16 bits or more"
            )
        if node.domain not in ("", "ai.onnx") or model.functions:
            raise BackboneError(
                f"{file} was rewritten by an optimiser ({node.domain or 'functions'} "
                f"{node.op_type} in it); give the graph as torch exported it"
            )
        if any(a.HasField("g") or a.graphs for a in node.attribute):
            raise BackboneError(f"{file} branches ({node.op_type}): no known layout does")
    if graph.sparse_initializer:
        raise BackboneError(f"{file} holds sparse tensors; no known layout does")


def _require_order(file: Path, graph: Any) -> None:
    """Refuse a damaged graph: values made twice, or taken before they are made, as in a circle."""
    made = {value.name for value in (*graph.input, *graph.initializer)}
    for node in graph.node:
        known = made.issuperset(filter(None, node.input))
        is_product = node.op_type in ("MatMul", "Gemm")
        few = len(node.input) < (2 if is_product else 0 if node.op_type == "Constant" else 1)
        again = not made.isdisjoint(filter(None, node.output))
        if not known or few or again or not node.output:
            raise BackboneError(
                f"{file} is damaged: {node.op_type} {node.name} takes what no node before it makes"
            )
        made.update(filter(None, node.output))


def _texts(graph: Any) -> Iterable[Any]:
    """Yield every name in a graph."""
    for tensor in _all_tensors(graph):
        yield tensor.name
        yield from (text for entry in tensor.external_data for text in (entry.key, entry.value))
    for node in graph.node:
        yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)


def _type_name(proto: Any) -> str:
    try:
        return str(proto.DataType.Name(proto.data_type))
    except ValueError:
        return f"type {proto.data_type}"


def _typed_values(file: Path, proto: Any) -> Tensor:
    helper = import_module("onnx.numpy_helper")
    try:
        array = helper.to_array(proto)
        is_bool, is_whole = array.dtype == bool, array.dtype.kind in "iu"
        kind = bool if is_bool else "int64" if is_whole else "float32"
        return torch.from_numpy(array.astype(kind, copy=True))
    except (ValueError, TypeError) as error:
        raise BackboneError(f"{file} is damaged: {proto.name}: {first_line(error)}") from None


def _external_place(file: Path, proto: Any) -> Path:
    """Return the file that holds a tensor: beside the graph or below, and no link out of there."""
    location = next((e.value for e in proto.external_data if e.key == "location"), "")
    folder = file.resolve().parent
    parts = PurePosixPath(location).parts
    place = folder / location
    try:
        escapes = not place.resolve().is_relative_to(folder)
    except (OSError, ValueError):  # a loop of links, or a null byte
        escapes = True
    if not parts or ".." in parts or "\\" in location or escapes:
        raise BackboneError(
            f"{file} says that its tensor {proto.name} lies in '{location}', outside its own "
            "folder, and was not followed; put both files into one folder"
        )
    if not place.is_file():
        raise BackboneError(
            f"{file} keeps its tensors in {location}, which is not beside it; fetch both files"
        )
    return place


def _external_bytes(file: Path, proto: Any, n_bytes: int) -> bytearray:
    place = _external_place(file, proto)
    given = {entry.key: entry.value for entry in proto.external_data}
    try:
        offset, length = int(given.get("offset", 0)), int(given.get("length", n_bytes))
    except ValueError:
        offset = length = -1
    if offset < 0 or length != n_bytes or n_bytes < 0 or place.stat().st_size < offset + n_bytes:
        raise BackboneError(
            f"{place} is damaged or truncated: it lacks the {n_bytes} bytes of {proto.name}"
        )
    try:
        with place.open("rb") as stream:
            stream.seek(offset)
            return bytearray(stream.read(n_bytes))
    except OSError as error:
        raise BackboneError(f"{place} cannot be read: {error.strerror or error}") from None
