"""Scenes: images a second on one core, and how far two baselines without context get on place.

The baselines are logistic regressions on a colour histogram and on the pixels of the single best
patch; both must stay under 60 %, or place would not need the whole scene. ``make bench`` runs it.
"""

import argparse
import time

import numpy as np
import torch
from torch.nn import functional

from vitscope.embedded.labels import label_indices
from vitscope.embedded.scene import render_scene
from vitscope.embedded.vocabulary import LABEL_CLASSES

SEED = 20_260
SIDE = 80
PATCH = 8
LABELS = ("place", "time", "count", "leftmost_shape", "nearest_shape", "largest_texture")
BINS = 5
WEIGHT_DECAY = 1e-3


def rate(side: int, n: int) -> float:
    """Images rendered a second on this thread, labels and caption included."""
    render_scene(SEED, 0, side)
    started = time.perf_counter()
    for index in range(n):
        render_scene(SEED, index, side)
    return n / (time.perf_counter() - started)


def accuracy(features: torch.Tensor, target: torch.Tensor, n_train: int, n_steps: int) -> float:
    """Held-out accuracy of a logistic regression, its best over the training."""
    mean, std = features[:n_train].mean(0), features[:n_train].std(0) + 1e-6
    rows = (features - mean) / std
    head = torch.nn.Linear(rows.shape[1], int(target.max()) + 1)
    optimizer = torch.optim.AdamW(head.parameters(), lr=5e-3, weight_decay=WEIGHT_DECAY)
    best = 0.0
    for step in range(n_steps):
        picked = torch.randint(n_train, (512,))
        loss = functional.cross_entropy(head(rows[picked]), target[picked])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 49:
            hits = head(rows[n_train:]).argmax(1) == target[n_train:]
            best = max(best, float(hits.float().mean()))
    return best


def histograms(images: np.ndarray) -> torch.Tensor:
    """Joint RGB histogram, BINS levels a channel: [N, BINS³]."""
    level = (images.astype(np.int64) * BINS) // 256
    joint = (level[:, 0] * BINS + level[:, 1]) * BINS + level[:, 2]
    rows = [np.bincount(j.ravel(), minlength=BINS**3) for j in joint]
    # square roots even out the counts, as is usual for histograms
    return torch.from_numpy(np.sqrt(np.array(rows, dtype=np.float32)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--patches", type=int, default=3, help="every how many patches is tried")
    n = parser.parse_args().images
    torch.manual_seed(0)
    torch.set_num_threads(1)
    for side in (64, SIDE, 112, 224):
        print(f"render {side:>3} px: {rate(side, 300):6.0f} images/s on one core")
    scenes = [render_scene(SEED, index, SIDE) for index in range(n)]
    images = np.stack([scene.image for scene in scenes])
    indices = [label_indices(scene.labels) for scene in scenes]
    n_train = n * 3 // 4
    histogram = histograms(images)
    grid = SIDE // PATCH
    step = parser.parse_args().patches
    print(f"{'label':<16}{'chance':>8}{'majority':>10}{'histogram':>11}{'best patch':>12}{'at':>9}")
    for name in LABELS:
        target = torch.tensor([row[name] for row in indices])
        counts = torch.bincount(target)
        best = (0.0, (0, 0))
        for i in range(0, grid, step if name != "place" else 1):
            for j in range(0, grid, step):
                cut = images[:, :, i * PATCH : (i + 1) * PATCH, j * PATCH : (j + 1) * PATCH]
                pixels = torch.from_numpy(cut.reshape(n, -1).astype(np.float32))
                best = max(best, (accuracy(pixels, target, n_train, 300), (i, j)))
        print(
            f"{name:<16}{1 / len(LABEL_CLASSES[name]):>8.3f}{float(counts.max()) / n:>10.3f}"
            f"{accuracy(histogram, target, n_train, 1500):>11.3f}{best[0]:>12.3f}{best[1]!s:>9}",
            flush=True,
        )


if __name__ == "__main__":
    main()
