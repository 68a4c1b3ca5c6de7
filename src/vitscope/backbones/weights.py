"""Local checkpoints into timm models, strictly: a wrong file is refused, never silently random."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.models.vision_transformer import VisionTransformer, checkpoint_filter_fn
from torch import Tensor

from vitscope.errors import BackboneError

HEAD_PREFIX = "head."
"""Classifier weights are not part of what is analysed; a file may carry them or not."""

LAYOUTS = ("", "visual.trunk.", "module.visual.trunk.")
OPENAI_LAYOUTS = ("visual.", "module.visual.")
"""Prefixes under which checkpoints keep the image tower, in timm's names and in OpenAI's."""

MAX_NAMED_KEYS = 4


def load_weights(model: VisionTransformer, path: Path, *, name: str) -> None:
    """Load ``path`` into ``model``: a timm or OpenAI state dict, safetensors or PyTorch.

    Raises:
        BackboneError: the file is missing, unreadable, or not exactly this model's.
    """
    state = _read_state(path)
    # the converter resizes position and patch embeddings: another model's file would pass
    _refuse_other_grid(model, state, path, name)
    try:
        converted = checkpoint_filter_fn(state, model, adapt_layer_scale=True)
    except (KeyError, RuntimeError, AssertionError, ValueError) as error:
        raise BackboneError(f"{path} does not hold weights of {name}: {error}") from None
    own = model.state_dict()
    kept = {key: value for key, value in converted.items() if not key.startswith(HEAD_PREFIX)}
    wanted = {key for key in own if not key.startswith(HEAD_PREFIX)}
    shapes = [k for k in wanted & kept.keys() if own[k].shape != kept[k].shape]
    problems = [
        *_list("missing", wanted - kept.keys()),
        *_list("unexpected", kept.keys() - wanted),
        *_list("of another shape", set(shapes)),
    ]
    if problems:
        raise BackboneError(f"{path} does not hold weights of {name}: " + "; ".join(problems))
    if not all(bool(value.isfinite().all()) for value in kept.values()):
        raise BackboneError(f"{path} holds NaN or infinite weights")
    head = {key: value for key, value in own.items() if key.startswith(HEAD_PREFIX)}
    model.load_state_dict({**kept, **head}, strict=True)


def _read_state(path: Path) -> dict[str, Tensor]:
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise BackboneError(f"{path} {problem}; give the path of a checkpoint file")
    try:
        if path.suffix == ".safetensors":
            return {key: value.float() for key, value in load_file(path).items()}
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, OSError, RuntimeError, ValueError, EOFError) as error:
        raise BackboneError(f"{path} cannot be read as weights: {_first_line(error)}") from None
    except Exception as error:  # weights_only refuses with pickle.UnpicklingError and others
        raise BackboneError(
            f"{path} is not a plain state dict and was not opened: {_first_line(error)}"
        ) from None
    state = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else loaded
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise BackboneError(f"{path} is not a state dict of tensors")
    return {str(key): value.float() for key, value in state.items()}


def _refuse_other_grid(
    model: VisionTransformer, state: dict[str, Tensor], path: Path, name: str
) -> None:
    # a bare `positional_embedding` is the text tower's
    positions = [f"{prefix}pos_embed" for prefix in LAYOUTS]
    positions += [f"{prefix}positional_embedding" for prefix in OPENAI_LAYOUTS]
    for key in positions:
        if key in state and model.pos_embed is not None:
            found, wanted = state[key].shape[-2], model.pos_embed.shape[-2]
            if found != wanted:
                raise BackboneError(
                    f"{path} has {found} position embeddings, {name} at this resolution {wanted}; "
                    "set backbone.resolution to the file's own"
                )
    projections = [f"{prefix}patch_embed.proj.weight" for prefix in LAYOUTS]
    projections += [f"{prefix}conv1.weight" for prefix in OPENAI_LAYOUTS]
    for key in projections:
        own = model.patch_embed.proj.weight
        if key in state and state[key].ndim == 4 and state[key].shape[-1] != own.shape[-1]:
            raise BackboneError(
                f"{path} has patches of {state[key].shape[-1]} pixels, {name} of {own.shape[-1]}; "
                "it is another model's file"
            )


def _list(what: str, keys: set[str]) -> list[str]:
    if not keys:
        return []
    shown = ", ".join(sorted(keys)[:MAX_NAMED_KEYS])
    more = f" and {len(keys) - MAX_NAMED_KEYS} more" if len(keys) > MAX_NAMED_KEYS else ""
    return [f"{what}: {shown}{more}"]


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:160]
