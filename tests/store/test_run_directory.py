import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vitscope.errors import ArtifactError, RunLockedError
from vitscope.store.run_directory import RunDirectory

HOLDER = """
import sys; from pathlib import Path
from vitscope.store.atomic import atomic_path
from vitscope.store.run_directory import RunDirectory
run = RunDirectory(Path(sys.argv[1]))
with run.locked(), atomic_path(run.table("scores")), atomic_path(run.parts("score") / "p"):
    print("locked", flush=True)
    sys.stdin.readline()
"""

CONTENDER = """
import sys; from pathlib import Path
from vitscope.store.run_directory import RunDirectory
from vitscope.errors import RunLockedError
try:
    with RunDirectory(Path(sys.argv[1])).locked():
        print("taken")
except RunLockedError as error:
    print(error)
"""


@contextmanager
def holding_process(root: Path) -> Generator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "locked\n"
            yield process
        finally:
            process.kill()


def contend(root: Path) -> str:
    command = [sys.executable, "-c", CONTENDER, str(root)]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def test_a_second_process_is_told_who_holds_the_run(tmp_path: Path) -> None:
    with RunDirectory(tmp_path).locked():
        told = contend(tmp_path)
    assert f"process {os.getpid()} on " in told
    assert "wait for it to end, or choose another --out" in told
    assert contend(tmp_path) == "taken\n"


def test_this_process_is_told_of_another_that_holds_the_run(tmp_path: Path) -> None:
    with (
        holding_process(tmp_path) as process,
        pytest.raises(RunLockedError, match=rf"in use by process {process.pid} on "),
        RunDirectory(tmp_path).locked(),
    ):
        pytest.fail("two processes held one run")


def test_the_lock_of_a_killed_process_is_free_and_what_it_left_is_swept(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path)
    with holding_process(tmp_path) as process:
        process.send_signal(signal.SIGKILL)
        process.wait()
    left = [*run.table("scores").parent.iterdir(), *run.parts("score").iterdir()]
    assert len(left) == 2, "the killed process was writing two files"
    with run.locked():
        assert not any(path.exists() for path in left)


def test_the_lock_is_not_reentrant(tmp_path: Path) -> None:
    with (
        RunDirectory(tmp_path).locked(),
        pytest.raises(RunLockedError, match=f"process {os.getpid()} on "),
        RunDirectory(tmp_path).locked(),
    ):
        pytest.fail("locked twice")
    with RunDirectory(tmp_path).locked():
        pass


def test_an_error_inside_releases_the_lock(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inside"), RunDirectory(tmp_path).locked():
        raise ValueError("inside")
    with RunDirectory(tmp_path).locked():
        assert (tmp_path / ".lock.holder").exists()
    assert not (tmp_path / ".lock.holder").exists()


def test_a_holder_that_has_not_yet_signed_is_another_process(tmp_path: Path) -> None:
    with (
        RunDirectory(tmp_path).locked(),
        pytest.raises(RunLockedError, match="in use by another process"),
    ):
        (tmp_path / ".lock.holder").unlink()
        with RunDirectory(tmp_path).locked():
            pytest.fail("locked twice")


def test_a_run_that_cannot_be_created_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(ArtifactError, match="cannot write in"),
        RunDirectory(tmp_path / "file" / "run").locked(),
    ):
        pytest.fail("locked a folder that cannot be")


def test_nothing_is_created_by_naming_paths(tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    paths = [run.study, run.activations, run.sae, run.checkpoint, run.training_log, run.features]
    paths += [run.exemplars, run.pairs, run.outliers, run.skipped, run.report, run.images("train")]
    paths += [run.table("a"), run.figures, run.stamp("a")]
    assert len({*paths, run.parts("a")}) == len(paths) + 1
    assert all(path.is_relative_to(run.root) for path in paths)
    assert not run.root.exists()
