"""The command line as one rank of a job; torchrun starts this, arguments are the command's.

KILLED_RANK and KILLED_AT (advances of the training's progress) in the environment: that rank kills
itself there, in the first life of the job.
"""

import os

from interrupted_runs import Job, arm, use_small_chunks


def main() -> None:
    use_small_chunks()
    first_life = os.environ["TORCHELASTIC_RESTART_COUNT"] == "0"
    if first_life and os.environ.get("KILLED_RANK") == os.environ["RANK"]:
        arm(Job([], "train", "SIGKILL", int(os.environ["KILLED_AT"])))
    from vitscope.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
