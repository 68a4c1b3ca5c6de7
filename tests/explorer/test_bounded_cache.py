"""What is kept stays within its bytes, and is computed once."""

import threading
import time

import hypothesis.strategies as st
import pytest
from hypothesis import given

from vitscope.explorer.lens import BoundedCache


@given(keys=st.lists(st.tuples(st.integers(0, 6), st.integers(0, 12)), max_size=60))
def test_the_bound_holds_and_the_latest_stay(keys: list[tuple[int, int]]) -> None:
    cache = BoundedCache[bytes](20, len)
    latest: dict[int, bytes] = {}
    for key, size in keys:
        value = bytes([key]) * size
        cache.put(key, value)
        latest.pop(key, None)
        latest[key] = value
        found = {other: cache.get(other) for other in range(7)}
        held = {other: kept for other, kept in found.items() if kept is not None}
        assert cache.n_bytes == sum(map(len, held.values())) <= 20
        assert all(latest[other] == kept for other, kept in held.items())
        assert held.get(key) == value


def test_the_one_used_longest_ago_goes_first() -> None:
    cache = BoundedCache[bytes](3, len)
    for key in "abc":
        cache.put(key, b"x")
    cache.get("a")
    cache.put("d", b"x")
    assert [key for key in "abcd" if cache.get(key)] == ["a", "c", "d"]


def test_what_is_too_large_is_not_kept_and_pushes_nothing_out() -> None:
    cache = BoundedCache[bytes](3, len)
    cache.put("a", b"xx")
    assert cache.get_or("b", lambda: b"xxxx") == b"xxxx"
    assert (cache.get("a"), cache.get("b")) == (b"xx", None)


def test_many_threads_compute_a_value_once() -> None:
    cache, computed = BoundedCache[bytes](100, len), list[int]()

    def compute() -> bytes:
        computed.append(1)
        time.sleep(0.05)
        return b"value"

    threads = [threading.Thread(target=cache.get_or, args=("a", compute)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(computed) == 1
    assert cache.get("a") == b"value"


def test_a_failure_is_not_kept() -> None:
    cache = BoundedCache[bytes](100, len)

    def fail() -> bytes:
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            cache.get_or("a", fail)
    assert cache.get_or("a", lambda: b"yes") == b"yes"
