"""Sets of images: folders, list files and scenes; choosing some of a set."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vitscope.embedded.scene import SceneAddress, render_scene, scene_address
from vitscope.errors import ImageSetError
from vitscope.images import sources
from vitscope.images.loading import load_batches
from vitscope.images.sources import (
    ImageFolder,
    ImageRef,
    SceneSet,
    open_image,
    open_image_set,
    pick_images,
)
from vitscope.images.verify import read_image_table, verify_images, write_image_table


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


MANY = 10**9


def test_a_reference_renders_its_own_scene() -> None:
    scenes = SceneSet(40, seed=3, side=24)
    for index in (0, 7, 39):
        pixels = np.asarray(open_image(scenes[index], max_pixels=MANY))
        expected = render_scene(3, index, 24)
        np.testing.assert_array_equal(pixels, expected.image.transpose(1, 2, 0))
        assert scenes[index].label == expected.labels["place"]
    assert len({ref.id for ref in scenes}) == 40


def test_what_a_study_writes_is_what_python_writes() -> None:
    written = open_image_set(Path("scenes:30?seed=5&side=16"), limit=7)
    assert written.refs == SceneSet(30, seed=5, side=16, limit=7).refs
    assert open_image_set(Path("scenes:3")).refs == SceneSet(3).refs
    assert len(written.refs) == 7
    assert written.refs[1].path == SceneAddress(5, 16, 30 // 7).path


def test_addresses_survive_the_way_to_a_table_and_back(tmp_path: Path) -> None:
    verified = verify_images(SceneSet(5, side=16).refs, workers=1, max_pixels=MANY)
    assert verified.sizes == ((16, 16),) * 5 and not verified.skipped
    write_image_table(tmp_path / "images.parquet", verified)
    again = read_image_table(tmp_path / "images.parquet")
    assert again.usable == verified.usable and again.digest == verified.digest
    assert scene_address(again.usable[4].path) == SceneAddress(0, 16, 4)


def test_files_are_files_and_scenes_are_scenes(tmp_path: Path) -> None:
    (tmp_path / "scenes").mkdir()
    (tmp_path / "scenes" / "a.png").touch()
    assert isinstance(open_image_set(tmp_path / "scenes"), ImageFolder)
    assert scene_address(tmp_path / "scenes:0@16" / "4") is None


def test_batches_hold_scenes_in_order() -> None:
    scenes = SceneSet(5, seed=1, side=16)

    def prepare(image: object) -> torch.Tensor:
        return torch.from_numpy(np.array(image).transpose(2, 0, 1))

    loaded = [
        row
        for batch in load_batches(scenes.refs, prepare, batch_size=2, workers=2, max_pixels=MANY)
        for row in batch.images
    ]
    for index, row in enumerate(loaded):
        np.testing.assert_array_equal(row.numpy(), render_scene(1, index, 16).image)


def test_checksums_and_listings_tell_sets_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    def state(**options: int) -> tuple[str, str]:
        scenes = SceneSet(6, **options)
        return scenes.listing_digest, verify_images(scenes.refs, workers=1, max_pixels=MANY).digest

    usual = state(seed=1, side=16)
    assert usual == state(seed=1, side=16)
    assert all(a != b for a, b in zip(usual, state(seed=2, side=16), strict=True))
    assert all(a != b for a, b in zip(usual, state(seed=1, side=17), strict=True))
    monkeypatch.setattr(sources, "RENDERER", -1)
    assert state(seed=1, side=16)[0] != usual[0]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("scenes:", "is no set of scenes; write scenes:N"),
        ("scenes:ten", "is no set of scenes"),
        ("scenes:10@3", "is no set of scenes"),
        ("scenes:10?sed=3", "'sed=3' is not understood"),
        ("scenes:10?seed=-3", "'seed=-3' is not understood"),
        ("scenes:10?side=", "'side=' is not understood"),
        ("scenes:0", "n = 0, but it must be 1 or more"),
        ("scenes:3?side=0", "side = 0, but it must be 1 or more"),
    ],
)
def test_a_wrong_name_is_refused(name: str, says: str) -> None:
    with pytest.raises(ImageSetError, match=says.replace("?", r"\?")):
        open_image_set(Path(name))


def refs_of(sizes: list[int], *, labelled: bool = True) -> list[ImageRef]:
    refs: list[ImageRef] = []
    for label, size in enumerate(sizes):
        for i in range(size):
            image_id = f"c{label}/{i}.jpg" if labelled else f"{label}_{i}.jpg"
            refs.append(ImageRef(image_id, Path(image_id), f"c{label}" if labelled else None))
    return refs


SIZES = st.lists(st.integers(1, 9), min_size=1, max_size=12)


@given(SIZES, st.integers(1, 60), st.integers(0, 5), st.booleans(), st.randoms())
def test_order_of_the_input_does_not_matter(
    sizes: list[int], n: int, seed: int, labelled: bool, chance: object
) -> None:
    refs = refs_of(sizes, labelled=labelled)
    picked = pick_images(refs, n, seed)
    assert len(set(picked)) == len(picked) == min(n, len(refs))
    assert list(picked) == [ref for ref in refs if ref in picked]  # refs_of is in natural order
    assert pick_images(sorted(refs, key=hash), n, seed) == picked
    assert pick_images(refs[::-1], n, seed) == picked
    assert set(picked) <= set(pick_images(refs, n + 1, seed))


@given(SIZES, st.integers(1, 60), st.integers(0, 5))
def test_classes_take_turns(sizes: list[int], n: int, seed: int) -> None:
    refs = refs_of(sizes)
    counts = Counter(ref.label for ref in pick_images(refs, n, seed))
    most = max(counts.values())
    for label, size in enumerate(sizes):
        # a class is a full turn behind only where it has nothing left
        assert counts[f"c{label}"] >= min(most - 1, size)


def test_one_per_class() -> None:
    picked = pick_images(refs_of([5] * 100), 100, seed=0)
    assert len({ref.label for ref in picked}) == 100
    positions = Counter(ref.id.split("/")[1] for ref in picked)
    assert all(5 <= count <= 40 for count in positions.values())  # about 20 each: random within
    assert len(positions) == 5


def test_the_seed_decides() -> None:
    for labelled in (True, False):
        refs = refs_of([20] * 10, labelled=labelled)
        assert pick_images(refs, 10, 0) != pick_images(refs, 10, 1)


def test_without_classes_every_image_is_as_likely() -> None:
    refs = refs_of([1] * 20, labelled=False)
    counts = Counter(ref.id for seed in range(300) for ref in pick_images(refs, 5, seed))
    # binomial(300, 1/4): mean 75, standard deviation 7.5; five of them either way
    assert all(37 <= counts[ref.id] <= 113 for ref in refs)


def test_other_images_do_not_change_the_order_within_a_class() -> None:
    few, many = refs_of([6, 6]), refs_of([6, 6, 6, 6])
    first_of_few = set(pick_images(few, 2, 7))
    assert first_of_few <= set(pick_images(many, 4, 7))
