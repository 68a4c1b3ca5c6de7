"""Exact EMD: `vitscope.emd` against `ot.emd2`, agreement and time per pair.

Rivals get arrays that are already normalised and a cost matrix that is already made; `vitscope.emd`
gets maps as they come, and checks and normalises them. "cancelled" is `ot.emd2` on what is left
after cancelling common mass, closed forms included. Single-threaded times are CPU time of the
process, the best of three rounds in which the contestants take turns, so that a busy machine
disturbs all alike; two threads are wall time. Ratios are what to compare.

Run ``make bench``, or ``python benchmarks/transport.py --pairs 50000`` for the long comparison.
"""

import argparse
import os
import platform
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import ot
from scipy.sparse import csr_array

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.transport.map_pairs import KINDS, MANY_SHAPES, Map, attention, features, whole_map_emd

from vitscope.transport.emd import cell_distances, emd, transport
from vitscope.transport.pot import pot_emd

SPARSE_SIDES = (13, 15, 16, 18, 20, 23)
N_SPARSE = 2_000
N_SPARSE_RIVAL = 150
N_DENSE = 400
N_DENSE_RIVAL = 25
ROUNDS = 3

Work = Callable[[], object]
Batch = tuple[Map, Map]


def feature_maps(side: int) -> Batch:
    random = np.random.default_rng(side)
    pairs = [features(random, (side, side)) for _ in range(N_SPARSE)]
    return np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])


def attention_maps(side: int, alike: float, n: int = N_DENSE) -> Batch:
    random = np.random.default_rng(side)
    pairs = [attention(random, (side, side), alike) for _ in range(n)]
    return np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs])


def best(works: list[Work], clock: Callable[[], float]) -> list[float]:
    """Seconds of each, the best of several rounds in which they take turns."""
    seconds = [float("inf")] * len(works)
    for _ in range(ROUNDS):
        for k, work in enumerate(works):
            started = clock()
            work()
            seconds[k] = min(seconds[k], clock() - started)
    return seconds


def rivals(batch: Batch, n: int) -> tuple[Callable[[], list[float]], Callable[[], list[float]]]:
    side = batch[0].shape[1]
    cost = cell_distances(side, side).copy()
    first, second = ((m / m.sum((1, 2), keepdims=True)).reshape(len(m), -1)[:n] for m in batch)
    return (
        lambda: [float(ot.emd2(a, b, cost)) for a, b in zip(first, second, strict=True)],
        lambda: [pot_emd(a, b, cost) for a, b in zip(first, second, strict=True)],
    )


def compare(name: str, batch: Batch, n_rival: int, sparse: bool) -> tuple[float, float, float]:
    """Print a row; return µs per pair of the two rivals and of vitscope."""
    whole, cancelled = rivals(batch, n_rival)
    ours = tuple(csr_array(m.reshape(len(m), -1)) for m in batch) if sparse else batch
    grid = batch[0].shape[1:]
    solved = transport(*ours, grid=grid)
    gap = float(np.abs(solved.distances[:n_rival] - whole()).max())
    works: list[Work] = [whole, cancelled, lambda: emd(*ours, grid=grid)]
    if sparse:
        works.append(lambda: emd(*batch))
    seconds = best(works, time.process_time)
    n_pairs = (n_rival, n_rival, len(batch[0]), len(batch[0]))
    micro = [s / n * 1e6 for s, n in zip(seconds, n_pairs, strict=False)]
    as_arrays = f"{micro[3]:>9.2f}" if sparse else f"{micro[2]:>9.2f}"
    pivots = float((solved.pivots / np.maximum(solved.nodes, 1)).max())
    print(
        f"{name:<22}{micro[0]:>10.0f}{micro[1]:>11.0f}{micro[2]:>10.2f}{as_arrays}"
        f"{micro[0] / micro[2]:>9.1f}{micro[1] / micro[2]:>11.1f}{gap:>10.1e}{pivots:>8.1f}"
        f"{solved.n_fallbacks:>6}"
    )
    return micro[0], micro[1], micro[2]


