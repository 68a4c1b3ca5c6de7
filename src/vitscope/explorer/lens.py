"""A picture as the backbone and the SAE see it, computed once and kept while there is room."""

import threading
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from vitscope.axes import Float, UInt8
from vitscope.explorer.cache import BoundedCache
from vitscope.explorer.live import LiveRun
from vitscope.explorer.pictures import PictureKey, Uploads, open_picture
from vitscope.removal.contribution import encode_sparse
from vitscope.sae.code import SparseCode

TOKENS_BYTES = 512 * 2**20
"""Tokens and codes held in memory, per run."""

PLAIN, FIRST, SECOND = range(3)
"""The views of a picture: as the backbone takes it, and the two that the scores compare."""

VIEWS = ("plain", "first", "second")


@dataclass(frozen=True, eq=False)
class Seen:
    """A picture at the designated block.

    Attributes:
        pixels: plain, first and second view.
        patch: their patch tokens, where the SAE computes.
        prefix: CLS and register tokens of the plain view.
        active: codes of the plain view's tokens, those above 0.
    """

    pixels: UInt8[Tensor, "3 3 H W"]
    patch: Float[Tensor, "3 P d"]
    prefix: Float[Tensor, "1 n_prefix d"]
    active: SparseCode

    @property
    def norms(self) -> NDArray[np.float64]:
        """L2 norms of the plain view's tokens, [P]."""
        return self.patch[PLAIN].float().norm(dim=-1).double().cpu().numpy()

    @property
    def n_bytes(self) -> int:
        """What it takes in memory."""
        active = self.active
        parts = (self.pixels, self.patch, active.rows, active.features, active.values)
        return sum(part.nbytes for part in parts)


class Lens:
    """Looks at pictures through one run's models; safe among threads."""

    def __init__(self, run: LiveRun, uploads: Uploads) -> None:
        self.run = run
        self.uploads = uploads
        self._seen = BoundedCache[Seen](TOKENS_BYTES, lambda seen: seen.n_bytes)
        self._forward = threading.Lock()

    def look(self, key: PictureKey) -> Seen:
        """Return a picture's tokens and codes.

        Raises:
            VitscopeError: there is no such picture, it cannot be read, or no models.
        """
        return self._seen.get_or(key, lambda: self._look(key))

    def maps(self, feature: int, key: PictureKey) -> NDArray[np.float64]:
        """Return a feature's activation in the three views of a picture, [3, p, p]."""
        seen, sae = self.look(key), self.run.models().sae
        grid = self.run.record.site.grid
        with torch.inference_mode():
            one = torch.tensor([feature], device=seen.patch.device)
            codes = sae.encode(seen.patch.flatten(0, 1).float(), one).clamp_min(0)
        return codes.reshape(3, grid, grid).double().cpu().numpy()

    def _look(self, key: PictureKey) -> Seen:
        models = self.run.models()
        picture = open_picture(key, self.run.record, self.uploads)
        pixels = torch.cat([models.plain_view(picture)[None], models.shifted_views(picture)])
        with self._forward, torch.inference_mode():
            tokens = models.backbone.tokens(pixels)
            patch = tokens.patch.float()
            active = encode_sparse(models.sae, patch[PLAIN])
        active = active.take(active.values > 0)  # a signed top-k has negative codes: no presence
        return Seen(pixels, patch, tokens.prefix[PLAIN][None], active)
