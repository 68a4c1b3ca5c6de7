"""A flow is a plan: it takes one map apart, builds the other, and costs the distance."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.optimize import linprog

from vitscope.errors import TransportError
from vitscope.transport.emd import emd
from vitscope.transport.flows import Flow, optimal_flow

MASS = st.floats(0.0, 1.0).map(lambda x: 0.0 if x < 0.4 else x)
SHAPE = (4, 3)


def laid(cells: NDArray[np.int64], mass: NDArray[np.float64]) -> NDArray[np.float64]:
    whole = np.zeros(SHAPE)
    np.add.at(whole, (cells[:, 0], cells[:, 1]), mass)
    return whole


def by_linear_programming(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    """Cost of the transport problem as it stands in a textbook, by another solver."""
    rows, columns = np.divmod(np.arange(a.size), a.shape[1])
    cost = np.hypot(rows[:, None] - rows, columns[:, None] - columns)
    leaves = np.kron(np.eye(a.size), np.ones(a.size))
    arrives = np.kron(np.ones(a.size), np.eye(a.size))
    given = np.concatenate([a.ravel() / a.sum(), b.ravel() / b.sum()])
    # one equation follows from the others: rounding in it must not make the problem infeasible
    solved = linprog(cost.ravel(), A_eq=np.vstack([leaves, arrives])[:-1], b_eq=given[:-1])
    return float(solved.fun)


@settings(deadline=None)  # the first call may compile
@given(a=arrays(np.float64, SHAPE, elements=MASS), b=arrays(np.float64, SHAPE, elements=MASS))
def test_a_flow_takes_one_map_to_the_other_at_the_least_cost(
    a: NDArray[np.float64], b: NDArray[np.float64]
) -> None:
    flow = optimal_flow(a, b)
    if not a.any() or not b.any():
        assert flow is None
        return
    assert flow is not None
    a, b = a / a.sum(), b / b.sum()
    after = a - laid(flow.source, flow.mass) + laid(flow.target, flow.mass)
    np.testing.assert_allclose(after, b, atol=1e-12)
    assert flow.stays == pytest.approx(np.minimum(a, b).sum(), abs=1e-12)
    assert flow.mass.sum() + flow.stays == pytest.approx(1.0)
    assert (np.diff(flow.mass) <= 0).all()
    assert (flow.source != flow.target).any(1).all()
    assert flow.emd == pytest.approx(float(emd(a, b)), abs=1e-9)  # the compiled simplex
    assert flow.emd == pytest.approx(by_linear_programming(a, b), abs=1e-7)
    lengths = np.hypot(*(flow.target - flow.source).T)
    assert flow.emd == pytest.approx(float(flow.mass @ lengths))


def test_a_moved_point_is_one_arrow() -> None:
    a, b = np.zeros((5, 6)), np.zeros((5, 6))
    a[0, 1], b[4, 4] = 3.0, 0.5
    flow = optimal_flow(a, b)
    assert flow is not None
    assert (flow.source.tolist(), flow.target.tolist()) == ([[0, 1]], [[4, 4]])
    assert (flow.mass.tolist(), flow.stays, flow.emd) == ([1.0], 0.0, 5.0)


def test_equal_maps_have_no_arrow() -> None:
    a = np.arange(6.0).reshape(2, 3)
    flow = optimal_flow(a, 7 * a)
    assert isinstance(flow, Flow)
    assert (len(flow.mass), flow.emd) == (0, 0.0)
    assert flow.stays == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.ones((2, 2)), np.ones((2, 3)), "of one shape"),
        (np.ones(4), np.ones(4), "of one shape"),
        (np.ones((2, 2)), np.full((2, 2), np.nan), "the second map has NaN"),
        (-np.ones((2, 2)), np.ones((2, 2)), "the first map has NaN, infinite or negative"),
    ],
)
def test_what_is_no_pair_of_maps_is_refused(
    a: NDArray[np.float64], b: NDArray[np.float64], message: str
) -> None:
    with pytest.raises(TransportError, match=message):
        optimal_flow(a, b)
