"""Runs of the command line that are interrupted at a chosen moment, each in a process of its own.

As a script: argv is a folder and a JSON list of jobs; on standard output, a JSON list of how each
ended. Torch is imported once, and every job forks from there.
"""

import json
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

SMALL_CHUNK = 8
"""Images between two parts in these runs, so that forty pictures make five."""

LABELS = {
    "images": "checking images",
    "extract": "extracting",
    "train": "train SAE",
    "sweep": "train 2 SAEs",
    "report": "gallery",
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


def run_jobs(*jobs: Job, scratch: Path) -> list[Ended]:
    """Run the jobs one after the other; their output is collected in ``scratch``."""
    script = subprocess.run(
        [sys.executable, __file__, str(scratch), json.dumps([asdict(job) for job in jobs])],
        env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "error"},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert script.returncode == 0, script.stderr
    return [Ended(**ended) for ended in json.loads(script.stdout)]


def use_small_chunks() -> None:
    from vitscope.activations import extract
    from vitscope.probes import checkpoint, features
    from vitscope.stages import chunked, zeroshot

    chunked.CHUNK_IMAGES = extract.SHARD_IMAGES = zeroshot.CHUNK_IMAGES = SMALL_CHUNK
    features.SMALLEST_CHUNK = features.LARGEST_CHUNK = SMALL_CHUNK
    checkpoint.SAVE_EVERY_S = 0.0


def _interrupt(job: Job) -> None:
    if job.litter is not None:
        half = Path(job.litter) / ".part-000009.safetensors.half.vitscope.tmp"
        half.write_bytes(b"half")
    os.kill(os.getpid(), signal.Signals[job.signal])


def arm(job: Job) -> None:
    """Make the chosen moment send the signal."""
    from vitscope.progress import Tracker
    from vitscope.stages import partition

    honest_advance, honest_read = Tracker.advance, partition.read_scores
    advances = 0

    def advance(tracker: Tracker, n: int = 1) -> None:
        nonlocal advances
        if tracker.label == LABELS.get(job.stage or "", job.stage):
            advances += 1
            if advances == job.after:
                _interrupt(job)
        honest_advance(tracker, n)

    def read_scores(context: Any) -> Any:
        if job.stage == "partition":  # too short for a progress bar
            _interrupt(job)
        return honest_read(context)

    setattr(Tracker, "advance", advance)  # noqa: B010
    partition.read_scores = read_scores


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
        from vitscope import cli

        _record_skips(skips)
        if job.stage is not None:
            arm(job)
        before()
        sys.argv = ["vitscope", *job.arguments]
        cli.main()
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


def _serve(scratch: Path, jobs: list[Job]) -> None:
    for module in ("cli", "pipeline"):
        import_module(f"vitscope.{module}")
    use_small_chunks()
    ended: list[Ended] = []
    for number, job in enumerate(jobs):
        out, err, skips = (scratch / f"{number}.{kind}" for kind in ("out", "err", "skips"))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # no thread is at work by now
            child = os.fork()
        if child == 0:
            run_child(job, out, err, skips)
        _, status = os.waitpid(child, 0)
        code = os.waitstatus_to_exitcode(status)
        streams = out.read_text(), err.read_text()
        ended.append(Ended(code, *streams, _read_skips(skips), _files_below(job.watch)))
    sys.stdout.write(json.dumps([asdict(end) for end in ended]))


if __name__ == "__main__":
    _serve(Path(sys.argv[1]), [Job(**job) for job in json.loads(sys.argv[2])])
