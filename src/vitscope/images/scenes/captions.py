"""Captions: facts about a scene in words, and whether the facts of one hold in another.

Captions of different completeness overlap ("a photo of a jetty" is true of many scenes), so a
contrastive loss needs to know which captions are true of which images. A caption therefore keeps
its facts beside its words.
"""

from dataclasses import dataclass

import numpy as np

from vitscope.images.scenes.layout import Layout
from vitscope.images.scenes.visible import Sighting
from vitscope.images.scenes.vocabulary import COUNTS, MIN_OBJECTS, PLACE_OF

WHEN = {
    "morning": "in the morning",
    "noon": "at noon",
    "evening": "in the evening",
    "night": "at night",
}

ObjectFact = tuple[str, str, str]
"""(texture, colour, shape)."""

Relation = tuple[str, ObjectFact, ObjectFact]
"""("left of" or "in front of", first, second)."""

_TOLD = {"place": 0.75, "time": 0.5, "count": 0.25, "pair": 0.5, "one": 0.35}
"""Chance that a partial caption tells each thing; "one" object only where there is no pair."""


@dataclass(frozen=True, slots=True)
class SceneFacts:
    """Everything that captions can say of one scene."""

    place: str
    time: str
    count: str
    objects: frozenset[ObjectFact]
    relations: frozenset[Relation]
    ordered: tuple[ObjectFact, ...]


@dataclass(frozen=True, slots=True)
class Caption:
    """Words, and the facts in them; ``None`` where the caption is silent."""

    text: str
    place: str | None
    time: str | None
    count: str | None
    one: ObjectFact | None
    relation: Relation | None

    def is_true_of(self, facts: SceneFacts) -> bool:
        """Whether every fact of the caption holds in the scene."""
        return (
            self.place in (None, facts.place)
            and self.time in (None, facts.time)
            and self.count in (None, facts.count)
            and (self.one is None or self.one in facts.objects)
            and (self.relation is None or self.relation in facts.relations)
        )


def state_facts(layout: Layout, seen: Sighting) -> SceneFacts:
    """List what is true of a settled layout; objects are ordered from the largest to the least."""
    facts = [(thing.texture, thing.colour, thing.shape) for thing in layout.things]
    relations: set[Relation] = set()
    for i, first in enumerate(facts):
        for j, second in enumerate(facts):
            if seen.across[i] < seen.across[j]:
                relations.add(("left of", first, second))
            if seen.nearest[i] < seen.nearest[j]:
                relations.add(("in front of", first, second))
    return SceneFacts(
        place=PLACE_OF[layout.ground, layout.backdrop],
        time=layout.time,
        count=COUNTS[len(facts) - MIN_OBJECTS],
        objects=frozenset(facts),
        relations=frozenset(relations),
        ordered=tuple(facts[int(i)] for i in np.argsort(-seen.area, kind="stable")),
    )


def full_caption(facts: SceneFacts) -> Caption:
    """Tell place, time, count, and how the two largest objects stand."""
    return _compose(facts.place, facts.time, facts.count, _pair(facts, "left of"), None)


def partial_caption(facts: SceneFacts, rng: np.random.Generator) -> Caption:
    """Tell a random part of the facts, at least one."""
    told = {name: bool(rng.random() < chance) for name, chance in _TOLD.items()}
    wanted = "left of" if rng.random() < 0.6 else "in front of"
    pair = _pair(facts, wanted) if told["pair"] else None
    place = facts.place if told["place"] or pair is None else None
    one = facts.ordered[0] if told["one"] and pair is None else None
    time = facts.time if told["time"] else None
    return _compose(place, time, facts.count if told["count"] else None, pair, one)


def _pair(facts: SceneFacts, word: str) -> Relation | None:
    first, second = facts.ordered[:2]
    if (word, first, second) in facts.relations:
        return (word, first, second)
    if (word, second, first) in facts.relations:
        return (word, second, first)
    return None


def _compose(
    place: str | None,
    time: str | None,
    count: str | None,
    pair: Relation | None,
    one: ObjectFact | None,
) -> Caption:
    words = ["a photo of a", place or "place"]
    if time is not None:
        words.append(WHEN[time])
    if count is not None:
        words.append(f"with {count} objects")
    if pair is not None:
        words.append(f": a {' '.join(pair[1])} {pair[0]} a {' '.join(pair[2])}")
    elif one is not None:
        words.append(f": a {' '.join(one)}")
    return Caption(" ".join(words).replace(" :", ","), place, time, count, one, pair)
