"""Exact EMD: `vitscope.emd` (common mass cancelled, supports only) against `ot.emd2` on the grid.

Run it with ``make bench``. Times are of this machine; the ratio is what to compare.
"""

import time
from collections.abc import Callable

import numpy as np
import ot

from vitscope import emd
from vitscope.scope.transport import cell_distances

SIDE = 13
N_SPARSE = 400
N_DENSE = 40
KEPT = 0.88


def sparse_pairs(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Feature-like maps: a few cells, the second view mostly the same with values ±20 %."""
    first, second = np.zeros((2, N_SPARSE, SIDE * SIDE))
    for row in range(N_SPARSE):
        n = int(np.clip(random.lognormal(np.log(8), 0.9), 2, 60))
        cells = random.choice(SIDE * SIDE, n, replace=False)
        first[row, cells] = random.uniform(0.5, 1.5, n)
        if row % 2:
            cells = random.choice(SIDE * SIDE, n, replace=False)
        kept = cells[random.random(n) < KEPT]
        kept = kept if kept.size else cells
        second[row, kept] = random.uniform(0.8, 1.2, kept.size)
    return first.reshape(-1, SIDE, SIDE), second.reshape(-1, SIDE, SIDE)


def dense_pairs(random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Attention-like maps: every cell has mass, the two views correlate."""
    logits = random.standard_normal((N_DENSE, SIDE, SIDE))
    other = 0.97 * logits + np.sqrt(1 - 0.97**2) * random.standard_normal(logits.shape)
    return np.exp(2 * logits), np.exp(2 * other)


def seconds(work: Callable[[], object], repeats: int = 3) -> float:
    best = float("inf")
    for _ in range(repeats):
        started = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - started)
    return best


def main() -> None:
    random = np.random.default_rng(0)
    cost = cell_distances(SIDE, SIDE).copy()
    print(
        f"{'maps':<8}{'pairs':>7}{'ot.emd2 µs':>13}{'vitscope µs':>13}{'ratio':>8}{'max diff':>11}"
    )
    for name, (first, second) in {
        "sparse": sparse_pairs(random),
        "dense": dense_pairs(random),
    }.items():
        flat = [m.reshape(len(m), -1) / m.sum((1, 2))[:, None] for m in (first, second)]
        rival = lambda f=flat: [ot.emd2(a, b, cost) for a, b in zip(*f, strict=True)]  # noqa: E731
        ours = lambda a=first, b=second: emd(a, b)  # noqa: E731
        gap = float(np.abs(np.asarray(rival()) - np.asarray(ours())).max())
        slow, fast = (seconds(work) / len(first) * 1e6 for work in (rival, ours))
        print(f"{name:<8}{len(first):>7}{slow:>13.0f}{fast:>13.0f}{slow / fast:>8.1f}{gap:>11.1e}")


if __name__ == "__main__":
    main()
