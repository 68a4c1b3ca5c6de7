"""Checkpoints of a training: whole or absent, and used only by the same training.

θ is fitted after the last step and from the weights alone; a checkpoint holds the running θ that
training is watched under.
"""

import json
from dataclasses import asdict, fields
from pathlib import Path

import torch

from vitscope.errors import ArtifactError
from vitscope.sae.normalisation import Normalisation
from vitscope.sae.parameters import Parameters
from vitscope.sae.state import StepFigures, TrainingState, new_state
from vitscope.sae.watch import Watch
from vitscope.store.tensors import load_tensors, save_tensors

CHECKPOINT_SCHEMA = 4
"""Bumped when the content of a checkpoint, or what a step does with it, changes."""


def save_checkpoint(
    path: Path, state: TrainingState, normalisation: Normalisation, fingerprint: str
) -> None:
    """Write everything that the next step depends on to ``path``, atomically."""
    tensors = {
        **state.parameters.named(),
        **state.optimiser.state_tensors(),
        "silent_tokens": state.silent_tokens,
        "mean": normalisation.mean,
        "scale": torch.tensor(normalisation.scale, dtype=torch.float64),
    }
    metadata = {
        "schema": str(CHECKPOINT_SCHEMA),
        "fingerprint": fingerprint,
        "step": str(state.step),
        "watch": json.dumps(asdict(state.watch)),
        "figures": json.dumps(None if state.figures is None else asdict(state.figures)),
    }
    save_tensors(path, tensors, metadata)


def load_checkpoint(
    path: Path, fingerprint: str, device: torch.device | str
) -> tuple[TrainingState, Normalisation] | None:
    """Return the state saved at ``path``.

    None where there is no checkpoint, where it is damaged, or where it belongs to another
    training: the training then starts anew.
    """
    try:
        tensors, metadata = load_tensors(path)
    except ArtifactError:
        return None
    wanted = (str(CHECKPOINT_SCHEMA), fingerprint)
    if (metadata.get("schema"), metadata.get("fingerprint")) != wanted:
        return None
    # cloned, because tensors mapped from a file may be unaligned, and alignment decides the order
    # in which vector instructions add: the last bit of every later step
    tensors = {name: tensor.clone().to(device) for name, tensor in tensors.items()}
    names = {field.name for field in fields(Parameters)} & tensors.keys()
    state = new_state(Parameters(**{name: tensors[name] for name in names}))
    state.step = int(metadata["step"])
    state.optimiser.load_state_tensors(tensors, state.step)
    state.silent_tokens = tensors["silent_tokens"]
    state.watch = Watch(**json.loads(metadata["watch"]))
    figures = json.loads(metadata["figures"])
    state.figures = None if figures is None else StepFigures(**figures)
    return state, Normalisation(tensors["mean"], float(tensors["scale"]))
