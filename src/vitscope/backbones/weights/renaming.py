"""What a layout is: how a published checkpoint names the parts of its image tower."""

import re
from dataclasses import dataclass

from torch import Tensor

from vitscope.errors import BackboneError

State = dict[str, Tensor]
Rules = list[tuple[re.Pattern[str], str]]

MAX_NAMED_KEYS = 4


@dataclass(frozen=True)
class Layout:
    """One way of naming the weights of a vision transformer.

    Attributes:
        name: for people, and for :class:`LoadedWeights`.
        marks: pattern of names by which a file is known to be of this layout, even with parts
            missing; its group ``tower`` is what stands before all names of the image tower.
        renames: (pattern, replacement), first match wins: names below the tower to timm's, or to
            the parts that :mod:`vitscope.backbones.weights.assembly` puts together.
        beside: the same for names outside the tower: the classifier or projection.
        passengers: pattern of whole names that may ride along and are left: text tower,
            temperature, mask token, training heads.
    """

    name: str
    marks: str
    renames: tuple[tuple[str, str], ...]
    passengers: str
    beside: tuple[tuple[str, str], ...] = ()
    cls_has_position: bool = False

    def tower_in(self, state: State) -> str | None:
        """Return the prefix of the image tower, None where the file is not of this layout."""
        marks = re.compile(self.marks)
        for name in state:
            if found := marks.fullmatch(name):
                return found["tower"]
        return None

    def renamed(self, state: State) -> State:
        """Return the image tower under new names; ``state`` is emptied, so nothing is held twice.

        Raises:
            BackboneError: a name that this layout does not have, or has twice.
        """
        tower = self.tower_in(state)
        assert tower is not None, "not a file of this layout"
        passengers, rules = re.compile(self.passengers), self._rules(tower)
        out: State = {}
        strangers: list[str] = []
        for name in list(state):
            value = state.pop(name)
            if passengers.fullmatch(name):
                continue
            new = _new_name(name, rules)
            if new is None or new in out:
                strangers.append(name)
            else:
                out[new] = value
        if strangers:
            raise BackboneError(f"unexpected: {some_of(strangers)}")
        return out

    def _rules(self, tower: str) -> Rules:
        inside = [(re.compile(re.escape(tower) + pattern), new) for pattern, new in self.renames]
        return [*inside, *((re.compile(pattern), new) for pattern, new in self.beside)]


def _new_name(name: str, rules: Rules) -> str | None:
    for pattern, replacement in rules:
        if found := pattern.fullmatch(name):
            return found.expand(replacement)
    return None


def some_of(names: list[str] | set[str]) -> str:
    """List the first few names, and how many more there are."""
    shown = ", ".join(sorted(names)[:MAX_NAMED_KEYS])
    n_more = len(names) - MAX_NAMED_KEYS
    return f"{shown} and {n_more} more" if n_more > 0 else shown
