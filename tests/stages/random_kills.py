"""Runs of the command line that are killed at random: at any write, flush, rename, or advance.

As a script: argv is a folder and a JSON object of ``kill_at_random``'s arguments; on standard
output, a JSON list of the processes. Torch is imported once, and every process forks from there.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from interrupted_runs import Job, run_child, use_small_chunks

MOMENTS = ("advance", "mkstemp", "fsync", "replace", "unlink", "rmtree")
"""What is counted: a unit of work done, and whatever changes the disk, before it does."""


@dataclass(frozen=True)
class Killed:
    """How one process of a chain ended.

    Attributes:
        code: exit code; negative: the signal that ended it.
        stage: the stage it was in, where it ended before its last.
        moment: what it was about to do; ``clock`` where the kill came from outside.
        err: its standard error.
    """

    code: int
    stage: str
    moment: str
    err: str


def kill_at_random(
    study: Path,
    out: Path,
    *,
    scratch: Path,
    seed: int,
    stages: list[str],
    per_stage: int,
    by_clock: int = 0,
    timeout: float = 250,
) -> list[Killed]:
    """Run ``study`` in ``out`` again and again, each time killed at another random moment.

    The first process is left alone, in ``alone`` beside ``out``, and counts the moments of every
    stage. Then ``by_clock`` processes are killed after a random time. Then each of ``stages`` is
    killed ``per_stage`` times, at a moment of it drawn uniformly; where less of it is left than
    that, the kill comes in a later stage. A run that comes to its end all the same is left, and
    the next process begins another beside it, ``OUT-1`` and so on. The last is left alone.
    """
    arguments = {
        "study": str(study), "out": str(out), "seed": seed, "stages": stages,
        "per_stage": per_stage, "by_clock": by_clock,
    }  # fmt: skip
    script = subprocess.run(
        [sys.executable, __file__, str(scratch), json.dumps(arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert script.returncode == 0, script.stderr
    return [Killed(**ended) for ended in json.loads(script.stdout)]


class Moments:
    """Counts the moments of every stage; at the chosen one, the process kills itself.

    Args:
        record: file that is told the stage and the moment of the kill, or all counts at the end.
        stage: where counting begins; None counts all, and kills never.
        after: moments from there to the kill.
        torn: whether a file that is being flushed loses its second half first.
    """

    def __init__(self, record: Path, stage: str | None, after: int, *, torn: bool) -> None:
        self.record, self.stage, self.after, self.torn = record, stage, after, torn
        self.now = "before"
        self.counts: dict[str, int] = {}
        self.left: int | None = None

    def begin(self, stage: str) -> None:
        """Another stage begins."""
        self.now = stage
        self.record.write_text(json.dumps({"stage": stage, "moment": "clock"}))
        if stage == self.stage:
            self.left = self.after

    def pass_by(self, moment: str, *arguments: Any) -> None:
        """Count one moment, or be killed at it."""
        self.counts[self.now] = self.counts.get(self.now, 0) + 1
        if self.left is None:
            return
        self.left -= 1
        if self.left == 0:
            self.record.write_text(json.dumps({"stage": self.now, "moment": moment}))
            if moment == "fsync" and self.torn:  # as a power cut may leave it
                os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def arm(self) -> None:
        """Put a look at the counter before everything that changes the disk."""
        import shutil
        import tempfile

        from vitscope.progress import Tracker

        owners = {"fsync": os, "replace": os, "unlink": os, "mkstemp": tempfile, "rmtree": shutil}
        for moment in MOMENTS:
            owner: Any = owners.get(moment, Tracker)
            setattr(owner, moment, self._watched(moment, getattr(owner, moment)))
        self._watch_stages()

    def _watched(self, moment: str, honest: Callable[..., Any]) -> Callable[..., Any]:
        def watched(*arguments: Any, **named: Any) -> Any:
            self.pass_by(moment, *arguments)
            return honest(*arguments, **named)

        return watched

    def _watch_stages(self) -> None:
        from dataclasses import replace

        from vitscope import pipeline

        def watched(stage: Any) -> Any:
            def run(context: Any) -> Any:
                self.begin(stage.name)
                return stage.run(context)

            return replace(stage, run=run)

        setattr(pipeline, "STAGES", tuple(map(watched, pipeline.STAGES)))  # noqa: B010


def _run(arguments: list[str], scratch: Path, moments: Moments, limit: float | None) -> Killed:
    """Run one process to its end, or until ``limit`` seconds have passed."""

    out, err, skips = (scratch / f"killed.{kind}" for kind in ("out", "err", "skips"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # no thread is at work by now
        child = os.fork()
    if child == 0:
        keep = partial(_keep_counts, moments)
        run_child(Job(arguments), out, err, skips, before=moments.arm, after=keep)
    if limit is not None:
        time.sleep(limit)
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    where = _recorded(moments.record)
    code = os.waitstatus_to_exitcode(status)
    return Killed(code, where.get("stage", ""), where.get("moment", ""), err.read_text())


def _recorded(record: Path) -> dict[str, Any]:
    """Return what a process left; nothing where a kill came while it was written."""
    try:
        return json.loads(record.read_text())
    except ValueError:
        return {}


def _keep_counts(moments: Moments) -> None:
    moments.record.write_text(json.dumps({"counts": moments.counts}))


def _serve(scratch: Path, given: dict[str, Any]) -> list[Killed]:
    for module in ("cli", "pipeline"):
        import_module(f"vitscope.{module}")
    use_small_chunks()
    draws, record = random.Random(given["seed"]), scratch / "killed.moment"
    folders = [Path(given["out"])]

    def run(
        folder: Path | None = None, stage: str | None = None, after: int = 0,
        limit: float | None = None,
    ) -> Killed:  # fmt: skip
        if ended and folder is None and ended[-1].code == 0 and len(ended) > 1:
            folders.append(folders[0].with_name(f"{folders[0].name}-{len(folders)}"))
        folder = folder or folders[-1]
        record.write_text(json.dumps({"stage": "before", "moment": "clock"}))
        moments = Moments(record, stage, after, torn=draws.random() < 0.5)
        return _run(["run", given["study"], "--out", str(folder)], scratch, moments, limit)

    started = time.monotonic()
    ended: list[Killed] = []
    ended.append(run(folders[0].with_name("alone")))
    seconds = time.monotonic() - started
    counts = json.loads(record.read_text()).get("counts", {})
    for _ in range(given["by_clock"]):
        ended.append(run(limit=draws.uniform(0.0, seconds / 2)))
    for stage in given["stages"]:
        for _ in range(given["per_stage"]):
            ended.append(run(None, stage, draws.randint(1, counts[stage])))
    ended.append(run())
    return ended


if __name__ == "__main__":
    killed = _serve(Path(sys.argv[1]), json.loads(sys.argv[2]))
    sys.stdout.write(json.dumps([asdict(one) for one in killed]))
