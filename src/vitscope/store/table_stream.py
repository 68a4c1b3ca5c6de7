"""A Parquet table written piece by piece: its memory is that of a piece, however long it grows."""

import json
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vitscope.store.atomic import atomic_path
from vitscope.store.tables import METADATA_KEY, Columns


@contextmanager
def table_stream(path: Path, metadata: Mapping[str, Any]) -> Generator[Callable[[Columns], None]]:
    """Yield a function that appends equal-length columns to ``path``, one row group a call.

    All calls give the same columns of the same types, and there is at least one. The table stands
    under its name once the block ends well, with JSON ``metadata`` as of ``write_table``; when the
    block raises, nothing does.

    Raises:
        ArtifactError: the disk is full or the folder cannot be written.
    """
    encoded = {METADATA_KEY: json.dumps(dict(metadata), default=str).encode()}
    writer: pq.ParquetWriter | None = None
    with atomic_path(path) as temporary:

        def append(columns: Columns) -> None:
            nonlocal writer
            piece = pa.table({name: pa.array(values) for name, values in columns.items()})
            piece = piece.replace_schema_metadata(encoded)
            if writer is None:
                # floating-point columns have no min and max: see write_table
                exact = [f.name for f in piece.schema if not pa.types.is_floating(f.type)]
                writer = pq.ParquetWriter(
                    temporary,
                    piece.schema,
                    compression="zstd",
                    write_page_checksum=True,
                    write_statistics=exact,  # pyright: ignore[reportArgumentType]  # see there
                )
            writer.write_table(piece)

        try:
            yield append
        finally:
            if writer is not None:
                writer.close()
        assert writer is not None, "a table needs one piece at least"
