"""A study on one process and on several: wall seconds of every stage, speed-up and efficiency.

Scenes and an embedded backbone, so that it runs anywhere; on a GPU machine each rank takes a GPU.
Numbers of processes take turns within one run, and every turn begins from nothing. Run with
``python benchmarks/ranks.py [--ranks 1 2] [--images 2000] [--turns 2]``.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from vitscope.pipeline import STAGES
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stamp import read_stamp
from vitscope.study import Study, dump_study

LAUNCH = ("-m", "torch.distributed.run", "--standalone")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--steps", type=int, default=200, help="of the SAE's training")
    parser.add_argument("--turns", type=int, default=2)
    options = parser.parse_args()
    best: dict[int, dict[str, float]] = {}
    for turn in range(options.turns):
        for n in options.ranks:
            seconds = run(n, study(options.images, options.steps))
            print(f"turn {turn + 1}, {n} ranks: {sum(seconds.values()):.0f} s", flush=True)
            known = best.setdefault(n, seconds)
            best[n] = {stage: min(value, known[stage]) for stage, value in seconds.items()}
    print_table(best)


def study(n_images: int, steps: int) -> Study:
    """Return a study with every stage but probes and zero-shot."""
    values = {
        "images": {"train": f"scenes:{n_images}?seed=2&side=88"},
        "backbone": {"name": "scenes-vit"},
        "sae": {"steps": steps, "learning_rate": 1e-3},
        "outliers": {"images": n_images // 5},
        "awcds": {"images": n_images // 2},
    }
    return Study.parse({"name": "ranks", **values}, source="benchmarks/ranks.py")


def run(n: int, asked: Study) -> dict[str, float]:
    """Return the wall seconds of each stage on ``n`` processes, one thread each."""
    with tempfile.TemporaryDirectory() as scratch:
        file, out = Path(scratch) / "study.toml", Path(scratch) / "run"
        file.write_text(dump_study(asked))
        launch = (*LAUNCH, f"--nproc-per-node={n}") if n > 1 else ()
        subprocess.run(
            [sys.executable, *launch, "-m", "vitscope", "run", str(file), "--out", str(out)],
            env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        stamps = {name: read_stamp(RunDirectory(out), name) for name in STAGES}
        return {name: stamp.seconds for name, stamp in stamps.items() if stamp is not None}


def print_table(best: dict[int, dict[str, float]]) -> None:
    """Print seconds, and how many times as fast as the fewest processes."""
    fewest, *more = sorted(best)
    heads = [f"{fewest} process, s", *(f"{n}, s | times as fast | efficiency" for n in more)]
    print("| stage | " + " | ".join(heads) + " |")
    print("|---" * (2 + 3 * len(more)) + "|")
    for stage in (*best[fewest], "all"):
        alone, *rest = (
            sum(best[n].values()) if stage == "all" else best[n][stage] for n in (fewest, *more)
        )
        cells = [
            f"{value:.1f} | {alone / value:.2f} | {alone / value / n * fewest:.2f}"
            for n, value in zip(more, rest, strict=True)
        ]
        print(f"| {stage} | {alone:.1f} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
