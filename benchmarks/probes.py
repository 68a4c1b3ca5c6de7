"""All probes at once against one after another, and against encoding every variant anew.

Three comparisons, each over the same images, variants and trials:

- *heads*: 15 (5 trials × 3 variants) probes over the same cached features, together and one after
  another. The sequential probe is what one writes with torch: the batch's rows of the same
  memory-mapped cache, ``nn.Linear``, ``cross_entropy``, ``SGD``, ``CosineAnnealingLR``.
- *segmentation* and *depth*: the same; the sequential probe upsamples logits, not features, so
  that only the batching differs.
- *whole*: backbone, SAE, removal and classification heads, against a script that runs backbone
  and SAE for every variant, and one that does so for every trial.

On a CPU the time is that of the process, on one thread, so that a busy machine matters less.
Rounds are interleaved; the largest gap between both loss curves is printed beside every ratio.
Weights and features are random: speed does not depend on their values.
Run with ``python benchmarks/probes.py [--help]``.
"""

import argparse
import math
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from vitscope.backbones.backbone import Preprocessing, Site
from vitscope.backbones.timm_vit import TimmBackbone
from vitscope.probes.features import (
    FeatureCache,
    FeatureExtraction,
    LabelledFeatures,
    cache_features,
    epoch_order,
)
from vitscope.probes.heads import Trial, draw_trials, first_heads
from vitscope.probes.labelled_images import LabelledScenes
from vitscope.probes.objectives import Classification, Depth, Segmentation
from vitscope.probes.pixels.maps import PixelMaps
from vitscope.probes.settings import (
    ClassificationSettings,
    DepthSettings,
    HeadSettings,
    ProbeSettings,
    SegmentationSettings,
)
from vitscope.probes.training import train_heads
from vitscope.sae.model import SparseAutoencoder
from vitscope.store.parts import save_part

VARIANTS = ("original", "high-removed", "low-removed")
TRIALS = 5
KEY = ("benchmark", 0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=int, default=4096, help="of classification")
    parser.add_argument("--width", type=int, default=128)
    parser.add_argument("--classes", type=int, default=16)
    parser.add_argument("--dense-images", type=int, default=32, help="of segmentation and depth")
    parser.add_argument("--grid", type=int, default=10)
    parser.add_argument("--side", type=int, default=80, help="of masks and depth maps")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--dense-epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--whole-images", type=int, default=96)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--only", choices=("classification", "segmentation", "depth", "whole"))
    options = parser.parse_args()
    device = torch.device(options.device)
    print(
        f"{device}, {torch.get_num_threads()} threads, {TRIALS} trials x {len(VARIANTS)} variants"
    )
    with tempfile.TemporaryDirectory() as scratch:
        for task in ("classification", "segmentation", "depth"):
            if options.only in (None, task):
                compare(task, options, Path(scratch) / task, device)
        if options.only in (None, "whole"):
            whole(options, Path(scratch), device)


def compare(task: str, options: argparse.Namespace, folder: Path, device: torch.device) -> None:
    cache, objective, head, epochs = made_up(task, options, folder)
    features = LabelledFeatures(cache, VARIANTS, device, memory_bytes=1 << 31)
    trials = draw_trials(task, head, n=TRIALS, seeds=range(1), search="log")
    settings = ProbeSettings(epochs=epochs)
    together: list[float] = []
    apart: list[float] = []
    gap = 0.0
    for _ in range(options.rounds):
        seconds, trained = timed(
            lambda: train_heads(features, objective, trials, head, settings, key=KEY), device
        )
        together.append(seconds)
        seconds, curves = timed(
            lambda: one_after_another(cache, trials, objective, head, epochs, device), device
        )
        apart.append(seconds)
        mine = trained.losses.permute(1, 2, 0).reshape(len(curves), -1)
        gap = max(gap, float((mine - torch.tensor(curves)).abs().max()))
    ratios = [b / a for a, b in zip(together, apart, strict=True)]
    print(
        f"{task:15s} together {statistics.median(together):8.2f} s   one after another "
        f"{statistics.median(apart):8.2f} s   ratio {statistics.median(ratios):5.2f} "
        f"({min(ratios):.2f} to {max(ratios):.2f})   largest gap of losses {gap:.1e}"
    )


