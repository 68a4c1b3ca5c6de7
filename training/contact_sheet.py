"""Draw the documentation's contact sheet: scenes, and masks and depth of the first row.

python training/contact_sheet.py docs/images/scenes.png
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from PIL import Image

from vitscope.embedded.scene import Scene, render_scene
from vitscope.embedded.tracing import FAR_M

SEED, SIDE, COLUMNS, ROWS, GAP = 5, 112, 7, 3, 3
PALETTE_COLOURS = 256


def main() -> None:
    """Write the sheet to the path given."""
    scenes = [render_scene(SEED, i, SIDE) for i in range(ROWS * COLUMNS)]
    tiles = [scene.image.transpose(1, 2, 0) for scene in scenes]
    tiles += [_mask(scene) for scene in scenes[:COLUMNS]]
    tiles += [_depth(scene) for scene in scenes[:COLUMNS]]
    # the first row's masks and depths stand right below it
    order = [*range(COLUMNS), *range(ROWS * COLUMNS, len(tiles)), *range(COLUMNS, ROWS * COLUMNS)]
    framed = [np.pad(tiles[i], ((0, GAP), (0, GAP), (0, 0)), constant_values=255) for i in order]
    rows = [
        np.concatenate(framed[start : start + COLUMNS], axis=1)
        for start in range(0, len(framed), COLUMNS)
    ]
    sheet = Image.fromarray(np.concatenate(rows))
    # noise does not compress: a palette keeps the file small
    palette = sheet.quantize(PALETTE_COLOURS)
    small = sheet.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG)
    small.save(Path(sys.argv[1]), optimize=True)


def _mask(scene: Scene) -> np.ndarray:
    return _coloured("tab20", scene.mask / 20)


def _depth(scene: Scene) -> np.ndarray:
    return _coloured("viridis_r", np.log(scene.depth) / np.log(FAR_M))


def _coloured(name: str, values: np.ndarray) -> np.ndarray:
    return (255 * colormaps[name](values)[..., :3]).astype(np.uint8)


if __name__ == "__main__":
    main()
