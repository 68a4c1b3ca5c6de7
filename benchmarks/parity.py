"""Parity of the twelve backbones at full size with the same networks of `transformers`.

Every parameter of the rival is random; its weights go through our converter into timm's model,
which is then read as a study reads it. One process a model, one image of noise, fp32. The columns:

- tokens: largest error over all blocks, as a share of the root mean square of the rival's;
- pooled, final: the same of the image embedding and of the normalised tokens after the last block,
  resumed from three blocks;
- attention: largest difference of a probability, at four blocks, every row;
- layer±1: the smallest error that reading the block before or after would have made;
- norms, activation: errors with norm1 and norm2 swapped, and with the wrong GELU (the exact for the
  quick or tanh one, else the tanh one; for the giant's gated MLP, gate and value swapped);
- resume: whether unmodified tokens give timm's plain forward pass bit for bit.

DINOv2 runs at 224 pixels on both sides. `transformers` has no DeiT with LayerScale: the rival of
DeiT3 is written down anew, in fp64 (tests/backbones/parity_deit3.py). All
twelve take about half an hour on one core and 10 GiB; ``--depth 4`` keeps four blocks of each.
"""

# pyright: reportMissingImports=false
import argparse
import gc
import json
import resource
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from timm.models.vision_transformer import VisionTransformer

sys.path.insert(0, str(Path(__file__).parents[1]))

from tests.backbones import parity_mistakes as mistakes
from tests.backbones.parity_comparison import (
    all_rows,
    as_pixels,
    joined,
    largest_difference,
    read_at,
    relative_error,
)
from tests.backbones.parity_deit3 import deit3_weights, run_deit3
from tests.backbones.parity_transformers import RivalRun, build_rival, run_rival
from tests.backbones.pictures import noise_batch
from torch import Tensor

from vitscope.backbones.timm_vit import build_timm
from vitscope.backbones.weights.strict import load_state
from vitscope.backbones.zoo import PAPER_ZOO, ZOO

KIB_PER_GIB = 2**20
LAST = ("dinov2-g",)
FAMILIES = {"clip": "clip", "dinov2": "dinov2", "siglip2": "siglip"}


@dataclass(frozen=True)
class Parity:
    """One row of the table."""

    model: str
    blocks: int
    tokens: float
    pooled: float
    final: float
    attention: float
    neighbour: float
    norms: float
    activation: float
    bit_identical: bool
    peak_gib: float


def measure(name: str, depth: int | None) -> Parity:
    entry = ZOO[name]
    model = build_timm(entry.timm_name, entry.resolution, entry.activation)
    if depth is not None:
        model.blocks = model.blocks[:depth]
    images = noise_batch(1, entry.resolution)
    expected = converted(model, name, images)
    n = len(model.blocks)
    some = sorted({1, n // 2, min(entry.layer, n), n})
    tokens, neighbour = token_errors(model, images, expected)
    pooled, final, bit_identical = resume_errors(model, images, expected, some)
    attention = max(
        largest_difference(all_rows(read_at(model, layer), images), expected.attentions[layer - 1])
        for layer in some
    )
    norms, activation = control_errors(model, images, expected)
    return Parity(
        name,
        n,
        tokens,
        pooled,
        final,
        attention,
        neighbour,
        norms,
        activation,
        bit_identical,
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / KIB_PER_GIB,
    )


def converted(model: VisionTransformer, name: str, images: Tensor) -> RivalRun:
    """Load a rival's weights into ``model``; return what the rival makes of ``images``."""
    pixels = as_pixels(images)
    if name.startswith("deit3"):
        state = deit3_weights(model)
        load_state(model, dict(state), name=name, source="DeiT3 at random")
        first: Any = model.blocks[0]
        return run_deit3(state, pixels, first.attn.num_heads)
    rival = build_rival(model, FAMILIES[name.split("-", maxsplit=1)[0]])
    expected = run_rival(rival, pixels)
    state = rival.state_dict()
    del rival
    load_state(model, state, name=name, source="transformers at random")
    del state
    gc.collect()
    return expected


def token_errors(
    model: VisionTransformer, images: Tensor, expected: RivalRun
) -> tuple[float, float]:
    n, errors, neighbours = len(model.blocks), list[float](), list[float]()
    for layer in range(1, n + 1):
        tokens = joined(read_at(model, layer).tokens(images))
        errors.append(relative_error(tokens, expected.hidden[layer]))
        for other in {layer - 1, layer + 1} & set(range(n + 1)):
            neighbours.append(relative_error(tokens, expected.hidden[other]))
    return max(errors), min(neighbours)


def resume_errors(
    model: VisionTransformer, images: Tensor, expected: RivalRun, layers: list[int]
) -> tuple[float, float, bool]:
    with torch.inference_mode():
        features = model.forward_features(as_pixels(images))
        plain = model.forward_head(features, pre_logits=True)
    pooled, patches, same = list[float](), list[float](), list[bool]()
    for layer in layers:
        backbone = read_at(model, layer)
        n_prefix = backbone.n_prefix
        final = backbone.resume(backbone.tokens(images))
        pooled.append(relative_error(final.pooled, expected.pooled))
        patches.append(relative_error(final.patch, expected.final[:, n_prefix:]))
        same.append(torch.equal(final.patch, features[:, n_prefix:]))
        same.append(torch.equal(final.pooled, plain))
    return max(pooled), max(patches), all(same)


def control_errors(
    model: VisionTransformer, images: Tensor, expected: RivalRun
) -> tuple[float, float]:
    """Return the errors after the last block with two mistakes, one after the other."""
    n = len(model.blocks)

    def error() -> float:
        return relative_error(joined(read_at(model, n).tokens(images)), expected.hidden[n])

    mistakes.swap_norms(model)
    norms = error()
    mistakes.swap_norms(model)
    mlp: Any = model.blocks[0].mlp
    if mlp.fc1.out_features != mlp.fc2.in_features:
        mistakes.swap_gate(model)
    else:
        exact = isinstance(mlp.act, torch.nn.GELU)
        mistakes.use_activation(model, torch.nn.GELU(approximate="tanh" if exact else "none"))
    return norms, error()


HEADER = (
    "| model | blocks | tokens | pooled | final | attention | layer±1 | norms | activation "
    "| resume | peak GiB |\n|---|---|---|---|---|---|---|---|---|---|---|"
)


def shown(row: Parity) -> str:
    numbers = (
        *(row.tokens, row.pooled, row.final, row.attention),
        *(row.neighbour, row.norms, row.activation),
    )
    cells = [row.model, str(row.blocks), *(f"{value:.1e}" for value in numbers)]
    cells += ["bit-identical" if row.bit_identical else "DIFFERS", f"{row.peak_gib:.1f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description="Parity of the zoo with transformers.")
    parser.add_argument("--models", nargs="*", choices=ZOO, default=None)
    parser.add_argument("--depth", type=int, default=None, help="blocks to keep of every model")
    parser.add_argument("--one", choices=ZOO, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(asdict(measure(options.one, options.depth))))
        return
    names = options.models or [n for n in PAPER_ZOO if n not in LAST] + list(LAST)
    print(HEADER, flush=True)
    for name in names:
        # a process each: its peak memory is the model's own
        command = [sys.executable, "-W", "ignore", __file__, "--one", name]
        command += ["--depth", str(options.depth)] if options.depth else []
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        print(shown(Parity(**json.loads(answer.splitlines()[-1]))), flush=True)


if __name__ == "__main__":
    main()
