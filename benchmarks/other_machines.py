"""How far a study's results move on another machine: other instructions, other thread counts.

A machine is imitated in a child process (``machines.py``). Every child first shows what of it took
effect, by the bits of each library's results, then runs two studies of ``scenes-vit``: one with the
shipped SAE, every stage, and one that trains an SAE. All tables are compared with the plain
machine's; the trained SAE's figures with those of other seeds.
Run with ``python benchmarks/other_machines.py [--help]``.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machines import PLAIN, changed, environments, probe_arrays
from run_differences import (
    Difference,
    array_differences,
    as_json,
    run_differences,
    trained_figures,
)

from vitscope.embedded.files import shipped_sae
from vitscope.pipeline import chosen_stages, run_study
from vitscope.store.run_directory import RunDirectory
from vitscope.study import Study

SIDE = 88
SEEDS = (0, 1, 2)
SHOWN = ("images", "extract", "train", "outliers", "evaluate", "score", "partition")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=200, help="scenes that are scored")
    parser.add_argument("--probe-images", type=int, default=120, help="0 leaves probes out")
    parser.add_argument("--steps", type=int, default=300, help="of training; 0 leaves it out")
    parser.add_argument("--machines", nargs="+", metavar="NAME", help="names as printed")
    parser.add_argument("--out", type=Path, help="keep the runs there, and go on with them")
    parser.add_argument("--json", action="store_true", help="one line for a program")
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child is not None:
        compute(options)
        return
    with tempfile.TemporaryDirectory() as scratch:
        compare(options, options.out or Path(scratch))


def compute(options: argparse.Namespace) -> None:
    """Be one machine: leave the libraries' results and the runs of both studies."""
    options.out.mkdir(parents=True, exist_ok=True)
    if options.child == 0:
        np.savez(options.out / "arrays.npz", **probe_arrays())  # pyright: ignore[reportArgumentType]
        study = given(options.images, options.probe_images)
        wanted = [stage.name for stage in chosen_stages(study) if stage.name != "report"]
        run_study(study, options.out / "given", only=wanted)
    if options.steps:
        study = trained(options.images, options.steps, options.child)
        run_study(study, options.out / f"trained-{options.child}", only=SHOWN)


def scenes(n: int, seed: int) -> str:
    return f"scenes:{n}?seed={seed}&side={SIDE}"


def given(n: int, n_probe: int) -> Study:
    """The shipped SAE, which is the same to the bit everywhere."""
    values: dict[str, Any] = {
        "images": {"train": scenes(n, 1), "workers": 1},
        "backbone": {"name": "scenes-vit"},
        "sae": {"path": shipped_sae("scenes-vit")},
        "outliers": {"images": min(n, 100)},
        "awcds": {"bins": 20},
    }
    if n_probe:
        place = {"train": scenes(n_probe, 3), "validation": scenes(n_probe, 4), "batch_size": 32}
        values["probes"] = {
            "epochs": 20, "trials": 2, "n_controls": 1, "classification": place,
            "zeroshot": {"images": scenes(n_probe, 4)},
        }  # fmt: skip
    return Study.parse(values, source="given")


def trained(n: int, steps: int, seed: int) -> Study:
    """An SAE trained for some hundred steps."""
    values: dict[str, Any] = {
        "seed": seed,
        "images": {"train": scenes(2 * n, 2), "eval": scenes(n, 1), "workers": 1},
        "backbone": {"name": "scenes-vit"},
        "activations": {"tokens_per_image": 0},
        "sae": {"expansion": 8, "batch_size": 1024, "learning_rate": 1e-3, "steps": steps},
        "outliers": {"images": min(n, 100)},
    }
    return Study.parse(values, source="trained")


def compare(options: argparse.Namespace, out: Path) -> None:
    machines = environments(out.absolute())
    names = options.machines or [name for name in machines if name != PLAIN]
    if unknown := set(names) - machines.keys():
        sys.exit(f"no machine {sorted(unknown)[0]!r}; there are: {', '.join(machines)}")
    if not options.json:
        print(f"torch {torch.__version__}, NumPy {np.__version__}, {os.cpu_count()} cores; plain: "
              f"{torch.backends.cpu.get_cpu_capability()}, one thread")  # fmt: skip
    plain = spawn(options, machines[PLAIN], out / "plain", 0)
    spread = {}
    for seed in SEEDS if options.steps else ():
        folder = spawn(options, machines[PLAIN], out / "plain", seed) / f"trained-{seed}"
        spread[seed] = trained_figures(RunDirectory(folder))
    for name in names:
        folder = spawn(options, machines[name], out / name.replace(" ", "-").replace(",", ""), 0)
        tell(options, name, folder, plain, spread)


def spawn(options: argparse.Namespace, own: dict[str, str], folder: Path, seed: int) -> Path:
    """Run one child; what an earlier one left is not computed again."""
    sizes = {"images": options.images, "probe-images": options.probe_images,
             "steps": options.steps, "child": seed}  # fmt: skip
    words = [word for key, value in sizes.items() for word in (f"--{key}", str(value))]
    command = [sys.executable, "-W", "ignore", __file__, "--out", str(folder), *words]
    subprocess.run(command, env={**os.environ, **own}, check=True, stdout=sys.stderr)
    return folder


def tell(
    options: argparse.Namespace,
    name: str,
    folder: Path,
    plain: Path,
    spread: dict[int, dict[str, float]],
) -> None:
    arrays, expected = (dict(np.load(each / "arrays.npz")) for each in (folder, plain))
    took = changed(arrays, expected)
    found: list[Difference] = array_differences(arrays, expected)
    found += run_differences(RunDirectory(folder / "given"), RunDirectory(plain / "given"))
    moved = trained_figures(RunDirectory(folder / "trained-0")) if options.steps else {}
    if options.json:
        print(json.dumps({"machine": name, "changed": took, "differences": json.loads(
            as_json(found)), "trained": moved, "seeds": list(spread.values())}))  # fmt: skip
        return
    print(f"\n{name}: changes {', '.join(took) or 'nothing'}")
    for difference in found:
        print(f"  {difference}")
    for figure, value in moved.items():
        seeds = [own[figure] for own in spread.values()]
        print(f"  trained anew, {figure:18s} moved {value - seeds[0]:+.2e}; "
              f"seeds {min(seeds):.4f} to {max(seeds):.4f}")  # fmt: skip


if __name__ == "__main__":
    main()
