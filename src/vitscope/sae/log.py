"""The log of a training, and its copies where a lab already looks: TensorBoard, Weights & Biases.

``metrics.jsonl``, one JSON object a line, is the record, the same whether or not the training was
interrupted. The trackers are the extra ``track``, off by default.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self, TextIO

from vitscope.errors import ArtifactError, ConfigError
from vitscope.sae.settings import SaeSettings, TrackerName
from vitscope.sae.step import StepFigures
from vitscope.sae.threshold import HeldOutFigures
from vitscope.store.atomic import write_text

WANDB_PROJECT = "vitscope"
"""The W&B project; the variable WANDB_PROJECT names another."""


class FigureTracker(Protocol):
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
) -> list[FigureTracker]:
    """Open the trackers of a training whose log lies in ``folder``.

    Args:
        names: which.
        folder: TensorBoard's events go to ``tensorboard/`` in it, W&B's files to ``wandb/``.
        settings: of the training, shown by W&B.
        resumed_from: steps that an earlier process had done; later ones it may have written are
            written again.
    """
    opened: list[FigureTracker] = []
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
            project=os.environ.get("WANDB_PROJECT", WANDB_PROJECT),
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


class MetricsLog:
    """Appends a line per call; on entry, drops the lines after the step that is resumed from.

    Wall times are left out: they would differ between runs that are otherwise equal. Trackers get
    the same figures, on entry nothing is taken back from them.
    """

    def __init__(self, path: Path | None, settings: SaeSettings, *, resumed_from: int) -> None:
        self._path = path
        self._settings = settings
        self._resumed_from = resumed_from
        self._handle: TextIO | None = None
        self._trackers: list[FigureTracker] = []

    def __enter__(self) -> Self:
        if self._path is not None:
            write_text(self._path, "".join(_lines_up_to(self._path, self._resumed_from)))
            try:
                self._handle = self._path.open("a", encoding="utf-8")
            except OSError as error:
                raise ArtifactError(f"cannot write {self._path}: {error.strerror}") from error
            self._trackers = open_trackers(
                self._settings.track,
                self._path.parent,
                settings=self._settings.model_dump(mode="json"),
                resumed_from=self._resumed_from,
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for tracker in self._trackers:
            tracker.close()
        if self._handle is not None:
            self._handle.close()

    def write(
        self,
        figures: StepFigures,
        learning_rate: float,
        held_out: HeldOutFigures | None = None,
        threshold: float | None = None,
    ) -> None:
        """Append one line and hand it to the system.

        Args:
            figures: of the batch.
            learning_rate: of the step.
            held_out: of held-out tokens, where they were evaluated after this step.
            threshold: the running θ of that evaluation, on normalised inputs, if there is one.
        """
        if self._handle is not None:
            line: dict[str, float] = {**asdict(figures), "learning_rate": learning_rate}
            if held_out is not None:
                line |= {f"held_out_{name}": value for name, value in asdict(held_out).items()}
                line |= {} if threshold is None else {"running_threshold": threshold}
            self._handle.write(json.dumps(line) + "\n")
            self._handle.flush()
            step = int(line.pop("step"))
            for tracker in self._trackers:
                tracker.write(step, line)


def _lines_up_to(path: Path, step: int) -> list[str]:
    if not path.exists():
        return []
    kept: list[str] = []
    for line in path.read_text(encoding="utf-8").splitlines(keepends=True):
        try:
            if int(json.loads(line)["step"]) > step:
                break
        except (ValueError, KeyError, TypeError):
            break  # the line that a kill cut short, always the last
        kept.append(line)
    return kept
