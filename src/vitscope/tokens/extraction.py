"""Images to token shards on disk: fp16 safetensors, resumable shard by shard."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16, Int32
from torch import Tensor

from vitscope.backbones.backbone import Backbone, Site
from vitscope.errors import BackboneError
from vitscope.images.sources import ImageRef
from vitscope.store.atomic import write_json
from vitscope.tokens.encoding import (
    EncodedBatch,
    LoaderOptions,
    PassClock,
    encode_in_parts,
    plain_preparation,
)
from vitscope.tokens.sampling import ActivationSettings, draw_tokens, n_stored_draws

MANIFEST_SCHEMA = 1
SHARD_IMAGES = 512


@dataclass(frozen=True)
class ExtractedTokens:
    """What an extraction left on disk.

    Attributes:
        files: the manifest and every shard.
        n_images: images read.
        n_tokens: tokens kept, over all draws.
        rates: images decoded and encoded per second.
    """

    files: list[Path]
    n_images: int
    n_tokens: int
    rates: dict[str, float]


def extract_tokens(
    backbone: Backbone,
    refs: Sequence[ImageRef],
    folder: Path,
    settings: ActivationSettings,
    loader: LoaderOptions,
    *,
    seed: int,
    fingerprint: str,
    stretch: bool = False,
) -> ExtractedTokens:
    """Write the drawn patch tokens of every image to ``folder``; whole shards are not redone.

    A shard holds ``tokens`` fp16 [n, draws, t, d] and ``positions`` int32 [n, draws, t].

    Raises:
        BackboneError: an activation is not finite in fp16; the message names the image.
    """
    clock, site = PassClock(), backbone.site
    draws = range(n_stored_draws(settings, site.n_patches))

    def reduce(members: Sequence[ImageRef], batches: Iterator[EncodedBatch]) -> dict[str, Tensor]:
        pieces = [
            drawn_tokens(batch, [members[i].id for i in batch.indices], site, settings, draws, seed)
            for batch in batches
        ]
        tokens, positions = (torch.cat(part) for part in zip(*pieces, strict=True))
        return {"tokens": tokens, "positions": positions}

    parts = encode_in_parts(
        backbone,
        refs,
        plain_preparation(backbone, stretch=stretch),
        loader,
        reduce,
        label="extracting",
        folder=folder,
        fingerprint=fingerprint,
        chunk_images=SHARD_IMAGES,
        clock=clock,
    )
    sizes = [(len(part["positions"]), part["positions"].numel()) for part in parts]
    names = [folder / f"part-{index:06d}.safetensors" for index in range(len(sizes))]
    for leftover in set(folder.glob("part-*.safetensors")) - set(names):
        leftover.unlink()  # of an earlier, larger set
    manifest = folder / "manifest.json"
    lengths = [n_images for n_images, _ in sizes]
    write_json(manifest, _manifest(backbone, settings, refs, lengths, names, seed, fingerprint))
    n_tokens = sum(n for _, n in sizes)
    return ExtractedTokens([manifest, *names], len(refs), n_tokens, clock.rates(loader.workers))


def _manifest(
    backbone: Backbone,
    settings: ActivationSettings,
    refs: Sequence[ImageRef],
    lengths: list[int],
    names: list[Path],
    seed: int,
    fingerprint: str,
) -> dict[str, Any]:
    firsts = accumulate(lengths[:-1], initial=0)
    return {
        "schema": MANIFEST_SCHEMA,
        "fingerprint": fingerprint,
        "site": asdict(backbone.site),
        "preprocessing": asdict(backbone.preprocessing),
        "settings": settings.model_dump(),
        "draws": n_stored_draws(settings, backbone.site.n_patches),
        "seed": seed,
        "n_images": len(refs),
        "shards": [
            {"file": name.name, "first_image": refs[first].id, "n_images": n_images}
            for name, first, n_images in zip(names, firsts, lengths, strict=True)
        ],
    }


def drawn_tokens(
    batch: EncodedBatch,
    image_ids: Sequence[str],
    site: Site,
    settings: ActivationSettings,
    epochs: Sequence[int],
    seed: int,
) -> tuple[Float16[Tensor, "n E t d"], Int32[Tensor, "n E t"]]:
    """Return the tokens that ``epochs`` take of every image of a batch, and their positions.

    Args:
        batch: one view per image.
        image_ids: of its images, in order.
        site: where the tokens were read.
        settings: how many tokens an image gives.
        epochs: E draws.
        seed: of the draws.

    Raises:
        BackboneError: an activation is not finite in fp16; the message names the image.
    """
    drawn = [
        [draw_tokens(settings, site.n_patches, seed=seed, epoch=e, image_id=i) for e in epochs]
        for i in image_ids
    ]
    chosen = torch.from_numpy(np.array(drawn))
    # gathered where the tokens lie: four of some 200 leave a GPU
    rows = torch.arange(len(image_ids))[:, None, None]
    kept = batch.tokens.patch[rows, chosen].half().cpu()
    if not bool(kept.isfinite().all()):
        wrong = image_ids[int((~kept.isfinite().flatten(1).all(1)).nonzero()[0])]
        raise BackboneError(
            f"{wrong}: an activation of {site.model}, block {site.layer}, is beyond fp16 "
            "(65504), in which tokens are kept; check the weights"
        )
    return kept, chosen.int()
