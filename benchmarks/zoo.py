"""Every model of the zoo at full size, weights from a local file, through extraction: peak memory.

Each model gets a process of its own. Weights are random (all parameters, LayerScale too), in a file
of the layout that timm publishes, so that loading is the real one. Run with
``python benchmarks/zoo.py [--models clip-b16 …] [--n 8]``.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import timm
import torch
from safetensors.torch import load_file, save_file

from vitscope.backbones.loading import load_backbone
from vitscope.backbones.timm_vit import TimmBackbone
from vitscope.backbones.zoo import PAPER_ZOO
from vitscope.images.generated import write_generated_images
from vitscope.images.sources import ImageFolder
from vitscope.tokens.encoding import LoaderOptions
from vitscope.tokens.extraction import extract_tokens
from vitscope.tokens.sampling import ActivationSettings

HEADINGS = ("model", "parameters M", "file GB", "load s", "images/s", "peak GB", "tokens")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(PAPER_ZOO), choices=list(PAPER_ZOO))
    parser.add_argument("--n", type=int, default=8, help="images")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--role", choices=["write", "extract"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "write":
        write_weights(options.models[0], options.folder)
    elif options.role == "extract":
        print(json.dumps(extract(options)))
    else:
        run_all(options)


def run_all(options: argparse.Namespace) -> None:
    print(f"torch {torch.__version__}, timm {timm.__version__}, {torch.get_num_threads()} threads")
    print("  ".join(f"{heading:>12}" for heading in HEADINGS))
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            for role in ("write", "extract"):
                own = ["--role", role, "--folder", folder, "--models", name]
                size = ["--n", str(options.n), "--batch-size", str(options.batch_size)]
                done = subprocess.run(
                    [sys.executable, __file__, *own, *size],
                    check=True, stdout=subprocess.PIPE, text=True,
                )  # fmt: skip
            row = json.loads(done.stdout.splitlines()[-1])
        print("  ".join(f"{row[heading]:>12}" for heading in HEADINGS), flush=True)


@torch.no_grad()
def write_weights(name: str, folder: Path) -> None:
    model = timm.create_model(PAPER_ZOO[name].timm_name, pretrained=False)
    g = torch.Generator().manual_seed(0)
    for key, parameter in model.named_parameters():
        spread = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.3
        centre = 1.0 if "norm" in key and key.endswith("weight") else 0.0
        parameter.normal_(generator=g).mul_(spread).add_(centre)
    save_file(model.state_dict(), folder / "model.safetensors")


def extract(options: argparse.Namespace) -> dict[str, str]:
    name, file = options.models[0], options.folder / "model.safetensors"
    started = time.perf_counter()
    backbone = load_backbone(name, weights=file)
    loaded = time.perf_counter() - started
    assert isinstance(backbone, TimmBackbone)
    write_generated_images(options.folder / "images", options.n, seed=0, side=256)
    refs = ImageFolder(options.folder / "images").refs
    out = options.folder / "activations"
    started = time.perf_counter()
    extract_tokens(
        backbone, refs, out, ActivationSettings(), LoaderOptions(options.batch_size),
        seed=0, fingerprint="zoo",
    )  # fmt: skip
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    tokens = load_file(next(out.glob("part-*")))["tokens"]
    assert bool(tokens.isfinite().all())
    millions = sum(parameter.numel() for parameter in backbone.model.parameters()) / 1e6
    values = (
        name, f"{millions:.0f}", f"{file.stat().st_size / 1e9:.2f}", f"{loaded:.1f}",
        f"{len(refs) / seconds:.2f}", f"{peak:.2f}", "x".join(str(n) for n in tokens.shape),
    )  # fmt: skip
    return dict(zip(HEADINGS, values, strict=True))


if __name__ == "__main__":
    main()
