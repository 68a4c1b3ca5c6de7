"""Natural order of image ids: ``img2`` before ``img10``, folder by folder."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any, cast

from natsort import natsort_keygen

_natural = cast(Callable[[str], tuple[Any, ...]], natsort_keygen())
_natural_folder = lru_cache(maxsize=4096)(_natural)


def natural_key(image_id: str) -> tuple[Any, ...]:
    """Return a sort key of an id; ids that read alike (``a1``, ``a01``) still order one way."""
    *folders, name = image_id.split("/")
    return (*map(_natural_folder, folders), _natural(name)), image_id
