"""A reader on a leash: bounded memory, nothing written or connected to, one program started."""

import os
import resource
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vitscope.images.matlab import command

MOST_MEMORY = 2 << 30
"""Bytes that a reader may take beyond what the process has: the files are of some kilobytes."""

FORBIDDEN = frozenset(
    ["os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.link", "os.symlink", "os.truncate",
     "os.chmod", "os.system", "os.exec", "os.posix_spawn", "subprocess.Popen", "socket.connect",
     "shutil.rmtree", "shutil.copyfile", "pty.spawn"]
)  # fmt: skip
"""Events of the interpreter that no reader may cause."""

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND

_seen: list[str] = []
_watching: list[bool] = [False]
_hooked: list[bool] = [False]


class LeashError(AssertionError):
    """A reader did what no reader may do."""


def _hook(event: str, arguments: tuple[Any, ...]) -> None:
    if not _watching[0]:
        return
    is_writing = (
        event == "open"
        and not isinstance(arguments[0], int)  # a descriptor: what it stands for was seen opened
        and isinstance(arguments[2], int)
        and arguments[2] & _WRITES
        and str(arguments[0]) != os.devnull
        and not str(arguments[0]).endswith((".pyc", *_numba_files()))
    )
    if (event in FORBIDDEN and not _is_matlab_child(event, arguments)) or is_writing:
        _seen.append(f"{event} {arguments!r:.200}")


def _is_matlab_child(event: str, arguments: tuple[Any, ...]) -> bool:
    """The one program that a reader starts: Python with that one module, to which bytes are fed."""
    start = command(())
    return event == "subprocess.Popen" and list(arguments[1])[: len(start)] == start


def _numba_files() -> tuple[str, ...]:
    return (".nbi", ".nbc")


@contextmanager
def leash() -> Generator[None]:
    """Watch what happens in the block.

    Raises:
        LeashError: it wrote a file, started a program or connected to something.
        MemoryError: it took more than :data:`MOST_MEMORY`.
    """
    if not _hooked[0]:
        sys.addaudithook(_hook)  # cannot be taken away again
        _hooked[0] = True
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_size() + MOST_MEMORY, hard))
    _seen.clear()
    _watching[0] = True
    try:
        yield
    finally:
        _watching[0] = False
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    if _seen:
        raise LeashError("; ".join(_seen))


def _size() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()
