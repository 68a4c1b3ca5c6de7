"""Weights into a model, strictly: what does not fit is refused, and nothing stays random."""

from dataclasses import dataclass
from pathlib import Path

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from vitscope.backbones.positions import PositionMethod
from vitscope.backbones.weights.fitting import (
    place_positions,
    refuse_another_architecture,
    refuse_other_names,
    refuse_other_shapes,
    refuse_what_is_no_number,
)
from vitscope.backbones.weights.layouts import layout_of, to_timm
from vitscope.backbones.weights.reading import read_state
from vitscope.backbones.weights.renaming import State
from vitscope.errors import BackboneError

HEAD = ("head.weight", "head.bias")
"""The classifier, or CLIP's projection: the one part that a file may lack."""

POOLING = "attn_pool."


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
    native_grid: tuple[int, int] | None = None,
    positions: PositionMethod = "timm",
) -> LoadedWeights:
    """Load a file or folder of any known format and layout; see :func:`load_state`.

    Raises:
        BackboneError: unreadable, or not exactly this model's weights; ``model`` is as before.
    """
    state = read_state(path)
    return _load(model, state, name, str(path), native_grid, positions)


def load_state(
    model: VisionTransformer,
    state: State,
    *,
    name: str,
    source: str,
    native_grid: tuple[int, int] | None = None,
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
    wide = {
        key: value.float() if value.is_floating_point() else value for key, value in state.items()
    }
    return _load(model, wide, name, source, native_grid, positions)


def _load(
    model: VisionTransformer,
    state: State,
    name: str,
    source: str,
    native_grid: tuple[int, int] | None,
    positions: PositionMethod,
) -> LoadedWeights:
    try:
        layout = layout_of(state)
        fitted = to_timm(state)
        refuse_another_architecture(model, fitted, name)
        head = _take_head(model, fitted)
        refuse_other_names(model, fitted, set(HEAD))
        refuse_what_is_no_number({**fitted, **head})
        resampled = place_positions(model, fitted, name, native_grid, positions)
        refuse_other_shapes(model, fitted)
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
