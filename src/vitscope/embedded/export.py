"""Writes scenes in the folder formats of ImageNet, ADE20K and NYU depth, as their readers expect.

Every export also has ``scenes.csv``: file, split, index, every label and the caption.
"""

import csv
import io
from collections.abc import Callable
from pathlib import Path
from typing import Literal, get_args

import numpy as np
from PIL import Image

from vitscope.embedded.scene import Scene, render_scene
from vitscope.embedded.vocabulary import MASK_CLASSES, SURFACES
from vitscope.errors import ConfigError
from vitscope.progress import track
from vitscope.store.atomic import atomic_path, write_text

SceneFormat = Literal["imagenet", "ade20k", "nyud"]

HELD_OUT_EVERY = 5
"""Every fifth scene goes to the validation (or test) split; of fewer, the last."""

_MILLIMETRES = 1000
_JPEG_QUALITY = 95

_ADE_ROOT = "ADEChallengeData2016"


def export_scenes(folder: Path, n: int, *, seed: int, side: int, layout: SceneFormat) -> Path:
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
    root = folder / _ADE_ROOT if layout == "ade20k" else folder
    every = min(n, HELD_OUT_EVERY)
    rows: list[dict[str, str]] = []
    with track("scenes", n, "images") as progress:
        for index in range(n):
            scene = render_scene(seed, index, side)
            held_out = index % every == every - 1
            file = _WRITERS[layout](root, index, held_out, scene)
            split = "held out" if held_out else "train"
            told = {"file": file, "split": split, "index": str(index)}
            rows.append({**told, **scene.labels, "caption": scene.caption})
            progress.advance()
    _write_indices(root, layout, rows)
    return root


def _imagenet(root: Path, index: int, held_out: bool, scene: Scene) -> str:
    place = scene.labels["place"]
    name = f"{'val' if held_out else 'train'}/{place}/{place}_{index:08d}.JPEG"
    _save_jpeg(root / name, scene)
    return name


def _ade20k(root: Path, index: int, held_out: bool, scene: Scene) -> str:
    split, short = ("validation", "val") if held_out else ("training", "train")
    stem = f"{split}/ADE_{short}_{index + 1:08d}"
    _save_jpeg(root / f"images/{stem}.jpg", scene)
    _save_png(root / f"annotations/{stem}.png", Image.fromarray(scene.mask))
    return f"images/{stem}.jpg"


def _nyud(root: Path, index: int, held_out: bool, scene: Scene) -> str:
    stem = f"nyu2_{'test' if held_out else 'train'}/{index:05d}"
    _save_png(root / f"{stem}_colors.png", scene.picture())
    depth = np.rint(scene.depth * _MILLIMETRES).astype(np.uint16)
    _save_png(root / f"{stem}_depth.png", Image.fromarray(depth))
    return f"{stem}_colors.png"


_WRITERS: dict[SceneFormat, Callable[[Path, int, bool, Scene], str]] = {
    "imagenet": _imagenet,
    "ade20k": _ade20k,
    "nyud": _nyud,
}
"""Each writes one scene below a folder, given its index and whether it is held out, and returns the
picture's name."""


def _write_indices(root: Path, layout: SceneFormat, rows: list[dict[str, str]]) -> None:
    write_text(root / "scenes.csv", _csv([list(rows[0]), *(list(row.values()) for row in rows)]))
    files = [row["file"] for row in rows]
    if layout == "ade20k":
        places = [f"{Path(row['file']).stem} {row['place']}\n" for row in rows]
        write_text(root / "sceneCategories.txt", "".join(places))
        # ADE20K gives each class's share of pixels and images; readers need index and name alone
        names = [
            f"{i}\t0\t0\t0\t{int(name in SURFACES)}\t{name}\n"
            for i, name in enumerate(MASK_CLASSES[1:], start=1)
        ]
        write_text(
            root / "objectInfo150.txt", "Idx\tRatio\tTrain\tVal\tStuff\tName\n" + "".join(names)
        )
    if layout == "nyud":
        for split in ("train", "test"):
            own = [file for file in files if file.startswith(f"nyu2_{split}/")]
            pairs = [[file, file.replace("_colors", "_depth")] for file in own]
            write_text(root / f"nyu2_{split}.csv", _csv(pairs))


def _csv(rows: list[list[str]]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    return text.getvalue()


def _save_jpeg(path: Path, scene: Scene) -> None:
    with atomic_path(path) as temporary:
        # no chroma subsampling: at small sides it would smear objects' colours
        scene.picture().save(temporary, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)


def _save_png(path: Path, picture: Image.Image) -> None:
    with atomic_path(path) as temporary:
        picture.save(temporary, format="PNG", compress_level=1)
