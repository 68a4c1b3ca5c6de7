"""Images to token shards on disk: fp16 safetensors, resumable shard by shard."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vitscope.backbones.backbone import Backbone, Site
from vitscope.errors import BackboneError
from vitscope.images.resize import to_square
from vitscope.images.sources import ImageRef
from vitscope.progress import track
from vitscope.store.atomic import write_json
from vitscope.tokens.chunks import ChunkedEncoding
from vitscope.tokens.forward import EncodedBatch, PassClock, ReadingSettings
from vitscope.tokens.sampling import ActivationSettings, draw_tokens, n_stored_draws
from vitscope.tokens.shared_parts import shared_parts

MANIFEST_SCHEMA = 1
SHARD_IMAGES = 512


@dataclass(frozen=True)
class Extraction:
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


def extract_activations(
    backbone: Backbone,
    refs: Sequence[ImageRef],
    folder: Path,
    settings: ActivationSettings,
    reading: ReadingSettings,
    *,
    seed: int,
    fingerprint: str,
    stretch: bool = False,
) -> Extraction:
    """Write the drawn patch tokens of every image to ``folder``; whole shards are not redone.

    A shard holds ``tokens`` fp16 [n, draws, t, d] and ``positions`` int32 [n, draws, t].

    Raises:
        BackboneError: an activation is not finite in fp16; the message names the image.
    """
    clock = PassClock()
    prepare = partial(
        to_square,
        side=backbone.site.resolution,
        crop_share=backbone.preprocessing.crop_share,
        stretch=stretch,
    )
    names: list[Path] = []
    n_tokens = 0
    with (
        track("extracting", len(refs), "images") as progress,
        ChunkedEncoding(
            backbone,
            refs,
            prepare,
            reading,
            chunk_images=SHARD_IMAGES,
            clock=clock,
            progress=progress,
        ) as encoding,
    ):
        shards = encoding.chunks

        def encode(shard: range) -> dict[str, Tensor]:
            members = refs[shard.start : shard.stop]
            return _drawn(backbone.site, members, encoding.batches(shard), settings, seed)

        parts = shared_parts(
            folder,
            fingerprint,
            shards,
            encode,
            on_reuse=lambda shard: progress.skip(len(shard)),
            on_others=lambda shard: progress.advance(len(shard)),
        )
        for index, part in enumerate(parts):
            names.append(folder / f"part-{index:06d}.safetensors")
            n_tokens += part["positions"].numel()
    for leftover in set(folder.glob("part-*.safetensors")) - set(names):
        leftover.unlink()  # of an earlier, larger set
    manifest = folder / "manifest.json"
    write_json(manifest, _manifest(backbone, settings, refs, shards, names, seed, fingerprint))
    return Extraction([manifest, *names], len(refs), n_tokens, clock.rates(reading.workers))


def _manifest(
    backbone: Backbone,
    settings: ActivationSettings,
    refs: Sequence[ImageRef],
    shards: list[range],
    names: list[Path],
    seed: int,
    fingerprint: str,
) -> dict[str, Any]:
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
            {"file": name.name, "first_image": refs[shard[0]].id, "n_images": len(shard)}
            for name, shard in zip(names, shards, strict=True)
        ],
    }


def _drawn(
    site: Site,
    members: Sequence[ImageRef],
    batches: Iterator[EncodedBatch],
    settings: ActivationSettings,
    seed: int,
) -> dict[str, Tensor]:
    epochs = range(n_stored_draws(settings, site.n_patches))
    tokens: list[Tensor] = []
    positions: list[Tensor] = []
    for batch in batches:
        ids = [members[index].id for index in batch.indices]
        drawn = [
            [draw_tokens(settings, site.n_patches, seed=seed, epoch=e, image_id=i) for e in epochs]
            for i in ids
        ]
        chosen = torch.from_numpy(np.array(drawn))
        # gathered where the tokens lie: four of some 200 leave a GPU
        rows = torch.arange(len(ids))[:, None, None]
        kept = batch.tokens.patch[rows, chosen].half().cpu()
        if not bool(kept.isfinite().all()):
            wrong = ids[int((~kept.isfinite().flatten(1).all(1)).nonzero()[0])]
            raise BackboneError(
                f"{wrong}: an activation of {site.model}, block {site.layer}, is beyond fp16 "
                "(65504), in which shards are kept; check the weights"
            )
        tokens.append(kept)
        positions.append(chosen.int())
    return {"tokens": torch.cat(tokens), "positions": torch.cat(positions)}
