"""One process that has imported everything, and from which the runs of many tests fork.

As a script: on standard input a line a request, a JSON list of a module of this folder and the
arguments of its ``serve``; on standard output, a line of JSON with what that returned.
"""

import atexit
import json
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import IO, Any

WANTED = (
    "vitscope.cli.main",
    "vitscope.pipeline",
    "vitscope.transport.batch",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "ot",
    "pandas",  # by pyarrow, where it is there
    "sympy",  # by torch's optimisers
)
"""What whole runs import sooner or later: here once, and not in every one of them."""

IMPORTS_S = 200.0
"""They take some ten seconds; more beside much other work."""


@dataclass(frozen=True)
class ForkServer:
    """The process, and the file that its standard error goes to."""

    process: subprocess.Popen[str]
    err: IO[str]

    @classmethod
    def start(cls) -> "ForkServer":
        """Start one, with the environment of this moment; it ends when this process does."""
        err = tempfile.TemporaryFile("w+")  # noqa: SIM115  open as long as the process
        process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=err, text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"},
            cwd=Path(__file__).parent,
        )  # fmt: skip
        server = cls(process, err)
        server._answer(IMPORTS_S)  # that all is imported: no request waits for it
        return server

    def ask(self, module: str, *arguments: Any, timeout: float) -> Any:
        """Return what ``module.serve(*arguments)`` returns there; if it fails, the server ends."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps([module, *arguments]) + "\n")
        self.process.stdin.flush()
        return self._answer(timeout)

    def _answer(self, timeout: float) -> Any:
        assert self.process.stdout is not None
        # an answer is one line, so nothing of it waits in a buffer that select does not see
        ready, _, _ = select.select([self.process.stdout], [], [], timeout)
        answer = self.process.stdout.readline() if ready else ""
        if not answer:
            self.end()
            self.err.seek(0)
            raise AssertionError(self.err.read() or f"no answer within {timeout} s")
        return json.loads(answer)

    def end(self) -> None:
        """End the process, in whatever it is doing."""
        self.process.kill()
        self.process.communicate()


@contextmanager
def fork_server() -> Generator[ForkServer]:
    """A server of its own, with this process's environment."""
    server = ForkServer.start()
    try:
        yield server
    finally:
        server.end()
        server.err.close()


@lru_cache(maxsize=1)
def _started() -> ForkServer:
    server = ForkServer.start()
    atexit.register(server.end)
    return server


def shared() -> ForkServer:
    """Return the server of all tests of this process."""
    if _started().process.poll() is not None:
        _started.cache_clear()
    return _started()


def _answer_requests() -> None:
    from tests.stages.interrupted_runs import use_small_chunks

    for module in WANTED:
        import_module(module)
    use_small_chunks()
    sys.stdout.write("true\n")
    sys.stdout.flush()
    for line in sys.stdin:
        module, *arguments = json.loads(line)
        answer = import_module(module).serve(*arguments)
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _answer_requests()
