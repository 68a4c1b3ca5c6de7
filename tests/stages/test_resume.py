"""A run that is killed or interrupted, in whatever stage, ends as one that was left alone."""

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from tests.stages.interrupted_runs import SMALL_CHUNK, Ended, Job, run_jobs
from tests.stages.run_contents import run_contents
from tests.stages.small_study import N_IMAGES, small_study

from vitscope.errors import RunLockedError
from vitscope.pipeline import chosen_stages, run_study
from vitscope.store.run_directory import RunDirectory
from vitscope.store.tables import read_table
from vitscope.study import dump_study

EVERY = [stage.name for stage in chosen_stages(small_study(Path()))]
"""Without probes, as their images are not named."""
INTERRUPTED = "interrupted; run the same command again: finished work is kept"
BATCH, STEPS_AT_KILL, CHECKPOINTED = 512, 25, 20


@pytest.fixture(scope="module")
def killed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Ended]]:
    """A run left alone; then one killed in extract, train and score, and run to its end."""
    base = tmp_path_factory.mktemp("killed")
    (base / "study.toml").write_text(dump_study(small_study(pictures)))
    run = base / "run"

    def killed_in(stage: str, after: int, parts: str) -> Job:
        return Job(
            command(base, run), stage, "SIGKILL", after, litter=str(run / parts), watch=str(run)
        )

    jobs = [
        Job(command(base, base / "alone")),
        killed_in("extract", 3, "activations"),
        killed_in("train", STEPS_AT_KILL, "parts/train"),
        killed_in("score", 3, "parts/score"),
        Job(command(base, run), watch=str(run)),
    ]
    return base, run_jobs(*jobs, scratch=base)


def command(base: Path, out: Path) -> list[str]:
    return ["run", str(base / "study.toml"), "--out", str(out)]


def test_the_run_left_alone_ends_well(killed: tuple[Path, list[Ended]]) -> None:
    ended = killed[1][0]
    assert (ended.code, ended.skipped) == (0, {"train SAE": 0}), ended.err


@pytest.mark.parametrize(
    ("job", "stage", "part"),
    [
        (1, "extract", "activations/part-000001.safetensors"),
        (2, "train", "parts/train/checkpoint.safetensors"),
        (3, "score", "parts/score/part-000001.safetensors"),
    ],
)
def test_a_kill_leaves_whole_parts_and_no_stamp(
    killed: tuple[Path, list[Ended]], job: int, stage: str, part: str
) -> None:
    ended = killed[1][job]
    assert ended.code == -signal.SIGKILL
    assert part in ended.files
    assert f"stages/{stage}.json" not in ended.files
    before = EVERY[: EVERY.index(stage)]
    assert {f"stages/{name}.json" for name in before} <= ended.files.keys()
    assert any(name.endswith(".vitscope.tmp") for name in ended.files), "the kill left litter"


def test_the_next_process_goes_on_from_what_was_whole(
    killed: tuple[Path, list[Ended]],
) -> None:
    _, extract, train, score, last = killed[1]
    assert train.skipped == {"extracting": 2 * SMALL_CHUNK, "train SAE": 0}
    assert score.skipped == {"train SAE": CHECKPOINTED * BATCH}
    assert last.skipped == {"score": 2 * SMALL_CHUNK}
    for part in ("part-000000", "part-000001"):
        name = f"activations/{part}.safetensors"
        assert last.files[name] == extract.files[name], "written once, by the first process"


def test_a_killed_run_ends_as_one_left_alone(killed: tuple[Path, list[Ended]]) -> None:
    base, ended = killed
    assert ended[-1].code == 0, ended[-1].err
    found = run_contents(RunDirectory(base / "run"))
    expected = run_contents(RunDirectory(base / "alone"))
    assert found.keys() == expected.keys(), "no part, lock or temporary file is left over"
    assert len(list((base / "run" / "activations").glob("part-*"))) == N_IMAGES // SMALL_CHUNK
    for name in expected:
        assert found[name] == expected[name], name


def test_exemplars_do_not_depend_on_the_size_of_a_part(
    killed: tuple[Path, list[Ended]], finished: RunDirectory
) -> None:
    small, whole = read_table(killed[0] / "alone/exemplars.parquet"), read_table(finished.exemplars)
    for column in ("feature", "rank", "image_id"):
        np.testing.assert_array_equal(small[column], whole[column])


@pytest.fixture(scope="module")
def interrupted(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Ended]:
    """One run, interrupted with Ctrl-C once in every stage, and a last process that ends it."""
    base = tmp_path_factory.mktemp("interrupted")
    (base / "study.toml").write_text(dump_study(small_study(pictures)))
    arguments = command(base, base / "run")
    jobs = [Job(arguments, stage, after=1) for stage in EVERY]
    return run_jobs(*jobs, Job(arguments), scratch=base)


@pytest.mark.parametrize("stage", EVERY)
def test_ctrl_c_is_one_line_and_exit_code_130(interrupted: list[Ended], stage: str) -> None:
    ended = interrupted[EVERY.index(stage)]
    lines = ended.err.splitlines()
    assert (ended.code, ended.out) == (130, "")
    assert [line for line in lines if line[0] not in "·✓"] == [INTERRUPTED]
    assert lines[-1] == INTERRUPTED
    done = [line.split()[1] for line in lines[:-1]]
    assert done == EVERY[: EVERY.index(stage)], "the stages before it stand"


def test_after_an_interruption_of_every_stage_the_run_ends(interrupted: list[Ended]) -> None:
    last = interrupted[-1]
    assert last.code == 0
    assert "report.html" in last.out
    assert [line[0] for line in last.err.splitlines()] == ["·"] * (len(EVERY) - 1) + ["✓"]


HOLD = """
import sys, time
from pathlib import Path
from vitscope.store.run_directory import RunDirectory
with RunDirectory(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_second_process_is_told_who_holds_the_run(copied: RunDirectory, pictures: Path) -> None:
    study = small_study(pictures, scope={"gamma": 0.3})
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(copied.root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        before = run_contents(copied)
        pattern = rf"run is in use by process {holder.pid} on .*; wait for it to end, or choose"
        with pytest.raises(RunLockedError, match=pattern):
            run_study(study, copied.root)
        assert run_contents(copied) == before, "the study of the one refused is not written either"
        holder.send_signal(signal.SIGKILL)
    outcomes = run_study(study, copied.root)
    assert not outcomes["partition"].skipped, "the lock died with its holder"
