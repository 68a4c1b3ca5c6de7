"""Pictures as the backbone and the SAE of a run encode them, computed once and kept for a while."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from fastapi import HTTPException
from numpy.typing import NDArray
from PIL.Image import Image
from torch import Tensor

from vitscope.axes import Float, UInt8
from vitscope.backbones.backbone import BlockTokens
from vitscope.explorer.live import LiveRun
from vitscope.explorer.pictures import NoSuchPictureError, PictureKey, Uploads
from vitscope.explorer.tables import without_nan
from vitscope.images.decode import UnreadableImageError
from vitscope.images.sources import open_image
from vitscope.sae.code import SparseCode
from vitscope.scope.awcds import token_scope

TOKENS_BYTES = 512 * 2**20
"""Tokens and codes held in memory, per run."""

RENDERED_BYTES = 256 * 2**20
"""Thumbnails, views and heatmaps held in memory, all runs together."""

RUN_KEYS = ("a", "b")
"""How the first and the second run stand in an address."""

PLAIN, FIRST, SECOND = range(3)
"""The views of a picture: as the backbone takes it, and the two that the scores compare."""

VIEWS = ("plain", "first", "second")

MOST_PER_PATCH = 64
"""The strongest features of a patch that the page lists; the count is that of all."""

Cached = TypeVar("Cached")


class BoundedCache(Generic[Cached]):
    """The values used last, up to so many bytes; safe among threads.

    A value is computed once at a time: who asks meanwhile waits for it.

    Args:
        max_bytes: what all values together may take; the one used longest ago goes first.
        size: bytes of a value.
    """

    def __init__(self, max_bytes: int, size: Callable[[Cached], int]) -> None:
        self.max_bytes = max_bytes
        self._size = size
        self._values: OrderedDict[Hashable, Cached] = OrderedDict()
        self._n_bytes = 0
        self._lock = threading.Lock()
        self._working: dict[Hashable, threading.Lock] = {}

    @property
    def n_bytes(self) -> int:
        """Bytes held."""
        return self._n_bytes

    def get(self, key: Hashable) -> Cached | None:
        """Return what is held under ``key``."""
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return self._values[key]

    def put(self, key: Hashable, value: Cached) -> None:
        """Hold ``value``, unless it alone is larger than all may be."""
        size = self._size(value)
        if size > self.max_bytes:
            return
        with self._lock:
            if key in self._values:
                self._n_bytes -= self._size(self._values.pop(key))
            self._values[key] = value
            self._n_bytes += size
            while self._n_bytes > self.max_bytes:
                _, oldest = self._values.popitem(last=False)
                self._n_bytes -= self._size(oldest)

    def get_or(self, key: Hashable, compute: Callable[[], Cached]) -> Cached:
        """Return what is held under ``key``, computed if need be."""
        found = self.get(key)
        if found is not None:
            return found
        with self._lock:
            working = self._working.setdefault(key, threading.Lock())
        try:
            with working:
                found = self.get(key)
                if found is None:
                    found = compute()
                    self.put(key, found)
        finally:
            with self._lock:
                self._working.pop(key, None)
        return found


@dataclass(frozen=True, eq=False)
class EncodedPicture:
    """A picture at the designated block.

    Attributes:
        pixels: plain, first and second view.
        patch: their patch tokens, where the SAE computes.
        prefix: CLS and register tokens of the plain view.
        active: codes of the plain view's tokens, those above 0.
        awcds: of the plain view's tokens, NaN where no active feature has a CDS.
    """

    pixels: UInt8[Tensor, "3 3 H W"]
    patch: Float[Tensor, "3 P d"]
    prefix: Float[Tensor, "1 n_prefix d"]
    active: SparseCode
    awcds: Float[Tensor, "P"]

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
    """Encodes pictures with one run's models; safe among threads."""

    def __init__(self, live: LiveRun, uploads: Uploads) -> None:
        self.live = live
        self.uploads = uploads
        self._encoded = BoundedCache[EncodedPicture](TOKENS_BYTES, lambda one: one.n_bytes)
        self._forward = threading.Lock()

    def name_of(self, key: PictureKey) -> str:
        """Return what a picture is called: a stranger's text.

        Raises:
            NoSuchPictureError: there is none.
        """
        if key.upload is not None:
            return self.uploads.get(key.upload).name
        refs = self.live.run.image_refs
        if key.position is None or not 0 <= key.position < len(refs):
            raise NoSuchPictureError(f"the run has images 0 to {len(refs) - 1}")
        return refs[key.position].id

    def open(self, key: PictureKey) -> Image:
        """Return a picture, upright RGB.

        Raises:
            NoSuchPictureError: there is none.
            UnreadableImageError: its file cannot be read any more, or lies outside the image roots.
        """
        name = self.name_of(key)
        if key.upload is not None:
            return self.uploads.get(key.upload).picture
        assert key.position is not None
        ref = self.live.run.image_refs[key.position]
        if not self.live.is_readable(ref):
            raise UnreadableImageError(
                f"{name} lies outside the image folders that the study names; it is not opened"
            )
        return open_image(ref, max_pixels=self.live.run.study.images.max_pixels)

    def encode(self, key: PictureKey) -> EncodedPicture:
        """Return a picture's tokens and codes.

        Raises:
            VitscopeError: there is no such picture, it cannot be read, or no models.
        """
        return self._encoded.get_or(key, lambda: self._encode(key))

    def maps(self, feature: int, key: PictureKey) -> NDArray[np.float64]:
        """Return a feature's activation in the three views of a picture, [3, p, p]."""
        picture, run = self.encode(key), self.live.loaded()
        with torch.inference_mode():
            one = torch.tensor([feature], device=picture.patch.device)
            codes = run.sae.encode(picture.patch.flatten(0, 1).float(), one).clamp_min(0)
        return codes.reshape(3, run.site.grid, run.site.grid).double().cpu().numpy()

    def resume(self, key: PictureKey, patch: Float[Tensor, "V P d"]) -> Float[Tensor, "V d_pooled"]:
        """Run the later blocks on variants of a picture's patch tokens; return what is pooled."""
        with torch.inference_mode():
            prefix = self.encode(key).prefix.expand(len(patch), -1, -1)
            return self.live.loaded().backbone.resume(BlockTokens(patch, prefix)).pooled

    def predict(self, pooled: Float[Tensor, "V d_pooled"]) -> list[list[dict[str, Any]]]:
        """Return the likeliest classes of pooled outputs, likeliest first; none without text."""
        text, _ = self.live.text()
        return [[] for _ in pooled] if text is None else text.predict(pooled)

    def _encode(self, key: PictureKey) -> EncodedPicture:
        run, picture = self.live.loaded(), self.open(key)
        pixels = torch.cat([run.plain_view(picture)[None], run.shifted_views(picture)])
        with self._forward, torch.inference_mode():
            tokens = run.backbone.tokens(pixels)
            patch = tokens.patch.float()
            # a signed top-k has negative codes: no presence
            codes = run.sae.encode(patch[PLAIN]).clamp_min(0)
            awcds = token_scope(codes, torch.from_numpy(run.partition.cds).to(codes.device)).awcds
        prefix = tokens.prefix[PLAIN][None]
        return EncodedPicture(pixels, patch, prefix, SparseCode.from_dense(codes), awcds)


