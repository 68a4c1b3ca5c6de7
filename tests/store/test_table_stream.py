"""A table written piece by piece is the table written at once, whole or not there at all."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from vitscope.errors import ArtifactError
from vitscope.store.atomic import TEMPORARY_SUFFIX
from vitscope.store.tables import read_metadata, read_table, table_stream, write_table


def piece(start: int, n: int) -> dict[str, Any]:
    values = np.arange(start, start + n)
    return {
        "name": [f"image {value}" for value in values],
        "n": values,
        "emd": np.where(values % 3 == 0, np.nan, values / 7),
    }


def test_pieces_are_the_whole_table(tmp_path: Path) -> None:
    streamed, whole = tmp_path / "streamed.parquet", tmp_path / "whole.parquet"
    with table_stream(streamed, {"stage": "test"}) as append:
        for start in (0, 5, 10):
            append(piece(start, 5))
    write_table(whole, piece(0, 15), {"stage": "test"})
    one, other = read_table(streamed), read_table(whole)
    assert list(one) == list(other)
    for name, column in one.items():
        np.testing.assert_array_equal(column, other[name])
    assert read_metadata(streamed) == {"stage": "test"}
    assert pq.read_schema(streamed).equals(pq.read_schema(whole))
    assert pq.ParquetFile(streamed).num_row_groups == 3


def test_floating_columns_have_no_statistics(tmp_path: Path) -> None:
    with table_stream(tmp_path / "t.parquet", {}) as append:
        append(piece(0, 5))
    group = pq.ParquetFile(tmp_path / "t.parquet").metadata.row_group(0)
    assert [group.column(i).statistics is None for i in range(3)] == [False, False, True]


def test_equal_pieces_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "other"):
        with table_stream(tmp_path / name, {"a": 1}) as append:
            append(piece(0, 5))
            append(piece(5, 2))
    assert (tmp_path / "one").read_bytes() == (tmp_path / "other").read_bytes()


def test_what_stood_stands_until_the_end(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    path.write_bytes(b"what stood")
    with pytest.raises(KeyError), table_stream(path, {}) as append:
        append(piece(0, 5))
        assert path.read_bytes() == b"what stood"
        raise KeyError("stop")
    assert path.read_bytes() == b"what stood"
    assert not list(tmp_path.glob(f".*{TEMPORARY_SUFFIX}"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with (
        pytest.raises(ArtifactError, match=r"cannot write .*t.parquet"),
        table_stream(tmp_path / "file" / "t.parquet", {}) as append,
    ):
        append(piece(0, 1))
