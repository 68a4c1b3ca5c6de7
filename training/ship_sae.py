"""Copy a run's SAE into the package, its matrices rounded to fp16.

    python training/ship_sae.py runs/scenes-sae src/vitscope/embedded/saes/scenes-vit

θ and the biases stay as they are. What rounding does to the codes is printed, and refused where it
is more than a rounding.
"""

import argparse
from dataclasses import replace
from pathlib import Path

from vitscope.sae.storage import load_saved_sae, save_sae
from vitscope.store.run_directory import RunDirectory
from vitscope.tokens.sources import ShardSource

TOKENS = 20_000
LARGEST_CHANGE = 0.01
"""Of L0 and of the unexplained variance, relative."""


def main() -> None:
    """Round, compare, save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("folder", type=Path)
    options = parser.parse_args()
    run = RunDirectory(options.run)
    whole = load_saved_sae(run.sae)
    tokens = ShardSource.open(run.activations, seed=0).sample(TOKENS)
    rounded = replace(whole, w_enc=whole.w_enc.half().float(), w_dec=whole.w_dec.half().float())
    figures: list[tuple[float, float]] = []
    for name, sae in (("fp32", whole), ("fp16", rounded)):
        codes = sae.encode(tokens)
        centred = tokens - tokens.mean(0)
        fvu = float((tokens - sae.decode(codes)).square().sum() / centred.square().sum())
        l0 = float((codes > 0).float().sum(1).mean())
        figures.append((fvu, l0))
        print(f"{name}: FVU {fvu:.5f}, L0 {l0:.3f}")
    for before, after in zip(*figures, strict=True):
        if abs(after - before) > LARGEST_CHANGE * before:
            raise SystemExit("rounding changes more than it may: ship it in fp32")
    halved = {name: getattr(rounded, name).half().contiguous() for name in ("w_enc", "w_dec")}
    save_sae(options.folder, replace(rounded, **halved))
    size = sum(path.stat().st_size for path in options.folder.iterdir())
    print(f"{options.folder}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
