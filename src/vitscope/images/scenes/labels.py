"""The labels of a scene: what a patch shows, and what only the whole picture tells."""

from dataclasses import dataclass, fields

import numpy as np

from vitscope.images.scenes.layout import Layout
from vitscope.images.scenes.things import Thing
from vitscope.images.scenes.visible import Sighting
from vitscope.images.scenes.vocabulary import (
    COUNTS,
    LABEL_CLASSES,
    MIN_OBJECTS,
    PLACE_OF,
    SHAPES,
    YES_NO,
)


@dataclass(frozen=True, slots=True)
class SceneLabels:
    """One word a label, of the classes in `vocabulary.LABEL_CLASSES`.

    Attributes:
        place: ground and backdrop together; ``time`` is in the light and the shadows.
        count: number of visible objects, in words.
        leftmost_shape, leftmost_colour: of the object whose mask's centroid is left-most.
        nearest_shape: of the object that begins nearest the camera; ``nearest_side`` is its side.
        largest_shape, …: of the object that covers most pixels.
        has_ball, …: whether any object has that shape.
    """

    place: str
    ground: str
    backdrop: str
    time: str
    count: str
    leftmost_shape: str
    leftmost_colour: str
    nearest_shape: str
    nearest_side: str
    largest_shape: str
    largest_colour: str
    largest_texture: str
    largest_material: str
    has_ball: str
    has_box: str
    has_barrel: str
    has_cone: str
    has_table: str
    has_lamp: str

    def indices(self) -> dict[str, int]:
        """Return the class index of every label."""
        return {name: LABEL_CLASSES[name].index(getattr(self, name)) for name in LABEL_CLASSES}


def label(layout: Layout, seen: Sighting) -> SceneLabels:
    """Read the labels off a settled layout."""
    things = layout.things
    leftmost, nearest = _at(things, seen.across.argmin()), _at(things, seen.nearest.argmin())
    largest = _at(things, seen.area.argmax())
    shapes = {thing.shape for thing in things}
    return SceneLabels(
        place=PLACE_OF[layout.ground, layout.backdrop],
        ground=layout.ground,
        backdrop=layout.backdrop,
        time=layout.time,
        count=COUNTS[len(things) - MIN_OBJECTS],
        leftmost_shape=leftmost.shape,
        leftmost_colour=leftmost.colour,
        nearest_shape=nearest.shape,
        nearest_side="left" if seen.across[int(seen.nearest.argmin())] < 0.5 else "right",
        largest_shape=largest.shape,
        largest_colour=largest.colour,
        largest_texture=largest.texture,
        largest_material=largest.material,
        **{f"has_{shape}": YES_NO[shape in shapes] for shape in SHAPES},
    )


def _at(things: tuple[Thing, ...], index: np.intp) -> Thing:
    return things[int(index)]


assert [field.name for field in fields(SceneLabels)] == list(LABEL_CLASSES)
