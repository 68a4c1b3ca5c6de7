"""Every model of the paper at full size through a reproduction's stages: seconds and peak memory.

Weights are random and local, so that every number found means nothing; architecture, layer, sizes,
dictionary and stages are those of ``vitscope reproduce``. A handful of generated images; the SAE
has random directions and the full dictionary, of which 64 features are scored. Each model has a
process of its own. Run with ``python benchmarks/dry_runs.py [--models deit3-s …] [--n 6]``.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch
from scoring import TARGET_L0
from zoo import write_weights

from vitscope.backbones.loading import load_backbone
from vitscope.backbones.zoo import PAPER_ZOO
from vitscope.images.generated import write_generated_images
from vitscope.images.sources import ImageFolder
from vitscope.paper.studies import Sources, paper_study, targets_of
from vitscope.pipeline import run_study
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.settings import SaeSettings
from vitscope.sae.storage import save_sae
from vitscope.scope.settings import ScopeSettings
from vitscope.scope.views import plain_view
from vitscope.store.run_directory import RunDirectory
from vitscope.study import Study
from vitscope.tokens.encoding import LoaderOptions, PassClock, encode_images
from vitscope.tokens.sampling import ActivationSettings

STAGES = ("images", "extract", "train", "outliers", "evaluate", "score", "partition", "instability")
HEADINGS = ("model", "features", "extract s", "score s", "instability s", "all s", "peak GB")
N_SCORED = 64
BATCH = 4
GENTLY = 0.2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--models", nargs="+", default=list(PAPER_ZOO), choices=list(PAPER_ZOO))
    parser.add_argument("--n", type=int, default=6, help="images")
    parser.add_argument("--role", choices=["write", "run"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.role == "write":
        write_weights(options.models[0], options.folder)
    elif options.role == "run":
        print(json.dumps(run(options.models[0], options.folder, options.n)))
    else:
        run_all(options)


def run_all(options: argparse.Namespace) -> None:
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {options.n} images")
    print("  ".join(f"{heading:>14}" for heading in HEADINGS), flush=True)
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            for role in ("write", "run"):
                own = ["--role", role, "--folder", folder, "--models", name, "--n", str(options.n)]
                done = subprocess.run(
                    [sys.executable, __file__, *own], check=True, stdout=subprocess.PIPE, text=True
                )
            row = json.loads(done.stdout.splitlines()[-1])
        print("  ".join(f"{row[heading]:>14}" for heading in HEADINGS), flush=True)


def run(name: str, folder: Path, n: int) -> dict[str, str]:
    started = time.perf_counter()
    write_generated_images(folder / "images", n, seed=0, side=256)
    base = paper_study(name, targets_of(name), Sources(images=folder / "images"))
    base = base.model_copy(
        update={
            "backbone": base.backbone.model_copy(
                update={"weights": folder / "model.safetensors", "batch_size": BATCH}
            ),
            "activations": ActivationSettings(draws=1),
            "scope": ScopeSettings(sample_features=N_SCORED, top_images=min(4, n)),
        }
    )
    extracted = run_study(base, folder / "extract", only=("images", "extract"))
    save_sae(folder / "sae", random_sae(base, folder / "images"))
    study = base.model_copy(update={"sae": SaeSettings(path=folder / "sae")})
    stages = [stage for stage in STAGES if stage != "extract"]
    found = run_study(study, folder / "run", only=stages)
    assert RunDirectory(folder / "run").features.exists()
    assert found["score"].result.n_features == N_SCORED
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    values = (
        name,
        f"{32 * PAPER_ZOO[name].width:,}",
        f"{extracted['extract'].stamp.seconds:.1f}",
        f"{found['score'].stamp.seconds:.1f}",
        f"{found['instability'].stamp.seconds:.1f}",
        f"{time.perf_counter() - started:.0f}",
        f"{peak:.2f}",
    )
    return dict(zip(HEADINGS, values, strict=True))


@torch.no_grad()
def random_sae(study: Study, images: Path) -> SparseAutoencoder:
    """Random directions, with θ where a token has 30 active features on average."""
    backbone = load_backbone(study.backbone)
    refs = ImageFolder(images).refs[:2]
    batches = encode_images(
        backbone,
        refs,
        lambda image: plain_view(image, site=backbone.site, preprocessing=backbone.preprocessing),
        LoaderOptions(BATCH),
        clock=PassClock(),
    )
    tokens = torch.cat([batch.tokens.patch.flatten(0, 1).float().cpu() for batch in batches])
    m = 32 * tokens.shape[1]
    rows = torch.nn.functional.normalize(torch.randn(m, tokens.shape[1]), dim=1)
    mean, some = tokens.mean(0), tokens[:64]
    pre = ((some - mean) @ rows.T).flatten()
    least = float(pre.kthvalue(pre.numel() - len(some) * TARGET_L0).values)
    # random directions overlap: at full strength they would reconstruct worse than the mean
    encoder, least = GENTLY * rows.T.contiguous(), GENTLY * least
    return SparseAutoencoder(
        encoder, torch.zeros(m), rows, mean, least, TARGET_L0, site=backbone.site
    )


if __name__ == "__main__":
    main()
