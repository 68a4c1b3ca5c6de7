"""The text tower's vocabulary: exactly the words that scene captions use."""

from functools import cache

from sizes import EMBEDDING, MAX_TOKENS, TEXT_DEPTH, TEXT_HEADS, TEXT_WIDTH
from torch import Tensor

from vitscope.backbones.reference.text_tower import SPECIAL, WORD, TextShape
from vitscope.embedded.vocabulary import COLOURS, COUNTS, PLACES, SHAPES, TEXTURES, WHEN

_FRAME = "a photo of a place with objects , left of in front of"


@cache
def text_shape() -> TextShape:
    """Return the sizes of the text tower, its vocabulary included."""
    words = {*PLACES, *COUNTS, *TEXTURES, *COLOURS, *SHAPES, *WORD.findall(_FRAME)}
    for phrase in WHEN.values():
        words.update(phrase.split())
    vocabulary = (*SPECIAL, *sorted(words))
    return TextShape(TEXT_WIDTH, TEXT_DEPTH, TEXT_HEADS, MAX_TOKENS, EMBEDDING, vocabulary)


def tokenize(captions: list[str]) -> Tensor:
    """Return token numbers [N, longest] of captions."""
    return text_shape().tokenize(captions)
