"""A file of a set damaged according to its kind: its bytes, or what it says."""

import io
import json
import tempfile
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from hypothesis import strategies as st
from safetensors import SafetensorError
from tests.fuzz.mutations import ODD, as_json, as_toml, damaged, disordered
from torch import Tensor

from vitscope.errors import ArtifactError
from vitscope.store.tensors import load_tensors, save_tensors

LENGTH_BYTES = 8


@st.composite
def damaged_file(draw: st.DrawFn, name: str, valid: bytes, others: list[bytes]) -> bytes:
    """``valid``, the content of a file called ``name``, damaged in a way that its kind allows."""
    if draw(st.booleans()):
        try:
            match Path(name).suffix:
                case ".json":
                    return as_json(draw(disordered(json.loads(valid))))
                case ".toml":
                    return as_toml(draw(disordered(tomllib.loads(valid.decode()))))
                case ".parquet":
                    return draw(changed_table(valid))
                case ".safetensors":
                    return draw(changed_header(valid) | changed_tensors(valid))
                case _:
                    pass
        except (ValueError, TypeError, OverflowError):
            pass  # what was drawn has no such form
    return draw(damaged(valid, others))


@st.composite
def changed_table(draw: st.DrawFn, valid: bytes) -> bytes:
    """A table with a column gone, renamed or of another type, with other rows or metadata."""
    table = pq.read_table(io.BytesIO(valid))
    column = draw(st.sampled_from(table.column_names))
    place = table.column_names.index(column)
    match draw(st.integers(0, 6)):
        case 0:
            table = table.drop_columns([column])
        case 1:
            table = table.rename_columns(
                [name if name != column else "other" for name in table.column_names]
            )
        case 2:
            table = table.slice(0, draw(st.integers(0, min(3, table.num_rows))))
        case 3:
            texts = pa.array(["x"] * table.num_rows)
            table = table.set_column(place, column, texts)
        case 4:
            odd = draw(st.sampled_from([-1, 2**31, 2**62, 0.5, float("nan"), float("inf")]))
            values = pa.array(np.full(table.num_rows, odd))
            table = table.set_column(place, column, values)
        case 5:
            table = table.set_column(place, column, pa.nulls(table.num_rows))
        case _:
            metadata = dict(table.schema.metadata or {})
            told = json.loads(metadata.get(b"vitscope", b"{}"))
            metadata[b"vitscope"] = as_json(draw(disordered(told)))
            table = table.replace_schema_metadata(metadata)
    written = io.BytesIO()
    pq.write_table(table, written)
    return written.getvalue()


@st.composite
def changed_header(draw: st.DrawFn, valid: bytes) -> bytes:
    """safetensors whose header says something else of the same bytes."""
    length = int.from_bytes(valid[:LENGTH_BYTES], "little")
    header = json.loads(valid[LENGTH_BYTES : LENGTH_BYTES + length])
    text = as_json(draw(disordered(header)))
    said = draw(st.sampled_from([len(text), len(text) + 1, 0, 2**31, 2**63 - 1]))
    return said.to_bytes(LENGTH_BYTES, "little") + text + valid[LENGTH_BYTES + length :]


@st.composite
def changed_tensors(draw: st.DrawFn, valid: bytes) -> bytes:
    """A file of vitscope with another tensor or word, and a checksum that is right again."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        path.write_bytes(valid)
        try:
            found, metadata = load_tensors(path)
        except (ArtifactError, SafetensorError):
            return draw(damaged(valid))
        tensors = {name: tensor.clone() for name, tensor in found.items()}
        if metadata and draw(st.booleans()):
            key = draw(st.sampled_from(sorted(metadata)))
            metadata[key] = str(draw(st.sampled_from(ODD)))
        else:
            name = draw(st.sampled_from(sorted(tensors)))
            changed = draw(changed_tensor(tensors.pop(name)))
            tensors |= {} if changed is None else {name: changed}
        save_tensors(path, tensors, metadata)
        return path.read_bytes()


@st.composite
def changed_tensor(draw: st.DrawFn, tensor: Tensor) -> Tensor | None:
    """Another shape, type or value; None where it is gone."""
    changes: list[Any] = [
        lambda: None,
        tensor.flatten,
        lambda: tensor[..., :0],
        tensor.reshape(-1)[:1].clone,
        lambda: tensor.unsqueeze(0),
        lambda: tensor.to(torch.int64),
        lambda: tensor.to(torch.bool),
        lambda: torch.full_like(tensor, -1),
        lambda: torch.full(tensor.shape, float("nan")),
        lambda: torch.full(tensor.shape, float("inf")),
        lambda: torch.zeros(()),
        lambda: tensor.to(torch.complex64),
    ]
    return draw(st.sampled_from(changes))()
