"""``kill -9`` at moments drawn at random, in every stage: the run ends as one left alone."""

import signal
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import pytest
from tests.stages.probe_study import probe_study
from tests.stages.random_kills import Killed, kill_at_random
from tests.stages.run_contents import run_contents
from tests.stages.small_study import N_IMAGES, small_study

from vitscope.embedded.files import REFERENCE_BACKBONES
from vitscope.images.generated import write_generated_images
from vitscope.pipeline import chosen_stages
from vitscope.store.run_directory import RunDirectory
from vitscope.study import Study, dump_study

AT_LEAST = 50
"""Kills that `make soak` survives."""

PROBES_DEEP = 6
"""Kills of the probes and of zero-shot each, which have the most parts that a kill may tear."""

LONGEST_S = 1500
"""After that many seconds the fifty kills hang."""


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed") / "pictures"
    write_generated_images(folder, N_IMAGES, seed=0, side=128)
    return folder


def killed_run(
    study: Study, base: Path, *, seed: int, kills: Mapping[str, int], by_clock: int = 0
) -> list[Killed]:
    """The processes of a run that is killed at random, checked against one left alone."""
    (base / "study.toml").write_text(dump_study(study))
    is_reference = study.backbone.name in REFERENCE_BACKBONES
    alone, *killed, last = kill_at_random(
        base / "study.toml", base / "run", scratch=base, seed=seed, kills=kills,
        by_clock=by_clock, timeout=LONGEST_S,
        imports=["vitscope.backbones.scenes_vit"] if is_reference else [],
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


def told(killed: list[Killed], kills: Mapping[str, int]) -> None:
    """Every stage was hit, at moments of many kinds."""
    by_stage = Counter(process.stage for process in killed)
    by_moment = Counter(process.moment for process in killed)
    print(f"{len(killed)} kills; by stage {dict(by_stage)}; by moment {dict(by_moment)}")  # noqa: T201
    assert kills.keys() <= by_stage.keys(), by_stage
    assert len(by_moment) >= 4, by_moment


@pytest.mark.slow
@pytest.mark.timeout(LONGEST_S)
def test_fifty_random_kills_change_nothing(pictures: Path, tmp_path: Path) -> None:
    study = small_study(pictures)
    kills = {stage.name: 5 for stage in chosen_stages(study)}
    killed = killed_run(study, tmp_path, seed=5, kills=kills, by_clock=5)
    told(killed, kills)
    assert len(killed) >= AT_LEAST


@pytest.mark.slow
@pytest.mark.timeout(LONGEST_S)
def test_kills_in_every_stage_with_probes_change_nothing(tmp_path: Path) -> None:
    study = probe_study()
    deep = {"probe": PROBES_DEEP, "zeroshot": PROBES_DEEP}
    kills = {stage.name: deep.get(stage.name, 1) for stage in chosen_stages(study)}
    told(killed_run(study, tmp_path, seed=6, kills=kills), kills)
