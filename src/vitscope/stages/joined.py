"""A stage in a job of several ranks: rank 0 decides, calls the others in, and stamps.

Rank 0 alone looks at the run directory and writes there. To the others it says one of two words:
``work``, with the fingerprint of a stage that all ranks do together, or ``end``, with the stamp.
"""

import json
from collections.abc import Generator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import asdict
from pathlib import Path

from vitscope.distributed import ShareDone, current_ranks
from vitscope.store.atomic import write_text
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stage import StageBody, StageOutput, Stamp
from vitscope.study import Study, dump_study

WORK, END = "work", "end"


@contextmanager
def held_run(out: Path, study: Study) -> Generator[RunDirectory]:
    """Hold a run directory for the whole job, with its study written: rank 0 does both.

    Raises:
        RunLockedError: another job holds it.
        ArtifactError: the directory cannot be created or written.
    """
    run, ranks = RunDirectory(out), current_ranks()
    with run.locked() if ranks.rank == 0 else nullcontext():
        if ranks.rank == 0:
            write_text(run.study, dump_study(study))
        ranks.tell("the run directory is ours")  # the others wait until it is
        yield run


def announced(body: StageBody) -> StageBody:
    """Return ``body`` as rank 0 runs it where all ranks do: it calls the others in first."""

    def call_and_work(fingerprint: str) -> StageOutput:
        current_ranks().tell(json.dumps([WORK, fingerprint]))
        return body(fingerprint)

    return call_and_work


def announce_end(stamp: Stamp, skipped: bool) -> None:
    """Tell the other ranks, from rank 0, how a stage has ended."""
    current_ranks().tell(json.dumps([END, asdict(stamp), skipped]))


def joined_stage(body: StageBody) -> tuple[Stamp, bool]:
    """Wait, on another rank than 0, for the end of a stage; work where rank 0 calls.

    Returns:
        the stamp, and whether the work was skipped, as rank 0 has them.
    """
    while True:
        word, *rest = json.loads(current_ranks().tell(""))
        if word == END:
            stamp, skipped = rest
            return Stamp(**stamp), skipped
        with suppress(ShareDone):
            body(*rest)
