"""The command line as one rank of a job; torchrun starts this, arguments are the command's.

KILLED_RANK and KILLED_AT (advances of the training's progress) in the environment: that rank kills
itself there, in the first life of the job. FAILING_RANK: there it meets an error of its own.
"""

import os

from tests.stages.interrupted_runs import Job, arm, use_small_chunks

from vitscope.errors import ArtifactError


def main() -> None:
    use_small_chunks()
    first_life = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first_life and os.environ.get("KILLED_RANK") == os.environ["RANK"]:
        arm(Job([], "train", "SIGKILL", int(os.environ["KILLED_AT"])))
    if os.environ.get("FAILING_RANK") == os.environ["RANK"]:
        fail_in_training()
    from vitscope.cli.main import main as command_line

    command_line()


def fail_in_training() -> None:
    from vitscope.progress import Tracker

    honest, steps = Tracker.advance, 0

    def advance(tracker: Tracker, n: int = 1) -> None:
        nonlocal steps
        steps += tracker.label == "train SAE"
        if steps == 10:
            raise ArtifactError("the disk of this node is gone")
        honest(tracker, n)

    setattr(Tracker, "advance", advance)  # noqa: B010


if __name__ == "__main__":
    main()
