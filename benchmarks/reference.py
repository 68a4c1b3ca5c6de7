"""What scenes-vit has learned: every label by a linear probe, zero-shot places, and norms by block.

Held-out scenes that neither the network nor the probes were trained on, beside three baselines: the
commonest class, the pixels themselves, and the untrained copy of the network. Intervals are
Wilson's, 95 %. ``python benchmarks/reference.py`` prints Markdown; ``--figure`` draws the norms.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from torch.nn import functional

from vitscope.backbones.attention import BlockAttention
from vitscope.backbones.backbone import Backbone, BlockTokens, FinalOutput
from vitscope.backbones.loading import load_backbone
from vitscope.backbones.scenes_vit import load_scenes_text
from vitscope.backbones.settings import BackboneSettings
from vitscope.embedded.files import SCENES_VIT, SCENES_VIT_SIZES, SCENES_VIT_UNTRAINED
from vitscope.embedded.labels import label_indices
from vitscope.embedded.scene import plan_scene, scene_address
from vitscope.embedded.vocabulary import (
    LABEL_CLASSES,
    LOCAL_LABELS,
    MASK_CLASSES,
    PLACES,
    TIMES,
    WHEN,
)
from vitscope.images.sources import SceneSet, open_image
from vitscope.intervals import wilson_interval
from vitscope.probes.features import FeatureExtraction
from vitscope.probes.labelled_images import LabelledScenes
from vitscope.probes.probe import train_and_score
from vitscope.probes.settings import DepthSettings, ProbeSettings, SegmentationSettings
from vitscope.sae.model import SparseAutoencoder
from vitscope.scope.views import plain_view

SIDE = 88
TRAIN_SEED, HELD_OUT_SEED = 3, 1
BATCH = 100
SHRUNK = 10
"""Side to which pictures are shrunk for the baseline on pixels."""

DECAY = 1e-3
SCENE_DEPTHS = (1e-3, 41.0)
"""Metres; the sky of a scene is at 40."""

DENSE_PIXELS, DENSE_BINS = 40, 64
"""Side at which masks and depths are compared, and depth bins: what a CPU has time for."""

QUANTILES = (0.5, 0.9, 0.98, 0.999, 1.0)

PROMPTS = {
    "place": [f"a photo of a {place}" for place in PLACES],
    "time": [f"a photo of a place {WHEN[time]}" for time in TIMES],
}


def batches(n: int, seed: int, backbone: Any) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield views [B, 3, H, W] and label indices [B, n_labels]."""
    scenes = SceneSet(n, seed=seed, side=SIDE)
    for start in range(0, n, BATCH):
        refs = scenes.refs[start : start + BATCH]
        views = [
            plain_view(
                open_image(ref, max_pixels=10**9),
                site=backbone.site,
                preprocessing=backbone.preprocessing,
            )
            for ref in refs
        ]
        rows: list[list[int]] = []
        for ref in refs:
            address = scene_address(ref.path)
            assert address is not None
            indices = label_indices(plan_scene(address.seed, address.index).labels)
            rows.append([int(indices[name]) for name in LABEL_CLASSES])
        yield torch.stack(views), torch.tensor(rows)


def read(n: int, seed: int, networks: dict[str, Any]) -> tuple[dict[str, Tensor], Tensor]:
    """Return one row of features a scene for every source, and the labels."""
    features: dict[str, list[Tensor]] = {name: [] for name in ("pixels", *networks)}
    labels: list[Tensor] = []
    for views, truth in batches(n, seed, networks[SCENES_VIT]):
        small = functional.adaptive_avg_pool2d(views.float() / 255, SHRUNK)
        features["pixels"].append(small.flatten(1))
        for name, network in networks.items():
            features[name].append(network.resume(network.tokens(views)).pooled.float())
        labels.append(truth)
    return {name: torch.cat(rows).clone() for name, rows in features.items()}, torch.cat(labels)


def linear_probe(x: Tensor, y: Tensor, x_test: Tensor) -> Tensor:
    """Return the classes that a logistic regression, fitted to its optimum, finds."""
    mean, std = x.mean(0), x.std(0) + 1e-6
    rows, rows_test = (x - mean) / std, (x_test - mean) / std
    head = torch.nn.Linear(rows.shape[1], int(y.max()) + 1)
    torch.nn.init.zeros_(head.weight)
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=200, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(head(rows), y) + DECAY * head.weight.square().sum()
        value.backward()
        return value

    optimizer.step(loss)  # pyright: ignore[reportArgumentType]
    with torch.no_grad():
        return head(rows_test).argmax(1)


