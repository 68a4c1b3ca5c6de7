"""The binary table says what features.parquet says, and the commonest class is the commonest."""

import json
from collections import Counter
from typing import Any

import hypothesis.strategies as st
import numpy as np
from hypothesis import given
from numpy.typing import NDArray

from vitscope.explorer.tables import Exemplars, class_labels, pack


def unpacked(data: bytes) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """Read the layout as its documentation says it."""
    length = int.from_bytes(data[:4], "little")
    header, start = json.loads(data[4 : 4 + length]), 4 + length
    columns = {
        name: np.frombuffer(data, place["type"], place["length"], start + place["offset"])
        for name, place in header["columns"].items()
    }
    return header, columns


@given(n=st.integers(0, 9), text=st.text())
def test_columns_come_back_bit_for_bit_and_lie_where_a_typed_array_may(n: int, text: str) -> None:
    rng = np.random.default_rng(n)
    given = {
        "cds": rng.normal(size=n),
        "density": rng.normal(size=n).astype(np.float32),
        "label": rng.integers(-1, 5, n).astype(np.int32),
    }
    if n:
        given["cds"][0] = np.nan
    data = pack(given, {"labels": [text]})
    header, found = unpacked(data)
    assert header["labels"] == [text]
    assert (4 + int.from_bytes(data[:4], "little")) % 8 == 0
    for name, values in given.items():
        assert header["columns"][name]["offset"] % values.itemsize == 0
        assert found[name].dtype == values.dtype
        assert found[name].tobytes() == values.tobytes()


def exemplars(rows: list[tuple[int, int]]) -> Exemplars:
    feature, image = np.array(rows, np.int64).reshape(-1, 2).T
    nothing = np.zeros(len(feature))
    whole = nothing.astype(np.int64)
    return Exemplars(feature, whole, image, nothing, nothing, whole, whole)


@given(
    rows=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7)), max_size=40).map(sorted),
    labels=st.lists(st.sampled_from([None, "a", "b", "c"]), min_size=8, max_size=8),
)
def test_the_commonest_class_of_the_top_images(
    rows: list[tuple[int, int]], labels: list[str | None]
) -> None:
    names, chosen, share = class_labels(exemplars(rows), labels, 5)
    for feature in range(5):
        own = [labels[image] for j, image in rows if j == feature]
        counts = Counter(label for label in own if label)
        if not counts:
            assert (chosen[feature], share[feature]) == (-1, 0)
            continue
        best = min(counts, key=lambda name: (-counts[name], name))
        assert names[chosen[feature]] == best
        assert share[feature] == np.float32(counts[best] / len(own))


def test_rows_of_a_feature_are_found() -> None:
    found = exemplars([(0, 1), (0, 2), (3, 4)])
    assert [found.of(j) for j in range(5)] == [
        slice(0, 2), slice(2, 2), slice(2, 2), slice(2, 3), slice(3, 3),
    ]  # fmt: skip
