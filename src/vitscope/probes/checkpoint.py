"""Unfinished training on disk: a killed process goes on from its last saved epoch."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from torch import Tensor

from vitscope.errors import ArtifactError
from vitscope.store.tensors import load_tensors, save_tensors

SAVE_EVERY_S = 60.0
"""Seconds between two saves: what a kill may cost, beside the epoch it was in."""


@dataclass
class Checkpoint:
    """Where the state of a training is kept between epochs.

    Attributes:
        path: of the file; removed by :meth:`discard` once the training is done.
        fingerprint: of everything that decides the training; the state of another is ignored.
    """

    path: Path
    fingerprint: str
    _saved: float = field(default_factory=time.monotonic)

    def load(self, state: dict[str, Tensor]) -> int:
        """Fill the tensors of ``state`` in place; return the epochs done, 0 where none stands."""
        try:
            found, facts = load_tensors(self.path)
        except ArtifactError:
            return 0  # missing or damaged: trained anew
        if facts.get("fingerprint") != self.fingerprint or set(found) != set(state):
            return 0
        for name, tensor in state.items():
            tensor.copy_(found[name])
        return int(facts["epochs"])

    def save(self, state: dict[str, Tensor], epochs: int) -> None:
        """Keep ``state`` after so many epochs, unless the last save is recent."""
        if time.monotonic() - self._saved < SAVE_EVERY_S:
            return
        facts = {"fingerprint": self.fingerprint, "epochs": str(epochs)}
        save_tensors(self.path, state, facts)
        self._saved = time.monotonic()

    def discard(self) -> None:
        """Remove the file."""
        self.path.unlink(missing_ok=True)
