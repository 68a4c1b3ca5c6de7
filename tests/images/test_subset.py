"""Picking images: one per class in turn, and a pure function of the seed and the ids."""

from collections import Counter
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from vitscope.images.sources import ImageRef, pick_images


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
