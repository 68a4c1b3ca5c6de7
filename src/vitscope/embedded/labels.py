"""What a scene shows: which objects are plain to see, its labels, its facts, and captions of them.

Decided on one coarse picture of the objects alone, so a scene's objects and labels are the same at
every resolution. Captions of different completeness overlap ("a photo of a jetty" is true of many
scenes), so a contrastive loss needs to know which captions are true of which images: a caption
keeps its facts beside its words.
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from vitscope.embedded.layout import SceneLayout, SceneSettings, draw_things
from vitscope.embedded.tracing import measure_objects
from vitscope.embedded.vocabulary import (
    COUNTS,
    LABEL_CLASSES,
    MIN_OBJECTS,
    PLACE_OF,
    SHAPES,
    WHEN,
    YES_NO,
)

REFERENCE_SIDE = 56
"""Pixels across the coarse picture."""

MIN_AREA = 0.011
"""Share of the picture that an object must show, or it is taken out (0.7 of a patch at 64 px)."""

SIDE_GAP = 0.04
"""Least gap between the centroids of the left-most object and the next, in picture widths."""

DEPTH_GAP_M = 0.2
"""Least gap between the depths at which the nearest object and the next begin."""

AREA_GAP = 1.15
"""Least ratio between the visible areas of the largest object and the next."""

MIDDLE_GAP = 0.02
"""Least distance of the nearest object's centroid from the picture's middle."""

_MAX_DRAWS = 60
"""Re-draws; the accepted share is about one half, so running out is a matter of 1e-15."""

_CHANCES = {"place": 0.75, "time": 0.5, "count": 0.25, "pair": 0.5, "one": 0.35}
"""Chance that a partial caption tells each thing; "one" object only where there is no pair."""

ObjectFact = tuple[str, str, str]
"""(texture, colour, shape)."""

ObjectRelation = tuple[str, ObjectFact, ObjectFact]
"""("left of" or "in front of", first, second)."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """Where each object shows, in the order of the layout's things.

    Attributes:
        area: shares of the picture; ``across`` is the mask's centroid, 0 left to 1 right.
        nearest: least depth in metres.
    """

    area: NDArray[np.float64]
    across: NDArray[np.float64]
    nearest: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SceneFacts:
    """Everything that captions can say of one scene; objects from the largest to the least."""

    place: str
    time: str
    count: str
    objects: tuple[ObjectFact, ...]
    relations: frozenset[ObjectRelation]


@dataclass(frozen=True, slots=True)
class Caption:
    """Words, and the facts in them; ``None`` where the caption is silent."""

    text: str
    place: str | None
    time: str | None
    count: str | None
    one: ObjectFact | None
    relation: ObjectRelation | None

    def is_true_of(self, facts: SceneFacts) -> bool:
        """Whether every fact of the caption holds in the scene."""
        return (
            self.place in (None, facts.place)
            and self.time in (None, facts.time)
            and self.count in (None, facts.count)
            and (self.one is None or self.one in facts.objects)
            and (self.relation is None or self.relation in facts.relations)
        )


def settle(
    layout: SceneLayout, rng: np.random.Generator, settings: SceneSettings
) -> tuple[SceneLayout, Sighting]:
    """Take out hidden objects and re-draw the rest until every label has one clear answer."""
    wanted = max(len(layout.things), MIN_OBJECTS)
    for attempt in range(_MAX_DRAWS):
        layout, seen = _without_hidden(layout)
        if len(layout.things) >= MIN_OBJECTS and _is_clear(seen):
            return layout, seen
        if attempt % 4 == 3:
            wanted = max(wanted - 1, MIN_OBJECTS)
        things = draw_things(rng, wanted, layout.yaw, layout.reach, settings.object_scale)
        layout = replace(layout, things=things)
    raise AssertionError("no clear scene in 60 draws")


def _without_hidden(layout: SceneLayout) -> tuple[SceneLayout, Sighting]:
    seen = _sight(layout)
    while len(layout.things) and seen.area.min() < MIN_AREA:
        # one at a time: without the smallest, others may show enough
        smallest = int(seen.area.argmin())
        rest = (*layout.things[:smallest], *layout.things[smallest + 1 :])
        layout = replace(layout, things=rest)
        seen = _sight(layout)
    return layout, seen


def _sight(layout: SceneLayout) -> Sighting:
    area, across, nearest = measure_objects(layout.world(), REFERENCE_SIDE)
    return Sighting(area / REFERENCE_SIDE**2, across / REFERENCE_SIDE, nearest)


def _is_clear(seen: Sighting) -> bool:
    """Whether left-most, nearest and largest each lead by their gap."""
    left, near, large = np.sort(seen.across), np.sort(seen.nearest), np.sort(seen.area)
    middle = abs(float(seen.across[int(seen.nearest.argmin())]) - 0.5)
    return bool(
        left[1] - left[0] >= SIDE_GAP
        and near[1] - near[0] >= DEPTH_GAP_M
        and large[-1] >= AREA_GAP * large[-2]
        and middle >= MIDDLE_GAP
    )


def scene_labels(layout: SceneLayout, seen: Sighting) -> dict[str, str]:
    """Return label -> class of a settled layout, in the order of ``vocabulary.LABEL_CLASSES``.

    Left-most is the object whose mask's centroid is, nearest the one that begins nearest the
    camera, largest the one that covers most pixels; ``has_ball`` is whether any object is a ball.
    """
    things = layout.things
    nearest = int(seen.nearest.argmin())
    leftmost, largest = things[int(seen.across.argmin())], things[int(seen.area.argmax())]
    shapes = {thing.shape for thing in things}
    return {
        "place": PLACE_OF[layout.ground, layout.backdrop],
        "ground": layout.ground,
        "backdrop": layout.backdrop,
        "time": layout.time,
        "count": COUNTS[len(things) - MIN_OBJECTS],
        "leftmost_shape": leftmost.shape,
        "leftmost_colour": leftmost.colour,
        "nearest_shape": things[nearest].shape,
        "nearest_side": "left" if seen.across[nearest] < 0.5 else "right",
        "largest_shape": largest.shape,
        "largest_colour": largest.colour,
        "largest_texture": largest.texture,
        "largest_material": largest.material,
        **{f"has_{shape}": YES_NO[shape in shapes] for shape in SHAPES},
    }


def label_indices(labels: dict[str, str]) -> dict[str, int]:
    """Return label -> index of its class in ``vocabulary.LABEL_CLASSES``."""
    return {name: LABEL_CLASSES[name].index(word) for name, word in labels.items()}


def scene_facts(layout: SceneLayout, seen: Sighting, labels: dict[str, str]) -> SceneFacts:
    """Return what is true of a settled layout."""
    facts = [(thing.texture, thing.colour, thing.shape) for thing in layout.things]
    relations: set[ObjectRelation] = set()
    for i, first in enumerate(facts):
        for j, second in enumerate(facts):
            if seen.across[i] < seen.across[j]:
                relations.add(("left of", first, second))
            if seen.nearest[i] < seen.nearest[j]:
                relations.add(("in front of", first, second))
    objects = tuple(facts[int(i)] for i in np.argsort(-seen.area, kind="stable"))
    place, time, count = labels["place"], labels["time"], labels["count"]
    return SceneFacts(place, time, count, objects, frozenset(relations))


def full_caption(facts: SceneFacts) -> Caption:
    """Tell place, time, count, and how the two largest objects stand."""
    return _caption(facts.place, facts.time, facts.count, _pair(facts, "left of"), None)


def partial_caption(facts: SceneFacts, rng: np.random.Generator) -> Caption:
    """Tell a random part of the facts, at least one."""
    told = {name: bool(rng.random() < chance) for name, chance in _CHANCES.items()}
    wanted = "left of" if rng.random() < 0.6 else "in front of"
    pair = _pair(facts, wanted) if told["pair"] else None
    place = facts.place if told["place"] or pair is None else None
    one = facts.objects[0] if told["one"] and pair is None else None
    time = facts.time if told["time"] else None
    return _caption(place, time, facts.count if told["count"] else None, pair, one)


def _pair(facts: SceneFacts, word: str) -> ObjectRelation | None:
    first, second = facts.objects[:2]
    either: tuple[ObjectRelation, ...] = ((word, first, second), (word, second, first))
    return next((relation for relation in either if relation in facts.relations), None)


def _caption(
    place: str | None,
    time: str | None,
    count: str | None,
    pair: ObjectRelation | None,
    one: ObjectFact | None,
) -> Caption:
    words = f"a photo of a {place or 'place'}"
    if time is not None:
        words += f" {WHEN[time]}"
    if count is not None:
        words += f" with {count} objects"
    if pair is not None:
        words += f", a {' '.join(pair[1])} {pair[0]} a {' '.join(pair[2])}"
    elif one is not None:
        words += f", a {' '.join(one)}"
    return Caption(words, place, time, count, one, pair)
