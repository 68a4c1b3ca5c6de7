"""Weights into a timm model, strictly: what does not fit is refused, and nothing stays random.

Differences are looked for from the plainest to the finest, so that the message says the plainest.
"""

import math
import re
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float32
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn
from torch.nn import functional

from vitscope.backbones.settings import PositionMethod
from vitscope.backbones.weights.layouts import State, layout_of, to_timm
from vitscope.backbones.weights.reading import read_state, some_of
from vitscope.errors import BackboneError

HEAD = ("head.weight", "head.bias")
"""The classifier, or CLIP's projection: the one part that a file may lack."""

POOLING = "attn_pool."
PATCHES = "patch_embed.proj.weight"
POSITIONS = "pos_embed"

META_OFFSET = 0.1
"""Added by Meta's DINOv2 to the new side before it is divided by the old: against rounding."""

Grid = tuple[int, int]
"""Rows and columns of patches."""


@dataclass(frozen=True)
class LoadedWeights:
    """What was found where weights were loaded from.

    Attributes:
        layout: name of the layout that the names were in.
        has_head: the classifier (CLIP: the projection) was there and the model has it; otherwise
            the model has none, as a random one could be used unawares.
        resampled: the position embeddings come from another grid.
    """

    layout: str
    has_head: bool
    resampled: bool


def load_weights(
    model: VisionTransformer,
    path: Path,
    *,
    name: str,
    native_grid: Grid | None = None,
    positions: PositionMethod = "timm",
) -> LoadedWeights:
    """Load a file or folder of any known format and layout; see :func:`load_state`.

    Raises:
        BackboneError: unreadable, or not exactly this model's weights; ``model`` is as before.
    """
    return load_state(
        model,
        read_state(path),
        name=name,
        source=str(path),
        native_grid=native_grid,
        positions=positions,
    )


def load_state(
    model: VisionTransformer,
    state: State,
    *,
    name: str,
    source: str,
    native_grid: Grid | None = None,
    positions: PositionMethod = "timm",
) -> LoadedWeights:
    """Load a state dict, all of it and nothing else.

    Every parameter of the model must be there with its own shape and finite, but for the head,
    which is taken off the model where it is not. Names that belong to no image tower are refused,
    but for those that its layout is known to carry along (a text tower, a mask token).

    Args:
        model: built for the grid that it will run on; may be on the meta device, and is then
            moved to the CPU.
        state: under the names of any known layout.
        name: of the backbone, for messages.
        source: where ``state`` comes from, for messages.
        native_grid: rows and columns that the weights were trained on, where the model's differ;
            their position embeddings are then resampled. Any third grid is refused.
        positions: how.

    Raises:
        BackboneError: not exactly this model's weights; ``model`` is as before.
    """
    # a dictionary of our own: it is emptied on the way, so that a large model is not held twice
    state = {k: v.float() if v.is_floating_point() else v for k, v in state.items()}
    try:
        layout = layout_of(state)
        fitted = to_timm(state)
        _refuse_another_architecture(model, fitted, name)
        head = _take_head(model, fitted)
        own = model.state_dict()
        _refuse(
            missing=own.keys() - fitted.keys() - set(HEAD), unexpected=fitted.keys() - own.keys()
        )
        refuse_what_is_no_number({**fitted, **head})
        resampled = _place_positions(model, fitted, name, native_grid, positions)
        shapes = {
            f"{key} ({list(value.shape)}, not {list(own[key].shape)})"
            for key, value in fitted.items()
            if own[key].shape != value.shape
        }
        _refuse(of_another_shape=shapes)
    except BackboneError as error:
        raise BackboneError(f"{source} does not hold weights of {name}: {error}") from None
    if isinstance(model.head, nn.Linear) and head.keys() != set(HEAD):
        model.reset_classifier(0)
    elif head and model.head.weight.shape != head[HEAD[0]].shape:
        # the same backbone trained for other classes: its own classifier is as good
        model.reset_classifier(len(head[HEAD[0]]))
    fitted |= head
    _install(model, fitted)
    return LoadedWeights(layout.name, has_head=bool(head), resampled=resampled)


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


def resample_positions(
    pos_embed: Float32[Tensor, "1 N D"],
    n_prefix_in_pos: int,
    new_grid: Grid,
    method: PositionMethod,
    *,
    old_grid: Grid | None = None,
) -> Float32[Tensor, "1 M D"]:
    """Resample the patches' embeddings to ``new_grid`` (rows, columns); the prefix's stay.

    Args:
        pos_embed: of the prefix tokens that have positions, then of the patches, row by row.
        n_prefix_in_pos: how many of them belong to prefix tokens.
        new_grid: rows and columns of patches wanted.
        method: the three differ by a few per cent on trained embeddings, so tokens do too.
        old_grid: of ``pos_embed``; square unless given.
    """
    n_patches = pos_embed.shape[1] - n_prefix_in_pos
    rows, columns = old_grid or (math.isqrt(n_patches), math.isqrt(n_patches))
    assert rows * columns == n_patches, "positions do not fill their grid"
    if (rows, columns) == new_grid:
        return pos_embed
    prefix, patches = pos_embed.split([n_prefix_in_pos, n_patches], 1)
    image = patches.reshape(1, rows, columns, -1).permute(0, 3, 1, 2)
    match method:
        case "timm":
            moved = functional.interpolate(image, new_grid, mode="bicubic", antialias=True)
        case "bicubic":
            moved = functional.interpolate(image, new_grid, mode="bicubic")
        case "meta":
            # given a scale, PyTorch samples at multiples of its inverse, not at cell centres of
            # the new grid: the offset shifts every embedding a little, as in the released models
            scale = ((new_grid[0] + META_OFFSET) / rows, (new_grid[1] + META_OFFSET) / columns)
            moved = functional.interpolate(image, scale_factor=scale, mode="bicubic")
    assert moved.shape[-2:] == new_grid, "the scale does not give the grid asked for"
    return torch.cat([prefix, moved.permute(0, 2, 3, 1).flatten(1, 2)], 1)


