"""Runs of the command line that are killed at random: at any write, flush, rename, or advance."""

import json
import os
import random
import signal
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.stages.counted_moments import Moments
from tests.stages.fork_server import shared
from tests.stages.interrupted_runs import Job, run_child


@dataclass(frozen=True)
class Killed:
    """How one process of a chain ended.

    Attributes:
        code: exit code; negative: the signal that ended it.
        stage: the stage it was in, where it ended before its last.
        moment: what it was about to do; ``clock`` where the kill came from outside.
        passed: moments of that stage that the process had come to, the last included.
        err: its standard error.
    """

    code: int
    stage: str
    moment: str
    passed: int
    err: str


def kill_at_random(
    study: Path,
    out: Path,
    *,
    scratch: Path,
    seed: int,
    kills: Mapping[str, int],
    by_clock: int = 0,
    imports: Sequence[str] = (),
    timeout: float = 250,
) -> list[Killed]:
    """Run ``study`` in ``out`` again and again, each time killed at another random moment.

    The first process is left alone, in ``alone`` beside ``out``, and counts the moments of every
    stage. Then each stage is killed as often as ``kills`` says, at moments drawn uniformly from
    all of the stage's and taken in order, so that a later process is killed further on. A run
    that ends all the same, or has the next stage behind it, is left alone to its end, and the next
    process begins another beside it, ``OUT-1`` and so on; so it is where every draw of a stage came
    after its end, which is then killed at its first moment. The last such run is killed
    ``by_clock`` times, after random times. The last process is left alone. All fork from one
    process, which has the modules of ``imports``.
    """
    arguments = {
        "study": str(study), "out": str(out), "seed": seed, "kills": dict(kills),
        "by_clock": by_clock, "imports": list(imports),
    }  # fmt: skip
    ended = shared().ask("tests.stages.random_kills", str(scratch), arguments, timeout=timeout)
    return [Killed(**one) for one in ended]


class Chain:
    """Processes of one study, each killed or left alone, in the order in which they ran."""

    def __init__(self, study: str, out: Path, scratch: Path, seed: int) -> None:
        self.study, self.scratch, self.draws = study, scratch, random.Random(seed)
        self.record = scratch / "killed.moment"
        self.folders = [out]
        self.ended: list[Killed] = []

    def left_alone(self, folder: Path | None = None) -> dict[str, Any]:
        """Run one process to its end; return what it left in the record."""
        return self._run(Moments(self.record, None, 0, torn=False), None, folder)

    def killed_at(self, stage: str, after: int) -> None:
        """Run one process that kills itself at that moment, counted from ``stage`` on."""
        torn = self.draws.random() < 0.5
        self._run(Moments(self.record, stage, after, torn=torn), None, None)

    def killed_in(self, seconds: float) -> None:
        """Run one process that is killed from outside after so long."""
        self._run(Moments(self.record, None, 0, torn=False), seconds, None)

    def kill_in_stage(self, stage: str, n: int, moments: int) -> None:
        """Kill ``stage``, of so many moments, ``n`` times, each time further on."""
        if (self.folders[-1] / "stages" / f"{stage}.json").exists():
            self.left_alone()  # an earlier kill came too late, and this stage is done
        last = self.ended[-1]
        passed = last.passed if last.code != 0 and last.stage == stage else 0
        for place in sorted(self.draws.randint(1, moments) for _ in range(n)):
            self.killed_at(stage, max(1, place - passed))
            passed = max(passed, place)
        if all(process.stage != stage for process in self.ended[-n:]):
            self.left_alone()  # drawn past its end: a run has a few moments less than another
            self.killed_at(stage, 1)

    def _run(self, moments: Moments, limit: float | None, folder: Path | None) -> dict[str, Any]:
        if folder is None and len(self.ended) > 1 and self.ended[-1].code == 0:
            first = self.folders[0]
            self.folders.append(first.with_name(f"{first.name}-{len(self.folders)}"))
        arguments = ["run", self.study, "--out", str(folder or self.folders[-1])]
        moments.begin("before")
        out, err, skips = (self.scratch / f"killed.{kind}" for kind in ("out", "err", "skips"))
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
        left = _recorded(self.record)
        where = left.get("stage", ""), left.get("moment", ""), left.get("passed", 0)
        self.ended.append(Killed(os.waitstatus_to_exitcode(status), *where, err.read_text()))
        return left


def _recorded(record: Path) -> dict[str, Any]:
    """Return what a process left; nothing where a kill came while it was written."""
    try:
        return json.loads(record.read_text())
    except ValueError:
        return {}


def _keep_counts(moments: Moments) -> None:
    moments.record.write_text(json.dumps({"counts": moments.counts}))


def serve(scratch: str, given: dict[str, Any]) -> list[dict[str, Any]]:
    """Run the processes of ``kill_at_random``, each in a fork of this one."""
    for module in given["imports"]:
        import_module(module)
    out = Path(given["out"])
    chain = Chain(given["study"], out, Path(scratch), given["seed"])
    started = time.monotonic()
    counts = chain.left_alone(out.with_name("alone")).get("counts", {})
    seconds = time.monotonic() - started
    for stage, n in given["kills"].items():
        chain.kill_in_stage(stage, n, counts[stage])
    if given["by_clock"]:
        chain.left_alone()
    for _ in range(given["by_clock"]):
        chain.killed_in(chain.draws.uniform(0.0, seconds / 2))
    chain.left_alone()
    return [asdict(one) for one in chain.ended]