def made_up(
    task: str, options: argparse.Namespace, folder: Path
) -> tuple[FeatureCache, Any, HeadSettings, int]:
    random = np.random.default_rng(0)
    if task == "classification":
        n, shape = options.images, (options.width,)
        target = random.integers(0, options.classes, n)
        objective: Any = Classification(options.classes)
        head: HeadSettings = ClassificationSettings()
    else:
        n, shape = options.dense_images, (options.grid**2, options.width)
        pixels = PixelMaps(options.grid, options.side, 1 << 28)
        maps = (n, options.side, options.side)
        if task == "segmentation":
            target = random.integers(0, options.classes + 1, maps).astype(np.uint8)
            objective, head = Segmentation(options.classes, pixels), SegmentationSettings()
        else:
            target = random.uniform(0.5, 9, maps).astype(np.float32)
            objective, head = Depth(256, (0.001, 10.0), 0.5, pixels), DepthSettings()
    arrays = {
        name: (random.standard_normal((n, *shape), np.float32) + 0.3).astype(np.float16)
        for name in VARIANTS
    } | {"target": target}
    save_part(folder, "", 0, {name: torch.from_numpy(array) for name, array in arrays.items()})
    cache = FeatureCache.open(folder)
    return (
        cache,
        objective,
        head,
        options.epochs if task == "classification" else options.dense_epochs,
    )


def one_after_another(
    cache: FeatureCache,
    trials: tuple[Trial, ...],
    objective: Any,
    head: HeadSettings,
    epochs: int,
    device: torch.device,
) -> list[list[float]]:
    """Return the loss curve of every (variant, trial), each trained alone."""
    curves: list[list[float]] = []
    for variant in VARIANTS:
        features, target = (cache.shards[0][name] for name in (variant, "target"))
        for trial in trials:
            curves.append(train_alone(features, target, trial, objective, head, epochs, device))
    return curves


def train_alone(
    features: Tensor,
    target: Tensor,
    trial: Trial,
    objective: Any,
    head: HeadSettings,
    epochs: int,
    device: torch.device,
) -> list[float]:
    width, n_outputs = features.shape[-1], objective.n_outputs
    linear = nn.Linear(width, n_outputs).to(device)
    start = first_heads(
        (trial,), n_variants=1, width=width, n_outputs=n_outputs, scaled=False, device=device
    )
    with torch.no_grad():
        linear.weight.copy_(start.weight[0, :, 0].T)
        linear.bias.zero_()
    norm = nn.BatchNorm1d(width).to(device) if head.norm == "batch" else nn.Identity()
    optimiser = torch.optim.SGD(
        [*norm.parameters(), *linear.parameters()],
        trial.learning_rate,
        momentum=0.9,
        weight_decay=trial.weight_decay,
    )
    n_steps = epochs * math.ceil(len(features) / head.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, n_steps)
    curve: list[float] = []
    for epoch in range(epochs):
        total = torch.zeros((), device=device)
        for rows in epoch_order(len(features), head.batch_size, *KEY, epoch):
            x, truth = features[rows].to(device).float(), target[rows].to(device)
            seen = norm(x.reshape(-1, width)).view_as(x)
            loss = loss_of(linear(seen), truth, objective)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
            total += loss.detach() * len(rows)
        curve.append(float(total) / len(features))
    return curve


