"""Counts what a process does to the disk, by stage; at a chosen moment, it kills itself."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

MOMENTS = ("advance", "mkstemp", "fsync", "replace", "unlink", "rmtree")
"""What is counted: a unit of work done, and whatever changes the disk, before it does."""


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
        self._note("clock")
        if stage == self.stage:
            self.left = self.after

    def pass_by(self, moment: str, *arguments: Any) -> None:
        """Count one moment, or be killed at it."""
        self.counts[self.now] = self.counts.get(self.now, 0) + 1
        if self.left is None:
            return
        self.left -= 1
        if self.left == 0:
            self._note(moment)
            if moment == "fsync" and self.torn:  # as a power cut may leave it
                os.ftruncate(arguments[0], os.fstat(arguments[0]).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, moment: str) -> None:
        passed = self.counts.get(self.now, 0)
        self.record.write_text(json.dumps({"stage": self.now, "moment": moment, "passed": passed}))

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
        from vitscope.stages import stage as stages

        honest = stages.run_unless_fresh

        def run_unless_fresh(stage: Any, job: Any) -> Any:
            self.begin(stage.name)
            return honest(stage, job)

        setattr(stages, "run_unless_fresh", run_unless_fresh)  # noqa: B010