def _refuse(**kinds: set[str]) -> None:
    """Refuse names that are there of any kind, naming the first few of each."""
    shown = [
        f"{kind.replace('_', ' ')}: {some_of(names)}" for kind, names in kinds.items() if names
    ]
    if shown:
        raise BackboneError("; ".join(shown))


def _refuse_another_architecture(model: VisionTransformer, state: State, name: str) -> None:
    """Refuse weights of another depth, width or patch side, in words rather than names."""
    numbers = [int(m[1]) for key in state if (m := re.match(r"blocks\.(\d+)\.", key))]
    depth, own_depth = max(numbers, default=-1) + 1, len(model.blocks)
    telling = (PATCHES, "norm.weight", "blocks.0.norm1.weight")
    widths = [int(state[key].shape[0]) for key in telling if key in state and state[key].ndim]
    own_width = int(model.embed_dim)
    same_width = not widths or widths[0] == own_width
    if depth != own_depth or not same_width:
        shown = f" of width {widths[0]}" if widths else ""
        part = ", or a part of one" if same_width and depth < own_depth else ""
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


def _take_head(model: VisionTransformer, state: State) -> State:
    """Remove what the model may do without from ``state``; return the head where both have one."""
    head = {name: state.pop(name) for name in HEAD if name in state}
    if model.attn_pool is None:
        # SigLIP's pooling, in a model that pools by averaging: the blocks are the same
        for name in [name for name in state if name.startswith(POOLING)]:
            del state[name]
    if not head or not isinstance(model.head, nn.Linear):
        return {}
    if absent := set(HEAD) - head.keys():
        raise BackboneError(f"missing: {min(absent)}, though the rest of the head is there")
    weight, bias = (head[name] for name in HEAD)
    if weight.ndim != 2 or weight.shape[1] != model.embed_dim or bias.shape != weight.shape[:1]:
        raise BackboneError(
            f"of another shape: head.weight ({list(weight.shape)}, not [classes, "
            f"{model.embed_dim}]) or head.bias"
        )
    return head


def _place_positions(
    model: VisionTransformer,
    state: State,
    name: str,
    native_grid: Grid | None,
    method: PositionMethod,
) -> bool:
    """Resample the positions of ``state`` if they are of ``native_grid``; tell whether it did.

    Positions of the model's own grid stay; those of any third grid are another model's.
    """
    found = state.get(POSITIONS)
    if found is None or model.pos_embed is None or found.ndim != 3 or len(found) != 1:
        return False  # missing, unexpected or of another shape: named with its like
    sides = model.patch_embed.grid_size
    assert sides is not None, "built for a size"
    own_grid = (int(sides[0]), int(sides[1]))
    n_prefix = model.pos_embed.shape[1] - math.prod(own_grid)
    n_patches = found.shape[1] - n_prefix
    if native_grid is not None and n_patches == math.prod(native_grid):
        state[POSITIONS] = resample_positions(
            found, n_prefix, own_grid, method, old_grid=native_grid
        )
        return native_grid != own_grid
    if n_patches != math.prod(own_grid):
        resolution = f"{name} at this resolution has {_by(own_grid)}"
        if native_grid not in {None, own_grid}:
            resolution += f" and was trained on {_by(native_grid or own_grid)}"
        side = math.isqrt(max(n_patches, 0))
        beside = f" beside {n_prefix} prefix" if n_prefix else ""
        grid = f"{_by((side, side))} patches" if side**2 == n_patches else f"{n_patches} patches"
        raise BackboneError(
            f"its position embeddings are for {grid}{'' if side**2 == n_patches else beside}, "
            f"{resolution}; set backbone.resolution to the file's own, if it is this model's"
        )
    return False


@torch.no_grad()
def _install(model: VisionTransformer, weights: State) -> None:
    """Copy ``weights`` into the model and let go of them one by one."""
    if any(value.is_meta for value in model.state_dict().values()):
        buffers = {name for name, _ in model.named_buffers()}
        assert buffers <= weights.keys(), "a buffer that no file fills would stay undefined"
        model.to_empty(device="cpu")
    own = model.state_dict()
    assert own.keys() == weights.keys(), "differences are refused before"
    for name in list(weights):
        own[name].copy_(weights.pop(name))


def _by(sides: tuple[int, ...]) -> str:
    return "×".join(str(side) for side in sides)
