"""Writes scenes in the folder formats of ImageNet, ADE20K and NYU depth, as their readers expect.

Every export also has ``scenes.csv``: file, split, index, every label and the caption.
"""

import csv
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from vitscope.errors import ConfigError
from vitscope.images.scenes.scene import Scene, render_scene
from vitscope.images.scenes.settings import SceneSettings
from vitscope.images.scenes.vocabulary import LABEL_CLASSES, MASK_CLASSES, SURFACES
from vitscope.progress import track
from vitscope.store.atomic import atomic_path, write_text

SceneFormat = Literal["imagenet", "ade20k", "nyud"]

HELD_OUT_EVERY = 5
"""Every fifth scene goes to the validation (or test) split; of fewer, the last."""

MILLIMETRES = 1000
JPEG_QUALITY = 95

ADE_ROOT = "ADEChallengeData2016"


@dataclass(frozen=True, slots=True)
class _Slot:
    """Where one scene goes: its index, and whether it is held out."""

    folder: Path
    index: int
    held_out: bool


def export_scenes(
    folder: Path,
    n: int,
    *,
    seed: int,
    side: int,
    layout: SceneFormat,
    settings: SceneSettings | None = None,
) -> Path:
    """Write scenes 0 to ``n - 1`` of the set ``seed``, square pictures of ``side`` pixels.

    - ``imagenet``: ``train/<place>/<place>_<index>.JPEG`` and ``val/…``; the classes are places.
    - ``ade20k``: ``ADEChallengeData2016/images/{training,validation}/ADE_{train,val}_<id>.jpg``
      and ``annotations/…/<same>.png``, 0 = ignore and 1 … = ``vocabulary.MASK_CLASSES[1:]``;
      ``objectInfo150.txt`` names them, ``sceneCategories.txt`` gives the places.
    - ``nyud``: ``nyu2_{train,test}/<id>_colors.png`` and ``<id>_depth.png``, 16 bits of
      millimetres, with ``nyu2_{train,test}.csv``. The labelled ``.mat`` is not written.

    Returns:
        the folder that a reader of the format is given.

    Raises:
        ConfigError: fewer than two scenes, a side below one pixel, or an unknown format.
        ArtifactError: the disk is full or the folder cannot be written.
    """
    if n < 2:
        raise ConfigError(f"n = {n}: an export needs two scenes or more, one of them held out")
    if side < 1:
        raise ConfigError(f"side = {side}: give the pictures' side in pixels")
    if layout not in get_args(SceneFormat):
        raise ConfigError(f"unknown layout '{layout}': give one of {get_args(SceneFormat)}")
    root = folder / ADE_ROOT if layout == "ade20k" else folder
    writer, every = _WRITERS[layout], min(n, HELD_OUT_EVERY)
    rows: list[dict[str, str]] = []
    with track("scenes", n, "images") as progress:
        for index in range(n):
            scene = render_scene(seed, index, side, settings or SceneSettings())
            slot = _Slot(root, index, index % every == every - 1)
            file = writer(slot, scene)
            rows.append(_row(file, slot, scene))
            progress.advance()
    _write_indices(root, layout, rows)
    return root


def _imagenet(slot: _Slot, scene: Scene) -> str:
    split, place = "val" if slot.held_out else "train", scene.labels.place
    name = f"{split}/{place}/{place}_{slot.index:08d}.JPEG"
    _save_jpeg(slot.folder / name, scene)
    return name


def _ade20k(slot: _Slot, scene: Scene) -> str:
    split, short = ("validation", "val") if slot.held_out else ("training", "train")
    stem = f"ADE_{short}_{slot.index + 1:08d}"
    _save_jpeg(slot.folder / f"images/{split}/{stem}.jpg", scene)
    _save_png(slot.folder / f"annotations/{split}/{stem}.png", scene.mask)
    return f"images/{split}/{stem}.jpg"


def _nyud(slot: _Slot, scene: Scene) -> str:
    stem = f"nyu2_{'test' if slot.held_out else 'train'}/{slot.index:05d}"
    _save_png(slot.folder / f"{stem}_colors.png", _pixels_last(scene))
    depth = np.rint(scene.depth * MILLIMETRES).astype(np.uint16)
    _save_png(slot.folder / f"{stem}_depth.png", depth)
    return f"{stem}_colors.png"


_WRITERS: dict[SceneFormat, Callable[[_Slot, Scene], str]] = {
    "imagenet": _imagenet,
    "ade20k": _ade20k,
    "nyud": _nyud,
}


def _write_indices(root: Path, layout: SceneFormat, rows: list[dict[str, str]]) -> None:
    write_text(root / "scenes.csv", _csv(rows, header=True))
    if layout == "ade20k":
        lines = [f"{Path(row['file']).stem} {row['place']}\n" for row in rows]
        write_text(root / "sceneCategories.txt", "".join(lines))
        write_text(root / "objectInfo150.txt", _object_info())
    if layout == "nyud":
        for split in ("train", "test"):
            pairs = [
                {"image": row["file"], "depth": row["file"].replace("_colors", "_depth")}
                for row in rows
                if row["file"].startswith(f"nyu2_{split}/")
            ]
            write_text(root / f"nyu2_{split}.csv", _csv(pairs, header=False))


def _object_info() -> str:
    lines = ["Idx\tRatio\tTrain\tVal\tStuff\tName"]
    for i, name in enumerate(MASK_CLASSES[1:], start=1):
        # ADE20K gives each class's share of pixels and images; readers need index and name alone
        lines.append(f"{i}\t0\t0\t0\t{int(name in SURFACES)}\t{name}")
    return "\n".join(lines) + "\n"


def _row(file: str, slot: _Slot, scene: Scene) -> dict[str, str]:
    labels = {name: str(getattr(scene.labels, name)) for name in LABEL_CLASSES}
    split = "held out" if slot.held_out else "train"
    return {
        "file": file,
        "split": split,
        "index": str(slot.index),
        **labels,
        "caption": scene.caption,
    }


def _csv(rows: list[dict[str, str]], *, header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else [], lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _pixels_last(scene: Scene) -> np.ndarray:
    return np.ascontiguousarray(scene.image.transpose(1, 2, 0))


def _save_jpeg(path: Path, scene: Scene) -> None:
    with atomic_path(path) as temporary:
        picture = Image.fromarray(_pixels_last(scene))
        # no chroma subsampling: at small sides it would smear objects' colours
        picture.save(temporary, format="JPEG", quality=JPEG_QUALITY, subsampling=0)


def _save_png(path: Path, pixels: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        Image.fromarray(pixels).save(temporary, format="PNG", compress_level=1)
