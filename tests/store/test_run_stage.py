import json
from pathlib import Path
from typing import Any

import pytest

from vitscope.errors import ArtifactError
from vitscope.store.atomic import write_text
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stage import (
    STAMP_SCHEMA,
    StageOutput,
    Stamp,
    outputs_digest,
    read_stamp,
    run_stage,
)


class Stage:
    """A stage that writes one table and counts how often its body ran."""

    def __init__(self, root: Path) -> None:
        self.run = RunDirectory(root)
        self.settings: dict[str, Any] = {"k": 16, "nested": {"missing": "max"}}
        self.inputs = {"sae": "abc"}
        self.content = "[1]"
        self.fails = False
        self.bodies = 0

    def body(self, key: str) -> StageOutput:
        self.bodies += 1
        if self.fails:
            raise KeyboardInterrupt
        write_text(self.run.table("scores"), self.content)
        write_text(self.run.parts("score") / "part", key)
        summary = {"mean": 0.25, "fvu_outlier": float("nan"), "range": (0, 1)}
        return StageOutput([self.run.table("scores")], summary)

    def __call__(self) -> tuple[Stamp, bool]:
        return run_stage(
            self.run, "score", settings=self.settings, inputs=self.inputs, body=self.body
        )


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    stage = Stage(tmp_path)
    _, skipped = stage()
    assert not skipped
    assert stage.bodies == 1
    return stage


def assert_redone(stage: Stage) -> None:
    before = stage.bodies
    assert not stage()[1]
    assert stage.bodies == before + 1
    assert stage()[1], "a stage that was redone is skipped the next time"


def test_an_unchanged_stage_is_skipped_with_its_stamp(stage: Stage) -> None:
    stamp, skipped = stage()
    assert skipped
    assert stage.bodies == 1
    assert stamp.summary == {"mean": 0.25, "fvu_outlier": None, "range": [0, 1]}
    assert stamp.inputs == {"sae": "abc"}
    assert list(stamp.outputs) == ["tables/scores.json"]
    assert stamp.versions.keys() >= {"python", "vitscope", "torch", "timm", "numpy"}
    assert stamp == read_stamp(stage.run, "score")


def test_a_fresh_stage_and_a_skipped_one_say_the_same(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    (fresh, first), (again, second) = stage(), stage()
    assert (first, second) == (False, True)
    assert fresh == again


def test_partial_results_are_discarded_once_the_stage_is_whole(stage: Stage) -> None:
    assert not stage.run.parts("score").exists()


def test_parts_that_a_kill_left_beside_the_stamp_are_discarded_by_the_next_run(
    stage: Stage,
) -> None:
    write_text(stage.run.parts("score") / "part", "left")
    assert stage()[1]
    assert not stage.run.parts("score").exists()


def test_a_changed_setting_redoes_the_stage(stage: Stage) -> None:
    stage.settings = {"k": 16, "nested": {"missing": "drop"}}
    assert_redone(stage)


@pytest.mark.parametrize("name", ["stage", "schema", "inputs"])
def test_a_setting_may_have_any_name(stage: Stage, name: str) -> None:
    stage.settings = {name: 1}
    assert_redone(stage)
    stage.settings = {name: 2}
    assert_redone(stage)


def test_a_changed_input_redoes_the_stage(stage: Stage) -> None:
    stage.inputs = {"sae": "abd"}
    assert_redone(stage)


def test_a_new_input_redoes_the_stage(stage: Stage) -> None:
    stage.inputs = {"sae": "abc", "images": "x"}
    assert_redone(stage)


def test_the_order_of_settings_does_not_matter(stage: Stage) -> None:
    stage.settings = dict(reversed(stage.settings.items()))
    assert stage()[1]


@pytest.mark.parametrize("damage", [None, b"", b"[2]", b"[1] "])
def test_a_missing_or_damaged_output_redoes_the_stage(stage: Stage, damage: bytes | None) -> None:
    output = stage.run.table("scores")
    output.unlink() if damage is None else output.write_bytes(damage)
    assert_redone(stage)
    assert output.read_text() == "[1]"


def test_an_interrupted_redo_is_never_taken_for_whole(stage: Stage) -> None:
    settings, stage.settings = stage.settings, {"k": 8}
    stage.fails = True
    with pytest.raises(KeyboardInterrupt):
        stage()
    assert read_stamp(stage.run, "score") is None
    stage.fails, stage.settings = False, settings
    assert_redone(stage)


@pytest.mark.parametrize("damage", ["", "{", "[]", "{}", '{"schema": 1}', '{"schema": "x"}', "3"])
def test_a_damaged_stamp_proves_nothing(stage: Stage, damage: str) -> None:
    stage.run.stamp("score").write_text(damage)
    assert read_stamp(stage.run, "score") is None
    assert_redone(stage)


def test_a_stamp_with_foreign_fields_proves_nothing(stage: Stage) -> None:
    path = stage.run.stamp("score")
    path.write_text(json.dumps({**json.loads(path.read_text()), "rank": 0}))
    assert_redone(stage)


def test_a_run_of_a_newer_vitscope_is_refused_and_left_alone(stage: Stage) -> None:
    path = stage.run.stamp("score")
    newer = json.dumps({**json.loads(path.read_text()), "schema": STAMP_SCHEMA + 1})
    path.write_text(newer)
    with pytest.raises(ArtifactError, match=r"newer vitscope.*upgrade vitscope or choose another"):
        stage()
    assert path.read_text() == newer
    assert stage.bodies == 1


def test_a_run_of_an_older_schema_is_redone(stage: Stage) -> None:
    path = stage.run.stamp("score")
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": STAMP_SCHEMA - 1}))
    assert_redone(stage)


def test_the_digest_of_outputs_follows_their_content(stage: Stage) -> None:
    first = outputs_digest(stage()[0])
    stage.content, stage.settings = "[1]", {"k": 1}
    assert outputs_digest(stage()[0]) == first, "same content: nothing downstream is redone"
    stage.content, stage.settings = "[2]", {"k": 2}
    assert outputs_digest(stage()[0]) != first
