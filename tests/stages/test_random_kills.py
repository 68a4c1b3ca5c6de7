"""``kill -9`` at moments drawn at random, in every stage: the run ends as one left alone."""

import signal
from collections import Counter
from pathlib import Path

import pytest
from probe_study import probe_study
from random_kills import Killed, kill_at_random
from run_contents import run_contents
from small_study import N_IMAGES, small_study

from vitscope.artifacts.run_directory import RunDirectory
from vitscope.images.generated import write_generated_images
from vitscope.pipeline import chosen_stages
from vitscope.study import Study, dump_study

AT_LEAST = 50
"""Kills that `make soak` survives."""

MISSED = 2
"""Stages that chance may leave out."""

LONGEST_S = 1500
"""After that many seconds the fifty kills hang."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed") / "pictures"
    write_generated_images(folder, N_IMAGES, seed=0, side=128)
    return folder


def killed_run(
    study: Study, base: Path, *, seed: int, stages: list[str], per_stage: int, by_clock: int = 0
) -> list[Killed]:
    """The processes of a run that is killed at random, checked against one left alone."""
    (base / "study.toml").write_text(dump_study(study))
    alone, *killed, last = kill_at_random(
        base / "study.toml", base / "run", scratch=base, seed=seed, stages=stages,
        per_stage=per_stage, by_clock=by_clock, timeout=LONGEST_S,
    )  # fmt: skip
    assert (alone.code, last.code) == (0, 0), alone.err + last.err
    for process in killed:
        assert process.code in (0, -signal.SIGKILL), process.err
    expected = run_contents(RunDirectory(base / "alone"))
    for run in base.glob("run*"):
        found = run_contents(RunDirectory(run))
        assert found.keys() == expected.keys(), "no part, lock or temporary file is left over"
        for name in expected:
            assert found[name] == expected[name], name
    return [process for process in killed if process.code != 0]


def test_a_run_killed_four_times_ends_as_one_left_alone(pictures: Path, tmp_path: Path) -> None:
    stages = ["extract", "train", "score", "partition"]
    killed = killed_run(small_study(pictures), tmp_path, seed=11, stages=stages, per_stage=1)
    assert len(killed) == len(stages)
    assert all(process.err.count("Traceback") == 0 for process in killed)


def told(killed: list[Killed], study: Study) -> None:
    """Nearly every stage was hit, at moments of many kinds."""
    by_stage = Counter(process.stage for process in killed)
    by_moment = Counter(process.moment for process in killed)
    print(f"{len(killed)} kills; by stage {dict(by_stage)}; by moment {dict(by_moment)}")  # noqa: T201
    missed = {stage.name for stage in chosen_stages(study)} - by_stage.keys()
    assert len(missed) <= MISSED, by_stage  # a kill drawn late may pass over a short stage
    assert len(by_moment) >= 4, by_moment


@pytest.mark.slow
@pytest.mark.timeout(LONGEST_S)
def test_fifty_random_kills_change_nothing(pictures: Path, tmp_path: Path) -> None:
    study = small_study(pictures)
    stages = [stage.name for stage in chosen_stages(study)]
    killed = killed_run(study, tmp_path, seed=5, stages=stages, per_stage=5, by_clock=5)
    told(killed, study)
    assert len(killed) >= AT_LEAST


@pytest.mark.slow
@pytest.mark.timeout(LONGEST_S)
def test_kills_in_every_stage_with_probes_change_nothing(tmp_path: Path) -> None:
    study = probe_study()
    stages = [stage.name for stage in chosen_stages(study)]
    told(killed_run(study, tmp_path, seed=6, stages=stages, per_stage=2), study)
