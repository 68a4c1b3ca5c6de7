"""How a stage is skipped, redone and stamped: with one that is made for it."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
from tests.stages.small_study import small_study

from vitscope.errors import ArtifactError
from vitscope.pipeline import all_stages, purposes
from vitscope.stages.stage import Job, Models, Outcome, Stage, run_unless_fresh
from vitscope.store.atomic import write_text
from vitscope.store.records import At
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stamp import STAMP_SCHEMA, Stamp, read_stamp
from vitscope.store.tables import Table
from vitscope.study import Study


@dataclass(frozen=True)
class Found:
    """What the stage returns."""

    mean: float
    fvu: float
    ends: tuple[int, int]
    rows: Annotated[Table, At("tables/scores.parquet")]


class Counting(Stage[Found]):
    """Writes one table and counts how often it ran."""

    name = "score"
    Result = Found

    def __init__(self) -> None:
        self.asked: dict[str, Any] = {"k": 16, "nested": {"missing": "max"}}
        self.read = {"sae": "abc"}
        self.content = [1.0]
        self.fails = False
        self.runs = 0

    def settings(self, job: Job) -> Mapping[str, Any]:
        return self.asked

    def inputs(self, job: Job) -> Mapping[str, str]:
        return self.read

    def run(self, job: Job) -> Found:
        self.runs += 1
        if self.fails:
            raise KeyboardInterrupt
        write_text(job.run.parts("score") / "part", job.fingerprint)
        job.rates["views_per_s"] = 3.0
        return Found(0.25, float("nan"), (0, 1), Table({"x": np.asarray(self.content)}))


class Runner:
    """The stage in a run directory."""

    def __init__(self, root: Path) -> None:
        self.stage, self.run = Counting(), RunDirectory(root)
        self.study: Study = small_study(root, seed=0)

    def outcome(self) -> Outcome:
        job = Job(self.study, self.run, Models(self.study, self.run))
        return run_unless_fresh(self.stage, job)

    def __call__(self) -> tuple[Stamp, bool]:
        outcome = self.outcome()
        return outcome.stamp, outcome.skipped


@pytest.fixture
def stage(tmp_path: Path) -> Runner:
    stage = Runner(tmp_path)
    _, skipped = stage()
    assert not skipped
    assert stage.stage.runs == 1
    return stage


def assert_redone(stage: Runner) -> None:
    before = stage.stage.runs
    assert not stage()[1]
    assert stage.stage.runs == before + 1
    assert stage()[1], "a stage that was redone is skipped the next time"


def test_an_unchanged_stage_is_skipped_with_its_stamp(stage: Runner) -> None:
    stamp, skipped = stage()
    assert skipped
    assert stage.stage.runs == 1
    assert stamp.result == {"ends": [0, 1], "fvu": None, "mean": 0.25}
    assert stamp.rates == {"views_per_s": 3.0}
    assert stamp.inputs == {"sae": "abc"}
    assert list(stamp.outputs) == ["tables/scores.parquet"]
    assert stamp.versions.keys() >= {"python", "vitscope", "torch", "timm", "numpy"}
    assert stamp == read_stamp(stage.run, "score")


def test_a_fresh_stage_and_a_skipped_one_say_the_same(tmp_path: Path) -> None:
    stage = Runner(tmp_path)
    fresh, again = stage.outcome(), stage.outcome()
    assert (fresh.skipped, again.skipped) == (False, True)
    assert fresh.stamp == again.stamp
    for outcome in (fresh, again):
        found = outcome.result
        assert isinstance(found, Found)
        assert (found.mean, found.ends, found.rows["x"].tolist()) == (0.25, (0, 1), [1.0])
        assert np.isnan(found.fvu)


def test_partial_results_are_discarded_once_the_stage_is_whole(stage: Runner) -> None:
    assert not stage.run.parts("score").exists()


def test_parts_that_a_kill_left_beside_the_stamp_are_discarded_by_the_next_run(
    stage: Runner,
) -> None:
    write_text(stage.run.parts("score") / "part", "left")
    assert stage()[1]
    assert not stage.run.parts("score").exists()


def test_a_changed_setting_redoes_the_stage(stage: Runner) -> None:
    stage.stage.asked = {"k": 16, "nested": {"missing": "drop"}}
    assert_redone(stage)


@pytest.mark.parametrize("name", ["stage", "schema", "inputs"])
def test_a_setting_may_have_any_name(stage: Runner, name: str) -> None:
    stage.stage.asked = {name: 1}
    assert_redone(stage)
    stage.stage.asked = {name: 2}
    assert_redone(stage)


def test_a_changed_input_redoes_the_stage(stage: Runner) -> None:
    stage.stage.read = {"sae": "abd"}
    assert_redone(stage)


def test_a_new_input_redoes_the_stage(stage: Runner) -> None:
    stage.stage.read = {"sae": "abc", "images": "x"}
    assert_redone(stage)


def test_the_order_of_settings_does_not_matter(stage: Runner) -> None:
    stage.stage.asked = dict(reversed(stage.stage.asked.items()))
    assert stage()[1]


@pytest.mark.parametrize("damage", [None, b"", b"[2]", b"[1] "])
def test_a_missing_or_damaged_output_redoes_the_stage(stage: Runner, damage: bytes | None) -> None:
    output = stage.run.table("scores")
    whole = output.read_bytes()
    output.unlink() if damage is None else output.write_bytes(damage)
    assert_redone(stage)
    assert output.read_bytes() == whole


def test_an_interrupted_redo_is_never_taken_for_whole(stage: Runner) -> None:
    settings, stage.stage.asked = stage.stage.asked, {"k": 8}
    stage.stage.fails = True
    with pytest.raises(KeyboardInterrupt):
        stage()
    assert read_stamp(stage.run, "score") is None
    stage.stage.fails, stage.stage.asked = False, settings
    assert_redone(stage)


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"schema": 1}', '{"schema": "x"}', "3"])
def test_a_damaged_stamp_proves_nothing(stage: Runner, damage: str) -> None:
    stage.run.stamp("score").write_text(damage)
    assert read_stamp(stage.run, "score") is None
    assert_redone(stage)


def test_a_stamp_with_foreign_fields_proves_nothing(stage: Runner) -> None:
    path = stage.run.stamp("score")
    path.write_text(json.dumps({**json.loads(path.read_text()), "rank": 0}))
    assert_redone(stage)


def test_a_run_of_a_newer_vitscope_is_refused_and_left_alone(stage: Runner) -> None:
    path = stage.run.stamp("score")
    newer = json.dumps({**json.loads(path.read_text()), "schema": STAMP_SCHEMA + 1})
    path.write_text(newer)
    with pytest.raises(ArtifactError, match=r"newer vitscope.*upgrade vitscope or choose another"):
        stage()
    assert path.read_text() == newer
    assert stage.stage.runs == 1


def test_a_run_of_an_older_schema_is_redone(stage: Runner) -> None:
    path = stage.run.stamp("score")
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": STAMP_SCHEMA - 1}))
    assert_redone(stage)


def test_the_digest_follows_what_was_found(stage: Runner) -> None:
    first = stage()[0].digest
    stage.stage.fails = True
    assert stage()[0].digest == first, "skipped"
    stage.stage.fails, stage.study = False, small_study(stage.run.root, seed=1)
    changed = stage()[0]
    assert changed.settings["seed"] == 1
    stage.stage.content = [2.0]
    stage.study = small_study(stage.run.root, seed=2)
    assert stage()[0].digest != changed.digest


def test_a_stage_that_may_not_work_is_refused(stage: Runner) -> None:
    job = Job(stage.study, stage.run, Models(stage.study, stage.run), only=frozenset({"train"}))
    assert run_unless_fresh(stage.stage, job).skipped
    stage.stage.asked = {"k": 1}
    with pytest.raises(ArtifactError, match=r"stage 'score' .* other settings or inputs"):
        run_unless_fresh(stage.stage, job)
    assert stage.stage.runs == 1


def test_every_stage_reads_stages_before_it_and_says_what_it_is_for() -> None:
    before: list[str] = []
    told = purposes()
    for stage in all_stages():
        assert set(stage.after) <= set(before), stage.name
        assert told[stage.name] == stage.purpose() != ""
        before.append(stage.name)
    assert list(told) == before
