"""Tables as Parquet: any reader opens them, and their metadata says what they were made from."""

import json
from collections.abc import Callable, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from vitscope.errors import ArtifactError, VitscopeError
from vitscope.store.atomic import atomic_path

METADATA_KEY = b"vitscope"

MOST_SPARSE_CELLS = 1 << 25
"""Values that a table may have however small its file is: 256 MiB of numbers."""

MOST_CELLS_PER_BYTE = 100
"""Above that, values per byte of a file that no table of ours comes near."""

MOST_WORDS = 200
"""Characters of a library's reason that are passed on, on one line."""

ROWS_SHOWN = 10
"""Rows that a notebook shows of a table."""

WRONG_SHAPE = (
    LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError,
)  # fmt: skip
"""What Python, NumPy and torch raise of values that are not what the code reads them as."""

Columns = Mapping[str, NDArray[Any] | list[str]]


class Table(Mapping[str, NDArray[Any]]):
    """Named columns of equal length, in memory or in a file that is read when first asked.

    ``table["cds"]`` is a NumPy array, strings as objects; :meth:`to_arrow` and :meth:`to_pandas`
    give the whole.
    """

    def __init__(self, columns: Columns) -> None:
        self._columns: dict[str, NDArray[Any]] | None = {
            name: np.asarray(values, object if isinstance(values, list) else None)
            for name, values in columns.items()
        }
        self.path: Path | None = None

    @classmethod
    def at(cls, path: Path) -> Self:
        """Return the table in ``path``, which need not be there before a column is asked for."""
        table = cls({})
        table._columns, table.path = None, path
        return table

    @property
    def columns(self) -> dict[str, NDArray[Any]]:
        """Every column by name.

        Raises:
            ArtifactError: the file is missing or damaged.
        """
        if self._columns is None:
            assert self.path is not None
            self._columns = read_table(self.path)
        return self._columns

    @cached_property
    def metadata(self) -> dict[str, Any]:
        """What the file says it was made from; nothing for a table in memory."""
        return {} if self.path is None else read_metadata(self.path)

    @property
    def n_rows(self) -> int:
        """Rows of every column."""
        return len(next(iter(self.columns.values()), ()))

    def __getitem__(self, name: str) -> NDArray[Any]:
        if name not in self.columns:
            raise ArtifactError(
                f"{self.path or 'the table'} has no column '{name}'; it has "
                f"{', '.join(self.columns)}"
            )
        return self.columns[name]

    def __contains__(self, name: object) -> bool:
        return name in self.columns

    def __iter__(self) -> Iterator[str]:
        return iter(self.columns)

    def __len__(self) -> int:
        """Return the number of columns, as of any mapping."""
        return len(self.columns)

    def to_arrow(self) -> pa.Table:
        """Return it as an Arrow table."""
        return pa.table({name: pa.array(values) for name, values in self.columns.items()})

    def to_pandas(self) -> Any:
        """Return it as a pandas data frame.

        Raises:
            ArtifactError: pandas is not installed.
        """
        try:
            return self.to_arrow().to_pandas()
        except ImportError:
            raise ArtifactError("pandas is not installed: pip install pandas") from None

    def _repr_html_(self) -> str:
        from html import escape  # noqa: PLC0415  only notebooks ask

        shown = {name: values[:ROWS_SHOWN] for name, values in self.columns.items()}
        head = "".join(f"<th>{escape(name)}</th>" for name in shown)
        rows = "".join(
            "<tr>" + "".join(f"<td>{escape(_short(value))}</td>" for value in row) + "</tr>"
            for row in zip(*shown.values(), strict=True)
        )
        return f"<table><tr>{head}</tr>{rows}</table><p>{self.n_rows:,} rows</p>"

    def __repr__(self) -> str:
        return f"Table({self.n_rows:,} rows: {', '.join(self.columns)})"


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float | np.floating) else str(value)


def write_table(path: Path, columns: Columns, metadata: Mapping[str, Any]) -> None:
    """Write equal-length ``columns`` to ``path`` atomically, with JSON ``metadata`` in the schema.

    A NaN stays NaN: null would be another type in some readers.
    """
    with table_stream(path, metadata) as append:
        append(columns)


@contextmanager
def table_stream(path: Path, metadata: Mapping[str, Any]) -> Generator[Callable[[Columns], None]]:
    """Yield a function that appends equal-length columns to ``path``, one row group a call.

    Memory is that of one piece, however long the table grows. All calls give the same columns of
    the same types, and there is at least one. The table stands under its name once the block ends
    well, with JSON ``metadata``; when the block raises, nothing does.

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
                # min and max ignore NaN: from them DuckDB concludes that isnan(cds) is never true
                exact = [f.name for f in piece.schema if not pa.types.is_floating(f.type)]
                writer = pq.ParquetWriter(
                    temporary,
                    piece.schema,
                    compression="zstd",
                    write_page_checksum=True,
                    write_statistics=exact,  # pyright: ignore[reportArgumentType]  # stub: bool
                )
            writer.write_table(piece)

        try:
            yield append
        finally:
            if writer is not None:
                writer.close()
        assert writer is not None, "a table needs one piece at least"


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


@contextmanager
def tables_of(folder: Path) -> Generator[None]:
    """Turn what a table without its columns, values or types causes in the block into one line.

    The tables of one's own run are compared with their checksums before they are read; those of a
    run that is only looked at are taken as they lie there.

    Raises:
        ArtifactError: naming the run and what was not found in it.
    """
    try:
        yield
    except VitscopeError:
        raise
    except WRONG_SHAPE as error:
        why = " ".join(f"{type(error).__name__}: {error}".split())[:MOST_WORDS]
        raise ArtifactError(
            f"the tables of {folder} are not those of a whole run of this version ({why}); run "
            "`vitscope run` on its study again"
        ) from error
