"""The text tower of the reference backbones: captions in, unit rows out."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float32, Int64
from torch import Tensor, nn
from torch.nn import functional

PAD, UNKNOWN = 0, 1
SPECIAL = ("<pad>", "<unknown>")
"""The first tokens of every vocabulary, in the order of their numbers."""

WORD = re.compile(r"[a-z]+|,")
"""What counts as one token of a caption, after lower-casing."""

FIRST_STD = 0.02


@dataclass(frozen=True)
class CaptionTowerShape:
    """Sizes of a text tower.

    Attributes:
        width, depth, heads: of its blocks.
        max_tokens: longer captions are cut.
        embedding: width of the space shared with images.
        vocabulary: every token, in the order of its number; padding and unknown come first.
    """

    width: int
    depth: int
    heads: int
    max_tokens: int
    embedding: int
    vocabulary: tuple[str, ...]

    def tokenize(self, captions: Sequence[str]) -> Int64[Tensor, "N n_tokens"]:
        """Return token numbers, padded on the right to the longest caption."""
        number = {word: i for i, word in enumerate(self.vocabulary)}
        rows = [[number.get(w, UNKNOWN) for w in WORD.findall(c.lower())] for c in captions]
        rows = [row[: self.max_tokens] or [UNKNOWN] for row in rows]  # "" still has a mean
        longest = max(map(len, rows), default=0)
        padded = [row + [PAD] * (longest - len(row)) for row in rows]
        return torch.tensor(padded, dtype=torch.int64).reshape(len(rows), longest)


class CaptionTower(nn.Module):
    """Word embeddings, pre-norm blocks that see the whole caption, mean over its words."""

    def __init__(self, shape: CaptionTowerShape) -> None:
        super().__init__()
        self.words = nn.Embedding(len(shape.vocabulary), shape.width)
        self.positions = nn.Parameter(FIRST_STD * torch.randn(shape.max_tokens, shape.width))
        block = nn.TransformerEncoderLayer(
            shape.width,
            shape.heads,
            4 * shape.width,
            dropout=0.0,
            activation="gelu",
            batch_first=True,
            norm_first=True,
        )
        self.blocks = nn.TransformerEncoder(block, shape.depth, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(shape.width)
        self.projection = nn.Linear(shape.width, shape.embedding, bias=False)
        nn.init.normal_(self.words.weight, std=FIRST_STD)

    def forward(self, tokens: Int64[Tensor, "N n_tokens"]) -> Float32[Tensor, "N e"]:
        """Return unit rows of token numbers."""
        padding = tokens == PAD
        hidden = self.words(tokens) + self.positions[: tokens.shape[1]]
        hidden = self.norm(self.blocks(hidden, src_key_padding_mask=padding))
        told = (~padding).unsqueeze(-1).to(hidden.dtype)
        mean = (hidden * told).sum(1) / told.sum(1)
        return functional.normalize(self.projection(mean), dim=-1)
