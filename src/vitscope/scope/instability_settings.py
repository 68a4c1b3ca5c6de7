"""Which shifts the attention instability is measured at (protocol, section 7; the paper's Table 9).

How tokens are drawn and called outliers is settled by ``OutlierSettings``.
"""

import re
from typing import Annotated

from pydantic import Field, field_validator

from vitscope.errors import ConfigError
from vitscope.scope.views import Overlap
from vitscope.settings import Settings

ALL_TOKENS = "all"
"""What ``--tokens`` says for every token; in a study it is 0."""


class InstabilitySettings(Settings):
    """Attention instability at further shifts (protocol, section 7)."""

    shifts: tuple[Annotated[int, Field(ge=1)], ...] = ()
    """Shifts in patches compared besides ``scope.shift``, in the same pass; Table 9 has 1 to 6."""

    @field_validator("shifts")
    @classmethod
    def _ascending(cls, shifts: tuple[int, ...]) -> tuple[int, ...]:
        return tuple(sorted(set(shifts)))


def compared_overlaps(grid: int, own: int, settings: InstabilitySettings) -> tuple[Overlap, ...]:
    """Return what two views share at every shift compared, ascending.

    Args:
        grid: p, patches per side.
        own: ``scope.shift``, which is always among them.
        settings: names the others.

    Raises:
        ConfigError: a shift leaves no overlap of at least 2x2 patches.
    """
    widest = grid - 2
    too_wide = [shift for shift in settings.shifts if shift > widest]
    if too_wide:
        raise ConfigError(
            f"instability.shifts: {too_wide[0]} leaves no overlap of at least 2×2 patches on a "
            f"{grid}×{grid} grid; use 1 to {widest}"
        )
    return tuple(Overlap(grid, shift) for shift in sorted({own, *settings.shifts}))


def parse_shifts(text: str) -> tuple[int, ...]:
    """Read shifts as they are typed: ``1-6``, ``1,3,5``, or both together.

    Raises:
        ConfigError: it is neither, or a range runs backwards.
    """
    shifts: list[int] = []
    for piece in text.split(","):
        ends = re.fullmatch(r"\s*(\d+)\s*(?:-\s*(\d+)\s*)?", piece)
        first, last = (int(ends[1]), int(ends[2] or ends[1])) if ends else (0, 0)
        if not 1 <= first <= last:
            raise ConfigError(f"--shifts {text!r}: give a range as 1-6, or a list as 1,3,5")
        shifts += range(first, last + 1)
    return tuple(sorted(set(shifts)))


def parse_tokens(text: str) -> int:
    """Read how many other tokens are drawn per image: a number, or ``all``, which is 0.

    Raises:
        ConfigError: it is neither.
    """
    if text.strip() == ALL_TOKENS:
        return 0
    if not text.strip().isdecimal() or int(text) < 1:
        raise ConfigError(f"--tokens {text!r}: give a number from 1, or {ALL_TOKENS}")
    return int(text)
