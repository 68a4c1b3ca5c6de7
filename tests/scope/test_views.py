"""Shifted views share their overlap pixel for pixel; the overlap is what geometry says it is."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from vitscope.backbones.backbone import Preprocessing, Site
from vitscope.errors import ConfigError
from vitscope.images.loading import to_square
from vitscope.scope.views import Overlap, plain_view, shifted_views


def site(grid: int, patch: int) -> Site:
    return Site("test", "none", 1, 8, grid, patch)


def noise_image(width: int, height: int, seed: int = 0) -> Image.Image:
    random = np.random.default_rng(seed)
    return Image.fromarray(random.integers(0, 256, (height, width, 3), dtype=np.uint8))


def pixels_at(view: Tensor, positions: NDArray[np.int64], grid: int, patch: int) -> Tensor:
    """Cut the patches at flat ``positions`` out of a view, one by one."""
    found: list[Tensor] = []
    for position in positions.tolist():
        row, column = position // grid * patch, position % grid * patch
        found.append(view[:, row : row + patch, column : column + patch])
    return torch.stack(found)


def overlap_agrees(views: Tensor, first: NDArray[np.int64], second: NDArray[np.int64]) -> bool:
    grid, patch = 8, 4
    one = pixels_at(views[0], first, grid, patch)
    return torch.equal(one, pixels_at(views[1], second, grid, patch))


@settings(max_examples=60, deadline=None)
@given(
    st.integers(3, 150),
    st.integers(3, 150),
    st.integers(1, 6),
    st.booleans(),
    st.integers(0, 2**32 - 1),
)
def test_the_overlap_is_identical_pixel_for_pixel(
    width: int, height: int, shift: int, stretch: bool, seed: int
) -> None:
    image, overlap = noise_image(width, height, seed), Overlap(8, shift)
    views = shifted_views(image, site(8, 4), shift, stretch=stretch)
    assert views.shape == (2, 3, 32, 32)
    assert views.dtype == torch.uint8
    assert overlap_agrees(views, overlap.first, overlap.second)


@pytest.mark.parametrize("shift", range(1, 7))
def test_a_wrong_offset_would_be_seen(shift: int) -> None:
    views = shifted_views(noise_image(60, 60), site(8, 4), shift)
    overlap = Overlap(8, shift)
    moved = Overlap(8, shift - 1) if shift > 1 else None
    q = overlap.side
    by_one_row = overlap.first - 8
    assert not overlap_agrees(views, by_one_row, overlap.second)
    assert not overlap_agrees(views, overlap.second, overlap.first)
    transposed = overlap.second.reshape(q, q).T.ravel()
    assert not overlap_agrees(views, overlap.first, transposed)
    if moved is not None:
        assert not overlap_agrees(views, moved.first, moved.second)


@pytest.mark.parametrize("stretch", [False, True])
def test_views_are_the_two_crops_of_one_resized_image(stretch: bool) -> None:
    image = noise_image(90, 70)
    whole = to_square(image, (5 + 2) * 6, stretch=stretch)
    views = shifted_views(image, site(5, 6), 2, stretch=stretch)
    assert torch.equal(views[0], whole[:, :30, :30])
    assert torch.equal(views[1], whole[:, 12:, 12:])


def test_stretch_keeps_what_a_crop_cuts_off() -> None:
    wide = Image.new("RGB", (200, 50), "black")
    wide.paste("white", (0, 0, 40, 50))
    cropped, stretched = (
        shifted_views(wide, site(8, 4), 1, stretch=stretch) for stretch in (False, True)
    )
    assert cropped.max() == 0
    assert stretched[0].max() == 255


def test_the_plain_view_is_as_the_backbone_takes_it() -> None:
    image = noise_image(90, 70)
    preprocessing = Preprocessing(0.8, (0, 0, 0), (1, 1, 1))
    plain = plain_view(image, site(5, 6), preprocessing)
    assert torch.equal(plain, to_square(image, 30, crop_share=0.8))
    assert not torch.equal(plain, to_square(image, 30))


@pytest.mark.parametrize(("grid", "shift"), [(3, 1), (5, 2), (8, 6), (14, 1), (14, 6)])
def test_the_overlap_is_what_both_views_show(grid: int, shift: int) -> None:
    place = [(row, column) for row in range(grid) for column in range(grid)]
    # where each patch of a view lies on the resized image
    first = {cell: index for index, cell in enumerate(place)}
    second = {(r + shift, c + shift): index for index, (r, c) in enumerate(place)}
    shared = sorted(first.keys() & second.keys())
    overlap = Overlap(grid, shift)
    assert overlap.first.tolist() == [first[cell] for cell in shared]
    assert overlap.second.tolist() == [second[cell] for cell in shared]
    assert overlap.n_cells == len(shared) == overlap.side**2
    furthest = max(
        ((a[0] - b[0]) ** 2 + (a[1] - b[1]) ** 2) ** 0.5
        for a, b in itertools.combinations(shared, 2)
    )
    assert overlap.diameter == pytest.approx(furthest)


@pytest.mark.parametrize("shift", [-1, 0, 13, 14, 100])
def test_a_shift_without_an_overlap_is_refused(shift: int) -> None:
    with pytest.raises(ConfigError, match=rf"scope.shift = {shift} leaves.*use 1 to 12"):
        Overlap(14, shift)
