"""Listing an image set: ids, order, labels, links, lists, limits, and what the errors say."""

import os
from pathlib import Path

import pytest

from vitscope.errors import ImageSetError
from vitscope.images.sources import ImageFolder


def touch(root: Path, *names: str) -> None:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def ids(path: Path, *, limit: int | None = None) -> list[str]:
    return [ref.id for ref in ImageFolder(path, limit=limit)]


def test_natural_order_of_names_and_of_folders(tmp_path: Path) -> None:
    names = ["c10/a.png", "c2/img10.jpg", "c2/img9.jpg", "c2/img09.jpg", "b.jpg", "c2.jpg"]
    touch(tmp_path, *names)
    assert ids(tmp_path) == [
        "b.jpg",
        "c2/img09.jpg",
        "c2/img9.jpg",
        "c2/img10.jpg",
        "c2.jpg",
        "c10/a.png",
    ]


def test_suffixes_in_any_case_and_nothing_else(tmp_path: Path) -> None:
    kept = ["a.JPG", "b.JPEG", "c.Png", "d.webp", "e.TIF", "f.jfif", "g.pgm", "h.gif", "i.bmp"]
    touch(tmp_path, *kept, "notes.txt", "no_suffix", "jpg", "x.jpg.part", "y.npy")
    assert sorted(ids(tmp_path)) == sorted(kept)


def test_hidden_files_and_folders_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", ".b.jpg", "._a.jpg", ".cache/c.jpg", "d/.e/f.jpg")
    assert ids(tmp_path) == ["a.jpg"]


def test_spaces_and_other_scripts_stay_as_they_are(tmp_path: Path) -> None:
    names = ["été à la mer.jpg", "猫/写真 1.png", "100 % #1.jpg"]
    touch(tmp_path, *names)
    assert sorted(ids(tmp_path)) == sorted(names)


def test_a_name_that_is_not_utf8_has_a_printable_id(tmp_path: Path) -> None:
    try:
        (tmp_path / os.fsdecode(b"caf\xe9.jpg")).touch()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert ids(tmp_path) == ["caf\\xe9.jpg"]


def test_labels_are_the_first_folder_of_a_nested_id(tmp_path: Path) -> None:
    touch(tmp_path, "flat.jpg", "cat/1.jpg", "dog/sub/2.jpg")
    labels = {ref.id: ref.label for ref in ImageFolder(tmp_path)}
    assert labels == {"flat.jpg": None, "cat/1.jpg": "cat", "dog/sub/2.jpg": "dog"}


def test_paths_lead_to_the_files_for_relative_roots_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    touch(tmp_path, "set/a/1.jpg")
    monkeypatch.chdir(tmp_path / "set")
    for root in (Path(), Path("a/.."), Path("../set"), tmp_path / "set"):
        (ref,) = ImageFolder(root)
        assert (ref.id, ref.label, ref.path.is_file()) == ("a/1.jpg", "a", True)


def test_linked_folders_are_entered_once_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "set/real/1.jpg", "elsewhere/2.jpg")
    root = tmp_path / "set"
    (root / "a_link").symlink_to(root / "real")  # sorts before the folder it points to
    (root / "real" / "loop").symlink_to(root)
    (root / "b").symlink_to(tmp_path / "elsewhere")
    (root / "c").symlink_to(tmp_path / "elsewhere")
    assert [(ref.id, ref.label) for ref in ImageFolder(root)] == [
        ("b/2.jpg", "b"),
        ("real/1.jpg", "real"),
    ]


