"""TensorBoard and Weights & Biases: the figures of the metrics log, where a lab already looks.

Both are the extra ``track``, off by default, and only copies: ``metrics.jsonl`` is the record.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal, Protocol

from vitscope.errors import ConfigError

TrackerName = Literal["tensorboard", "wandb"]

PROJECT = "vitscope"
"""The W&B project; the variable WANDB_PROJECT names another."""


class Tracker(Protocol):
    """Takes figures of steps."""

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        """Take the figures of one step."""
        ...

    def close(self) -> None:
        """Write what is pending."""
        ...


def require_trackers(names: Sequence[TrackerName]) -> None:
    """Refuse, before any work, a tracker whose package is missing.

    Raises:
        ConfigError: naming the package and its installation.
    """
    for name in names:
        if find_spec(name) is None:
            raise ConfigError(
                f'sae.track names {name}, which is not installed; pip install "vitscope[track]", '
                "or leave it out"
            )


def open_trackers(
    names: Sequence[TrackerName], folder: Path, *, settings: Mapping[str, Any], resumed_from: int
) -> list[Tracker]:
    """Open the trackers of a training whose log lies in ``folder``.

    Args:
        names: which.
        folder: TensorBoard's events go to ``tensorboard/`` in it, W&B's files to ``wandb/``.
        settings: of the training, shown by W&B.
        resumed_from: steps that an earlier process had done; later ones it may have written are
            written again.
    """
    opened: list[Tracker] = []
    for name in names:
        match name:
            case "tensorboard":
                opened.append(_TensorBoard(folder, resumed_from))
            case "wandb":
                opened.append(_WeightsAndBiases(folder, settings))
    return opened


class _TensorBoard:
    def __init__(self, folder: Path, resumed_from: int) -> None:
        module: Any = import_module("torch.utils.tensorboard")
        purge = resumed_from + 1 if resumed_from else None
        self._writer = module.SummaryWriter(folder / "tensorboard", purge_step=purge)

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(f"sae/{name}", value, step)

    def close(self) -> None:
        self._writer.close()


class _WeightsAndBiases:
    """One W&B run for one folder: a resumed training continues it."""

    def __init__(self, folder: Path, settings: Mapping[str, Any]) -> None:
        wandb: Any = import_module("wandb")
        identity = hashlib.sha256(str(folder.absolute()).encode()).hexdigest()[:16]
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=folder.name,
            id=os.environ.get("WANDB_RUN_ID", identity),
            resume="allow",
            dir=folder,
            config=dict(settings),
            settings=wandb.Settings(silent=True, console="off"),
        )

    def write(self, step: int, figures: Mapping[str, float]) -> None:
        self._run.log(dict(figures), step=step)

    def close(self) -> None:
        self._run.finish()
