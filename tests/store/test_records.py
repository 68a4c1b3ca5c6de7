"""The codec of results: a record comes back as it was, and a damaged one is one line."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitscope.errors import ArtifactError
from vitscope.store.records import At, from_json, load_record, save_record, to_json
from vitscope.store.tables import Table, read_metadata


@dataclass(frozen=True)
class Inner:
    a: float
    b: int | None


@dataclass(frozen=True)
class Plain:
    x: float
    y: float | None
    ends: tuple[float, ...]
    rows: Mapping[str, Inner]
    mode: Literal["a", "b"]
    inner: Inner | None = None
    words: tuple[str, ...] = ()


@dataclass(frozen=True)
class Whole:
    n: int
    files: tuple[Path, ...]
    table: Annotated[Table, At("tables/one.parquet")]
    other: Annotated[Table | None, At("tables/other.parquet")] = None


NUMBERS = st.floats(allow_nan=True, allow_infinity=True)
INNER = st.builds(Inner, NUMBERS, st.none() | st.integers())
PLAIN = st.builds(
    Plain,
    NUMBERS,
    # a missing number is NaN, and a field that may be None keeps its null: NaN there is lost
    st.none() | st.floats(allow_nan=False),
    st.lists(NUMBERS).map(tuple),
    st.dictionaries(st.text(), INNER),
    st.sampled_from(["a", "b"]),
    st.none() | INNER,
    st.lists(st.text()).map(tuple),
)


@given(PLAIN)
def test_a_record_comes_back_as_it_was(record: Plain) -> None:
    text = json.dumps(to_json(record), allow_nan=False)
    # repr tells NaN from NaN as equal, and a tuple from a list
    assert repr(from_json(Plain, json.loads(text))) == repr(record)


def test_tables_and_paths_are_files_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "a.txt").touch()
    record = Whole(1, (tmp_path / "a.txt",), Table({"x": np.arange(3.0), "word": ["a", "b", "c"]}))
    plain, files = save_record(record, tmp_path, {"stage": "one"})
    assert plain == {"n": 1, "files": ["a.txt"], "other": None}
    assert files == [tmp_path / "tables/one.parquet", tmp_path / "a.txt"]
    assert read_metadata(files[0]) == {"stage": "one"}
    found = load_record(Whole, json.loads(json.dumps(plain)), tmp_path)
    assert (found.n, found.files, found.other) == (1, (tmp_path / "a.txt",), None)
    assert found.table["x"].tolist() == [0, 1, 2] and found.table["word"].tolist() == list("abc")
    assert list(found.table) == ["x", "word"] and "y" not in found.table
    with pytest.raises(ArtifactError, match=r"one.parquet has no column 'y'; it has x, word"):
        _ = found.table["y"]


def test_a_table_is_read_when_it_is_first_asked(tmp_path: Path) -> None:
    table = Table.at(tmp_path / "later.parquet")
    with pytest.raises(ArtifactError, match="does not exist; run the stage that writes it"):
        _ = table["x"]
    save_record(Whole(1, (), Table({"x": np.ones(2)})), tmp_path, {})
    (tmp_path / "tables/one.parquet").rename(table.path or tmp_path)
    assert table.n_rows == 2


BASE: dict[str, Any] = to_json(Plain(1.0, None, (1.0, math.nan), {"k": Inner(2.0, 1)}, "a"))


@pytest.mark.parametrize(
    "damage",
    [
        {"x": "no"}, {"x": True}, {"mode": "c"}, {"rows": [1]}, {"rows": {"k": {"a": 1}}},
        {"ends": 3}, {"ends": [{}]}, {"words": [1]}, {"inner": 3}, {"x": [1]}, {"words": "abc"},
    ],
    ids=str,
)  # fmt: skip
def test_a_damaged_record_is_one_line(damage: dict[str, Any]) -> None:
    assert from_json(Plain, BASE).rows["k"].a == 2
    with pytest.raises(ArtifactError, match=r"^not a whole Plain \("):
        from_json(Plain, BASE | damage)


@pytest.mark.parametrize("values", [None, [], "x", 3])
def test_what_is_no_record_is_told(values: Any) -> None:
    with pytest.raises(ArtifactError, match="no Plain stands there"):
        from_json(Plain, values)
    for name in ("x", "rows"):
        with pytest.raises(ArtifactError, match="not a whole Plain"):
            from_json(Plain, {k: v for k, v in BASE.items() if k != name})


@pytest.mark.parametrize("path", ["../outside", "/etc/passwd", "a/../../b"])
def test_a_path_that_leads_out_of_the_run_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(ArtifactError, match="lies outside the run"):
        load_record(Whole, {"n": 1, "files": [path]}, tmp_path)
