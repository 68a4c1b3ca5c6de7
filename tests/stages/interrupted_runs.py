"""Runs of the command line, each in a process of its own, interrupted at a chosen moment."""

import os
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from tests.stages.fork_server import ForkServer, shared

SMALL_CHUNK = 8
"""Images between two parts in these runs, so that forty pictures make five."""

LABELS = {
    "images": "checking images",
    "extract": "extracting",
    "train": "train SAE",
    "sweep": "train 2 SAEs",
}
"""What progress is called where it is not the stage's own name."""


@dataclass(frozen=True)
class Job:
    """``vitscope *arguments``, which sends itself ``signal`` in ``stage`` after ``after`` advances.

    The directory ``litter``, if any, gets a half-written file first, as a kill would leave it;
    ``watch`` is a folder whose files are listed afterwards.
    """

    arguments: list[str]
    stage: str | None = None
    signal: str = "SIGINT"
    after: int = 3
    litter: str | None = None
    watch: str | None = None


@dataclass(frozen=True)
class Ended:
    """How a job ended.

    Attributes:
        code: exit code; negative: the signal that ended it.
        out: its standard output.
        err: its standard error.
        skipped: units of work taken over from an earlier process, by label.
        files: what lay below ``watch`` afterwards: relative path -> time of modification.
    """

    code: int
    out: str
    err: str
    skipped: dict[str, int]
    files: dict[str, int]


def run_jobs(
    *jobs: Job, scratch: Path, imports: Sequence[str] = (), server: ForkServer | None = None
) -> list[Ended]:
    """Run the jobs one after the other, in forks of a server, by default of the shared one.

    Their output is collected in ``scratch``; modules of ``imports`` that the jobs need are imported
    in the server, once.
    """
    given = [asdict(job) for job in jobs]
    server = server or shared()
    name = "tests.stages.interrupted_runs"
    ended = server.ask(name, str(scratch), given, list(imports), timeout=200)
    return [Ended(**one) for one in ended]


def use_small_chunks() -> None:
    from vitscope.probes import features
    from vitscope.probes import training as checkpoint
    from vitscope.stages import passes as chunked
    from vitscope.stages import zeroshot
    from vitscope.tokens import extraction as extract

    chunked.CHUNK_IMAGES = extract.SHARD_IMAGES = zeroshot.PREDICTED_CHUNK = SMALL_CHUNK
    features.SMALLEST_SHARD = features.LARGEST_SHARD = SMALL_CHUNK
    checkpoint.SAVE_EVERY_S = 0.0


def _interrupt(job: Job) -> None:
    if job.litter is not None:
        half = Path(job.litter) / ".part-000009.safetensors.half.vitscope.tmp"
        half.write_bytes(b"half")
    os.kill(os.getpid(), signal.Signals[job.signal])


def arm(job: Job) -> None:
    """Make the chosen moment send the signal."""
    from vitscope.progress import Tracker
    from vitscope.report import stage as report
    from vitscope.stages import backbone, partition

    honest_advance, honest_read = Tracker.advance, partition.feature_scores
    advances = 0

    def advance(tracker: Tracker, n: int = 1) -> None:
        nonlocal advances
        if tracker.label == LABELS.get(job.stage or "", job.stage):
            advances += 1
            if advances == job.after:
                _interrupt(job)
        honest_advance(tracker, n)

    def feature_scores(job_at_work: Any) -> Any:
        if job.stage == "partition":  # too short for a progress bar
            _interrupt(job)
        return honest_read(job_at_work)

    honest_description = backbone.describe_backbone

    def describe_backbone(model: Any) -> Any:
        if job.stage == "backbone":  # likewise
            _interrupt(job)
        return honest_description(model)

    setattr(backbone, "describe_backbone", describe_backbone)  # noqa: B010
    honest_render = report.render_report

    def render_report(*arguments: Any) -> str:
        if job.stage == "report":  # likewise
            _interrupt(job)
        return honest_render(*arguments)

    setattr(report, "render_report", render_report)  # noqa: B010
    setattr(Tracker, "advance", advance)  # noqa: B010
    partition.feature_scores = feature_scores


def _record_skips(record: Path) -> None:
    from vitscope.progress import Tracker

    honest_skip = Tracker.skip

    def skip(tracker: Tracker, n: int) -> None:
        with record.open("a") as lines:
            lines.write(f"{n} {tracker.label}\n")
        honest_skip(tracker, n)

    setattr(Tracker, "skip", skip)  # noqa: B010


def _read_skips(record: Path) -> dict[str, int]:
    skipped: dict[str, int] = {}
    for line in record.read_text().splitlines() if record.exists() else ():
        n, label = line.split(" ", 1)
        skipped[label] = skipped.get(label, 0) + int(n)
    return skipped


def _files_below(watch: str | None) -> dict[str, int]:
    if watch is None:
        return {}
    files = [path for path in Path(watch).rglob("*") if path.is_file()]
    return {str(path.relative_to(watch)): path.stat().st_mtime_ns for path in files}


def run_child(
    job: Job,
    out: Path,
    err: Path,
    skips: Path,
    *,
    before: Callable[[], object] = lambda: None,
    after: Callable[[], object] = lambda: None,
) -> None:
    """Be the process of a job, in a fork, to the end; ``after`` is called where it ends well."""
    for stream, path in ((1, out), (2, err)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), stream)
    code = 1
    try:
        from vitscope.cli import main

        _record_skips(skips)
        if job.stage is not None:
            arm(job)
        before()
        sys.argv = ["vitscope", *job.arguments]
        main.main()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        if code == 0:
            after()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def serve(scratch: str, jobs: list[dict[str, Any]], imports: list[str]) -> list[dict[str, Any]]:
    """Run the jobs of ``run_jobs``, each in a fork of this process, and tell how they ended."""
    for module in imports:
        import_module(module)
    ended: list[Ended] = []
    for number, job in enumerate(Job(**job) for job in jobs):
        out, err, skips = (Path(scratch) / f"{number}.{of}" for of in ("out", "err", "skips"))
        skips.unlink(missing_ok=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # no thread is at work by now
            child = os.fork()
        if child == 0:
            run_child(job, out, err, skips)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        streams = out.read_text(), err.read_text()
        ended.append(Ended(code, *streams, _read_skips(skips), _files_below(job.watch)))
    return [asdict(end) for end in ended]
