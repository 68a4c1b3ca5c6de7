"""The reference networks and their recipes: what `--size` chooses, and the words of captions."""

from dataclasses import dataclass
from functools import cache

from torch import Tensor

from vitscope.backbones.scenes_text import SPECIAL, WORD, CaptionTowerShape
from vitscope.embedded.vocabulary import COLOURS, COUNTS, PLACES, SHAPES, TEXTURES, WHEN


@dataclass(frozen=True, slots=True)
class Size:
    """One network and how it is trained.

    Attributes:
        side: pixels across an image; a patch has 8, so the grid is ``side / 8``.
        width, depth, heads: of the vision transformer.
        batch: scenes a step.
        images: scenes in all; every one is seen once.
    """

    side: int
    width: int
    depth: int
    heads: int
    batch: int
    images: int


SIZES = {
    "test": Size(side=32, width=32, depth=2, heads=2, batch=8, images=64),
    "t": Size(side=80, width=64, depth=4, heads=2, batch=32, images=160_000),
    "xs": Size(side=80, width=96, depth=6, heads=3, batch=32, images=160_000),
    "s": Size(side=80, width=128, depth=8, heads=4, batch=32, images=240_000),
    "m": Size(side=112, width=192, depth=12, heads=6, batch=256, images=3_000_000),
    "l": Size(side=112, width=256, depth=12, heads=8, batch=256, images=4_000_000),
}
"""``t``, ``xs`` and ``s`` are for one CPU core, ``m`` and ``l`` want a GPU."""

PATCH = 8
EMBEDDING = 128
"""Width of the space that images and captions share."""

TEXT_WIDTH, TEXT_DEPTH, TEXT_HEADS = 128, 2, 4
MAX_TOKENS = 32

LEARNING_RATE = 1e-3
WEIGHT_DECAY = 0.1
WARMUP_STEPS = 150
FINAL_RATE = 0.01
"""Share of the learning rate that the cosine ends at."""

MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
"""Of the input's normalisation, after bytes are divided by 255."""

_FRAME = "a photo of a place with objects , left of in front of"


@cache
def text_shape() -> CaptionTowerShape:
    """Return the text tower's sizes; its vocabulary is exactly the words that captions use."""
    words = {*PLACES, *COUNTS, *TEXTURES, *COLOURS, *SHAPES, *WORD.findall(_FRAME)}
    for phrase in WHEN.values():
        words.update(phrase.split())
    vocabulary = (*SPECIAL, *sorted(words))
    return CaptionTowerShape(TEXT_WIDTH, TEXT_DEPTH, TEXT_HEADS, MAX_TOKENS, EMBEDDING, vocabulary)


def tokenize(captions: list[str]) -> Tensor:
    """Return token numbers [N, longest] of captions."""
    return text_shape().tokenize(captions)