def wilson(hits: int, n: int) -> str:
    """Return a share in per cent with Wilson's 95 % interval."""
    share, (low, high) = 100 * hits / n, wilson_interval(hits / n, n)
    return f"{share:.1f} ({100 * low:.1f}-{100 * high:.1f})"


def print_labels(n_train: int, n_test: int) -> None:
    """Print the table of labels."""
    names = (SCENES_VIT_UNTRAINED, *SCENES_VIT_SIZES[:-1], SCENES_VIT)
    networks = {name: load_backbone(name, device="cpu") for name in names}
    train, y_train = read(n_train, TRAIN_SEED, networks)
    test, y_test = read(n_test, HELD_OUT_SEED, networks)
    text = load_scenes_text(BackboneSettings(name=SCENES_VIT), torch.device("cpu"))
    print(f"{n_test:,} held-out scenes, probes trained on {n_train:,}\n")
    print(f"| label | classes | commonest | pixels | {' | '.join(names)} | zero-shot |")
    print("|---|---|---|---|---|---|---|---|---|")
    for column, (name, classes) in enumerate(LABEL_CLASSES.items()):
        y, truth = y_train[:, column], y_test[:, column]
        commonest = (truth == torch.mode(y).values).sum()
        cells = [f"{100 * int(commonest) / n_test:.1f}"]
        for source in ("pixels", *names):
            found = linear_probe(train[source], y, test[source])
            hits = int((found == truth).sum())
            text_ = wilson(hits, n_test) if source == SCENES_VIT else f"{100 * hits / n_test:.1f}"
            cells.append(text_)
        zero_shot = "–"
        if name in PROMPTS:
            rows = text.project(test[SCENES_VIT]) @ text.embed(PROMPTS[name]).T
            zero_shot = wilson(int((rows.argmax(1) == truth).sum()), n_test)
        kind = "local" if name in LOCAL_LABELS else "contextual"
        label = f"{name} ({kind})"
        print(f"| {label} | {len(classes)} | {' | '.join(cells)} | {zero_shot} |")


class RawPatches:
    """The pixels of each patch as its token: what a linear layer sees without any network."""

    def __init__(self, like: Backbone) -> None:
        side = 3 * like.site.patch**2
        self.site = replace(like.site, model="raw patches", weights="none", width=side)
        self.preprocessing = like.preprocessing

    def tokens(self, images: Tensor) -> BlockTokens:
        """Return bytes over 255, [B, P, 3·n²]."""
        n = self.site.patch
        rows = functional.unfold(images.float() / 255, n, stride=n).transpose(1, 2)
        return BlockTokens(patch=rows.contiguous(), prefix=rows[:, :0])

    def attention(self, images: Tensor) -> BlockAttention:
        """There is none: a linear probe asks for none."""
        raise NotImplementedError("raw patches have no attention")

    def resume(self, tokens: BlockTokens) -> FinalOutput:
        """Return the same pixels, and their mean."""
        return FinalOutput(patch=tokens.patch, pooled=tokens.patch.mean(1))


