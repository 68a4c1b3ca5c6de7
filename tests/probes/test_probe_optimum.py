"""Classification against the optimum of the same convex problem, found by other software."""

import numpy as np
import pytest
import scipy.optimize
import scipy.special
from tests.probes.probe_reference import cached

from vitscope.probes.heads import Trial
from vitscope.probes.objectives import Classification
from vitscope.probes.settings import ClassificationSettings, ProbeSettings
from vitscope.probes.training import train_heads

N, D, CLASSES, DECAY = 90, 5, 3, 0.02


def problem():
    random = np.random.default_rng(3)
    labels = random.integers(0, CLASSES, N)
    centres = random.standard_normal((CLASSES, D))
    x = (centres[labels] + random.standard_normal((N, D))).astype(np.float32)
    features = cached({"a": x, "target": labels})
    trial = Trial(0, 0, 0.1, DECAY)
    settings = ProbeSettings(epochs=600)
    whole = ClassificationSettings(batch_size=N)  # no noise from batches: descent to the optimum
    trained = train_heads(features, Classification(CLASSES), (trial,), whole, settings, key=("o",))
    weight, bias = trained.heads.weight[0, :, 0].double(), trained.heads.bias[0, 0].double()
    return x.astype(np.float64), labels, weight.numpy(), bias.numpy()


def penalised(weight: np.ndarray, bias: np.ndarray, x: np.ndarray, labels: np.ndarray) -> float:
    """Mean cross entropy, and half the decay times every squared parameter, as SGD has it."""
    logits = x @ weight + bias
    entropy = (scipy.special.logsumexp(logits, 1) - logits[np.arange(N), labels]).mean()
    return float(entropy + DECAY / 2 * ((weight**2).sum() + (bias**2).sum()))


def test_full_batches_reach_the_optimum_that_scipy_finds() -> None:
    x, labels, weight, bias = problem()

    def objective(flat: np.ndarray) -> float:
        return penalised(flat[: D * CLASSES].reshape(D, CLASSES), flat[D * CLASSES :], x, labels)

    start = np.zeros(D * CLASSES + CLASSES)
    best = scipy.optimize.minimize(objective, start, method="BFGS", options={"gtol": 1e-7})
    assert penalised(weight, bias, x, labels) == pytest.approx(best.fun, abs=1e-7)
    assert best.fun < objective(start) - 0.3
    found = np.concatenate([weight.ravel(), bias])
    np.testing.assert_allclose(found, best.x, atol=1e-3)


def test_it_is_scikit_learns_optimum_too() -> None:
    linear = pytest.importorskip("sklearn.linear_model")
    x, labels, weight, bias = problem()
    # scikit-learn leaves the intercept free: a column of ones is decayed as ours is
    ones = np.column_stack([x, np.ones(N)])
    model = linear.LogisticRegression(C=1 / (DECAY * N), fit_intercept=False, tol=1e-10)
    model.set_params(max_iter=10_000).fit(ones, labels)
    theirs = model.coef_.T
    np.testing.assert_allclose(np.vstack([weight, bias]), theirs, atol=2e-3)
    ours = penalised(weight, bias, x, labels)
    assert ours == pytest.approx(penalised(theirs[:-1], theirs[-1], x, labels), abs=1e-6)
