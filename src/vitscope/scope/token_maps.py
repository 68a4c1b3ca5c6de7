"""Norm and awCDS of every patch token of single images, as maps to look at."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray

from vitscope.backbones.backbone import Backbone
from vitscope.images.sources import ImageRef
from vitscope.progress import track
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.storage import check_fits
from vitscope.scope.awcds import token_scope
from vitscope.scope.views import plain_view
from vitscope.tokens.encoding import LoaderOptions, PassClock, encode_images


@dataclass(frozen=True)
class TokenMaps:
    """One image, patch by patch.

    Attributes:
        image_id: id of the image in its set.
        view: what the backbone saw, bytes [3, H, W].
        norms: L2 norm of each patch token at the designated block, [p, p].
        awcds: its activation-weighted CDS; NaN without an active feature that has a score, [p, p].
    """

    image_id: str
    view: NDArray[np.uint8]
    norms: NDArray[np.float64]
    awcds: NDArray[np.float64]


def token_maps(
    backbone: Backbone,
    sae: SparseAutoencoder,
    images: Sequence[ImageRef],
    cds: NDArray[np.float64],
    *,
    stretch: bool = False,
    reading: LoaderOptions | None = None,
) -> tuple[TokenMaps, ...]:
    """Encode ``images`` unshifted and weigh the scores ``cds`` [m] on each patch token.

    Args:
        backbone: read at its designated block.
        sae: trained there.
        images: verified images.
        cds: score of every feature, NaN where it has none.
        stretch: whether images are stretched to the square rather than cropped.
        reading: batch size and decoding threads.

    Raises:
        SaeError: the SAE is of another width, model or block.
    """
    check_fits(sae, backbone.site)
    scores, side = torch.from_numpy(cds.astype(np.float64)), backbone.site.grid
    prepare = partial(
        plain_view,
        site=backbone.site,
        preprocessing=backbone.preprocessing,
        stretch=stretch,
    )
    found: list[TokenMaps] = []
    with track("token maps", len(images), "images") as progress:
        for batch in encode_images(
            backbone,
            images,
            prepare,
            reading or LoaderOptions(),
            clock=PassClock(),
            progress=progress,
        ):
            for place, index in enumerate(batch.indices):
                tokens = batch.tokens.patch[place].float()
                codes = sae.to(tokens.device).encode(tokens).clamp_min(0)
                weighed = token_scope(codes, scores.to(tokens.device)).awcds
                found.append(
                    TokenMaps(
                        image_id=images[index].id,
                        view=batch.pixels[place].numpy(),
                        norms=tokens.norm(dim=-1).double().cpu().numpy().reshape(side, side),
                        awcds=weighed.cpu().numpy().reshape(side, side),
                    )
                )
    return tuple(found)
