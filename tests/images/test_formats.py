"""What a folder of holiday photographs holds: every format read, or named with the reason."""

import builtins
import io
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vitscope.errors import ImageSetError
from vitscope.images import formats
from vitscope.images.copies import COPIED_FROM, COPY_SIDE, make_copies
from vitscope.images.decode import PIL_PIXEL_LIMIT, check_bytes, decode_bytes
from vitscope.images.duplicates import ALIKE_BITS, difference_hash, near_duplicates
from vitscope.images.formats import HEIF, HEIF_MISSING, format_of
from vitscope.images.sources import ImageFolder, SceneSet, open_image
from vitscope.images.verify import verify_images
from vitscope.stages.images import without_duplicates

TOP_IS_BLUE = np.s_[:8]
KINDS = {
    "AVIF": {"quality": 95},
    "JPEG2000": {},
    "HEIF": {"quality": 95},
    "PNG": {},
    "WEBP": {"quality": 95},
    "TIFF": {},
    "GIF": {},
    "BMP": {},
    "JPEG": {"quality": 95},
}


def scene(index: int = 0, side: int = 64) -> Image.Image:
    return open_image(SceneSet(index + 1, seed=1, side=side)[index])


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    if kind == HEIF:
        pytest.importorskip("pillow_heif").register_heif_opener()
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def blue_above_red(width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (width, height), (220, 0, 0))
    image.paste((0, 0, 220), (0, 0, width, height // 2))
    return image


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_is_told_by_content_and_decoded(kind: str, tmp_path: Path) -> None:
    picture = scene()
    data = encoded(picture, kind, **KINDS[kind])
    assert format_of(data[:64]) == kind
    (tmp_path / "a name without a suffix").write_bytes(data)
    (ref,) = ImageFolder(tmp_path)
    assert verify_images([ref], workers=1, max_pixels=PIL_PIXEL_LIMIT).sizes == ((64, 64),)
    shown = open_image(ref)
    assert shown.mode == "RGB"
    limit = 40 if kind == "GIF" else 12  # of its palette
    gap = np.abs(np.asarray(shown).astype(int) - np.asarray(picture).astype(int))
    assert gap.mean() < limit


@pytest.mark.parametrize("kind", ["JPEG", "AVIF", "HEIF", "WEBP", "PNG", "TIFF"])
def test_what_a_phone_held_sideways_writes_is_upright(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # stored turned to the left: turn it to the right
    stored = blue_above_red(24, 48).transpose(Image.Transpose.ROTATE_90)
    data = encoded(stored, kind, exif=exif.tobytes())
    assert check_bytes(data, max_pixels=PIL_PIXEL_LIMIT) == (24, 48)
    upright = np.asarray(decode_bytes(data, max_pixels=PIL_PIXEL_LIMIT)).astype(int)
    assert upright[:20, :, 2].mean() > 180 > 60 > upright[:20, :, 0].mean()
    assert upright[28:, :, 0].mean() > 180 > 60 > upright[28:, :, 2].mean()


def test_pictures_that_are_not_read_are_named_and_other_files_passed_over(tmp_path: Path) -> None:
    scene().save(tmp_path / "a.jpe", "JPEG")
    scene().save(tmp_path / "raw.DNG", "TIFF")  # a thumbnail, by content
    (tmp_path / "b.JXL").write_bytes(b"\xff\x0a" + bytes(80))
    (tmp_path / "layers").write_bytes(b"8BPS" + bytes(80))
    (tmp_path / "logo.svg").write_text("<svg/>")
    for name in ("film.MOV", "notes.txt", "IMG_1.AAE", "._a.jpg", "Thumbs.db", "ls.unknown"):
        (tmp_path / name).write_bytes(b"no picture")
    film = b"\0\0\0\x14ftypqt  \0\0\0\0qt  " + bytes(80)
    (tmp_path / "a film without suffix").write_bytes(film)
    (tmp_path / "@eaDir").mkdir()
    scene().save(tmp_path / "@eaDir" / "thumbnail.jpg")
    refs = ImageFolder(tmp_path).refs
    found = verify_images(refs, workers=1, max_pixels=PIL_PIXEL_LIMIT)
    assert [ref.id for ref in found.usable] == ["a.jpe"]
    reasons = {image.id: image.reason for image in found.skipped}
    assert {name: reason.split()[0] for name, reason in reasons.items()} == {
        "b.JXL": "JPEG",
        "layers": "a",
        "logo.svg": "SVG",
        "raw.DNG": "camera",
    }


def test_heic_without_its_extra_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "IMG_1.HEIC").write_bytes(encoded(scene(), HEIF))
    (tmp_path / "IMG_2.jpg").write_bytes(encoded(scene(), HEIF))  # as some programs export it
    monkeypatch.setattr(formats, "_registers_heif", lambda: False)
    found = verify_images(ImageFolder(tmp_path).refs, workers=1, max_pixels=PIL_PIXEL_LIMIT)
    assert not found.usable
    assert [image.reason for image in found.skipped] == [HEIF_MISSING] * 2


def test_containers_are_told_apart_by_their_brands() -> None:
    def box(*brands: bytes) -> bytes:
        return (
            struct.pack(">I", 12 + 4 * len(brands))
            + b"ftyp"
            + brands[0]
            + bytes(4)
            + b"".join(brands[1:])
        )

    assert format_of(box(b"heic", b"mif1")) == HEIF
    assert format_of(box(b"mif1", b"avif", b"mif1")) == "AVIF"
    assert format_of(box(b"isom", b"mp41")) is None
    assert format_of(b"BMW is a make of cars") is None
    assert format_of(b"") is None


def test_a_large_folder_is_listed_by_names_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a.jpg", "b.heic", "c.txt", "d.mov"):
        (tmp_path / name).touch()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a file was opened")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr(builtins, "open", refuse)
    assert [ref.id for ref in ImageFolder(tmp_path)] == ["a.jpg", "b.heic"]


def test_the_same_file_is_used_once_and_its_twin_named(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "copy of a.png"):
        scene(int(name == "b.png")).save(tmp_path / name)
    refs = ImageFolder(tmp_path).refs
    found = without_duplicates(verify_images(refs, workers=1, max_pixels=PIL_PIXEL_LIMIT))
    assert [ref.id for ref in found.usable] == ["a.png", "b.png"]
    assert len(found.sizes) == len(found.checksums) == 2
    assert [(one.id, one.reason) for one in found.skipped] == [
        ("copy of a.png", "the same file as a.png")
    ]


def test_a_burst_is_found_and_strangers_are_not(tmp_path: Path) -> None:
    for index in range(12):
        scene(index, 96).save(tmp_path / f"{index}.png")
    scene(3, 96).resize((120, 120)).save(tmp_path / "3 larger.jpg", quality=60)
    brighter = Image.fromarray(
        np.clip(np.asarray(scene(3, 96)).astype(int) + 12, 0, 255).astype(np.uint8)
    )
    brighter.save(tmp_path / "3 brighter.png")
    refs = ImageFolder(tmp_path).refs
    groups = near_duplicates(refs, workers=1, max_pixels=PIL_PIXEL_LIMIT)
    names = [{refs[place].id for place in group} for group in groups]
    assert {"3.png", "3 larger.jpg", "3 brighter.png"} in names
    gaps = int(np.bitwise_count(difference_hash(scene(0, 96)) ^ difference_hash(scene(1, 96))))
    assert gaps > ALIKE_BITS


def test_large_photographs_become_smaller_copies_and_others_links(tmp_path: Path) -> None:
    source, copies = tmp_path / "holiday", tmp_path / "run" / "photographs"
    (source / "day 1").mkdir(parents=True)
    large = scene().resize((1600, COPIED_FROM + 240))
    exif = Image.Exif()
    exif[0x0112] = 6
    large.save(source / "day 1" / "large.jpg", exif=exif)
    scene().save(source / "small.png")
    (source / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    refs = ImageFolder(source).refs

    def copy() -> int:
        return make_copies(refs, copies, workers=1, max_pixels=PIL_PIXEL_LIMIT)

    assert copy() == 1
    found = ImageFolder(copies)
    assert [(ref.id, ref.label) for ref in found] == [(ref.id, ref.label) for ref in refs]
    size = open_image(found[0] if found[0].label else found[1], max_pixels=10**7).size
    assert size == (COPY_SIDE, round(COPY_SIDE * 1600 / (COPIED_FROM + 240)))
    assert (copies / "small.png").is_symlink() and (copies / "broken.jpg").is_symlink()
    before = (copies / "day 1" / "large.jpg").stat().st_ino
    (copies / "left over.jpg").touch()
    assert copy() == 1
    assert (copies / "day 1" / "large.jpg").stat().st_ino == before  # it stood
    assert not (copies / "left over.jpg").exists()


def test_a_folder_without_pictures_says_what_it_has(tmp_path: Path) -> None:
    (tmp_path / "film.mp4").touch()
    with pytest.raises(ImageSetError, match=r"1 files, none with an image suffix: \.mp4"):
        ImageFolder(tmp_path)
