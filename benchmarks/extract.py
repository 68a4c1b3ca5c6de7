"""Extraction, photographs to token shards, against timm's bare forward of the same L blocks.

The rival is given standardised tensors in memory and keeps nothing; extraction decodes JPEG files,
resizes, encodes, draws tokens and writes shards. Both take turns within one run. Weights are
random: speed does not depend on their values. Run with ``python benchmarks/extract.py [--help]``.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import timm
import torch
from PIL import Image
from safetensors.torch import save_file

from vitscope.backbones.adapter import matmul_precision, standardise
from vitscope.backbones.loading import load_backbone
from vitscope.backbones.timm_vit import TimmBackbone
from vitscope.backbones.zoo import ZOO
from vitscope.images.generated import write_generated_images
from vitscope.images.loading import load_batches
from vitscope.images.sources import ImageFolder
from vitscope.scope.views import plain_view
from vitscope.tokens.encoding import LoaderOptions
from vitscope.tokens.extraction import extract_tokens
from vitscope.tokens.sampling import ActivationSettings

JPEG_SIZE = (500, 375)
"""The usual size of an ImageNet photograph."""


def main() -> None:
    options = parse()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        backbone = random_backbone(options, folder)
        images = options.images or made_up_photographs(folder / "images", options.n)
        refs = ImageFolder(images, limit=options.n).refs
        reading = LoaderOptions(options.batch_size)
        prepare = partial(plain_view, site=backbone.site, preprocessing=backbone.preprocessing)
        decoded = [
            b.images
            for b in load_batches(
                refs, prepare, batch_size=options.batch_size, workers=0, max_pixels=10**9
            )
        ]
        pixels = [
            standardise(b, backbone.site, backbone.preprocessing, backbone.device) for b in decoded
        ]

        def extract() -> None:
            with tempfile.TemporaryDirectory(dir=folder) as out:
                extract_tokens(
                    backbone, refs, Path(out), ActivationSettings(), reading,
                    seed=0, fingerprint="benchmark",
                )  # fmt: skip

        rivals: dict[str, Callable[[], None]] = {
            "timm, bare forward of L blocks": partial(bare_forward, backbone, pixels),
            "vitscope, bytes to tokens": lambda: encode_only(backbone, decoded),
            "vitscope, JPEG files to shards": extract,
        }
        seconds = take_turns(rivals, options.rounds, backbone.device)
    report(seconds, len(refs), backbone, options)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="clip-b16", choices=list(ZOO))
    parser.add_argument("--n", type=int, default=64, help="images a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16", "fp16"])
    parser.add_argument("--device", default="auto")
    parser.add_argument("--images", type=Path, help="photographs; default: generated JPEGs")
    return parser.parse_args()


def random_backbone(options: argparse.Namespace, folder: Path) -> TimmBackbone:
    entry, file = ZOO[options.model], folder / "weights.safetensors"
    model = timm.create_model(entry.timm_name, pretrained=False)
    save_file(model.state_dict(), file)
    backbone = load_backbone(
        options.model, weights=file, device=options.device, precision=options.precision
    )
    file.unlink()
    assert isinstance(backbone, TimmBackbone)
    return backbone


def made_up_photographs(folder: Path, n: int) -> Path:
    for path in write_generated_images(folder, n, seed=0, side=JPEG_SIZE[0]):
        Image.open(path).resize(JPEG_SIZE).save(path.with_suffix(".jpg"), quality=90)
        path.unlink()
    return folder


@torch.inference_mode()
def bare_forward(backbone: TimmBackbone, pixels: list[torch.Tensor]) -> None:
    for batch in pixels:
        with matmul_precision(backbone.precision, backbone.device):
            backbone.model.forward_intermediates(
                batch, indices=[backbone.site.layer - 1], stop_early=True, norm=False,
                output_fmt="NLC", intermediates_only=True,
            )  # fmt: skip


def encode_only(backbone: TimmBackbone, decoded: list[torch.Tensor]) -> None:
    for batch in decoded:
        backbone.tokens(batch)


def take_turns(
    rivals: dict[str, Callable[[], None]], rounds: int, device: torch.device
) -> dict[str, list[float]]:
    seconds: dict[str, list[float]] = {name: [] for name in rivals}
    for turn in range(rounds + 1):
        for name, work in rivals.items():
            started = time.perf_counter()
            work()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if turn:  # the first is to warm up
                seconds[name].append(time.perf_counter() - started)
    return seconds


def report(
    seconds: dict[str, list[float]], n: int, backbone: TimmBackbone, options: argparse.Namespace
) -> None:
    device = torch.cuda.get_device_name() if backbone.device.type == "cuda" else "CPU"
    print(
        f"{backbone.site.model}, block {backbone.site.layer}, {options.precision}, {device}, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, timm {timm.__version__}"
    )
    bare = next(iter(seconds.values()))
    print(f"{'':<34}{'images/s':>10}{'of timm':>10}   (median of {options.rounds} turns; range)")
    for name, own in seconds.items():
        ratios = [a / b for a, b in zip(bare, own, strict=True)]
        print(
            f"{name:<34}{n / statistics.median(own):>10.1f}{statistics.median(ratios):>10.1%}"
            f"   {min(ratios):.1%} to {max(ratios):.1%}"
        )


if __name__ == "__main__":
    main()
