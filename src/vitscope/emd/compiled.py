"""Functions compiled by numba: the GIL is released, and machine code is kept on disk.

numba's cache looks only at the file that holds the cached function. Here one entry function is
cached, and a digest of every other file whose code it contains is part of its name.
"""

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar, cast

import numba

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile ``function`` where a compiled caller needs it."""
    return cast(Function, numba.njit(nogil=True)(function))


def compiled_inline(function: Function) -> Function:
    """Like ``compiled``, always part of its caller's code: for what is called at every pivot."""
    return cast(Function, numba.njit(nogil=True, forceinline=True)(function))


def compiled_sum(function: Function) -> Function:
    """Like ``compiled``, free to add in any order: for sums that need no last digit."""
    return cast(Function, numba.njit(nogil=True, fastmath={"reassoc", "contract"})(function))


def compiled_entry(
    function: Callable[..., None], signature: Any, parts: tuple[ModuleType, ...]
) -> Callable[..., None]:
    """Compile ``function`` for one signature now, or load it from the cache on disk.

    Args:
        function: what compiled code is entered by.
        signature: numba signature.
        parts: modules with the compiled functions it calls: where these change, so does the name
            under which it is cached.
    """
    with warnings.catch_warnings():
        # advice to numba's users, not to ours
        warnings.simplefilter("ignore", numba.NumbaWarning)
        # numba keeps nothing where nothing is writable (set NUMBA_CACHE_DIR), the disk may be full,
        # a packed installation has no source files: each costs compile time, not the answer
        try:
            digest = hashlib.sha256(b"\0".join(Path(str(p.__file__)).read_bytes() for p in parts))
            function.__qualname__ = f"{function.__name__}_{digest.hexdigest()[:16]}"
            entry: Any = numba.njit(signature, nogil=True, cache=True)(function)
        except (OSError, RuntimeError):
            entry = numba.njit(signature, nogil=True)(function)
    return cast("Callable[..., None]", entry)
