"""Small files that would take all memory or all time: refused in one line, within bounds."""

import io
import pickle
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.io
import torch
from PIL import Image
from tests.fuzz.guarded import leash

from vitscope.backbones.weights.reading import read_state
from vitscope.errors import VitscopeError
from vitscope.images.ade20k import read_ade20k
from vitscope.images.decode import PIL_PIXEL_LIMIT, decode_image
from vitscope.images.nyud import read_nyud_folder, read_nyud_mat
from vitscope.images.sources import SceneSet
from vitscope.probes.prompts import load_prompts
from vitscope.sae.formats.load import load_sae
from vitscope.store.tables import read_metadata, read_table
from vitscope.study import load_study

HUGE = 2**33


def refused(read: Callable[[], object], says: str) -> None:
    with pytest.raises(VitscopeError, match=says) as caught, leash():
        read()
    assert "\n" not in str(caught.value)


def repeated(path: Path) -> Path:
    """One number that is said to be a tensor of 32 GB."""
    torch.save({"W_dec": torch.zeros(1).expand(HUGE)}, path)
    assert path.stat().st_size < 10_000
    return path


def inflated(path: Path) -> Path:
    """An archive of zeros, packed a thousandfold."""
    whole = io.BytesIO()
    torch.save({"W_dec": torch.zeros(1 << 24)}, whole)
    with (
        zipfile.ZipFile(whole) as archive,
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for entry in archive.infolist():
            packed.writestr(entry.filename, archive.read(entry))
    assert path.stat().st_size < 200_000
    return path


@pytest.mark.parametrize("read", [load_sae, read_state])
def test_a_tensor_that_repeats_one_number_is_not_unfolded(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    refused(lambda: read(repeated(tmp_path / "sae.pt")), "repeat")


@pytest.mark.parametrize("read", [load_sae, read_state])
def test_an_archive_that_is_packed_a_thousandfold_is_not_unpacked(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    refused(lambda: read(inflated(tmp_path / "sae.pt")), r"would unfold to 0\.1 GB")


def test_a_table_of_few_bytes_and_billions_of_rows_is_not_unfolded(tmp_path: Path) -> None:
    path = tmp_path / "table.parquet"
    piece = pa.table({"cds": pa.array(np.zeros(1 << 20))})
    with pq.ParquetWriter(path, piece.schema, compression="zstd") as writer:
        for _ in range(40):
            writer.write_table(piece)
    assert path.stat().st_size < 200_000
    refused(lambda: read_table(path), "says that it holds 41943040 rows")


@pytest.mark.parametrize("metadata", [b"[1]", b"{", b"[" * 100_000, b"\xff"])
def test_metadata_of_a_table_that_is_no_object_is_refused(tmp_path: Path, metadata: bytes) -> None:
    table = pa.table({"cds": [0.5]}).replace_schema_metadata({b"vitscope": metadata})
    pq.write_table(table, tmp_path / "table.parquet")
    refused(lambda: read_metadata(tmp_path / "table.parquet"), "damaged")


def test_scenes_beyond_all_memory_are_refused() -> None:
    for name in ("scenes:99999999999", "scenes:3?side=100000", f"scenes:{'9' * 5000}",
                 f"scenes:3?seed={'9' * 40}"):  # fmt: skip
        refused(lambda name=name: SceneSet.parse(Path(name)), "or less")


NESTED, DIGITS = "x = " + "[" * 100_000, "x = " + "9" * 5000
"""TOML that is nested beyond what a parser stands, and a number of too many digits."""


@pytest.mark.parametrize("text", [NESTED, DIGITS])
@pytest.mark.parametrize("read", [load_study, load_prompts, load_sae])
def test_toml_that_breaks_its_parser_is_refused(
    tmp_path: Path, read: Callable[[Path], object], text: str
) -> None:
    path = tmp_path / "mapping.toml"
    path.write_text(text)
    refused(lambda: read(path), "is not a TOML file")


@pytest.mark.parametrize(
    ("train", "says"), [(r"a\u0000b", "NUL character"), ("~nobody-of-that-name/x", "no such user")]
)
def test_a_path_that_is_none_is_refused(tmp_path: Path, train: str, says: str) -> None:
    (tmp_path / "study.toml").write_text(f'[images]\ntrain = "{train}"\n')
    refused(lambda: load_study(tmp_path / "study.toml"), says)


def png_of(width: int, height: int, mode: str = "L") -> bytes:
    """A PNG that says it is of that size; its pixels are not there."""
    written = io.BytesIO()
    Image.new(mode, (1, 1)).save(written, "PNG")
    data = bytearray(written.getvalue())
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    return bytes(data)


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_picture_of_billions_of_pixels_is_not_decoded(tmp_path: Path, mode: str) -> None:
    (tmp_path / "a.png").write_bytes(png_of(60_000, 60_000, mode))
    refused(lambda: decode_image(tmp_path / "a.png", max_pixels=PIL_PIXEL_LIMIT), "too many pixels")


def ade20k(root: Path, picture: bytes, mask: bytes) -> Path:
    for kind, name, data in (("images", "a.jpg", picture), ("annotations", "a.png", mask)):
        folder = root / kind / "validation"
        folder.mkdir(parents=True)
        (folder / name).write_bytes(data)
    return root


def test_a_mask_of_billions_of_pixels_is_not_decoded(tmp_path: Path) -> None:
    bomb = png_of(60_000, 60_000)
    refused(lambda: read_ade20k(ade20k(tmp_path, bomb, bomb), "validation"), "too many pixels")


POSTSCRIPT = b"""%!PS-Adobe-3.0 EPSF-3.0
%%BoundingBox: 0 0 6 5
%%EndComments
(ran) print
%%EOF
"""
"""What PIL would hand to Ghostscript, a program, if it were let."""


def test_postscript_that_is_named_a_mask_or_depth_starts_no_program(tmp_path: Path) -> None:
    root = ade20k(tmp_path / "ade", POSTSCRIPT, POSTSCRIPT)
    refused(lambda: read_ade20k(root, "validation").load(0), "not an image in a format")
    nyud = tmp_path / "nyud"
    nyud.mkdir()
    Image.new("RGB", (6, 5)).save(nyud / "a.png")
    (nyud / "a_depth.png").write_bytes(POSTSCRIPT)
    (nyud / "nyu2_train.csv").write_text("a.png,a_depth.png\n")
    refused(lambda: read_nyud_folder(nyud, "train"), "not an image in a format")


def test_a_mat_file_of_terabytes_that_are_not_there_is_refused(tmp_path: Path) -> None:
    side = 1 << 20
    with h5py.File(tmp_path / "labeled.mat", "w") as file:
        file.create_dataset("images", (4, 3, side, side), "u1", chunks=(1, 3, 64, 64))
        file.create_dataset("depths", (4, side, side), "f4", chunks=(1, 64, 64))
    columns = {"trainNdxs": np.array([[1]]), "testNdxs": np.array([[2]])}
    scipy.io.savemat(tmp_path / "splits.mat", columns)
    refused(
        lambda: read_nyud_mat(tmp_path / "labeled.mat", tmp_path / "splits.mat", "train"),
        "which are no images",
    )


class Runs:
    """A pickle that makes a folder when it is opened as an object."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.mkdir, (self.mark,)


HOSTILE: dict[str, Callable[[Path], object]] = {
    "SAE": load_sae,
    "weights": read_state,
    "table": read_table,
    "image": lambda path: decode_image(path, max_pixels=PIL_PIXEL_LIMIT),
    "study": load_study,
    "prompts": load_prompts,
    "NYUd": lambda path: read_nyud_mat(path, path, "train"),
}


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("wrap", ["pickle", "torch.save", "numpy"])
def test_a_pickle_runs_at_no_door(tmp_path: Path, kind: str, wrap: str) -> None:
    mark, path = tmp_path / "mark", tmp_path / "file.pt"
    hostile = Runs(mark)
    match wrap:
        case "pickle":
            path.write_bytes(pickle.dumps(hostile))
        case "torch.save":
            torch.save({"W_dec": hostile}, path)
        case _:
            with path.open("wb") as file:
                np.save(file, np.array([hostile], dtype=object), allow_pickle=True)
    refused(lambda: HOSTILE[kind](path), "not an image" if kind == "image" else path.name)
    assert not mark.exists()
