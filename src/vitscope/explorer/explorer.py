"""What every answer is made from: the runs, and what was drawn of them."""

from collections.abc import Mapping
from dataclasses import dataclass

from fastapi import HTTPException

from vitscope.explorer.cache import BoundedCache
from vitscope.explorer.guard import Access
from vitscope.explorer.lens import Lens
from vitscope.explorer.live import LiveRun
from vitscope.explorer.pictures import Uploads

RENDERED_BYTES = 256 * 2**20
"""Thumbnails, views and heatmaps held in memory, all runs together."""

RUN_KEYS = ("a", "b")
"""How the first and the second run stand in an address."""


@dataclass(frozen=True, eq=False)
class Explorer:
    """What every answer is made from.

    Attributes:
        lenses: key of a run in an address -> its lens.
        uploads: dropped-in pictures, common to all runs.
        rendered: bytes of pictures that were drawn.
        access: who may ask.
    """

    lenses: Mapping[str, Lens]
    uploads: Uploads
    rendered: BoundedCache[bytes]
    access: Access

    @classmethod
    def of(cls, runs: list[LiveRun], access: Access) -> "Explorer":
        """Prepare one or two runs."""
        uploads = Uploads()
        lenses = {key: Lens(run, uploads) for key, run in zip(RUN_KEYS, runs, strict=False)}
        return cls(lenses, uploads, BoundedCache[bytes](RENDERED_BYTES, len), access)

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
        if not 0 <= feature < lens.run.record.n_features:
            last = lens.run.record.n_features - 1
            raise HTTPException(404, f"no feature {feature}; the run has 0 to {last}")
        return lens
