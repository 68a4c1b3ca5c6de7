import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.sae.interrupted_training import SETTINGS, training

from vitscope.sae.training import TrainedSae
from vitscope.store import tensors as tensor_files


class Stop(Exception):
    pass


def nothing(_: int) -> None:
    pass


def raise_at(step: int, error: type[BaseException] = Stop) -> Callable[[int], None]:
    def before(number: int) -> None:
        if number == step:
            raise error

    return before


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[TrainedSae, str]:
    log = tmp_path_factory.mktemp("whole") / "log.jsonl"
    return training(nothing, None, log), log.read_text()


def assert_same(resumed: TrainedSae, whole: TrainedSae) -> None:
    for name in ("w_enc", "b_enc", "w_dec", "b_dec"):
        assert torch.equal(getattr(resumed.sae, name), getattr(whole.sae, name)), name
    assert resumed.sae.threshold == whole.sae.threshold
    assert resumed.final == whole.final
    assert resumed.sae.info == whole.sae.info
    assert resumed.n_tokens == whole.n_tokens


def test_dead_features_take_part(whole: tuple[TrainedSae, str]) -> None:
    figures = [json.loads(line) for line in whole[1].splitlines()]
    assert any(line["auxiliary"] > 0 for line in figures[-3:])  # the counters matter to the weights


@pytest.mark.parametrize("stops", [[3], [6], [17], [17, 33], [39, 39]])
def test_a_training_stopped_and_called_again_equals_an_uninterrupted_one(
    stops: list[int], whole: tuple[TrainedSae, str], tmp_path: Path
) -> None:
    checkpoint, log = tmp_path / "checkpoint.safetensors", tmp_path / "log.jsonl"
    for stop in stops:
        with pytest.raises(Stop):
            training(raise_at(stop), checkpoint, log)
    resumed = training(nothing, checkpoint, log)
    assert resumed.resumed_from == stops[-1] // SETTINGS.checkpoint_every * 6
    assert_same(resumed, whole[0])
    assert log.read_text() == whole[1]


def test_a_finished_training_called_again_takes_no_step(
    whole: tuple[TrainedSae, str], tmp_path: Path
) -> None:
    checkpoint, log = tmp_path / "checkpoint.safetensors", tmp_path / "log.jsonl"
    training(nothing, checkpoint, log)
    again = training(raise_at(40), checkpoint, log)
    assert again.resumed_from == again.n_steps == 40
    assert_same(again, whole[0])
    assert log.read_text() == whole[1]


def test_a_training_killed_outright_resumes_to_the_same_weights(
    whole: tuple[TrainedSae, str], tmp_path: Path
) -> None:
    checkpoint, log = tmp_path / "checkpoint.safetensors", tmp_path / "log.jsonl"
    script = Path(__file__).with_name("interrupted_training.py")
    child = subprocess.Popen(
        [sys.executable, str(script), str(checkpoint), str(log), "0.05"], stderr=subprocess.PIPE
    )
    deadline = time.monotonic() + 60
    while not (checkpoint.exists() and log.exists() and len(log.read_text()) > 0):
        assert child.poll() is None, child.communicate()[1].decode()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.2)  # some steps past the checkpoint
    os.kill(child.pid, signal.SIGKILL)
    child.communicate()
    assert child.returncode == -signal.SIGKILL
    resumed = training(nothing, checkpoint, log)
    assert 0 < resumed.resumed_from < 40
    assert_same(resumed, whole[0])
    assert log.read_text() == whole[1]


def test_ctrl_c_while_a_checkpoint_is_written_leaves_the_one_before(
    whole: tuple[TrainedSae, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint, log = tmp_path / "checkpoint.safetensors", tmp_path / "log.jsonl"
    written: list[int] = []

    def interrupted(data: dict[str, Any], path: Path, metadata: dict[str, str]) -> None:
        written.append(int(json.loads(metadata[tensor_files.TENSOR_METADATA])["step"]))
        if len(written) == 3:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        save_file(data, path, metadata)

    monkeypatch.setattr(tensor_files, "save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        training(nothing, checkpoint, log)
    monkeypatch.undo()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.safetensors", "log.jsonl"]
    resumed = training(nothing, checkpoint, log)
    assert resumed.resumed_from == written[1] == 12
    assert_same(resumed, whole[0])


def test_ctrl_c_between_steps_saves_nothing_new(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        training(raise_at(5, KeyboardInterrupt), checkpoint, None)
    assert list(tmp_path.iterdir()) == []


def test_a_checkpoint_of_another_training_or_a_damaged_one_is_not_used(
    whole: tuple[TrainedSae, str], tmp_path: Path
) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(Stop):
        training(raise_at(17), checkpoint, None, seed=1)
    resumed = training(nothing, checkpoint, None)
    assert resumed.resumed_from == 0
    assert_same(resumed, whole[0])
    content = bytearray(checkpoint.read_bytes())
    content[-100] ^= 1
    checkpoint.write_bytes(content)
    assert training(nothing, checkpoint, None).resumed_from == 0


def test_a_line_cut_short_by_a_kill_is_dropped(
    whole: tuple[TrainedSae, str], tmp_path: Path
) -> None:
    checkpoint, log = tmp_path / "checkpoint.safetensors", tmp_path / "log.jsonl"
    with pytest.raises(Stop):
        training(raise_at(17), checkpoint, log)
    with log.open("a") as handle:
        handle.write('{"step": 2')
    training(nothing, checkpoint, log)
    assert log.read_text() == whole[1]
