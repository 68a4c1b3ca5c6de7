"""Tables as Parquet: any reader opens them, and their metadata says what they were made from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vitscope.errors import ArtifactError
from vitscope.store.atomic import atomic_path

METADATA_KEY = b"vitscope"

MOST_SPARSE_CELLS = 1 << 25
"""Values that a table may have however small its file is: 256 MiB of numbers."""

MOST_CELLS_PER_BYTE = 100
"""Above that, values per byte of a file that no table of ours comes near."""

MOST_WORDS = 200
"""Characters of what Arrow says of a damaged file that are passed on, on one line."""

Columns = Mapping[str, NDArray[Any] | list[str]]


def write_table(path: Path, columns: Columns, metadata: Mapping[str, Any]) -> None:
    """Write equal-length ``columns`` to ``path`` atomically, with JSON ``metadata`` in the schema.

    A NaN stays NaN: null would be another type in some readers.
    """
    table = pa.table({name: pa.array(values) for name, values in columns.items()})
    encoded = json.dumps(dict(metadata), default=str).encode()
    table = table.replace_schema_metadata({METADATA_KEY: encoded})
    # min and max ignore NaN: from them DuckDB concludes that isnan(cds) is never true
    exact = [field.name for field in table.schema if not pa.types.is_floating(field.type)]
    with atomic_path(path) as temporary:
        pq.write_table(
            table,
            temporary,
            compression="zstd",
            write_page_checksum=True,
            write_statistics=exact,  # pyright: ignore[reportArgumentType]  # the stub says bool
        )


def read_table(path: Path) -> dict[str, NDArray[Any]]:
    """Read every column of a table as a NumPy array (strings as objects).

    Raises:
        ArtifactError: the file is missing or not Parquet.
    """
    try:
        _refuse_inflated(path)
        table = pq.read_table(path, page_checksum_verification=True)
        return {
            name: np.asarray(table.column(name).to_numpy(zero_copy_only=False))
            for name in table.column_names
        }
    except (pa.ArrowException, OSError, OverflowError) as error:
        raise _unreadable(path, error) from error


def _refuse_inflated(path: Path) -> None:
    """Refuse a file of few bytes that says it holds gigabytes: run lengths make that possible."""
    told = pq.read_metadata(path)
    cells = told.num_rows * told.num_columns
    if cells > MOST_SPARSE_CELLS and cells > path.stat().st_size * MOST_CELLS_PER_BYTE:
        raise pa.ArrowInvalid(f"it says that it holds {told.num_rows} rows")


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the JSON metadata that :func:`write_table` stored.

    Raises:
        ArtifactError: the file is missing or not Parquet.
    """
    try:
        schema = pq.read_schema(path)
        found: Any = json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(found, dict):
        raise _unreadable(path, ValueError("its metadata is no JSON object"))
    return cast(dict[str, Any], found)


def _unreadable(path: Path, error: Exception) -> ArtifactError:
    if isinstance(error, FileNotFoundError):
        return ArtifactError(f"{path} does not exist; run the stage that writes it")
    why = " ".join(str(error).split())[:MOST_WORDS]
    return ArtifactError(f"{path} is damaged ({why}); delete it and run again")
