"""The words of the set: what a place, a time, a surface and an object can be."""

from itertools import product

GROUNDS = ("planks", "tiles", "grass", "sand")
BACKDROPS = ("room", "court", "mountains", "skyline")
"""What lies underfoot and what closes the view; a place is one of each."""

PLACE_OF: dict[tuple[str, str], str] = dict(
    zip(
        product(GROUNDS, BACKDROPS),
        (
            *("cabin", "porch", "jetty", "rooftop"),
            *("kitchen", "courtyard", "terrace", "plaza"),
            *("greenhouse", "garden", "meadow", "park"),
            *("stable", "arena", "desert", "quarry"),
        ),
        strict=True,
    )
)
"""(ground, backdrop) -> place: either factor alone leaves four places open."""

PLACES = tuple(PLACE_OF.values())
WHEN = {
    "morning": "in the morning",
    "noon": "at noon",
    "evening": "in the evening",
    "night": "at night",
}
"""Low sun from the left, high sun, low sun from the right, dim light; as captions tell them."""

TIMES = tuple(WHEN)

SHAPES = ("ball", "box", "barrel", "cone", "table", "lamp")
COLOURS = ("red", "yellow", "green", "blue", "white", "black")
TEXTURES = ("plain", "striped", "spotted")
MATERIALS = ("matte", "shiny")
COUNTS = ("two", "three", "four", "five", "six", "seven", "eight")
YES_NO = ("no", "yes")

MIN_OBJECTS = 2
MAX_OBJECTS = MIN_OBJECTS + len(COUNTS) - 1

SURFACES = (*GROUNDS, "sky", "wall", "ceiling", "door", "window", "mountain", "building")
MASK_CLASSES = ("ignore", *SURFACES, *SHAPES)
"""Name of each value of a semantic mask; 0 is never rendered, it is ADE20K's "ignore"."""

SKY, WALL, CEILING, DOOR, WINDOW, MOUNTAIN, BUILDING = range(5, 12)
FIRST_SHAPE = MASK_CLASSES.index(SHAPES[0])
"""Mask values as the renderer uses them; grounds are 1 to 4, shapes follow the surfaces."""

LABEL_CLASSES: dict[str, tuple[str, ...]] = {
    "place": PLACES,
    "ground": GROUNDS,
    "backdrop": BACKDROPS,
    "time": TIMES,
    "count": COUNTS,
    "leftmost_shape": SHAPES,
    "leftmost_colour": COLOURS,
    "nearest_shape": SHAPES,
    "nearest_side": ("left", "right"),
    "largest_shape": SHAPES,
    "largest_colour": COLOURS,
    "largest_texture": TEXTURES,
    "largest_material": MATERIALS,
    **{f"has_{shape}": YES_NO for shape in SHAPES},
}
"""Label -> its classes, in the order of the class indices."""

LOCAL_LABELS = (
    *("ground", "backdrop"),
    *("largest_shape", "largest_colour", "largest_texture", "largest_material"),
    *(f"has_{shape}" for shape in SHAPES),
)
"""Labels that a patch or two can give away; the others relate parts of the picture."""
