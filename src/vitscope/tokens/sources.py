"""Where training gets tokens: shards of an extraction, or the backbone as they are needed."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16, Float32
from numpy.typing import NDArray
from torch import Tensor

from vitscope.axes import Int64
from vitscope.backbones.backbone import Backbone, Site
from vitscope.distributed import ALONE, Ranks, part_of
from vitscope.draws import generator
from vitscope.errors import ArtifactError, ConfigError
from vitscope.images.sources import ImageRef
from vitscope.store.atomic import read_json
from vitscope.store.tables import tables_of
from vitscope.store.tensors import load_tensors
from vitscope.tokens.encoding import LoaderOptions, PassClock, encode_images, plain_preparation
from vitscope.tokens.extraction import MANIFEST_SCHEMA, drawn_tokens
from vitscope.tokens.sampling import (
    NOTHING,
    ActivationSettings,
    HeldOut,
    Holding,
    Split,
    rows_of,
    split_images,
)

HELD_OUT_EPOCH = -1
"""The draw of held-out tokens: no epoch of training takes it."""


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


@dataclass(frozen=True)
class StreamSource:
    """Draws of every image, encoded as they are needed and shuffled through a window of images.

    The images of an epoch come in an order drawn for (seed, epoch), and are cut into windows; the
    tokens of a window are shuffled among themselves. Both orders, and the tokens of an image, are
    pure functions of (seed, epoch) and (seed, epoch, image id): a training that is resumed encodes
    the images of the window it stopped in, and goes on with the same batches. Where all images fit
    into one window, batches are those that :class:`ShardSource` would give of the same draw.

    Memory: a window of tokens in fp16, 2·d bytes each.

    Attributes:
        backbone: read at its designated block.
        refs: verified images.
        settings: which tokens, and the window; ``draws`` is ignored: every epoch draws anew.
        loader: batch size and decoding threads.
        seed: of the draws and of both orders.
        holding: what training must not see.
        stretch: whether images are stretched to the square rather than cropped.
        ranks: share the images of every window; each gets the tokens of all.
    """

    backbone: Backbone
    refs: Sequence[ImageRef] = field(repr=False)
    settings: ActivationSettings
    loader: LoaderOptions
    seed: int
    holding: Holding = NOTHING
    stretch: bool = False
    ranks: Ranks = ALONE

    @property
    def tokens_per_image(self) -> int:
        """Tokens of an image in an epoch."""
        return self.settings.kept_per_image(self.backbone.site.n_patches)

    @cached_property
    def split(self) -> Split:
        """Which images are trained on, and which are held out."""
        return split_images(len(self.refs), self.tokens_per_image, self.holding, seed=self.seed)

    @property
    def n_tokens(self) -> int:
        """Tokens of one epoch."""
        return self.split.trained.size * self.tokens_per_image

    @property
    def width(self) -> int:
        """d."""
        return self.backbone.site.width

    def epoch_batches(
        self, epoch: int, batch_size: int, skip: int = 0
    ) -> Iterator[Float32[Tensor, "b d"]]:
        """Yield an epoch's whole batches; only the images of the windows needed are encoded."""
        done, rest = skip * batch_size, torch.empty(0, self.width, dtype=torch.float16)
        left = self.n_tokens // batch_size - skip
        for images, order in self._windows(epoch):
            n = images.size * self.tokens_per_image
            if done >= n:
                done -= n
                continue
            if not left:
                return
            rest = torch.cat([rest, self._encode(images, epoch)[order][done:]])
            done = 0
            while left and rest.shape[0] >= batch_size:
                yield rest[:batch_size].float()
                rest, left = rest[batch_size:], left - 1

    def images_of(self, epoch: int, batch_size: int, batch: int) -> list[str]:
        """Return the image of every row of a batch."""
        first, rows = batch * batch_size, list[str]()
        for images, order in self._windows(epoch):
            here = order[max(0, first) : max(0, first + batch_size)].numpy()
            rows += [self.refs[place].id for place in images[here // self.tokens_per_image]]
            first -= order.numel()
        return rows

    def sample(self, n: int) -> Float32[Tensor, "n d"]:
        """Return ``n`` tokens of images at random, the same for the same ``n``.

        As few images as hold so many tokens are encoded.
        """
        chosen = generator(self.seed, "sample").permutation(self.split.trained)
        return self._tokens_of(chosen, n, epoch=0)[0]

    def held_out(self, n: int) -> HeldOut:
        """Return up to ``n`` tokens that training does not see, in random order."""
        kind, images, epoch = self.holding.kind, self.split.held_out, 0
        if kind == "draw" or not images.size:
            kind = "draw" if kind == "draw" else "none"
            epoch = HELD_OUT_EPOCH if kind == "draw" else 0
            images = generator(self.seed, "held-out").permutation(self.split.trained)
        tokens, of_image = self._tokens_of(images, n, epoch=epoch)
        order = generator(self.seed, "held-out tokens").permutation(tokens.shape[0])
        shuffled = torch.from_numpy(order)
        return HeldOut(tokens[shuffled], of_image[shuffled], kind)

    def _tokens_of(
        self, images: NDArray[np.int64], n: int, *, epoch: int
    ) -> tuple[Float32[Tensor, "n d"], Tensor]:
        t = self.tokens_per_image
        some = images[: -(-n // t)]
        of_image = torch.from_numpy(some).repeat_interleave(t)
        return self._encode(some, epoch)[:n].float(), of_image[:n]

    def _windows(self, epoch: int) -> Iterator[tuple[NDArray[np.int64], Tensor]]:
        """Yield the images of every window, and the order of its tokens."""
        images, size = self.split.trained, max(1, self.settings.window_images)
        if images.size > size:
            images = generator(self.seed, "image order", epoch).permutation(images)
        for window, start in enumerate(range(0, images.size, size)):
            some = images[start : start + size]
            # the first window's key is the shards': where there is one alone, their order
            key = ("order", epoch) if window == 0 else ("order", epoch, window)
            order = generator(self.seed, *key).permutation(some.size * self.tokens_per_image)
            yield some, torch.from_numpy(order)

    def _encode(self, images: NDArray[np.int64], epoch: int) -> Tensor:
        """Return the drawn tokens of ``images``, in their order; fp16, as shards keep them."""
        # whole batches a rank: the last bit of a token depends on the batch it is encoded in
        size = self.loader.batch_size
        mine = part_of(-(-len(images) // size), self.ranks.rank, self.ranks.size)
        return self.ranks.all_gather(
            self._encode_here(images[mine.start * size : mine.stop * size], epoch)
        )

    def _encode_here(self, images: NDArray[np.int64], epoch: int) -> Tensor:
        refs = [self.refs[place] for place in images]
        prepare = plain_preparation(self.backbone, stretch=self.stretch)
        batches = encode_images(self.backbone, refs, prepare, self.loader, clock=PassClock())
        parts = [torch.empty(0, self.width, dtype=torch.float16)]
        with closing(batches):
            for batch in batches:
                ids = [refs[index].id for index in batch.indices]
                site, settings = self.backbone.site, self.settings
                drawn, _ = drawn_tokens(batch, ids, site, settings, [epoch], self.seed)
                parts.append(drawn.flatten(0, 2))
        return torch.cat(parts)


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
