"""What the explorer is handed of a run: its tables as records, its models when they are needed."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from vitscope.backbones.backbone import Site
from vitscope.backbones.user_model import require_trust
from vitscope.embedded.files import REFERENCE_BACKBONES
from vitscope.embedded.scene import scene_address
from vitscope.embedded.vocabulary import COLOURS, SHAPES, TIMES, WHEN
from vitscope.errors import ArtifactError, VitscopeError
from vitscope.explorer.records import NOT_SCORED, Exemplars, Models, RunRecord, TextSide
from vitscope.images.listing import list_images
from vitscope.images.sources import ImageRef, is_scene_set
from vitscope.probes.prompts import SCENES, Prompts, load_prompts
from vitscope.probes.text import TextTower, class_embeddings
from vitscope.probes.towers import load_tower
from vitscope.scope.outliers import NormHistogram
from vitscope.stages.context import Context
from vitscope.stages.run_tables import read_reconstruction, read_spectrum, read_threshold
from vitscope.store.atomic import read_json
from vitscope.store.checksum import fingerprint
from vitscope.store.foreign import tables_of
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stage import read_stamp
from vitscope.store.tables import read_metadata, read_table
from vitscope.study import Study, load_study

NEEDED = ("images", "train", "outliers", "evaluate", "score", "partition")
"""Stages without which there is nothing to explore."""


def read_run(folder: Path) -> RunRecord:
    """Read the tables of a finished run; no model is loaded.

    Raises:
        ArtifactError: ``folder`` is no run, or a stage has not finished.
        ConfigError: its ``study.toml`` cannot be read.
    """
    run = RunDirectory(folder)
    if not run.study.is_file():
        raise ArtifactError(
            f"{folder} is no run directory: it has no study.toml; give the --out of `vitscope "
            "run`, or runs/demo after `vitscope demo`"
        )
    with tables_of(folder):
        return _record(folder, run, load_study(run.study))


def _record(folder: Path, run: RunDirectory, study: Study) -> RunRecord:
    context = Context(study, run)
    stamps = {name: context.done(name).outputs for name in NEEDED}
    awcds = read_stamp(run, "awcds")
    cut, norms = read_json(run.table("partition")), read_table(run.columns("norm_histogram"))
    refs = tuple(context.eval_refs())
    return RunRecord(
        name=study.name,
        note=study.note,
        folder=folder,
        site=Site(**read_metadata(run.features)["site"]),
        scope=study.scope,
        gamma=float(cut["gamma"]),
        gamma_source=str(cut["source"]),
        gamma_message=str(cut["message"]),
        features=read_table(run.features),
        exemplars=_exemplars(run),
        images=refs,
        is_readable=_readable(study),
        max_pixels=study.images.max_pixels,
        reconstruction=read_reconstruction(run),
        tau=read_threshold(run),
        norms=NormHistogram(
            np.append(norms["log10_low"], norms["log10_high"][-1]), norms["n_tokens"]
        ),
        spectrum=read_spectrum(run) if awcds is not None else None,
        digest=fingerprint(stamps),
    )


def load_models(folder: Path, *, run_code: bool = False) -> Models:
    """Load backbone, SAE and, where there is one, the text tower of a run.

    Args:
        folder: the run directory.
        run_code: whether a backbone that its study names as Python code is executed.

    Raises:
        VitscopeError: backbone or SAE cannot be loaded; a text tower may be missing.
    """
    run = RunDirectory(folder)
    study = load_study(run.study)
    require_trust(study.backbone.name, folder, run_code)
    context = Context(study, run)
    text, no_text = text_side(study, context.device)
    return Models(
        backbone=context.backbone,
        sae=context.sae,
        plain_view=context.plain_view,
        shifted_views=context.shifted_views,
        text=text,
        no_text=no_text,
    )


def _exemplars(run: RunDirectory) -> Exemplars:
    strongest, pairs = read_table(run.exemplars), read_table(run.pairs)
    # a run may score a sample of its features: the pairs are then fewer than the exemplars
    places = {name: _whole(strongest, name) for name in ("feature", "rank", "image")}
    ranks = _whole(pairs, "rank")
    width = int(max(places["rank"].max(initial=0), ranks.max(initial=0))) + 1
    keys = places["feature"] * width + places["rank"]
    scored = _whole(pairs, "feature") * width + ranks
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    rows = np.searchsorted(keys, scored)
    emd = np.full(len(keys), np.nan)
    cells = np.full((2, len(keys)), NOT_SCORED)
    emd[rows] = pairs["emd"]
    cells[0, rows], cells[1, rows] = _whole(pairs, "cells_first"), _whole(pairs, "cells_second")
    sorted_places = {name: values[order] for name, values in places.items()}
    activation = strongest["activation"][order].astype(np.float64)
    return Exemplars(
        **sorted_places,
        activation=activation,
        emd=emd,
        cells_first=cells[0],
        cells_second=cells[1],
    )


def _whole(table: Mapping[str, NDArray[Any]], name: str) -> NDArray[np.int64]:
    """Return a column of whole numbers; of another it is not known what NumPy would make."""
    if table[name].dtype.kind not in "iu":
        raise TypeError(f"column {name} has {table[name].dtype}, and not whole numbers")
    return table[name].astype(np.int64)


def _readable(study: Study) -> Callable[[ImageRef], bool]:
    """Return whether an image lies under the roots that the study names.

    A table may have been written by anyone: what it says of paths is not believed. Links inside a
    root are followed, as they are when a study runs.
    """
    sources = [path for path in (study.images.train, study.images.eval) if path is not None]
    folders = [_lexical(path) for path in sources if path.is_dir()]
    lists = [path for path in sources if path.is_file()]
    listed = {_lexical(file) for path in lists for _, file in list_images(path)[1]}
    has_scenes = any(is_scene_set(path) for path in sources)

    def is_readable(ref: ImageRef) -> bool:
        if scene_address(ref.path) is not None:
            return has_scenes
        path = _lexical(ref.path)
        return path in listed or any(path.is_relative_to(root) for root in folders)

    return is_readable


def _lexical(path: Path) -> Path:
    # not resolve(): a link inside a root may lead out of it, as data sets' links do
    return Path(os.path.normpath(path.absolute()))


def text_side(study: Study, device: torch.device) -> tuple[TextSide | None, str]:
    """Return the text side, or why there is none."""
    settings, backbone = study.probes.zeroshot, study.backbone
    if settings.images is None and backbone.name not in REFERENCE_BACKBONES:
        return None, (
            "no text tower: the study sets no probes.zeroshot.images, and a tower is not fetched "
            "unasked"
        )
    source = settings.prompts
    if source is None:
        scenes = settings.images is None or is_scene_set(settings.images)
        source = SCENES if scenes else "imagenet"
    try:
        tower = load_tower(backbone, settings, device)
        prompts = load_prompts(source)
        classes = class_embeddings(tower, prompts)
        phrases, rows = _phrases(tower, prompts, classes, is_scenes=source == SCENES)
    except VitscopeError as error:
        return None, f"no text tower: {error}"
    return TextSide(tower, prompts, classes, phrases, rows), ""


def _phrases(
    tower: TextTower, prompts: Prompts, classes: torch.Tensor, *, is_scenes: bool
) -> tuple[tuple[str, ...], torch.Tensor]:
    """Return the classes; of scenes also the times and objects that their captions speak of."""
    if not is_scenes:
        return prompts.classes, classes
    others = [*(WHEN[time] for time in TIMES)]
    others += [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    sentences = [f"a photo of {other}" if other.startswith("a ") else other for other in others]
    return (*prompts.classes, *others), torch.cat([classes, tower.embed(sentences).to(classes)])
