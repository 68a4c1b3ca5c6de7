from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from vitscope.errors import ArtifactError
from vitscope.store.tables import read_metadata, read_table, write_table

COLUMNS = {
    "feature": np.arange(4, dtype=np.int64),
    "cds": np.array([0.125, np.nan, 0.0, 1.0]),
    "activation": np.array([1.5, 2.5, np.inf, -0.0], dtype=np.float32),
    "alive": np.array([True, False, True, True]),
    "group": ["low", "unscored", "low", "high"],
    "image": np.array(["a/ü.jpg", "b", "", "c"], dtype=object),
}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "features.parquet"
    write_table(path, COLUMNS, {"protocol": {"missing": "max"}, "γ": 0.14})
    return path


def test_a_table_comes_back_as_it_was_written(table: Path) -> None:
    read = read_table(table)
    assert list(read) == list(COLUMNS)
    for name, values in COLUMNS.items():
        np.testing.assert_array_equal(read[name], np.asarray(values), err_msg=name)
    assert read["feature"].dtype == np.int64
    assert read["activation"].dtype == np.float32
    assert read["alive"].dtype == np.bool_


def test_metadata_comes_back(table: Path) -> None:
    assert read_metadata(table) == {"protocol": {"missing": "max"}, "γ": 0.14}


def test_a_table_without_rows_keeps_its_columns(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    write_table(path, {"x": np.zeros(0, np.float32), "name": np.zeros(0, "U3")}, {})
    read = read_table(path)
    assert {name: len(column) for name, column in read.items()} == {"x": 0, "name": 0}
    assert read["x"].dtype == np.float32


def test_duckdb_opens_a_table_and_sees_nan_not_null(table: Path) -> None:
    with duckdb.connect() as connection:
        rows = connection.execute(
            'select feature, isnan(cds), cds is null, activation, alive, "group", image '
            f"from '{table}' order by feature"
        ).fetchall()
    assert rows == [
        (0, False, False, 1.5, True, "low", "a/ü.jpg"),
        (1, True, False, 2.5, False, "unscored", "b"),
        (2, False, False, np.inf, True, "low", ""),
        (3, False, False, 0.0, True, "high", "c"),
    ]


def test_pandas_opens_a_table(table: Path) -> None:
    frame = pd.read_parquet(table)
    assert list(frame.columns) == list(COLUMNS)
    np.testing.assert_array_equal(frame["cds"].to_numpy(dtype=float), COLUMNS["cds"])
    assert frame["group"].tolist() == COLUMNS["group"]
    assert frame["alive"].tolist() == [True, False, True, True]


def test_columns_of_unequal_length_write_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="length"):
        write_table(tmp_path / "a.parquet", {"x": np.zeros(2), "y": np.zeros(3)}, {})
    assert list(tmp_path.iterdir()) == []


def test_a_flipped_byte_of_the_data_is_detected(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    values = np.random.default_rng(0).standard_normal(4096)  # incompressible: pages fill the file
    write_table(path, {"x": values}, {})
    whole = path.read_bytes()
    for place in range(len(whole) // 4, len(whole) // 2, 997):
        damaged = bytearray(whole)
        damaged[place] ^= 0x10
        path.write_bytes(damaged)
        with pytest.raises(ArtifactError, match=r"a\.parquet is damaged.*delete it"):
            read_table(path)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"not parquet at all", b"PAR1" * 20])
def test_a_file_that_is_not_parquet_is_a_user_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.parquet"
    path.write_bytes(content)
    for read in (read_table, read_metadata):
        with pytest.raises(ArtifactError, match=r"a\.parquet is damaged"):
            read(path)


def test_a_missing_table_says_what_to_run(tmp_path: Path) -> None:
    for read in (read_table, read_metadata):
        with pytest.raises(ArtifactError, match="does not exist; run the stage that writes it"):
            read(tmp_path / "a.parquet")


def test_duckdb_filters_on_nan_whatever_the_other_values(tmp_path: Path) -> None:
    # with min/max statistics DuckDB folds isnan() to false when they look finite
    for index, column in enumerate(([0.5, np.nan], [np.nan, 0.5, 1.0], [np.nan])):
        path = tmp_path / f"{index}.parquet"
        write_table(path, {"cds": np.array(column)}, {})
        with duckdb.connect() as connection:
            query = f"select count(*) from '{path}' where isnan(cds)"
            assert connection.execute(query).fetchone() == (1,)
