"""Generated pictures: reproducible, different from each other, and something to look at."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vitscope.images.decode import decode_image
from vitscope.images.generated import write_generated_images
from vitscope.images.sources import ImageFolder


def pixels(paths: list[Path]) -> np.ndarray:
    return np.stack([np.asarray(decode_image(path, max_pixels=10**6)) for path in paths])


def test_reproducible_whatever_their_number(tmp_path: Path) -> None:
    few = write_generated_images(tmp_path / "a", 3, seed=1, side=64)
    more = write_generated_images(tmp_path / "b", 6, seed=1, side=64)
    assert [path.read_bytes() for path in few] == [path.read_bytes() for path in more[:3]]
    assert [ref.path for ref in ImageFolder(tmp_path / "b")] == more
    other = write_generated_images(tmp_path / "c", 3, seed=2, side=64)
    assert not set(map(Path.read_bytes, few)) & set(map(Path.read_bytes, other))


@pytest.mark.parametrize("side", [8, 33, 128])
def test_size_and_kind(tmp_path: Path, side: int) -> None:
    (path,) = write_generated_images(tmp_path, 1, seed=0, side=side)
    with Image.open(path) as image:
        assert (image.mode, image.size) == ("RGB", (side, side))


def test_pictures_vary_within_and_among_themselves(tmp_path: Path) -> None:
    values = pixels(write_generated_images(tmp_path, 20, seed=0, side=64)).astype(np.float64)
    assert values.std(axis=(1, 2, 3)).min() > 15  # none is flat
    means = values.mean(axis=(1, 2))
    assert np.ptp(means, axis=0).min() > 60  # palettes differ
    blocks = values.reshape(20, 4, 16, 4, 16, 3).mean(axis=(2, 4))
    assert blocks.std(axis=(1, 2)).min() > 5  # and so do the parts of one picture
