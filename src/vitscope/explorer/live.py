"""A run while it is explored: its tables now, its models soon, its γ when someone moves it."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from vitscope.axes import Float
from vitscope.embedded.files import REFERENCE_BACKBONES
from vitscope.embedded.vocabulary import COLOURS, SHAPES, TIMES, WHEN
from vitscope.errors import VitscopeError
from vitscope.explorer.pictures import readable_images
from vitscope.explorer.tables import Exemplars, encode_columns
from vitscope.images.sources import ImageRef, is_scene_set
from vitscope.pipeline import set_gamma
from vitscope.probes.prompts import SCENE_PROMPTS, Prompts, load_prompts
from vitscope.probes.text_towers import TextTower, class_embeddings, load_tower
from vitscope.run import Run
from vitscope.store.tables import tables_of
from vitscope.study import Study

NEEDED = ("backbone", "images", "train", "outliers", "evaluate", "score", "partition")
"""Stages without which there is nothing to explore."""

CLASSES_SHOWN = 5

LoadingState = Literal["loading", "ready", "failed"]


@dataclass(frozen=True, eq=False)
class TextSide:
    """Sentences beside images.

    Attributes:
        tower: of the backbone's own weights.
        prompts: the classes that predictions choose from.
        classes: their unit rows.
        phrases: what a feature's effect is put in words with.
        phrase_rows: their unit rows.
    """

    tower: TextTower
    prompts: Prompts
    classes: Float[Tensor, "C e"]
    phrases: tuple[str, ...]
    phrase_rows: Float[Tensor, "W e"]

    def predict(self, pooled: Float[Tensor, "V d"]) -> list[list[dict[str, Any]]]:
        """Return the likeliest classes of pooled outputs, likeliest first."""
        with torch.inference_mode():
            image = self.tower.project(pooled)
            logits = self.tower.scale * image @ self.classes.to(image).T
            share = torch.softmax(logits.double(), -1)
            values, classes = share.topk(min(CLASSES_SHOWN, share.shape[1]), dim=-1)
        return [
            [
                {"name": self.prompts.classes[int(c)], "probability": float(v)}
                for v, c in zip(value, row, strict=True)
            ]
            for value, row in zip(values, classes, strict=True)
        ]

    def phrase_cosines(self, pooled: Float[Tensor, "V d"]) -> Float[Tensor, "V W"]:
        """Return the cosine of pooled outputs with every phrase."""
        with torch.inference_mode():
            rows = self.tower.project(pooled)
            return rows @ self.phrase_rows.to(rows).T


def load_text_side(study: Study, device: torch.device) -> tuple[TextSide | None, str]:
    """Return the text side, or why there is none.

    A tower is not fetched unasked: only a study that asks for zero-shot has one, or an embedded
    backbone, whose tower is embedded too.
    """
    settings, backbone = study.probes.zeroshot, study.backbone
    if settings.images is None and backbone.name not in REFERENCE_BACKBONES:
        return None, (
            "no text tower: the study sets no probes.zeroshot.images, and a tower is not fetched "
            "unasked"
        )
    source = settings.prompts
    if source is None:
        scenes = settings.images is None or is_scene_set(settings.images)
        source = SCENE_PROMPTS if scenes else "imagenet"
    try:
        tower = load_tower(backbone, settings, device)
        prompts = load_prompts(source)
        classes = class_embeddings(tower, prompts)
    except VitscopeError as error:
        return None, f"no text tower: {error}"
    phrases, rows = prompts.classes, classes
    if source == SCENE_PROMPTS:  # captions of scenes also speak of times and objects
        objects = [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
        times = [WHEN[time] for time in TIMES]
        phrases = (*phrases, *times, *objects)
        sentences = [*times, *(f"a photo of {one}" for one in objects)]
        rows = torch.cat([rows, tower.embed(sentences).to(rows)])
    return TextSide(tower, prompts, classes, phrases, rows), ""


class LiveRun:
    """One explored run; safe among threads.

    Args:
        folder: the run directory.
        run_code: whether a backbone that its study names as Python code may be executed.
        read_only: γ cannot be saved.

    Attributes:
        run: what every stage has left.
        may_save: whether γ can be saved.
        exemplars: the top images of every feature with their pairs.
        columns: the dictionary as a browser reads it.
        is_readable: whether an image may be opened: it lies under the study's image roots.

    Raises:
        ArtifactError: ``folder`` is no run, a stage has not finished, or its tables are not whole.
        ConfigError: its ``study.toml`` cannot be read.
    """

    exemplars: Exemplars
    columns: bytes
    is_readable: Callable[[ImageRef], bool]

    def __init__(self, folder: Path, *, run_code: bool = False, read_only: bool = False) -> None:
        self.run = Run(folder, run_code=run_code)
        self.may_save = not read_only
        self._text: Future[tuple[TextSide | None, str]] = Future()
        self._started = False
        self._lock = threading.Lock()
        self._read()

    @property
    def n_features(self) -> int:
        """Rows of the table of features, m."""
        return self.run.features.n_rows

    def _read(self) -> None:
        """Read whatever a page shows, so that a damaged run is refused here and in one line."""
        run = self.run
        run.require(*NEEDED)
        with tables_of(run.root):
            self.exemplars = Exemplars.join(run.exemplars, run.pairs)
            self.columns = encode_columns(run.features, self.exemplars, run.image_refs)
            self.is_readable = readable_images(run.study.images)
            _ = run.site, run.reconstruction, run.outliers.norms
            if run.has("awcds"):
                _ = run.awcds.spectrum

    def start_loading(self) -> None:
        """Begin to load the models; a second call does nothing."""
        with self._lock:
            if self._started:
                return
            self._started = True
        threading.Thread(target=self._load, name="vitscope-models", daemon=True).start()

    def loaded(self) -> Run:
        """Wait for backbone, SAE and text side, and return the run that has them.

        Raises:
            VitscopeError: they cannot be loaded; the message says why.
        """
        self.start_loading()
        self._text.result()
        return self.run

    def text(self) -> tuple[TextSide | None, str]:
        """Wait for the models, and return the text side, or why there is none.

        Raises:
            VitscopeError: backbone or SAE cannot be loaded.
        """
        self.start_loading()
        return self._text.result()

    def state(self) -> tuple[LoadingState, str]:
        """Return how far the models are, and what went wrong."""
        if not self._text.done():
            return "loading", ""
        error = self._text.exception()
        return ("failed", str(error)) if error is not None else ("ready", "")

    def save_gamma(self, gamma: float | None) -> None:
        """Save γ as the run's partition (None: as the histogram proposes it), and read it again.

        Raises:
            VitscopeError: the run is locked, cannot be written, or was made from other inputs.
        """
        if not self.may_save:
            raise VitscopeError("this explorer may not write; start it without --read-only")
        with self._lock:
            set_gamma(self.run.root, gamma)
            self.run.refresh()
            self._read()

    def _load(self) -> None:
        try:
            models = self.run.models
            _ = models.backbone, models.sae
            text = load_text_side(self.run.study, models.device)
        except VitscopeError as error:
            self._text.set_exception(error)
        except Exception as error:  # a page says it; the other pages go on
            self._text.set_exception(
                VitscopeError(f"the models cannot be loaded ({type(error).__name__}: {error})")
            )
        else:
            self._text.set_result(text)
