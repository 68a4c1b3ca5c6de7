"""Token shards read back as a source of training batches."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float16, Float32
from torch import Tensor

from vitscope.axes import Int64
from vitscope.backbones.backbone import Site
from vitscope.draws import generator
from vitscope.errors import ArtifactError, ConfigError
from vitscope.store.atomic import read_json
from vitscope.store.foreign import tables_of
from vitscope.store.tensors import load_tensors
from vitscope.tokens.extract import MANIFEST_SCHEMA
from vitscope.tokens.held_out import NOTHING, HeldOut, Holding, Split, rows_of, split_images


@dataclass(frozen=True)
class ShardSource:
    """Tokens of an extraction, shuffled across images anew in every epoch.

    The tokens are held in memory in fp16: 2·d bytes each, 7.9 GB for four tokens of every ImageNet
    training image at width 768.

    Attributes:
        site: where the tokens were read.
        tokens: fp16 [draws, n, d], the tokens of an image adjacent; epoch e takes draw e modulo
            the draws that are trained on.
        seed: decides the order of every epoch, and what is held out.
        n_images: images that the tokens are of.
        image_ids: of every image, to name the images of a batch; None names them by position.
        holding: what training must not see.

    Raises:
        ConfigError: a draw is to be held out, and there is only one.
    """

    site: Site
    tokens: Float16[Tensor, "draws n d"] = field(repr=False)
    seed: int
    n_images: int
    image_ids: Sequence[str] | None = field(default=None, repr=False)
    holding: Holding = NOTHING

    def __post_init__(self) -> None:
        if self.holding.kind == "draw" and self.tokens.shape[0] < 2:
            raise ConfigError(
                'sae.held_out = "draw" needs a draw that training leaves out; set '
                "activations.draws to 2 or more (fewer tokens per image than patches), or hold "
                'out "images"'
            )

    @classmethod
    def open(
        cls,
        folder: Path,
        *,
        seed: int,
        image_ids: Sequence[str] | None = None,
        holding: Holding = NOTHING,
    ) -> "ShardSource":
        """Read every shard that the manifest in ``folder`` names.

        Raises:
            ArtifactError: a shard is missing, damaged, or of another extraction.
            ConfigError: ``holding`` asks for a second draw.
        """
        manifest = read_json(folder / "manifest.json")
        if not isinstance(manifest, dict):
            raise ArtifactError(f"{folder}/manifest.json is no JSON object; extract again")
        if manifest.get("schema") != MANIFEST_SCHEMA:
            raise ArtifactError(
                f"{folder}/manifest.json has schema {manifest.get('schema')}, this vitscope reads "
                f"{MANIFEST_SCHEMA}; extract again"
            )
        if manifest.get("streamed"):
            raise ArtifactError(
                f"{folder} holds no tokens: its study streams them (activations.cache = false)"
            )
        with tables_of(folder.parent):
            site, n_images = Site(**manifest["site"]), int(manifest["n_images"])
            tokens = _read_shards(folder, manifest)
        if n_images < 1 or tokens.shape[1] % n_images:
            raise ArtifactError(
                f"{folder} holds {tokens.shape[1]} tokens a draw, which cannot be of {n_images} "
                "images; extract again"
            )
        return cls(
            site=site,
            tokens=tokens,
            seed=seed,
            n_images=n_images,
            image_ids=image_ids,
            holding=holding,
        )

    @property
    def tokens_per_image(self) -> int:
        """Tokens of an image in one draw."""
        return int(self.tokens.shape[1]) // max(1, self.n_images)

    @cached_property
    def split(self) -> Split:
        """Which images are trained on, and which are held out."""
        return split_images(self.n_images, self.tokens_per_image, self.holding, seed=self.seed)

    @cached_property
    def _trained(self) -> Int64[Tensor, "n"]:
        return rows_of(self.split.trained, self.tokens_per_image)

    @property
    def _n_draws(self) -> int:
        return self.tokens.shape[0] - (self.holding.kind == "draw")

    @property
    def n_tokens(self) -> int:
        """Tokens of one epoch."""
        return self._trained.numel()

    @property
    def width(self) -> int:
        """d."""
        return int(self.tokens.shape[2])

    def epoch_batches(
        self, epoch: int, batch_size: int, skip: int = 0
    ) -> Iterator[Float32[Tensor, "b d"]]:
        """Yield an epoch's whole batches, in an order that depends on (seed, epoch) alone."""
        drawn, rows = self.tokens[epoch % self._n_draws], self._order(epoch)
        for batch in range(skip, self.n_tokens // batch_size):
            yield drawn[rows[batch * batch_size : (batch + 1) * batch_size]].float()

    def images_of(self, epoch: int, batch_size: int, batch: int) -> list[str]:
        """Return the image of every row of a batch."""
        rows = self._order(epoch)[batch * batch_size : (batch + 1) * batch_size]
        images: list[int] = torch.div(rows, self.tokens_per_image, rounding_mode="floor").tolist()
        ids = self.image_ids
        return [
            f"image {place} of the extraction" if ids is None else ids[place] for place in images
        ]

    def sample(self, n: int) -> Float32[Tensor, "n d"]:
        """Return ``n`` tokens of training at random, the same for the same ``n``."""
        order = torch.from_numpy(generator(self.seed, "sample").permutation(self.n_tokens))
        return self.tokens[0][self._trained[order[:n]]].float()

    def held_out(self, n: int) -> HeldOut:
        """Return up to ``n`` tokens that training does not see, in random order."""
        kind = self.holding.kind
        if kind == "images" and self.split.held_out.size:
            rows, drawn = rows_of(self.split.held_out, self.tokens_per_image), self.tokens[0]
        else:
            kind = "draw" if kind == "draw" else "none"
            rows, drawn = self._trained, self.tokens[-1]
        order = torch.from_numpy(generator(self.seed, "held-out tokens").permutation(len(rows)))
        rows = rows[order[:n]]
        images = torch.div(rows, self.tokens_per_image, rounding_mode="floor")
        return HeldOut(drawn[rows].float(), images, kind)

    def _order(self, epoch: int) -> Int64[Tensor, "n"]:
        order = generator(self.seed, "order", epoch).permutation(self.n_tokens)
        return self._trained[torch.from_numpy(order)]


def _read_shards(folder: Path, manifest: dict[str, Any]) -> Float16[Tensor, "draws n d"]:
    shards: list[Tensor] = []
    for shard in manifest["shards"]:
        if Path(shard["file"]).name != shard["file"]:
            raise ArtifactError(f"{folder} names a shard {shard['file']!r}, no file beside it")
        tensors, metadata = load_tensors(folder / shard["file"])
        if metadata.get("fingerprint") != manifest["fingerprint"]:
            raise ArtifactError(f"{folder / shard['file']} is of another extraction; run again")
        per_draw = tensors["tokens"].transpose(0, 1)
        if per_draw.ndim != 4 or per_draw.dtype != torch.float16:
            raise ArtifactError(f"{folder / shard['file']} holds no tokens; run again")
        shards.append(per_draw.reshape(per_draw.shape[0], -1, per_draw.shape[-1]))
    return torch.cat(shards, 1)
