"""Verification: what is usable, what is skipped with which reason, and when that is too much."""

import csv
import dataclasses
import hashlib
import os
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitscope.errors import ImageSetError
from vitscope.images.loading import THREAD_NAME
from vitscope.images.sources import ImageFolder
from vitscope.images.verify import (
    SkippedImage,
    VerifiedImages,
    check_skips,
    read_image_table,
    verify_images,
    write_image_table,
    write_skipped,
)


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Twelve sound photographs, one of them on its side, and four files that are none."""
    root = tmp_path / "mixed set"
    rng = np.random.default_rng(0)
    for i in range(12):
        (root / f"class {i % 3}").mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        exif[0x0112] = 6 if i == 5 else 1
        picture = Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8))
        picture.save(root / f"class {i % 3}" / f"ü{i}.jpg", exif=exif)
    whole = (root / "class 0" / "ü0.jpg").read_bytes()
    (root / "class 0" / "cut, short.jpg").write_bytes(whole[: len(whole) // 2])
    (root / "class 1" / "empty.png").touch()
    (root / "class 2" / "text.jpg").write_text("not a photograph")
    Image.new("RGB", (200, 200)).save(root / "class 2" / "large.png")
    return root


def verified(root: Path, workers: int = 2) -> VerifiedImages:
    return verify_images(ImageFolder(root).refs, workers=workers, max_pixels=10_000)


@pytest.mark.parametrize("workers", [0, 1, 5])
def test_the_outcome_does_not_depend_on_threads(mixed: Path, workers: int) -> None:
    result = verified(mixed, workers)
    usable = [f"class {c}/ü{i}.jpg" for c in range(3) for i in range(c, 12, 3)]
    assert [ref.id for ref in result.usable] == usable
    assert result.sizes == tuple((30, 40) if "ü5" in name else (40, 30) for name in usable)
    assert result.checksums == tuple(
        hashlib.sha256((mixed / name).read_bytes()).hexdigest() for name in usable
    )
    reasons = {image.id: image.reason for image in result.skipped}
    assert list(reasons) == [
        "class 0/cut, short.jpg",
        "class 1/empty.png",
        "class 2/large.png",
        "class 2/text.jpg",
    ]
    assert reasons["class 0/cut, short.jpg"].startswith("truncated")
    assert reasons["class 1/empty.png"] == "empty file (0 bytes)"
    assert reasons["class 2/large.png"].startswith("too many pixels: 200 x 200")
    assert reasons["class 2/text.jpg"].startswith("not an image")
    assert result.decode_rate is not None
    assert result.decode_rate > 0


def test_a_name_that_is_not_utf8_is_skipped_with_its_reason(tmp_path: Path) -> None:
    try:
        Image.new("RGB", (4, 4)).save(tmp_path / os.fsdecode(b"caf\xe9.jpg"))
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    skipped = verified(tmp_path).skipped
    assert [(image.id, image.reason[:25]) for image in skipped] == [
        ("caf\\xe9.jpg", "its name is not valid UTF")
    ]
    write_skipped(tmp_path / "skipped.csv", skipped)


def test_the_digest_follows_ids_and_bytes_and_not_the_place(mixed: Path) -> None:
    before = verified(mixed)
    moved = mixed.rename(mixed.parent / "moved")
    assert verified(moved).digest == before.digest
    (moved / "class 1" / "ü1.jpg").rename(moved / "class 1" / "ü2.jpg")
    renamed = verified(moved).digest
    Image.new("RGB", (40, 30)).save(moved / "class 1" / "ü2.jpg")
    assert len({before.digest, renamed, verified(moved).digest}) == 3


def some_skipped(good: int, bad: int, root: Path) -> VerifiedImages:
    for i in range(good):
        Image.new("RGB", (1, 1), (i, 0, 0)).save(root / f"good{i}.png")
    for i in range(bad):
        (root / f"bad{i}.png").touch()
    return verified(root)


def test_the_allowed_share_itself_passes(tmp_path: Path) -> None:
    result = some_skipped(19, 1, tmp_path)
    check_skips(result, 0.05)
    with pytest.raises(ImageSetError, match="1 of 20 images cannot be used"):
        check_skips(result, 0.049)
    with pytest.raises(ImageSetError, match=r"bad0\.png \(empty file \(0 bytes\)\)\. Remove"):
        check_skips(result, 0.0)


def test_the_error_names_the_first_ten(tmp_path: Path) -> None:
    result = some_skipped(1, 12, tmp_path)
    with pytest.raises(ImageSetError) as error:
        check_skips(result, 0.05)
    message = str(error.value)
    assert all(f"bad{i}.png (empty file" in message for i in range(10))
    assert "bad10.png" not in message
    assert "and 2 more" in message
    assert "allows 5.0%" in message


def test_nothing_usable_is_an_error_whatever_is_allowed(tmp_path: Path) -> None:
    with pytest.raises(ImageSetError, match="2 of 2"):
        check_skips(some_skipped(0, 2, tmp_path), 1.0)


def test_skipped_csv(tmp_path: Path) -> None:
    path = tmp_path / "run" / "skipped.csv"
    write_skipped(path, [])
    assert path.read_text() == "id,reason\n"
    skipped = [SkippedImage('a, "b".jpg', "damaged: x,\ny"), SkippedImage("é.png", "empty")]
    write_skipped(path, skipped)
    with path.open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert [SkippedImage(**row) for row in rows] == skipped


def test_the_image_table_is_read_back_whole_and_written_alike(mixed: Path, tmp_path: Path) -> None:
    result = verified(mixed)
    write_image_table(tmp_path / "a.parquet", result)
    write_image_table(tmp_path / "b.parquet", verified(mixed, workers=1))
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()
    back = read_image_table(tmp_path / "a.parquet")
    assert back == dataclasses.replace(result, decode_rate=None)
    assert back.digest == result.digest


def test_a_flat_set_has_no_labels_in_the_table_either(tmp_path: Path) -> None:
    write_image_table(tmp_path / "t.parquet", some_skipped(2, 0, tmp_path))
    assert [ref.label for ref in read_image_table(tmp_path / "t.parquet").usable] == [None, None]


def test_an_interrupted_verification_leaves_no_threads(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vitscope.progress.Tracker.advance", interrupt)
    with pytest.raises(KeyboardInterrupt):
        verified(mixed)
    assert not [t for t in threading.enumerate() if t.name.startswith(THREAD_NAME)]


def test_camera_raw_beside_its_jpegs_counts_for_neither_side(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.new("RGB", (64, 64)).save(tmp_path / f"{name}.jpg")
        (tmp_path / f"{name}.cr2").write_bytes(b"II*\0" + bytes(100))
    found = verify_images(ImageFolder(tmp_path).refs, workers=1, max_pixels=10**6)
    assert [image.id for image in found.skipped] == ["a.cr2", "b.cr2"]
    check_skips(found, 0.0)
    (tmp_path / "c.jpg").write_bytes(b"\xff\xd8\xff")
    damaged = verify_images(ImageFolder(tmp_path).refs, workers=1, max_pixels=10**6)
    with pytest.raises(ImageSetError, match=r"1 of 3 images cannot be used.*c\.jpg"):
        check_skips(damaged, 0.3)
    for name in ("a", "b", "c"):
        (tmp_path / f"{name}.jpg").unlink()
    raw = verify_images(ImageFolder(tmp_path).refs, workers=1, max_pixels=10**6)
    with pytest.raises(ImageSetError, match=r"2 of 2 images cannot be used.*camera raw"):
        check_skips(raw, 1.0)
