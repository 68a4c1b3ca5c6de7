"""A file system of a few kilobytes, mounted in memory where this process may."""

import subprocess
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def small_disk(place: Path, kilobytes: int) -> Generator[Path]:
    """Mount ``kilobytes`` of memory at ``place``; skips the test where that is not allowed."""
    place.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(place))
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def resize(place: Path, kilobytes: int) -> None:
    """Give it more room, or less."""
    _mount("-o", f"remount,size={kilobytes}k", str(place))


def read_only(place: Path) -> None:
    """Forbid writing, to root too."""
    _mount("-o", "remount,ro", str(place))


def _mount(*arguments: str) -> None:
    ended = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if ended.returncode != 0:
        pytest.skip(f"mounting is not allowed here: {ended.stderr.strip()}")
