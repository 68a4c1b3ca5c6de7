"""What goes wrong in the middle of a study: images, activations, clocks, damaged files, workers."""

import random
import time
from itertools import count
from pathlib import Path

import pytest
import torch
from tests.stages.fork_server import fork_server
from tests.stages.interrupted_runs import Job, run_jobs
from tests.stages.run_contents import run_contents
from tests.stages.small_study import small_study

from vitscope.backbones.backbone import BlockTokens
from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.errors import BackboneError, ImageSetError
from vitscope.images.generated import write_generated_images
from vitscope.pipeline import run_study
from vitscope.stages.stage import Outcome
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stamp import outputs_whole, read_stamp
from vitscope.study import dump_study

YEAR_S = 365 * 24 * 3600.0


def test_an_image_that_disappears_between_passes_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    write_generated_images(folder, 40, seed=0, side=128)
    study = small_study(folder)
    gone = sorted(folder.iterdir())[7]

    def remove(ended: Outcome) -> None:
        if ended.stage.name == "outliers":
            gone.unlink()

    with pytest.raises(ImageSetError, match=rf"{gone.name} changed since it was verified \(file"):
        run_study(study, tmp_path / "run", on_stage=remove)
    run = RunDirectory(tmp_path / "run")
    assert read_stamp(run, "outliers") is not None
    assert read_stamp(run, "evaluate") is None


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("stage", ["outliers", "evaluate", "score"])
def test_an_activation_that_is_no_number_is_named_by_image_and_layer(
    copied: RunDirectory, pictures: Path, monkeypatch: pytest.MonkeyPatch, stage: str, value: float
) -> None:
    honest = PlantedBackbone.tokens

    def spoiled(backbone: PlantedBackbone, images: torch.Tensor) -> BlockTokens:
        found = honest(backbone, images)
        found.patch[0, 3, 5] = value
        return found

    copied.stamp(stage).unlink()
    monkeypatch.setattr(PlantedBackbone, "tokens", spoiled)
    with pytest.raises(BackboneError, match=r"^scene-\d+\.png: an activation of planted, block 1"):
        run_study(small_study(pictures), copied.root)
    assert read_stamp(copied, stage) is None


def test_a_clock_that_jumps_changes_nothing(
    finished: RunDirectory, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    jumps = count()
    honest = time.time

    def jumping() -> float:
        return honest() + YEAR_S * (10 if next(jumps) % 2 else -10)

    monkeypatch.setattr(time, "time", jumping)
    run_study(small_study(pictures), tmp_path / "run")
    assert run_contents(RunDirectory(tmp_path / "run")) == run_contents(finished)


def test_one_bit_of_any_output_is_noticed(copied: RunDirectory) -> None:
    drawn = random.Random(4)
    n_files = 0
    for path in sorted(copied.stamp("").parent.glob("*.json")):
        stamp = read_stamp(copied, path.stem)
        assert stamp is not None and outputs_whole(copied, stamp)
        for name in stamp.outputs:
            output = copied.root / name
            whole = output.read_bytes()
            damaged = bytearray(whole)
            damaged[drawn.randrange(len(whole))] ^= 1 << drawn.randrange(8)
            for content in (bytes(damaged), whole[: drawn.randrange(len(whole))]):
                output.write_bytes(content)
                assert not outputs_whole(copied, stamp), name
            output.write_bytes(whole)
            n_files += 1
        assert outputs_whole(copied, stamp)
    assert n_files >= 15


@pytest.mark.slow
def test_the_same_study_in_another_process_with_more_workers_gives_the_same_bytes(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[dict[str, bytes]] = []
    for workers, hash_seed in ((1, "1"), (3, "2")):
        monkeypatch.setenv("PYTHONHASHSEED", hash_seed)  # sets are in another order
        base = tmp_path / str(workers)
        base.mkdir()
        study = small_study(pictures, images={"workers": workers})
        (base / "study.toml").write_text(dump_study(study))
        command = ["run", str(base / "study.toml"), "--out", str(base / "run")]
        with fork_server() as server:
            ended = run_jobs(Job(command), scratch=base, server=server)[0]
        assert ended.code == 0, ended.err
        found.append(run_contents(RunDirectory(base / "run")))
        del found[-1]["study.toml"]
    assert found[0] == found[1]
