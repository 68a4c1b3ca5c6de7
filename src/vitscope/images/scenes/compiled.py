"""Per-pixel loops are compiled by numba: cached on disk, and run without the interpreter's lock.

Numba keeps a compiled function until *its own* file changes, though it contains compiled copies of
functions in other files. Whenever any file of this folder has changed, all its cached code is
therefore dropped.
"""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numpy as np
from numba import njit
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Singles = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Triple = tuple[float, float, float]
"""A point, a direction or an RGB colour."""

_STAMP = "sources.sha256"
_Function = TypeVar("_Function", bound=Callable[..., Any])


def compiled(function: _Function) -> _Function:
    """Compile ``function`` at its first call; its arithmetic stays strict (no fast-math)."""
    return cast(_Function, njit(nogil=True, cache=True, error_model="numpy")(function))


def drop_stale_code(folder: Path) -> None:
    """Remove numba's index files in ``folder/__pycache__`` if any source has changed since.

    Where the folder cannot be written numba caches elsewhere, and sources do not change.
    """
    sources = sorted(folder.glob("*.py"))
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources)).hexdigest()
    cache = folder / "__pycache__"
    stamp = cache / _STAMP
    try:
        if stamp.exists() and stamp.read_text(encoding="utf-8") == digest:
            return
        for index in cache.glob("*.nbi"):
            index.unlink(missing_ok=True)
        cache.mkdir(exist_ok=True)
        stamp.write_text(digest, encoding="utf-8")
    except OSError:
        return


drop_stale_code(Path(__file__).parent)
