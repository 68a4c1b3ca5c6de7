"""Scenes as members of an image set: an address where another image has its file."""

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from vitscope.images.scenes.scene import render_scene

RENDERER = 1
"""Counts up whenever a scene of the same address gets other pixels."""

_ADDRESS = re.compile(r"scenes:(\d+)@(\d+)/(\d+)")


@dataclass(frozen=True, slots=True)
class SceneAddress:
    """One rendered scene: scene ``index`` of the set ``seed``, at ``side`` × ``side`` pixels."""

    seed: int
    side: int
    index: int

    @property
    def path(self) -> Path:
        """What stands in for a file's path: ``scenes:SEED@SIDE/INDEX``."""
        return Path(f"scenes:{self.seed}@{self.side}/{self.index}")

    @property
    def version(self) -> bytes:
        """What decides the pixels, to be hashed in place of a file's bytes."""
        return f"renderer {RENDERER} {self.path}".encode()

    def render(self) -> Image.Image:
        """Render the scene, as RGB."""
        scene = render_scene(self.seed, self.index, self.side)
        return Image.fromarray(scene.image.transpose(1, 2, 0))


@lru_cache(maxsize=4096)
def scene_address(path: Path) -> SceneAddress | None:
    """Return the scene that ``path`` addresses; None for the path of a file."""
    found = _ADDRESS.fullmatch(str(path))
    return None if found is None else SceneAddress(*map(int, found.groups()))
