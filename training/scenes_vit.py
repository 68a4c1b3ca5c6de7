"""Train a reference backbone on scenes: one command, resumable, on a CPU or a GPU.

    python training/scenes_vit.py --size s --out runs/scenes-vit-s
    python training/scenes_vit.py --out runs/scenes-vit-s --export scenes-vit-s.safetensors

Run again with the same ``--out`` after any interruption, it goes on from the last checkpoint.
"""

import argparse
import json
import math
import os
import sys
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from batches import Batch, batches
from checkpoint import Checkpoint, export, load, save
from evaluation import evaluate, held_out
from losses import dense_weight, losses
from networks import DualEncoder
from sizes import (
    FINAL_RATE,
    LEARNING_RATE,
    SIZES,
    WARMUP_STEPS,
    WEIGHT_DECAY,
    Size,
    tokenize,
)
from torch import nn

from vitscope.store.atomic import write_text

ALLOCATOR = {
    "MALLOC_MMAP_THRESHOLD_": str(1 << 32),
    "MALLOC_TRIM_THRESHOLD_": str(1 << 33),
    "MALLOC_TOP_PAD_": str(1 << 28),
}
"""By default glibc gives large blocks back after every step: steps take several times longer."""

CLIP_NORM = 1.0
LOG_EVERY = 25
"""Steps from one line of the log to the next."""


def main(arguments: list[str] | None = None) -> None:
    """Parse the command line; train, or export what there is."""
    options = parse(arguments)
    if sys.platform == "linux" and not all(name in os.environ for name in ALLOCATOR):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **ALLOCATOR})
    torch.set_num_threads(options.threads)
    if options.export is not None:
        state = load(options.out)
        if state is None:
            sys.exit(f"{options.out} holds no checkpoint: train first, without --export")
        export(state, options.export)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    with _only_process(options.out / "training.lock"):
        train(options)


def train(options: argparse.Namespace) -> None:
    """Train from the last checkpoint, or from scratch, to the end; then export."""
    size, device = SIZES[options.size], torch.device(options.device)
    if options.images:
        size = replace(size, images=options.images)
    recipe = {"size": options.size, "seed": options.seed, **asdict(size)}
    torch.manual_seed(options.seed)
    model = DualEncoder(size).to(device)
    optimizer = torch.optim.AdamW(_groups(model), lr=LEARNING_RATE, betas=(0.9, 0.98))
    state = load(options.out)
    if state is not None:
        # the length may change: the cosine and the curriculum then follow the new one
        if {**state.recipe, "images": size.images} != recipe:
            sys.exit(f"{options.out} was made by {state.recipe}: give the same, or another --out")
        model.load_state_dict(state.model, strict=True)
        optimizer.load_state_dict(state.optimizer)
    run = _Run(options, size, recipe, model, optimizer, state)
    run.loop()
    export(run.state(), options.out / f"scenes-vit-{options.size}.safetensors")


def training_seed(seed: int) -> int:
    """Return the seed of the scenes that are trained on; odd ones are held out."""
    return 2 * seed


def learning_rate(images: int, size: Size) -> float:
    """Warm up over WARMUP_STEPS, then a half cosine to FINAL_RATE of the peak."""
    warmup = min(1.0, (images / size.batch + 1) / WARMUP_STEPS)
    phase = min(images / size.images, 1.0)
    fall = FINAL_RATE + (1 - FINAL_RATE) * 0.5 * (1 + math.cos(math.pi * phase))
    return LEARNING_RATE * warmup * fall