def speed() -> None:
    print(
        f"{'one thread, µs a pair':<22}{'ot.emd2':>10}{'cancelled':>11}{'vitscope':>10}"
        f"{'(arrays)':>9}{'×':>9}{'× canc.':>11}{'max gap':>10}{'piv/n':>8}{'POT':>6}"
    )
    rows = [compare(f"sparse {s}×{s}", feature_maps(s), N_SPARSE_RIVAL, True) for s in SPARSE_SIDES]
    whole, cancelled, ours = np.mean(rows, axis=0)
    print(
        f"{'sparse, all sides':<22}{whole:>10.0f}{cancelled:>11.0f}{ours:>10.2f}{'':>9}"
        f"{whole / ours:>9.1f}{cancelled / ours:>11.1f}"
    )
    for side, alike, n in ((15, 0.97, N_DENSE_RIVAL), (15, 0.9, N_DENSE_RIVAL), (23, 0.9, 3)):
        compare(f"dense {side}×{side}, ρ {alike}", attention_maps(side, alike), n, False)


def threads() -> None:
    # where others keep the cores busy, CPU time alone says whether threads get in each other's way
    print(f"\n{'wall time, µs a pair':<22}{'1 thread':>10}{'2 threads':>11}{'×':>9}{'CPU':>7}")
    dense, sparse = attention_maps(15, 0.97, 2_000), feature_maps(18)
    many = tuple(csr_array(np.tile(m.reshape(len(m), -1), (20, 1))) for m in sparse)
    for name, batch in (("dense 15×15, ρ 0.97", dense), ("sparse 18×18", many)):
        works: list[Work] = [lambda w=w, b=batch: emd(*b, grid=(18, 18), workers=w) for w in (1, 2)]
        one, two = (s / batch[0].shape[0] * 1e6 for s in best(works, time.perf_counter))
        alone, together = best(works, time.process_time)
        print(f"{name:<22}{one:>10.2f}{two:>11.2f}{one / two:>9.2f}{together / alone:>7.2f}")


def agreement(n_pairs: int) -> None:
    """Compare with POT on whole maps: ties, checkerboards, tiny masses, one cell, and so on."""
    per_shape = sum(n for _, n in MANY_SHAPES) * len(KINDS)
    worst, done, n_fallbacks, started = 0.0, 0, 0, time.process_time()
    for shape, n in MANY_SHAPES:
        random = np.random.default_rng(shape[0] * 1000 + shape[1])
        n_kind = min(n, -(-n * n_pairs // per_shape))
        pairs = [kind(random, shape) for kind in KINDS for _ in range(n_kind)]
        solved = transport(np.stack([a for a, _ in pairs]), np.stack([b for _, b in pairs]))
        expected = [whole_map_emd(a, b) for a, b in pairs]
        worst = max(worst, float(np.abs(solved.distances - expected).max()))
        done, n_fallbacks = done + len(pairs), n_fallbacks + solved.n_fallbacks
    seconds = time.process_time() - started
    print(
        f"\nagreement with ot.emd2 on whole maps, grids 1×2 to 37×37: {done:,} pairs of "
        f"{len(KINDS)} kinds, largest difference {worst:.1e}, {n_fallbacks} left to POT "
        f"({seconds:.0f} s)"
    )


def processor() -> str:
    """The model, where Linux says it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    family = [line.partition(":")[2].strip() for line in lines if line.startswith("cpu family")]
    model = [line.partition(":")[2].strip() for line in lines if line.startswith("model\t")]
    return f"{names[0]}, family {family[0]} model {model[0]}" if names and model else "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=4_000, help="pairs to compare with POT")
    options = parser.parse_args()
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    print(f"{processor()}; {os.cpu_count()} cores{load}; Python {platform.python_version()}")
    print(", ".join(f"{name} {version(name)}" for name in ("POT", "numba", "numpy")))
    started = time.perf_counter()
    emd(np.eye(4), np.ones((4, 4)))
    seconds = time.perf_counter() - started
    print(f"first call, with numba's import, and compilation where needed: {seconds:.1f} s\n")
    speed()
    threads()
    agreement(options.pairs)


if __name__ == "__main__":
    main()
