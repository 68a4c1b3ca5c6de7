"""A disk that is full or read-only, for real: one line, exit code 2, and what stood stands."""

from pathlib import Path

import pytest
import torch
from tests.faults.small_disk import read_only, resize, small_disk
from tests.stages.interrupted_runs import Ended, Job, run_jobs
from tests.stages.run_contents import run_contents
from tests.stages.small_study import N_IMAGES, small_study

from vitscope.errors import ArtifactError
from vitscope.images.generated import write_generated_images
from vitscope.store.run_directory import RunDirectory
from vitscope.store.tensors import save_tensors
from vitscope.study import dump_study

ENOUGH_KB = 64_000

PAGE = 16 << 10
"""Bytes left for the cache's record."""

SHARES = (0.05, 0.5, 0.9)
"""Of what the whole run takes."""


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("study")
    write_generated_images(base / "pictures", N_IMAGES, seed=0, side=128)
    (base / "study.toml").write_text(dump_study(small_study(base / "pictures")))
    return base / "study.toml"


def run(study: Path, out: Path, scratch: Path) -> Ended:
    scratch.mkdir(exist_ok=True)
    return run_jobs(Job(["run", str(study), "--out", str(out)]), scratch=scratch)[0]


def one_line(ended: Ended) -> str:
    *before, last = ended.err.splitlines()
    assert ended.code == 2, ended.err
    assert all(line[0] in "·✓" for line in before), ended.err
    assert last.startswith("error: ")
    return last


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_goes_on_where_there_is_room(
    study: Path, tmp_path: Path
) -> None:
    alone = run(study, tmp_path / "alone", tmp_path / "scratch")
    assert alone.code == 0, alone.err
    taken = sum(p.stat().st_size for p in (tmp_path / "alone").rglob("*") if p.is_file())
    with small_disk(tmp_path / "disk", 64) as disk:
        full = disk / "run"
        for share in SHARES:
            resize(disk, int(share * taken) >> 10)
            standing = {p: p.read_bytes() for p in disk.glob("run/stages/*.json")}
            assert "No space left" in one_line(run(study, full, tmp_path / "scratch"))
            assert all(p.read_bytes() == stamp for p, stamp in standing.items()), "it stands"
            assert not list(disk.rglob("*.vitscope.tmp")), "nothing half-written is left"
        assert (full / "stages/extract.json").exists(), "it got further every time"
        resize(disk, ENOUGH_KB)
        ended = run(study, full, tmp_path / "scratch")
        assert ended.code == 0, ended.err
        found, expected = (run_contents(RunDirectory(p)) for p in (full, tmp_path / "alone"))
        assert found == expected
        read_only(disk)
        # nothing would be written, but the lock would
        assert "Read-only file system" in one_line(run(study, full, tmp_path / "scratch"))
        assert run_contents(RunDirectory(full)) == expected


def test_a_tensor_file_that_does_not_fit_leaves_the_old_one(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", 64) as disk:
        path = disk / "x.safetensors"
        save_tensors(path, {"x": torch.zeros(10)}, {})
        before = path.read_bytes()
        with pytest.raises(ArtifactError, match=r"cannot write .*x\.safetensors"):
            save_tensors(path, {"x": torch.zeros(50_000)}, {})
        assert path.read_bytes() == before
        assert [p.name for p in disk.iterdir()] == ["x.safetensors"]
