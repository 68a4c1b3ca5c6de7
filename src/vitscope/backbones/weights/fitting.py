"""Whether converted weights are exactly a model's, from the plainest difference to the finest."""

import math
import re

import torch
from timm.models.vision_transformer import VisionTransformer

from vitscope.backbones.positions import PositionMethod, resample_positions
from vitscope.backbones.weights.renaming import State, some_of
from vitscope.errors import BackboneError

PATCHES = "patch_embed.proj.weight"
POSITIONS = "pos_embed"

Grid = tuple[int, int]


def refuse_another_architecture(model: VisionTransformer, state: State, name: str) -> None:
    """Refuse weights of another depth, width or patch side, in words rather than names.

    Raises:
        BackboneError: saying both.
    """
    numbers = [int(m[1]) for key in state if (m := re.match(r"blocks\.(\d+)\.", key))]
    depth, own_depth = max(numbers, default=-1) + 1, len(model.blocks)
    width, own_width = _width(state), int(model.embed_dim)
    if depth != own_depth or width not in {own_width, None}:
        shown = f" of width {width}" if width is not None else ""
        part = ", or a part of one" if width in {own_width, None} and depth < own_depth else ""
        raise BackboneError(
            f"it has {depth} blocks{shown}, {name} has {own_depth} of width {own_width}: it is "
            f"another model's file{part}"
        )
    found, own = state.get(PATCHES), model.patch_embed.proj.weight
    if found is not None and found.ndim == own.ndim and found.shape[-2:] != own.shape[-2:]:
        raise BackboneError(
            f"its patches are {_by(found.shape[-2:])} pixels, those of {name} "
            f"{_by(own.shape[-2:])}: it is another model's file"
        )


def place_positions(
    model: VisionTransformer,
    state: State,
    name: str,
    native_grid: Grid | None,
    method: PositionMethod,
) -> bool:
    """Resample the positions of ``state`` if they are of ``native_grid``; tell whether it did.

    Raises:
        BackboneError: they are neither of the model's own grid nor of ``native_grid``.
    """
    found = state.get(POSITIONS)
    if found is None or model.pos_embed is None or found.ndim != 3 or len(found) != 1:
        return False  # missing, unexpected or of another shape: named with its like
    own_grid = _own_grid(model)
    n_prefix = model.pos_embed.shape[1] - math.prod(own_grid)
    n_patches = found.shape[1] - n_prefix
    if native_grid is not None and n_patches == math.prod(native_grid):
        if native_grid == own_grid:
            return False
        state[POSITIONS] = resample_positions(
            found, n_prefix, own_grid, method, old_grid=native_grid
        )
        return True
    if n_patches != math.prod(own_grid):
        resolution = f"{name} at this resolution has {_by(own_grid)}"
        if native_grid not in {None, own_grid}:
            resolution += f" and was trained on {_by(native_grid or own_grid)}"
        raise BackboneError(
            f"its position embeddings are for {_grid_of(n_patches, n_prefix)}, {resolution}; set "
            "backbone.resolution to the file's own, if it is this model's"
        )
    return False


def refuse_other_names(model: VisionTransformer, state: State, but: set[str]) -> None:
    """Refuse what is missing or unexpected, except the names in ``but``.

    Raises:
        BackboneError: naming the first few of each.
    """
    own = model.state_dict().keys()
    kinds = {"missing": own - state.keys() - but, "unexpected": state.keys() - own}
    problems = [f"{kind}: {some_of(names)}" for kind, names in kinds.items() if names]
    if problems:
        raise BackboneError("; ".join(problems))


def refuse_other_shapes(model: VisionTransformer, state: State) -> None:
    """Refuse what has the model's names and not its shapes.

    Raises:
        BackboneError: showing the first few, found and wanted.
    """
    own = model.state_dict()
    shapes = [
        f"{key} ({list(value.shape)}, not {list(own[key].shape)})"
        for key, value in state.items()
        if own[key].shape != value.shape
    ]
    if shapes:
        raise BackboneError(f"of another shape: {some_of(shapes)}")


def refuse_what_is_no_number(state: State) -> None:
    """Refuse integer weights (quantised), NaN and infinities.

    Raises:
        BackboneError: naming the first.
    """
    for key, value in state.items():
        if not value.is_floating_point():
            raise BackboneError(f"{key} holds {value.dtype}, not real numbers; is it quantised?")
        # both ends are NaN where anything is; unlike isfinite, this makes no tensors of its own
        if value.numel() and not all(bool(end.isfinite()) for end in torch.aminmax(value)):
            raise BackboneError(f"{key} holds NaN or infinite values")


def _own_grid(model: VisionTransformer) -> Grid:
    grid = model.patch_embed.grid_size
    assert grid is not None, "built for a size"
    return (int(grid[0]), int(grid[1]))


def _width(state: State) -> int | None:
    for key in (PATCHES, "norm.weight", "blocks.0.norm1.weight"):
        if key in state and state[key].ndim:
            return int(state[key].shape[0])
    return None


def _by(sides: tuple[int, ...]) -> str:
    return "×".join(str(side) for side in sides)


def _grid_of(n_patches: int, n_prefix: int) -> str:
    side = math.isqrt(max(n_patches, 0))
    if side**2 == n_patches:
        return f"{side}×{side} patches"
    beside = f" beside {n_prefix} prefix" if n_prefix else ""
    return f"{n_patches} patches{beside}"