def print_dense(n_train: int, n_test: int, epochs: int, seeds: int) -> None:
    """Print the table of probes on patch tokens: segmentation, and depth in metres."""
    trained = load_backbone(SCENES_VIT, device="cpu")
    networks: dict[str, Backbone] = {
        "raw patches": RawPatches(trained),
        SCENES_VIT_UNTRAINED: load_backbone(SCENES_VIT_UNTRAINED, device="cpu"),
        SCENES_VIT: trained,
    }
    settings = ProbeSettings(epochs=epochs, seeds=seeds)
    # the last block for both tasks, so that the sources are compared where they end
    heads = {
        "segmentation": SegmentationSettings(probe_at="final", pixels=DENSE_PIXELS),
        "depth": DepthSettings(
            depth_range=SCENE_DEPTHS, batch_size=32, pixels=DENSE_PIXELS, bins=DENSE_BINS
        ),
    }
    print(f"\n{n_test:,} held-out scenes, probes trained on {n_train:,} for {epochs} epochs\n")
    print("| patch tokens | mIoU, 17 classes | depth RMSE, m |\n|---|---|---|")
    for name, network in networks.items():
        cells: list[str] = []
        for task, head in heads.items():
            with tempfile.TemporaryDirectory() as folder:
                found = train_and_score(
                    FeatureExtraction(network, no_sae(network.site.width), {}, task, head),
                    LabelledScenes(task, 0, n_train, seed=TRAIN_SEED, side=SIDE),
                    LabelledScenes(task, 0, n_test, seed=HELD_OUT_SEED, side=SIDE),
                    Path(folder),
                    settings,
                    n_outputs=len(MASK_CLASSES) - 1,
                )
            best = found.variants[0]
            cells.append(f"{best.mean:.3f} ± {best.spread:.3f}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def no_sae(width: int) -> SparseAutoencoder:
    """Return an SAE that nothing is asked of: probes here remove no feature."""
    zero = torch.zeros
    return SparseAutoencoder(zero(width, 1), zero(1), zero(1, width), zero(width), 0.0, 1)


def norms_by_block(name: str, views: Tensor) -> Tensor:
    """Return the patch tokens' norms after every block, [blocks, n · p²]."""
    depth = load_backbone(name, device="cpu", layer=-1).site.layer
    rows: list[Tensor] = []
    for layer in range(1, depth + 1):
        network = load_backbone(name, device="cpu", layer=layer)
        parts = [network.tokens(some).patch.norm(dim=-1).flatten() for some in views.split(BATCH)]
        rows.append(torch.cat(parts))
    return torch.stack(rows)


def print_norms(found: dict[str, Tensor]) -> None:
    """Print quantiles of the norms, over their median."""
    print("\n| network | block | median | " + " | ".join(f"q{q:g}" for q in QUANTILES[1:]), end="")
    print(" | above twice the median |\n|---|---|---|" + "---|" * len(QUANTILES))
    for name, by_block in found.items():
        for block, norms in enumerate(by_block, start=1):
            median = float(norms.median())
            over = " | ".join(f"{float(norms.quantile(q)) / median:.2f}" for q in QUANTILES[1:])
            share = float((norms > 2 * median).float().mean())
            print(f"| {name} | {block} | {median:.1f} | {over} | {share:.2%} |")


def draw_norms(found: dict[str, Tensor], path: Path) -> None:
    """Draw the histograms of norms over their median, a panel a block."""
    n_blocks = next(iter(found.values())).shape[0]
    figure = Figure(figsize=(9.6, 4.4), layout="constrained")
    axes = figure.subplots(2, (n_blocks + 1) // 2, sharex=True, sharey=True).flatten()
    edges = torch.linspace(-1.6, 2.4, 61)
    for block, ax in enumerate(axes[:n_blocks]):
        for (name, by_block), style in zip(found.items(), ("-", "--"), strict=True):
            ratio = (by_block[block] / by_block[block].median()).log2()
            counts = torch.histogram(ratio, edges).hist / ratio.numel()
            colour = "#0072b2" if name == SCENES_VIT else "#d55e00"
            ax.stairs(counts.clamp(min=1e-6).numpy(), edges.numpy(), color=colour, ls=style)
        ax.set_title(f"block {block + 1}", fontsize=9, loc="left")
        ax.set_yscale("log")
        ax.set_ylim(1e-5, 1)
        ax.spines[["top", "right"]].set_visible(False)
    figure.supxlabel("patch-token norm over its median (log₂)", fontsize=9)
    figure.supylabel("share of tokens", fontsize=9)
    figure.legend(list(found), loc="outside upper left", ncols=2, frameon=False, fontsize=9)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=160)


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--train", type=int, default=6000)
    parser.add_argument("--test", type=int, default=2000)
    parser.add_argument("--dense-train", type=int, default=300, help="0 leaves patches out")
    parser.add_argument("--dense-test", type=int, default=150)
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--norms", type=int, default=500, help="scenes; 0 leaves norms out")
    parser.add_argument("--figure", type=Path, help="where to draw the norms")
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.train:
        print_labels(options.train, options.test)
    if options.dense_train:
        print_dense(options.dense_train, options.dense_test, options.epochs, options.seeds)
    if options.norms:
        network = load_backbone(SCENES_VIT, device="cpu")
        views = torch.cat([v for v, _ in batches(options.norms, HELD_OUT_SEED, network)])
        found = {name: norms_by_block(name, views) for name in (SCENES_VIT, SCENES_VIT_UNTRAINED)}
        print_norms(found)
        if options.figure:
            draw_norms(found, options.figure)


if __name__ == "__main__":
    main()