def loss_of(out: Tensor, truth: Tensor, objective: Any) -> Tensor:
    if isinstance(objective, Classification):
        return nn.functional.cross_entropy(out, truth)
    p, side = objective.maps.grid, objective.maps.side
    maps = out.mT.unflatten(2, (p, p))
    pixels = nn.functional.interpolate(maps, (side, side), mode="bilinear")
    if isinstance(objective, Segmentation):
        return nn.functional.cross_entropy(pixels, truth.long() - 1, ignore_index=-1)
    centres = objective.centres(pixels.device).view(1, -1, 1, 1)
    gap = (pixels.softmax(1) * centres).sum(1).log() - truth.log()
    mean = gap.mean((1, 2))
    return ((gap**2).mean((1, 2)) - objective.loss_lambda * mean**2).mean()


def whole(options: argparse.Namespace, folder: Path, device: torch.device) -> None:
    backbone, sae = random_models(options, device)
    n_features = sae.n_features
    groups = {
        "high-removed": range(n_features // 4),
        "low-removed": range(n_features // 4, n_features),
    }
    images = LabelledScenes("classification", 0, options.whole_images, seed=0, side=options.side)
    settings = ProbeSettings(epochs=100)
    head = ClassificationSettings()
    trials = draw_trials("whole", head, n=TRIALS, seeds=range(1), search="log")
    objective = Classification(16)

    def extraction(chosen: dict[str, Any]) -> FeatureExtraction:
        return FeatureExtraction(backbone, sae, chosen, "classification", head, workers=1)

    def ours() -> None:
        cache = cache_features(extraction(groups), images, folder / "ours")
        features = LabelledFeatures(cache, VARIANTS, device, 1 << 31)
        train_heads(features, objective, trials, head, settings, key=KEY)

    def script(*, every_trial: bool) -> None:
        for name in VARIANTS:
            for number in range(TRIALS if every_trial else 1):
                chosen = {} if name == "original" else {name: groups[name]}
                place = folder / f"{every_trial}-{name}-{number}"
                cache = cache_features(extraction(chosen), images, place)
                features, target = (cache.tensor(k) for k in (name, "target"))
                for trial in trials[number : number + 1] if every_trial else trials:
                    train_alone(features, target, trial, objective, head, 100, device)

    mine, _ = timed(ours, device)
    variants, _ = timed(lambda: script(every_trial=False), device)
    each, _ = timed(lambda: script(every_trial=True), device)
    print(f"whole           ours {mine:.1f} s, {options.whole_images} images, 100 epochs")
    print(
        f"  encoding anew per variant            {variants:8.1f} s   ratio {variants / mine:5.2f}"
    )
    print(f"  encoding anew per variant and trial  {each:8.1f} s   ratio {each / mine:5.2f}")


def random_models(
    options: argparse.Namespace, device: torch.device
) -> tuple[TimmBackbone, SparseAutoencoder]:
    torch.manual_seed(0)
    model = VisionTransformer(
        img_size=options.side,
        patch_size=options.side // options.grid,
        embed_dim=options.width,
        depth=8,
        num_heads=max(options.width // 64, 1),
        num_classes=0,
    )
    site = Site("random", "random", 7, options.width, options.grid, options.side // options.grid)
    backbone = TimmBackbone(
        model.eval().to(device), site, Preprocessing(1.0, (0.5, 0.5, 0.5), (0.3, 0.3, 0.3))
    )
    m = 32 * options.width
    rows = nn.functional.normalize(torch.randn(m, options.width), dim=1)
    tokens = backbone.tokens(torch.randint(0, 256, (8, 3, options.side, options.side)).byte())
    flat = tokens.patch.flatten(0, 1).float().cpu().clone()
    mean = flat.mean(0)
    pre = ((flat - mean) @ rows.T).flatten()
    threshold = float(pre.kthvalue(pre.numel() - 30 * len(flat)).values)
    sae = SparseAutoencoder(rows.T.contiguous(), torch.zeros(m), rows, mean, threshold, 30)
    return backbone, sae.to(device)


def timed(work: Callable[[], Any], device: torch.device) -> tuple[float, Any]:
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    started = clock()
    result = work()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return clock() - started, result


if __name__ == "__main__":
    main()