class _Run:
    """The loop and its clock: steps, lines of the log, evaluations, checkpoints."""

    def __init__(
        self,
        options: argparse.Namespace,
        size: Size,
        recipe: dict[str, Any],
        model: DualEncoder,
        optimizer: torch.optim.Optimizer,
        before: Checkpoint | None,
    ) -> None:
        self.options, self.size, self.recipe = options, size, recipe
        self.model, self.optimizer = model, optimizer
        self.device = torch.device(options.device)
        self.images = before.images if before else 0
        self.seconds_before = before.seconds if before else 0.0
        self.curve: list[dict[str, Any]] = list(before.curve) if before else []
        self.started = time.monotonic()

    def state(self) -> Checkpoint:
        """Return what a checkpoint holds."""
        return Checkpoint(
            self.recipe,
            self.model.state_dict(),
            self.optimizer.state_dict(),
            self.images,
            self.seconds_before + time.monotonic() - self.started,
            self.curve,
        )

    def loop(self) -> None:
        """Train on every scene that is left, in order."""
        options, size = self.options, self.size
        scenes = held_out(training_seed(options.seed) + 1, options.held_out, size.side)
        saved, since = time.monotonic(), (time.monotonic(), self.images)
        usual = (training_seed(options.seed), self.images, size.images, size.batch, size.side)
        for i, batch in enumerate(batches(*usual, options.workers)):
            parts = self.step(batch.to(self.device))
            if i % LOG_EVERY == LOG_EVERY - 1:
                rate = (self.images - since[1]) / (time.monotonic() - since[0])
                since = (time.monotonic(), self.images)
                told = "  ".join(f"{k} {float(v.detach()):.3f}" for k, v in parts.items())
                _say(f"{self.images:>8} images  {rate:6.1f}/s  {told}")
            if self._passed(options.evaluate_every):
                self.measure(scenes)
            if time.monotonic() - saved > options.save_every:
                save(options.out, self.state())
                saved = time.monotonic()
        if not self.curve or self.curve[-1]["images"] != self.images:
            self.measure(scenes)
        save(options.out, self.state())

    def step(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Take one step; return the parts of the loss."""
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(self.images, self.size)
        with torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda"):
            out = self.model(batch.images)
            text = self.model.text(tokenize(batch.captions).to(self.device))
            parts = losses(out, text, self.model.scale(), batch)
        weight = dense_weight(self.images / self.size.images)
        self.optimizer.zero_grad(set_to_none=True)
        (parts["captions"] + parts["labels"] + weight * parts["dense"]).backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP_NORM)
        self.optimizer.step()
        self.images += len(batch.images)
        return parts

    def measure(self, scenes: list[Batch]) -> None:
        """Evaluate, and write the whole curve so far: a resumed run leaves no line twice."""
        seconds = self.seconds_before + time.monotonic() - self.started
        self.curve.append(
            {"images": self.images, "seconds": seconds, **evaluate(self.model, scenes)}
        )
        lines = "".join(json.dumps(row) + "\n" for row in self.curve)
        write_text(self.options.out / "metrics.jsonl", lines)
        told = {k: round(v, 3) for k, v in self.curve[-1]["accuracy"].items()}
        _say(f"held out after {self.images}: {json.dumps(told)}")

    def _passed(self, every: int) -> bool:
        return self.images // every > (self.images - self.size.batch) // every


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 (the log is this command's output)


def _groups(model: nn.Module) -> list[dict[str, Any]]:
    # weights of matrices decay; biases, norms, positions, words and the scale do not
    decayed = [p for n, p in model.named_parameters() if p.ndim >= 2 and _decays(n)]
    others = [p for n, p in model.named_parameters() if p.ndim < 2 or not _decays(n)]
    return [
        {"params": decayed, "weight_decay": WEIGHT_DECAY},
        {"params": others, "weight_decay": 0.0},
    ]


def _decays(name: str) -> bool:
    return not name.endswith(("pos_embed", "cls_token", "positions", "words.weight"))


@contextmanager
def _only_process(path: Path) -> Generator[None]:
    """Hold the run's lock; the system frees it when the process ends, however it ends."""
    from filelock import FileLock, Timeout  # noqa: PLC0415

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        sys.exit(f"another process trains in {path.parent}: wait for it, or give another --out")
    try:
        yield
    finally:
        lock.release()


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train a reference backbone on scenes.")
    parser.add_argument(
        "--out", type=Path, required=True, help="checkpoints, metrics and the export"
    )
    parser.add_argument("--size", choices=tuple(SIZES), default="s")
    parser.add_argument(
        "--images", type=int, default=0, help="scenes in all; 0 takes the size's own"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=1, help="of torch, on a CPU")
    parser.add_argument("--workers", type=int, default=0, help="rendering processes; 0 is a thread")
    parser.add_argument("--held-out", type=int, default=1024, help="scenes of an evaluation")
    parser.add_argument("--evaluate-every", type=int, default=8000, help="images")
    parser.add_argument("--save-every", type=float, default=120.0, help="seconds")
    parser.add_argument("--export", type=Path, help="write the checkpoint as safetensors, and stop")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
