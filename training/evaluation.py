"""Held-out figures: accuracy per label, zero-shot, patches, and the norms of patch tokens."""

from typing import Any

import torch
from batches import NOT_ASKED, Batch, render_batch
from networks import DualEncoder
from sizes import tokenize
from torch import Tensor

from vitscope.embedded.layout import SceneSettings
from vitscope.embedded.vocabulary import MASK_CLASSES, PLACES, TIMES, WHEN

CHUNK = 64
QUANTILES = (0.5, 0.9, 0.99, 0.999, 1.0)
N_NORM_IMAGES = 256

PROMPTS: dict[str, list[str]] = {
    "place": [f"a photo of a {place}" for place in PLACES],
    "time": [f"a photo of a place {WHEN[time]}" for time in TIMES],
}
"""Zero-shot: the class whose prompt is nearest to the image wins."""


def held_out(seed: int, n: int, side: int) -> list[Batch]:
    """Render ``n`` scenes of the full difficulty from a set that training never sees."""
    settings = SceneSettings()
    return [
        render_batch(seed, start, min(CHUNK, n - start), side, settings)
        for start in range(0, n, CHUNK)
    ]


@torch.inference_mode()
def evaluate(model: DualEncoder, chunks: list[Batch]) -> dict[str, Any]:
    """Measure everything on the held-out scenes."""
    device = model.logit_scale.device
    model.eval()
    prompts = {k: model.text(tokenize(texts).to(device)) for k, texts in PROMPTS.items()}
    hits: dict[str, float] = {}
    n = 0
    joint = torch.zeros(len(MASK_CLASSES), len(MASK_CLASSES), dtype=torch.float64)
    patch = {"texture": torch.zeros(2), "colour": torch.zeros(2)}
    squares = torch.zeros(2, dtype=torch.float64)

    def count(name: str, logits: Tensor, target: Tensor) -> None:
        hits[name] = hits.get(name, 0.0) + float((logits.argmax(-1) == target).sum())

    for cpu_batch in chunks:
        batch = cpu_batch.to(device)
        out = model(batch.images)
        n += len(batch.images)
        for name, target in batch.labels.items():
            count(name, out.labels[name], target)
        for name, rows in prompts.items():
            count(f"zero_shot_{name}", out.image @ rows.T, batch.labels[name])
        found, true = out.mask.argmax(-1).flatten(), batch.mask.argmax(-1).flatten()
        pairs = torch.bincount(true * len(MASK_CLASSES) + found, minlength=joint.numel())
        joint += pairs.reshape(joint.shape).cpu()
        for name, logits, target in (
            ("texture", out.texture, batch.texture),
            ("colour", out.colour, batch.colour),
        ):
            asked = target != NOT_ASKED
            right = (logits.argmax(-1) == target) & asked
            patch[name] += torch.tensor([float(right.sum()), float(asked.sum())])
        error = out.depth.exp() - batch.log_depth.exp()
        squares += torch.tensor([float(error.square().sum()), float(error.numel())])
    model.train()
    union = joint.sum(0) + joint.sum(1) - joint.diag()
    present = joint.sum(1) > 0
    return {
        "accuracy": {name: value / n for name, value in hits.items()},
        "patch_mask_accuracy": float(joint.diag().sum() / joint.sum()),
        "patch_mask_miou": float((joint.diag() / union.clamp(min=1))[present].mean()),
        "patch_texture_accuracy": float(patch["texture"][0] / patch["texture"][1]),
        "patch_colour_accuracy": float(patch["colour"][0] / patch["colour"][1]),
        "patch_depth_rmse_m": float((squares[0] / squares[1]).sqrt()),
        "norms": patch_norms(model, chunks),
        "n_scenes": n,
    }


@torch.inference_mode()
def patch_norms(model: DualEncoder, chunks: list[Batch]) -> list[dict[str, float]]:
    """Quantiles of patch-token norms after every block, with the share above twice the median."""
    device = model.logit_scale.device
    by_block: list[list[Tensor]] = [[] for _ in model.vision.blocks]
    for batch in chunks[: max(1, N_NORM_IMAGES // CHUNK)]:
        tokens: Any = model.vision.forward_intermediates(
            model.normalise(batch.images.to(device)),
            norm=False,
            output_fmt="NLC",
            intermediates_only=True,
        )
        for block, hidden in zip(by_block, tokens, strict=True):
            block.append(hidden.norm(dim=-1).flatten().float().cpu())
    rows: list[dict[str, float]] = []
    for parts in by_block:
        norms = torch.cat(parts)
        row = {f"q{q:g}": float(norms.quantile(q)) for q in QUANTILES}
        row["above_2x_median"] = float((norms > 2 * norms.median()).float().mean())
        rows.append(row)
    return rows