class Explorer:
    """What every answer is made from.

    Args:
        runs: one or two.

    Attributes:
        lenses: key of a run in an address -> its lens.
        uploads: dropped-in pictures, common to all runs.
        rendered: bytes of pictures that were drawn.
    """

    def __init__(self, runs: list[LiveRun]) -> None:
        self.uploads = Uploads()
        self.rendered = BoundedCache[bytes](RENDERED_BYTES, len)
        self.lenses = {
            key: Lens(run, self.uploads) for key, run in zip(RUN_KEYS, runs, strict=False)
        }

    def lens(self, key: str) -> Lens:
        """Return the lens of a run.

        Raises:
            HTTPException: there is no such run.
        """
        if key not in self.lenses:
            raise HTTPException(404, "there is no such run")
        return self.lenses[key]

    def feature(self, key: str, feature: int) -> Lens:
        """Return the lens of a run that has ``feature``.

        Raises:
            HTTPException: there is no such run or feature.
        """
        lens = self.lens(key)
        if not 0 <= feature < lens.live.n_features:
            last = lens.live.n_features - 1
            raise HTTPException(404, f"no feature {feature}; the run has 0 to {last}")
        return lens


def describe_picture(lens: Lens, key: PictureKey) -> dict[str, Any]:
    """Return everything the image page draws, as plain JSON."""
    picture, run = lens.encode(key), lens.live.run
    norms, tau = picture.norms, run.outliers.tau
    return {
        "grid": run.site.grid,
        "norms": without_nan(norms, 5),
        "tau": tau,
        "n_outliers": int((norms > tau).sum()),
        "awcds": without_nan(picture.awcds.double().cpu().numpy(), 5),
        **_active_features(picture.active),
        "prediction": lens.predict(lens.resume(key, picture.patch[PLAIN][None]))[0],
        "no_text": lens.live.text()[1],
    }


def _active_features(active: SparseCode) -> dict[str, Any]:
    """Return the strongest features of every token, token by token."""
    tokens, features = active.rows.cpu().numpy(), active.features.cpu().numpy()
    values = active.values.double().cpu().numpy()
    counts = np.bincount(tokens, minlength=active.n_rows)
    order = np.lexsort((features, -values, tokens))
    # place of each entry among its token's own, the strongest 0
    place = np.arange(len(order)) - np.repeat(np.cumsum(counts) - counts, counts)
    kept = order[place < MOST_PER_PATCH]
    n_kept = np.bincount(tokens[kept], minlength=active.n_rows)
    return {
        "n_active": counts.tolist(),
        "offsets": [0, *np.cumsum(n_kept).tolist()],
        "features": features[kept].tolist(),
        "values": [round(float(value), 4) for value in values[kept]],
    }
