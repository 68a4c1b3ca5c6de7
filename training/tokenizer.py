"""Words to numbers: one token a word, over exactly the words that scene captions use."""

import re
from functools import cache

import torch
from sizes import MAX_TOKENS
from torch import Tensor

from vitscope.images.scenes.captions import WHEN
from vitscope.images.scenes.vocabulary import COLOURS, COUNTS, PLACES, SHAPES, TEXTURES

PAD, UNKNOWN = 0, 1
_WORD = re.compile(r"[a-z]+|,")
_FRAME = "a photo of a place with objects , left of in front of"


@cache
def vocabulary() -> tuple[str, ...]:
    """Return every token in the order of its number."""
    words = {*PLACES, *COUNTS, *TEXTURES, *COLOURS, *SHAPES, *_WORD.findall(_FRAME)}
    for phrase in WHEN.values():
        words.update(phrase.split())
    return ("<pad>", "<unknown>", *sorted(words))


def tokenize(captions: list[str]) -> Tensor:
    """Return token numbers [N, longest], padded with 0 on the right."""
    number = {word: i for i, word in enumerate(vocabulary())}
    rows = [[number.get(w, UNKNOWN) for w in _WORD.findall(c.lower())] for c in captions]
    rows = [row[:MAX_TOKENS] for row in rows]
    longest = max(len(row) for row in rows)
    return torch.tensor([row + [PAD] * (longest - len(row)) for row in rows])
