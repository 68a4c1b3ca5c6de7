"""Peak memory and time of a training step, for the dictionary sizes of the zoo.

``python benchmarks/sae_memory.py`` trains each size for a few steps of 4,096 tokens in a process of
its own, from the start of the encoder to θ and the saved SAE, and prints the peak of its resident
memory beside what the arithmetic of docs/training.md says. Time is CPU time of one thread.
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

from vitscope.sae.settings import SaeSettings
from vitscope.sae.source import TensorSource
from vitscope.sae.storage import save_sae
from vitscope.sae.training import train_sae

SIZES = ((128, 4_096), (384, 12_288), (768, 24_576), (1_024, 32_768), (1_536, 49_152))
BATCH, K = 4_096, 30
SHORT, LONG = 2, 6
"""Steps of the two trainings whose difference is the time of a step."""

GIB = 2**30


def arithmetic(d: int, m: int) -> int:
    """Bytes that docs/training.md names: weights and moments, buffer, copy at the end, tokens."""
    return 24 * m * d + 4 * m * BATCH + 8 * m * d + 4 * tokens_of(d) * d


def tokens_of(d: int) -> int:
    return LONG * BATCH if d > 128 else 16 * BATCH


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def child(d: int, m: int, folder: Path) -> None:
    torch.set_num_threads(1)
    tokens = torch.randn(tokens_of(d), d, generator=torch.Generator().manual_seed(0))
    before = resource.getrusage(resource.RUSAGE_SELF)
    seconds: list[float] = []
    for steps in (SHORT, LONG):
        settings = SaeSettings(
            expansion=m // d, k=K, batch_size=BATCH, steps=steps, held_out="none",
            threshold_tokens=BATCH, evaluation_tokens=BATCH, statistics_tokens=2 * BATCH,
            evaluate_every=0, checkpoint_every=LONG,
        )  # fmt: skip
        started = time.process_time()
        trained = train_sae(
            TensorSource(tokens), settings, seed=0, checkpoint=folder / "checkpoint.safetensors"
        )
        save_sae(folder / "sae", trained.sae)
        seconds.append(time.process_time() - started)
    print(
        json.dumps(
            {
                "peak": peak(),
                "before": before.ru_maxrss * 1024,
                "step_s": (seconds[1] - seconds[0]) / (LONG - SHORT),
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--child", nargs=3, metavar=("d", "m", "FOLDER"))
    options = parser.parse_args()
    if options.child:
        d, m, folder = options.child
        child(int(d), int(m), Path(folder))
        return
    print(f"{'m × d':>16}  {'peak GiB':>8}  {'of it torch':>11}  {'arithmetic':>10}  {'s/step':>7}")
    for d, m in SIZES:
        with tempfile.TemporaryDirectory() as folder:
            out = subprocess.run(
                [sys.executable, __file__, "--child", str(d), str(m), folder],
                capture_output=True, text=True, check=True,
            ).stdout  # fmt: skip
        found = json.loads(out.splitlines()[-1])
        print(
            f"{m:>8,} × {d:>5,}  {found['peak'] / GIB:8.2f}  {found['before'] / GIB:11.2f}  "
            f"{arithmetic(d, m) / GIB:10.2f}  {found['step_s']:7.2f}", flush=True,
        )  # fmt: skip


if __name__ == "__main__":
    main()
