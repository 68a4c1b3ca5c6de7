"""Stage «instability» piece by piece: killed and resumed, and in memory that does not grow."""

import shutil
import signal
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from tests.stages.interrupted_runs import SMALL_CHUNK, Ended, Job, run_jobs
from tests.stages.run_contents import run_contents
from tests.stages.shifted_runs import STAGES, again, shifted_study
from tests.stages.small_study import small_study
from torch import Tensor

from vitscope.images.sources import ImageRef
from vitscope.pipeline import run_study
from vitscope.scope.instability import INSTABILITY_SHAPE
from vitscope.scope.views import Overlap
from vitscope.stages import instability, passes
from vitscope.stages.instability import write_and_sum
from vitscope.store.run_directory import RunDirectory
from vitscope.study import dump_study


@pytest.fixture(scope="module")
def killed(
    shifted_pictures: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[Ended]]:
    """A run left alone; one killed in the third part, and once more while its table is written."""
    base = tmp_path_factory.mktemp("killed")
    study = shifted_study(shifted_pictures, outliers={"images": 32})
    (base / "study.toml").write_text(dump_study(study))
    run = base / "run"

    def command(out: Path) -> list[str]:
        return ["instability", str(base / "study.toml"), "--out", str(out)]

    run_study(study, base / "alone", only=STAGES[:-1])
    shutil.copytree(base / "alone", run)
    jobs = [
        Job(command(base / "alone")),
        # batches of 10 images, cut short at each part's end: advances come part by part
        Job(
            command(run), "instability", "SIGKILL", 3, litter=str(run / "parts/instability"),
            watch=str(run),
        ),
        Job(command(run), "instability", "SIGKILL", 2, watch=str(run)),
        Job(command(run), watch=str(run)),
    ]  # fmt: skip
    return base, run_jobs(*jobs, scratch=base)


@pytest.mark.slow
def test_a_kill_leaves_its_parts_and_no_half_table(killed: tuple[Path, list[Ended]]) -> None:
    _, first, second, last = killed[1]
    for ended, n_parts in ((first, 2), (second, 3)):
        assert ended.code == -signal.SIGKILL
        parts = [name for name in ended.files if name.startswith("parts/instability/part-")]
        assert len(parts) == n_parts
        assert not {"outliers.parquet", "stages/instability.json"} & ended.files.keys()
        assert any(name.startswith(".outliers.parquet.") for name in ended.files), "half a table"
    assert second.skipped["instability"] == 2 * SMALL_CHUNK
    assert last.skipped["instability"] == 3 * SMALL_CHUNK
    assert last.code == 0, last.err


@pytest.mark.slow
def test_a_killed_run_ends_as_one_left_alone(killed: tuple[Path, list[Ended]]) -> None:
    base, ended = killed
    assert ended[0].code == 0, ended[0].err
    found = run_contents(RunDirectory(base / "run"))
    expected = run_contents(RunDirectory(base / "alone"))
    assert found.keys() == expected.keys(), "no part and no half-written table is left over"
    for name in ("outliers.parquet", "stages/instability.json: result"):
        assert found[name] == expected[name], name


def synthetic_parts(n_images: int, n_shifts: int) -> Iterator[dict[str, Tensor]]:
    random = np.random.default_rng(0)
    for _ in range(0, n_images, 64):
        shape = (64, n_shifts, *INSTABILITY_SHAPE)
        yield {
            "emd": torch.from_numpy(random.random(shape)),
            "n_maps": torch.from_numpy(random.integers(1, 99, shape)),
            "n_missed": torch.zeros(shape, dtype=torch.int64),
            "n_outliers": torch.ones((64, n_shifts, 3), dtype=torch.int64),
        }


def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    overlaps = [Overlap(16, shift) for shift in range(1, 7)]

    def peak(n_images: int) -> int:
        refs = [ImageRef(f"{i}.jpg", tmp_path / f"{i}.jpg", None) for i in range(n_images)]
        parts, path = synthetic_parts(n_images, len(overlaps)), tmp_path / f"{n_images}.parquet"
        tracemalloc.start()
        rows = write_and_sum(path, refs, parts, overlaps, {}, seed=0)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert rows[0].outlier.n_images == n_images
        assert len(pd.read_parquet(path, columns=["shift"])) == n_images * 6 * np.prod(
            INSTABILITY_SHAPE
        )
        return found

    peak(64)  # what is imported or cached on first use
    assert peak(1920) < 1.05 * peak(192)


def test_parts_go_through_one_by_one(
    copied_shifts: RunDirectory, shifted_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stage hands on a part before the next one is computed."""
    events: list[str] = []
    compare, columns = instability._compare_chunk, instability._columns

    def compared(*arguments: Any) -> Any:
        events.append("compute")
        return compare(*arguments)

    def written(*arguments: Any) -> Any:
        events.append("write")
        return columns(*arguments)

    monkeypatch.setattr(passes, "CHUNK_IMAGES", 4)
    monkeypatch.setattr(instability, "_compare_chunk", compared)
    monkeypatch.setattr(instability, "_columns", written)
    again(copied_shifts, small_study(shifted_pictures, outliers={"tokens_per_image": 4}))
    assert events == ["compute", "write"] * 3
    assert run_contents(copied_shifts)
