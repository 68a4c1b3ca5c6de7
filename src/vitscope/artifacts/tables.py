"""Tables as Parquet: any reader opens them, and their metadata says what they were made from."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vitscope.artifacts.atomic import atomic_path
from vitscope.errors import ArtifactError

METADATA_KEY = b"vitscope"

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
        table = pq.read_table(path, page_checksum_verification=True)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    return {
        name: np.asarray(table.column(name).to_numpy(zero_copy_only=False))
        for name in table.column_names
    }


def read_metadata(path: Path) -> dict[str, Any]:
    """Return the JSON metadata that :func:`write_table` stored.

    Raises:
        ArtifactError: the file is missing or not Parquet.
    """
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowException, OSError) as error:
        raise _unreadable(path, error) from error
    return json.loads((schema.metadata or {}).get(METADATA_KEY, b"{}"))


def _unreadable(path: Path, error: Exception) -> ArtifactError:
    if isinstance(error, FileNotFoundError):
        return ArtifactError(f"{path} does not exist; run the stage that writes it")
    return ArtifactError(f"{path} is damaged ({error}); delete it and run again")
