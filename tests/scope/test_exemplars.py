"""The streaming top-k against a full sort, for any order, split and merge."""

from itertools import pairwise
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from vitscope.scope.exemplars import NO_IMAGE, TopImages, codes_that_fit

Strongest = NDArray[np.float32]

# few levels, so that ties are everywhere
activations = st.tuples(st.integers(1, 12), st.integers(1, 4)).flatmap(
    lambda shape: arrays(np.float32, shape, elements=st.sampled_from([0.0, 0.5, 1.0, 1.5, 2.0]))
)


def full_sort(strongest: Strongest, k: int) -> tuple[list[list[float]], list[list[int]]]:
    """Sort everything: strongest first, the lower image index wins a tie; silence is left out."""
    values: list[list[float]] = []
    images: list[list[int]] = []
    for column in strongest.T.tolist():
        fired = [(-value, index) for index, value in enumerate(column) if value > 0]
        best = sorted(fired)[:k]
        values.append([-v for v, _ in best] + [0.0] * (k - len(best)))
        images.append([i for _, i in best] + [NO_IMAGE] * (k - len(best)))
    return values, images


def stream(strongest: Strongest, k: int, batches: list[list[int]]) -> TopImages:
    top = TopImages.empty(strongest.shape[1], k)
    for rows in batches:
        top.update(torch.from_numpy(strongest[rows]), torch.tensor(rows, dtype=torch.int64))
    return top


def split(order: list[int], cuts: list[int]) -> list[list[int]]:
    ends = [0, *sorted(cut % (len(order) + 1) for cut in cuts), len(order)]
    return [order[a:b] for a, b in pairwise(ends)]


@settings(max_examples=120, deadline=None)
@given(activations, st.integers(1, 5), st.randoms(), st.lists(st.integers(0, 100), max_size=4))
def test_equals_a_full_sort(strongest: Strongest, k: int, random: Random, cuts: list[int]) -> None:
    order = list(range(len(strongest)))
    random.shuffle(order)
    top = stream(strongest, k, split(order, cuts))
    values, images = full_sort(strongest, k)
    assert top.activation.tolist() == values
    assert top.image.tolist() == images


@settings(max_examples=60, deadline=None)
@given(activations, st.integers(1, 5), st.randoms(), st.integers(0, 12))
def test_the_order_of_merging_is_irrelevant(
    strongest: Strongest, k: int, random: Random, cut: int
) -> None:
    order = list(range(len(strongest)))
    random.shuffle(order)
    chunks = split(order, [cut, cut // 2])
    merged: list[TopImages] = []
    for arrangement in (chunks, chunks[::-1], chunks[1:] + chunks[:1]):
        whole = TopImages.empty(strongest.shape[1], k)
        for rows in arrangement:
            whole.merge(stream(strongest, k, [rows]))
        merged.append(whole)
    values, images = full_sort(strongest, k)
    for whole in merged:
        assert whole.activation.tolist() == values
        assert whole.image.tolist() == images


def test_real_valued_activations_on_many_images() -> None:
    strongest = np.random.default_rng(0).random((300, 7)).astype(np.float32)
    strongest[strongest < 0.3] = 0
    top = stream(strongest, 16, [list(range(a, min(a + 64, 300))) for a in range(0, 300, 64)])
    values, images = full_sort(strongest, 16)
    assert top.activation.tolist() == values
    assert top.image.tolist() == images


@pytest.mark.parametrize("silent", [0.0, -1.0, float("nan")])
def test_a_silent_image_is_never_an_exemplar(silent: float) -> None:
    top = TopImages.empty(2, 3)
    top.update(torch.tensor([[silent, 1.0], [2.0, silent]]), torch.tensor([4, 9]))
    assert top.image.tolist() == [[9, NO_IMAGE, NO_IMAGE], [4, NO_IMAGE, NO_IMAGE]]
    assert top.activation.tolist() == [[2.0, 0.0, 0.0], [1.0, 0.0, 0.0]]


def test_a_set_without_any_activity_has_no_exemplars() -> None:
    top = TopImages.empty(3, 2)
    top.update(torch.zeros(5, 3), torch.arange(5))
    assert (top.image == NO_IMAGE).all()
    assert (top.activation == 0).all()


def test_known_exemplars_are_taken_back() -> None:
    top = stream(np.asarray([[1.5, 0.0], [2.5, 0.0], [2.5, 3.0]], np.float32), 2, [[0, 1, 2]])
    again = TopImages.of(top.activation, top.image)
    assert torch.equal(again.entries, top.entries)


def test_images_far_into_a_set_are_told_apart() -> None:
    top = TopImages.empty(1, 2)
    last = 2**31
    top.update(torch.full((2, 1), 1e-30), torch.tensor([last, last - 1]))
    assert top.image.tolist() == [[last - 1, last]]
    assert top.activation[0].tolist() == pytest.approx([1e-30, 1e-30])


@pytest.mark.parametrize(("n_features", "at_once"), [(24_576, 13), (10**9, 1), (1, 32)])
def test_codes_are_held_a_few_images_at_a_time(n_features: int, at_once: int) -> None:
    slices = list(codes_that_fit(32, 196, n_features))
    assert slices[0] == slice(0, at_once)
    assert [i for s in slices for i in range(s.start, s.stop)] == list(range(32))
