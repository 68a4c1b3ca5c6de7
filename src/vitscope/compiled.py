"""Functions compiled by numba: the GIL is released, and machine code is kept on disk.

numba keeps a compiled function until *its own* file changes, though it contains compiled copies of
functions from other files. So only what Python calls, an entry, is kept, under a name that holds a
digest of every file in its folder; compiled code that an entry calls lies in the same folder.

Arithmetic is IEEE's, in the order written (``compiled_sum`` aside), and a division by zero gives
what NumPy gives. Without numba every function stays plain Python.
"""

import hashlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

try:
    import numba
except ImportError:
    numba = None

Function = TypeVar("Function", bound=Callable[..., Any])


def compiled(function: Function) -> Function:
    """Compile ``function`` where a compiled caller needs it."""
    return _jit(function)


def compiled_inline(function: Function) -> Function:
    """Compile ``function`` into its callers' code: for what is called in an inner loop."""
    return _jit(function, forceinline=True)


def compiled_sum(function: Function) -> Function:
    """Compile ``function`` free to add in any order: for sums that need no last digit."""
    return _jit(function, fastmath={"reassoc", "contract"})


def compiled_entry(function: Function, signature: Any = None) -> Function:
    """Compile ``function``, which Python calls, or load it from the cache on disk.

    Where no cache folder is writable (set NUMBA_CACHE_DIR), every process compiles.

    Args:
        function: at the top level of its module.
        signature: numba signature to compile for now; without one, at the first call.
    """
    if numba is None:
        return function
    signatures = () if signature is None else (signature,)
    with warnings.catch_warnings():
        # advice to numba's users, not to ours
        warnings.simplefilter("ignore", numba.NumbaWarning)
        # nothing may be writable, the disk may be full, a packed installation has no source files:
        # each costs compile time, not the answer
        try:
            folder = Path(function.__code__.co_filename).parent
            sources = [Path(__file__), *sorted(folder.glob("*.py"))]
            digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources))
            function.__qualname__ = f"{function.__name__}_{digest.hexdigest()[:16]}"
            return _jit(function, *signatures, cache=True)
        except (OSError, RuntimeError):
            return _jit(function, *signatures)


def _jit(function: Function, *signature: Any, **options: Any) -> Function:
    if numba is None:
        return function
    jit = numba.njit(*signature, nogil=True, error_model="numpy", **options)
    return cast(Function, jit(function))
