"""``scenes:N``: the procedural set wherever a study takes a folder of images."""

import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import final
from urllib.parse import parse_qsl

from vitscope.draws import generator
from vitscope.errors import ImageSetError
from vitscope.images.scenes.address import RENDERER, SceneAddress
from vitscope.images.scenes.layout import draw_layout
from vitscope.images.scenes.settings import SceneSettings
from vitscope.images.scenes.vocabulary import PLACE_OF
from vitscope.images.sources import ImageRef
from vitscope.store.checksum import bytes_checksum

SCHEME = "scenes:"
DEFAULT_SIDE = 112
MOST_SCENES, MOST_SEED, MOST_SIDE = 10_000_000, 2**63 - 1, 4096
"""More scenes than ImageNet-21k has images, and larger ones than any backbone reads, are typing
mistakes that would take days and all memory."""

_OPTIONS = {"seed": 0, "side": DEFAULT_SIDE}
_MOST_DIGITS = 30
_EXPECTED = "write scenes:N, or scenes:N?seed=S&side=PIXELS"


@final
class SceneSet:
    """Scenes 0 to n − 1 of the set ``seed``, rendered whenever they are read; nothing is stored.

    Args:
        n: how many.
        seed: of the set; the reference backbones were trained on seed 0, and 1 is held out.
        side: pixels a side.
        limit: at most so many of them, evenly spread.

    Raises:
        ImageSetError: fewer than one scene, a side below one pixel, or a negative seed.
    """

    def __init__(
        self, n: int, *, seed: int = 0, side: int = DEFAULT_SIDE, limit: int | None = None
    ) -> None:
        for name, value, least, most in (
            ("n", n, 1, MOST_SCENES), ("seed", seed, 0, MOST_SEED), ("side", side, 1, MOST_SIDE)
        ):  # fmt: skip
            if value < least:
                raise ImageSetError(f"{SCHEME} {name} = {value}, but it must be {least} or more")
            if value > most:
                raise ImageSetError(f"{SCHEME} {name} = {value}, but it must be {most} or less")
        if limit is not None and limit < 1:
            raise ValueError(f"limit must be at least 1, not {limit}")
        self.root = Path(f"{SCHEME}{n}?seed={seed}&side={side}")
        kept = min(n, limit or n)
        indices = (i * n // kept for i in range(kept))
        self.refs: tuple[ImageRef, ...] = tuple(_reference(seed, side, i) for i in indices)

    @classmethod
    def parse(cls, path: Path, *, limit: int | None = None) -> "SceneSet":
        """Read ``scenes:N?seed=S&side=PIXELS``.

        Raises:
            ImageSetError: it does not read like that.
        """
        found = re.fullmatch(rf"{SCHEME}(\d+)(?:\?(.*))?", str(path))
        if found is None:
            raise ImageSetError(f"'{path}' is no set of scenes; {_EXPECTED}")
        options = dict(_OPTIONS)
        for key, value in parse_qsl(found[2] or "", keep_blank_values=True):
            if key not in options or not value.isdecimal():
                raise ImageSetError(f"'{path}': '{key}={value}' is not understood; {_EXPECTED}")
            options[key] = _number(value)
        return cls(_number(found[1]), **options, limit=limit)

    def __len__(self) -> int:
        return len(self.refs)

    def __iter__(self) -> Iterator[ImageRef]:
        return iter(self.refs)

    def __getitem__(self, index: int) -> ImageRef:
        return self.refs[index]

    @cached_property
    def listing_digest(self) -> str:
        """Hash of every id and of the renderer's version."""
        lines = (f"{ref.id}\n".encode() for ref in self.refs)
        return bytes_checksum(f"renderer {RENDERER} {self.root}\n".encode(), *lines)


def _number(digits: str) -> int:
    """Return a number, or one that is too large for anything where it has too many digits."""
    return int(digits[:_MOST_DIGITS])


def is_scene_set(path: Path) -> bool:
    """Whether ``path`` names scenes rather than files."""
    return str(path).startswith(SCHEME)


def _reference(seed: int, side: int, index: int) -> ImageRef:
    place = _place(seed, index)
    return ImageRef(
        id=f"{place}/{seed}-{index:07d}",
        path=SceneAddress(seed, side, index).path,
        label=place,
    )


def _place(seed: int, index: int) -> str:
    """The place is drawn before any object, so naming it costs no rendering."""
    drawn = draw_layout(generator(seed, "scene", index), SceneSettings())
    return PLACE_OF[drawn.ground, drawn.backdrop]
