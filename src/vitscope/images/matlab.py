"""Lists out of a MATLAB file, read by SciPy in a process of its own, which may die of the file.

SciPy's reader is compiled, believes the codes and sizes that a file states, and takes the process
with it where they are wrong (scipy/scipy#25829). So it runs in a child, which is handed the bytes
and hands back JSON. Files of MATLAB 7.3 are HDF5, and not read here.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

from vitscope.errors import ImageSetError

MOST_BYTES = 16 << 20
"""Of a file, and of what the child hands back: what is read of such files has some kilobytes."""

MOST_MEMORY = 2 << 30
"""Bytes of addresses that the child may take, Python and SciPy included."""

MOST_WORK_S = 30
"""Processor time of the child, of which half a second goes into starting it."""

MOST_TIME_S = 120.0
"""Time that may pass, where a slow disk brings SciPy."""

MODULE = "vitscope.images.matlab"
"""What the child runs: this file."""

MatlabValues = list[int | float | str]


class _NotReadableError(Exception):
    """Why not; the caller knows which file."""


def read_matlab(path: Path, names: Sequence[str], what: str) -> tuple[MatlabValues, ...]:
    """Return the values of variables of a MATLAB 4 or 5 file, each as a flat list.

    Args:
        path: the file.
        names: of variables, or ``variable.field`` for one field over a struct array.
        what: is in the file, for the error.

    Raises:
        ImageSetError: it is missing or too large, SciPy refuses it, dies of it or takes too long,
            or one of ``names`` is not there or is no list of numbers or text.
    """
    try:
        answer = _ask_child(_content(path), names)
    except _NotReadableError as error:
        raise ImageSetError(
            f"cannot read {what} from {path}: {error}; take the file from its data set's own page"
        ) from None
    return tuple(answer[name] for name in names)


def command(names: Sequence[str]) -> list[str]:
    """Return how the child is started: no folder of files to read may hold its modules (-P)."""
    bounds = (str(MOST_MEMORY), str(MOST_WORK_S))
    return [sys.executable, "-P", "-W", "ignore", "-m", MODULE, *bounds, *names]


def _content(path: Path) -> bytes:
    try:
        if not path.is_file():  # a pipe would be waited for
            raise _NotReadableError("there is no such file")
        if path.stat().st_size > MOST_BYTES:
            raise _NotReadableError(f"it has more than {MOST_BYTES >> 20} MB")
        return path.read_bytes()
    except OSError as error:
        raise _NotReadableError(error.strerror or str(error)) from None


def _ask_child(content: bytes, names: Sequence[str]) -> dict[str, MatlabValues]:
    if not sys.executable or getattr(sys, "frozen", False):
        raise _NotReadableError("that takes a Python interpreter, and this program has none beside")
    try:
        done = subprocess.run(
            command(names),
            input=content,
            capture_output=True,
            timeout=MOST_TIME_S,
            env=_environment(),
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise _NotReadableError(f"SciPy had not read it after {MOST_TIME_S:g} s") from None
    except OSError as error:
        raise _NotReadableError(f"no process to read it could be started: {error}") from None
    if done.returncode:
        raise _NotReadableError(_death(done))
    answer: dict[str, Any] = json.loads(done.stdout)
    if answer["why"]:
        raise _NotReadableError(answer["why"])
    return answer["values"]


def _environment() -> dict[str, str]:
    """The parent's, with its module path; one thread, as each would take memory."""
    path = os.pathsep.join(str(Path(entry).absolute()) for entry in sys.path)
    return {**os.environ, "PYTHONPATH": path, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}


def _death(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode == -getattr(signal, "SIGXCPU", 0):
        return f"SciPy had not read it after {MOST_WORK_S} s of work"
    if done.returncode < 0:
        return f"SciPy's reader crashed on it (signal {-done.returncode})"
    said = done.stderr.decode(errors="replace").split("\n")
    return f"its reader ended with code {done.returncode} ({' '.join(said[-2:]).strip()})"


def _answer(content: bytes, memory: int, work_s: int, names: Sequence[str]) -> str:
    """What the child says of a file, as JSON."""
    scipy: Any = import_module("scipy.io.matlab")
    _bound_itself({"AS": memory, "CPU": work_s, "FSIZE": 0, "CORE": 0})
    try:
        variables = list({name.partition(".")[0] for name in names})
        table = scipy.loadmat(BytesIO(content), squeeze_me=True, variable_names=variables)
        values = {name: _values(table, name) for name in names}
        said = json.dumps({"values": values, "why": ""})
        if len(said) > MOST_BYTES:
            raise _NotReadableError(f"it unfolds to more than {MOST_BYTES >> 20} MB")
    except _NotReadableError as error:
        return json.dumps({"why": str(error)})
    except Exception as error:  # SciPy raises nearly anything on a file that is not one
        why = " ".join(f"{type(error).__name__}: {error}".split())
        return json.dumps({"why": why[:500]})
    return said


def _bound_itself(limits: dict[str, int]) -> None:
    """Limit memory and work; neither files nor an image of the memory are written."""
    try:
        resource: Any = import_module("resource")
    except ImportError:  # Windows has no such limits; that on time stands
        return
    for name, most in limits.items():
        kind = getattr(resource, f"RLIMIT_{name}")
        hard = resource.getrlimit(kind)[1]
        most_allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        try:
            resource.setrlimit(kind, (most_allowed, hard))
        except (OSError, ValueError):  # macOS does not bound addresses
            continue


def _values(table: dict[str, Any], name: str) -> MatlabValues:
    numpy: Any = import_module("numpy")
    variable, _, field = name.partition(".")
    found = numpy.atleast_1d(table[variable]) if variable in table else None
    if found is not None and field:
        found = found[field] if field in (found.dtype.names or ()) else None
    if found is None:
        raise _NotReadableError(f"it lacks {name}")
    values = [v.item() if isinstance(v, numpy.generic) else v for v in found.ravel().tolist()]
    if not all(isinstance(value, int | float | str) for value in values):
        raise _NotReadableError(f"its {name} is no list of numbers or text")
    return values


if __name__ == "__main__":
    _memory, _work, *_names = sys.argv[1:]
    sys.stdout.write(_answer(sys.stdin.buffer.read(), int(_memory), int(_work), _names))
