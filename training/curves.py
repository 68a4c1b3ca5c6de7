"""Print a run's held-out figures as a table, and draw its curves.

python training/curves.py runs/scenes-vit-s docs/images/scenes-vit-s.png
"""

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from checkpoint import load
from matplotlib import pyplot as plt
from scenes_vit import training_seed

from vitscope.embedded.labels import label_indices
from vitscope.embedded.scene import plan_scene
from vitscope.embedded.vocabulary import LABEL_CLASSES, LOCAL_LABELS
from vitscope.intervals import wilson_interval

mpl.use("Agg")

PANELS = {
    "scene": ("place", "ground", "backdrop", "time", "zero_shot_place", "zero_shot_time"),
    "largest object": tuple(f"largest_{x}" for x in ("shape", "colour", "texture", "material")),
    "relations": (
        *("leftmost_shape", "leftmost_colour", "nearest_shape", "nearest_side", "count"),
    ),
    "presence": tuple(name for name in LABEL_CLASSES if name.startswith("has_")),
}


def majority(seed: int, n: int) -> dict[str, float]:
    """Share of each label's commonest class in the held-out scenes: what guessing can reach."""
    rows = [label_indices(plan_scene(seed, index).labels) for index in range(n)]
    return {name: float(np.bincount([r[name] for r in rows]).max()) / n for name in LABEL_CLASSES}


def table(last: dict[str, Any], guess: dict[str, float]) -> str:
    """Return the last evaluation as a Markdown table."""
    lines = [
        "| label | kind | commonest class | accuracy | 95 % interval |",
        "|---|---|---|---|---|",
    ]
    for name, share in last["accuracy"].items():
        commonest = 100 * guess[name.removeprefix("zero_shot_")]
        low, high = (100 * end for end in wilson_interval(share, last["n_scenes"]))
        kind = "local" if name in LOCAL_LABELS else "context"
        lines.append(
            f"| `{name}` | {kind} | {commonest:.1f} % | {100 * share:.1f} % "
            f"| {low:.1f} to {high:.1f} |"
        )
    return "\n".join(lines)


def draw(curve: list[dict[str, Any]], path: Path) -> None:
    """Draw accuracies by group, the patch heads, and the norms' spread by block."""
    images = [row["images"] / 1000 for row in curve]
    figure, axes = plt.subplots(2, 3, figsize=(12, 6), layout="constrained")
    for axis, (title, names) in zip(axes.flat, PANELS.items(), strict=False):
        for name in names:
            axis.plot(images, [row["accuracy"][name] for row in curve], label=name)
        axis.set(title=title, ylim=(0, 1), xlabel="thousand scenes", ylabel="held-out accuracy")
        axis.legend(fontsize=7)
    patches, norms = axes.flat[len(PANELS) :]
    for name in ("mask_accuracy", "mask_miou", "texture_accuracy", "colour_accuracy"):
        patches.plot(images, [row[f"patch_{name}"] for row in curve], label=name)
    patches.set(title="patch heads", ylim=(0, 1), xlabel="thousand scenes")
    patches.legend(fontsize=7)
    for i in range(len(curve[0]["norms"])):
        ratio = [row["norms"][i]["q0.999"] / row["norms"][i]["q0.5"] for row in curve]
        norms.plot(images, ratio, label=f"block {i + 1}")
    norms.set(title="patch norms: 99.9 % quantile / median", xlabel="thousand scenes")
    norms.legend(fontsize=7)
    figure.savefig(path, dpi=80)


def main() -> None:
    """Print the table; draw the figure where a second path is given."""
    state = load(Path(sys.argv[1]))
    if state is None or not state.curve:
        sys.exit(f"{sys.argv[1]} holds no evaluated checkpoint")
    curve = state.curve
    guess = majority(training_seed(state.recipe["seed"]) + 1, curve[-1]["n_scenes"])
    sys.stdout.write(f"After {curve[-1]['images']} scenes:\n\n{table(curve[-1], guess)}\n")
    if len(sys.argv) > 2:
        draw(curve, Path(sys.argv[2]))


if __name__ == "__main__":
    main()