def test_a_limit_is_spread_evenly(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{i}.jpg" for i in range(10)))
    assert ids(tmp_path, limit=5) == [f"{i}.jpg" for i in (0, 2, 4, 6, 8)]
    assert ids(tmp_path, limit=3) == ["0.jpg", "3.jpg", "6.jpg"]
    assert len(ids(tmp_path, limit=99)) == 10
    with pytest.raises(ValueError, match="at least 1"):
        ImageFolder(tmp_path, limit=0)


def test_a_list_file(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/2.jpg", "other.jpg")
    listing = tmp_path / "list.txt"
    listing.write_text(
        f"\ufeff# mine\n\n  dog/2.jpg \ncat/1.jpg\n./cat/1.jpg\n{tmp_path}/cat/1.jpg\ngone.jpg\r\n",
        encoding="utf-8",
    )
    folder = ImageFolder(listing)
    assert [(ref.id, ref.label) for ref in folder] == [
        ("cat/1.jpg", "cat"),
        ("dog/2.jpg", "dog"),
        ("gone.jpg", None),  # kept: verification will say that it is missing
    ]
    assert folder.root == tmp_path
    assert folder[0].path.is_file()


def test_a_list_of_files_outside_its_folder_keeps_the_classes(tmp_path: Path) -> None:
    touch(tmp_path, "data/val/cat/1.jpg", "data/val/dog/2.jpg")
    listing = tmp_path / "lists" / "val.txt"
    listing.parent.mkdir()
    listing.write_text(f"../data/val/cat/1.jpg\n{tmp_path}/data/val/dog/2.jpg\n")
    assert [(ref.id, ref.label) for ref in ImageFolder(listing)] == [
        ("../data/val/cat/1.jpg", "cat"),
        ("../data/val/dog/2.jpg", "dog"),
    ]


def test_the_digest_sees_a_changed_a_new_and_a_missing_file(tmp_path: Path) -> None:
    touch(tmp_path, "a.jpg", "b.jpg")
    seen = [ImageFolder(tmp_path).listing_digest]
    assert ImageFolder(tmp_path).listing_digest == seen[0]
    os.utime(tmp_path / "a.jpg", ns=(1, 1))
    seen.append(ImageFolder(tmp_path).listing_digest)
    (tmp_path / "a.jpg").write_bytes(b"x")
    os.utime(tmp_path / "a.jpg", ns=(1, 1))
    seen.append(ImageFolder(tmp_path).listing_digest)
    touch(tmp_path, "c.jpg")
    folder = ImageFolder(tmp_path)
    (tmp_path / "c.jpg").unlink()
    seen.append(folder.listing_digest)
    touch(tmp_path, "c.jpg")
    seen.append(ImageFolder(tmp_path).listing_digest)
    assert len(set(seen)) == len(seen)


def test_a_missing_path_names_its_neighbour(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(ImageSetError, match=r"photo/val does not exist; did you mean .*photos\?"):
        ImageFolder(tmp_path / "photo" / "val")
    with pytest.raises(ImageSetError, match="exists, without 'zzz'"):
        ImageFolder(tmp_path / "zzz")


def test_a_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    with pytest.raises(ImageSetError, match="no files at all"):
        ImageFolder(tmp_path)
    touch(tmp_path, "a.txt", "b/c.TXT", "README")
    with pytest.raises(
        ImageSetError, match=r"3 files, none with an image suffix: \.txt \(2\), no suffix \(1\)"
    ):
        ImageFolder(tmp_path)


def test_what_is_no_list_of_images(tmp_path: Path) -> None:
    touch(tmp_path, "one.jpg")
    (tmp_path / "binary.bin").write_bytes(b"\xff\xfe\x00\x9f")
    (tmp_path / "prose.txt").write_text("hello\nworld\n")
    (tmp_path / "stale.txt").write_text("gone/1.jpg\ngone/2.jpg\n")
    for name, message in {
        "one.jpg": "is one image",
        "binary.bin": "neither a folder nor a UTF-8 text",
        "prose.txt": "lists no images: 2 files, none with an image suffix",
        "stale.txt": r"none of the 2 files .* exists, .*gone/1\.jpg for one",
    }.items():
        with pytest.raises(ImageSetError, match=message):
            ImageFolder(tmp_path / name)
