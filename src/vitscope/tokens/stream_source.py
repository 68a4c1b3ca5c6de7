"""Tokens straight from the backbone: nothing on disk, an endless supply of draws."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Float32
from numpy.typing import NDArray
from torch import Tensor

from vitscope.backbones.backbone import Backbone
from vitscope.distributed import ALONE, Ranks, part_of
from vitscope.draws import generator
from vitscope.images.resize import to_square
from vitscope.images.sources import ImageRef
from vitscope.tokens.forward import PassClock, ReadingSettings, encode_images
from vitscope.tokens.held_out import NOTHING, HeldOut, Holding, Split, split_images
from vitscope.tokens.sampling import ALL_TOKENS, ActivationSettings, draw_tokens

HELD_OUT_EPOCH = -1
"""The draw of held-out tokens: no epoch of training takes it."""


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
        reading: batch size and decoding threads.
        seed: of the draws and of both orders.
        holding: what training must not see.
        stretch: whether images are stretched to the square rather than cropped.
        ranks: share the images of every window; each gets the tokens of all.
    """

    backbone: Backbone
    refs: Sequence[ImageRef] = field(repr=False)
    settings: ActivationSettings
    reading: ReadingSettings
    seed: int
    holding: Holding = NOTHING
    stretch: bool = False
    ranks: Ranks = ALONE

    @property
    def tokens_per_image(self) -> int:
        """Tokens of an image in an epoch."""
        n_patches, wanted = self.backbone.site.n_patches, self.settings.tokens_per_image
        return n_patches if wanted == ALL_TOKENS else min(wanted, n_patches)

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
        size = self.reading.batch_size
        mine = part_of(-(-len(images) // size), self.ranks.rank, self.ranks.size)
        return self.ranks.gather(
            self._encode_here(images[mine.start * size : mine.stop * size], epoch)
        )

    def _encode_here(self, images: NDArray[np.int64], epoch: int) -> Tensor:
        refs = [self.refs[place] for place in images]
        prepare = partial(
            to_square,
            side=self.backbone.site.resolution,
            crop_share=self.backbone.preprocessing.crop_share,
            stretch=self.stretch,
        )
        batches = encode_images(self.backbone, refs, prepare, self.reading, clock=PassClock())
        parts = [torch.empty(0, self.width, dtype=torch.float16)]
        with closing(batches):
            for batch in batches:
                ids = [refs[index].id for index in batch.indices]
                chosen = torch.from_numpy(np.stack([self._draw(i, epoch) for i in ids]))
                rows = torch.arange(len(ids))[:, None]
                parts.append(batch.tokens.patch[rows, chosen].half().flatten(0, 1).cpu())
        return torch.cat(parts).clone()

    def _draw(self, image_id: str, epoch: int) -> NDArray[np.int64]:
        n_patches = self.backbone.site.n_patches
        return draw_tokens(self.settings, n_patches, seed=self.seed, epoch=epoch, image_id=image_id)
