"""Renders a stage: one ray a pixel, four more where objects meet, then the camera's noise."""

import numpy as np

from vitscope.images.scenes.compiled import Bytes, Singles, compiled
from vitscope.images.scenes.shading import seen
from vitscope.images.scenes.stage import Stage
from vitscope.images.scenes.texture import lattice
from vitscope.images.scenes.tracing import camera_ray

Picture = tuple[Bytes, Bytes, Bytes, Singles]

_CHANNEL_STEP = 5003
"""Sets the noise of the three channels apart; more than any picture has columns."""


@compiled
def _rays(stage: Stage, side: int) -> tuple[Singles, Bytes, Bytes, Singles]:
    pixel = 2.0 * stage.half_view / side
    colour = np.empty((side, side, 3), np.float32)
    mask = np.empty((side, side), np.uint8)
    owners = np.zeros((side, side), np.uint8)
    depths = np.empty((side, side), np.float32)
    for row in range(side):
        for column in range(side):
            dx, dy, dz = camera_ray(stage, (column + 0.5) / side, (row + 0.5) / side)
            r, g, b, depth, mask_class, which = seen(stage, dx, dy, dz, pixel)
            colour[row, column, 0], colour[row, column, 1], colour[row, column, 2] = r, g, b
            mask[row, column], depths[row, column] = mask_class, depth
            if which >= 0:
                owners[row, column] = int(stage.solids[which, 1]) + 1
    return colour, mask, owners, depths


@compiled
def _is_edge(mask: Bytes, owners: Bytes, row: int, column: int) -> bool:
    side = mask.shape[0]
    here = (mask[row, column], owners[row, column])
    for i, j in ((row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)):
        if 0 <= i < side and 0 <= j < side and (mask[i, j], owners[i, j]) != here:
            return True
    return False


@compiled
def _smooth_edges(stage: Stage, colour: Singles, mask: Bytes, owners: Bytes) -> None:
    side = mask.shape[0]
    pixel = 2.0 * stage.half_view / side
    for row in range(side):
        for column in range(side):
            if not _is_edge(mask, owners, row, column):
                continue
            r, g, b = 0.0, 0.0, 0.0
            for i in range(4):
                u = (column + 0.25 + 0.5 * (i & 1)) / side
                v = (row + 0.25 + 0.5 * (i >> 1)) / side
                dx, dy, dz = camera_ray(stage, u, v)
                dr, dg, db, _, _, _ = seen(stage, dx, dy, dz, pixel)
                r, g, b = r + 0.25 * dr, g + 0.25 * dg, b + 0.25 * db
            colour[row, column, 0], colour[row, column, 1], colour[row, column, 2] = r, g, b


@compiled
def _expose(stage: Stage, colour: Singles) -> Bytes:
    side = colour.shape[0]
    image = np.empty((3, side, side), np.uint8)
    for row in range(side):
        for column in range(side):
            for c in range(3):
                i = column + _CHANNEL_STEP * c
                # three uniform draws add up to nearly a normal one, of spread 1/2
                noise = lattice(i, row, stage.seed) + lattice(i, row, stage.seed + 1)
                noise += lattice(i, row, stage.seed + 2) - 1.5
                value = colour[row, column, c] + 2.0 * stage.grain * noise
                image[c, row, column] = int(255.0 * min(max(value, 0.0), 1.0) + 0.5)
    return image


@compiled
def _render(stage: Stage, side: int) -> Picture:
    colour, mask, owners, depths = _rays(stage, side)
    _smooth_edges(stage, colour, mask, owners)
    return _expose(stage, colour), mask, owners, depths


def render(stage: Stage, side: int) -> Picture:
    """Render at ``side`` × ``side`` pixels.

    Returns:
        image [3, H, W]; mask classes [H, W]; object + 1, or 0 where there is none, [H, W];
        depth along the optical axis in metres [H, W].
    """
    return _render(stage, side)
