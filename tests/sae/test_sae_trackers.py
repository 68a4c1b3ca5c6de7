"""TensorBoard and W&B get the log's figures under the log's steps, after an interruption too."""

import json
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from tests.sae.interrupted_training import SETTINGS, training

from vitscope.errors import ConfigError
from vitscope.sae import log as trackers
from vitscope.sae.log import TrackerName, require_trackers
from vitscope.sae.settings import SaeSettings

FIGURES = ("loss", "fvu", "l0", "dead_share", "learning_rate", "auxiliary")


class Stop(Exception):
    pass


def stop_at_17(batch: int) -> None:
    if batch == 17:
        raise Stop


def tracked(*names: TrackerName) -> SaeSettings:
    return SETTINGS.model_copy(update={"track": names})


def train_in(folder: Path, settings: SaeSettings) -> None:
    """Train in two processes' worth: the first is stopped after step 17, past its checkpoint."""
    checkpoint, log = folder / "checkpoint.safetensors", folder / "metrics.jsonl"
    with pytest.raises(Stop):
        training(stop_at_17, checkpoint, log, settings=settings)
    training(lambda _: None, checkpoint, log, settings=settings)


def logged(folder: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return {int(line["step"]): line for line in lines}


@pytest.mark.skipif(not find_spec("tensorboard"), reason="no tensorboard here")
@pytest.mark.filterwarnings("ignore")  # its own dependencies' warnings
def test_tensorboard_holds_the_log(tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    train_in(tmp_path, tracked("tensorboard"))
    lines = logged(tmp_path)
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    for figure in FIGURES:
        held = [(event.step, event.value) for event in events.Scalars(f"sae/{figure}")]
        assert [step for step, _ in held] == list(lines), "each step once, in order"
        for step, value in held:
            assert value == pytest.approx(lines[step][figure]), (figure, step)
    looked = [step for step, line in lines.items() if "held_out_fvu" in line]
    assert [event.step for event in events.Scalars("sae/held_out_fvu")] == looked != []


class Recorder:
    """Stands for the module ``wandb``: one run, as a server would hold it."""

    def __init__(self) -> None:
        self.options: list[dict[str, object]] = []
        self.steps: dict[int, dict[str, float]] = {}
        self.ended = 0

    def Settings(self, **options: object) -> dict[str, object]:
        return options

    def init(self, **options: object) -> "Recorder":
        self.options.append(options)
        return self

    def log(self, figures: dict[str, float], step: int) -> None:
        self.steps[step] = figures

    def finish(self) -> None:
        self.ended += 1


def test_wandb_gets_every_step_and_a_resumed_training_is_the_same_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    monkeypatch.setitem(sys.modules, "wandb", recorder)
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    train_in(tmp_path, tracked("wandb"))
    lines = logged(tmp_path)
    assert list(recorder.steps) == list(lines)
    for step, figures in recorder.steps.items():
        assert figures == {key: value for key, value in lines[step].items() if key != "step"}
    first, second = recorder.options
    assert first == second
    assert (first["project"], first["resume"]) == ("vitscope", "allow")
    assert first["config"] == tracked("wandb").model_dump(mode="json")
    assert recorder.ended == 2


@pytest.mark.skipif(not find_spec("wandb"), reason="no wandb here")
@pytest.mark.filterwarnings("ignore")  # its own dependencies' warnings
def test_wandb_itself_takes_them_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    settings = tracked("wandb")
    training(lambda _: None, None, tmp_path / "metrics.jsonl", settings=settings)
    runs = list((tmp_path / "wandb").glob("offline-run-*/*.wandb"))
    assert len(runs) == 1
    assert runs[0].stat().st_size > 0
    assert capfd.readouterr().out == "", "standard output is for results"


def test_a_tracker_that_is_not_installed_is_refused_with_its_command(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def nothing(_: str) -> None:
        return None

    require_trackers(())
    monkeypatch.setattr(trackers, "find_spec", nothing)
    with pytest.raises(ConfigError, match=r'names wandb, .* pip install "vitscope\[track\]"'):
        require_trackers(["wandb"])


def test_an_unknown_tracker_is_refused() -> None:
    with pytest.raises(ConfigError, match="track"):
        SaeSettings.parse({"track": ["mlflow"]}, source="study.toml")
