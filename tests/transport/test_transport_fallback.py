"""What happens without numba, without a cache on disk, or without a certified optimum."""

import ast
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array
from tests.transport.map_pairs import Map, attention

from vitscope.errors import TransportError
from vitscope.transport import batch
from vitscope.transport import emd as transport
from vitscope.transport.emd import emd

FOLDER = Path(transport.__file__).parent


def dense_pairs(n: int) -> tuple[Map, Map]:
    random = np.random.default_rng(0)
    first, second = zip(*(attention(random, (5, 6)) for _ in range(n)), strict=True)
    return np.stack(first), np.stack(second)


@pytest.fixture
def no_numba(monkeypatch: pytest.MonkeyPatch):
    transport._kernel.cache_clear()
    monkeypatch.setitem(sys.modules, "numba", None)
    for name in ("batch", "simplex"):
        monkeypatch.delitem(sys.modules, f"vitscope.transport.{name}")
    yield
    monkeypatch.undo()
    transport._kernel.cache_clear()


def test_without_numba_pot_gives_the_same_after_one_note(no_numba: None) -> None:
    a, b = dense_pairs(5)
    b[3] = 0
    with pytest.warns(RuntimeWarning, match="numba does not import.*pip install numba"):
        slow = transport.transport(a, b)
    assert slow.n_fallbacks == 5
    again = emd(csr_array(a.reshape(5, -1)), b, grid=a.shape[1:])  # a second note would be an error
    np.testing.assert_array_equal(again, slow.distances)
    with pytest.raises(TransportError, match="pair 4: its second map has NaN"):
        emd(a, np.where(np.arange(5)[:, None, None] == 4, np.nan, b))
    with pytest.raises(TransportError, match="pair 0: its first map has NaN"):
        emd(-a, b)
    transport._kernel.cache_clear()


def test_with_numba_the_answer_is_that_of_pot() -> None:
    a, b = dense_pairs(5)
    first, second = (transport._read(maps, None) for maps in (a, b))
    distances = transport._by_pot(first, second, range(5)).distances
    np.testing.assert_allclose(emd(a, b), distances, atol=1e-12)


def test_pairs_beyond_the_cap_go_to_pot_and_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = dense_pairs(40)
    a[7] = b[7]
    expected = transport.transport(a, b)
    assert expected.n_fallbacks == 0
    assert expected.pivots[expected.nodes > 0].min() > 0
    monkeypatch.setattr(transport, "PIVOTS_PER_NODE", 0)
    for maps in ((a, b), [csr_array(m.reshape(40, -1)) for m in (a, b)]):
        with pytest.warns(RuntimeWarning, match="39 of 40 pairs had no certified optimum"):
            capped = transport.transport(*maps, grid=a.shape[1:])
        assert capped.n_fallbacks == 39
        np.testing.assert_allclose(capped.distances, expected.distances, atol=1e-12)


def test_a_plan_that_is_not_certified_goes_to_pot(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = dense_pairs(3)
    expected = emd(a, b)
    solve_rows = batch.solve_rows

    def unsure(*arguments: Any) -> None:
        solve_rows(*arguments)
        distances, outcomes, _ = arguments[-3:]
        assert isinstance(distances, np.ndarray)
        assert isinstance(outcomes, np.ndarray)
        distances[1], outcomes[1] = np.nan, batch.UNSOLVED

    monkeypatch.setattr(batch, "solve_rows", unsure)
    with pytest.warns(RuntimeWarning, match="1 of 3 pairs had no certified optimum"):
        np.testing.assert_allclose(emd(a, b), expected, atol=1e-12)


def test_the_front_does_not_import_numba_until_it_is_used() -> None:
    for name in ("emd", "flows", "pot"):
        tree = ast.parse((FOLDER / f"{name}.py").read_text())
        wanted = [ast.unparse(node) for node in tree.body if isinstance(node, ast.ImportFrom)]
        wanted += [ast.unparse(node) for node in tree.body if isinstance(node, ast.Import)]
        compiling = ("numba", "compiled", "simplex", "batch")
        assert not any(word in line for line in wanted for word in compiling)
