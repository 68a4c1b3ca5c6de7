"""``torchrun -m vitscope``: several processes give what one gives, and survive one's death."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.stages.probe_study import probe_study
from tests.stages.small_study import small_study

from vitscope.pipeline import run_study
from vitscope.sae.storage import load_saved_sae
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stamp import read_stamp
from vitscope.store.tables import read_table
from vitscope.study import dump_study

SCRIPT = Path(__file__).with_name("ranks_run.py")


def torchrun(
    n: int, *arguments: str | Path, restarts: int = 0, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the command line on ``n`` ranks of this machine."""
    launch = ["torch.distributed.run", "--standalone", f"--nproc-per-node={n}"]
    return subprocess.run(
        [sys.executable, "-m", *launch, f"--max-restarts={restarts}", str(SCRIPT),
         *map(str, arguments)],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip


def ours(streams: str) -> list[str]:
    """What vitscope itself has said, without torchrun's own lines."""
    words = ("error:", "[rank", "✓", "·", "interrupted")
    return [line for line in streams.splitlines() if line.startswith(words)]


def lines(run: RunDirectory) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run.training_log.read_text().splitlines()]


def assert_same_training(found: RunDirectory, expected: RunDirectory) -> None:
    mine, theirs = lines(found), lines(expected)
    assert [line["step"] for line in mine] == [line["step"] for line in theirs]
    for one, other in zip(mine, theirs, strict=True):
        for figure in ("loss", "fvu", "l0", "dead_share"):
            assert one[figure] == pytest.approx(other[figure], rel=1e-5, abs=1e-5), figure
    one, other = load_saved_sae(found.sae), load_saved_sae(expected.sae)
    torch.testing.assert_close(one.w_dec, other.w_dec, rtol=1e-3, atol=1e-4)
    assert one.threshold == pytest.approx(other.threshold, rel=1e-4)


def test_a_whole_run_on_two_ranks_is_that_on_one(
    pictures: Path, finished: RunDirectory, tmp_path: Path
) -> None:
    study, out = tmp_path / "study.toml", tmp_path / "run"
    study.write_text(dump_study(small_study(pictures)))
    done = torchrun(2, "run", study, "--out", out)
    assert done.returncode == 0, done.stderr
    run = RunDirectory(out)
    assert_same_training(run, finished)
    said = [line.split()[1] for line in ours(done.stderr)]
    assert said == [path.stem for path in sorted(  # every stage, and once
        (out / "stages").iterdir(), key=lambda path: path.stat().st_mtime_ns
    )]  # fmt: skip
    mine, theirs = read_table(run.features), read_table(finished.features)
    scored = np.isfinite(theirs["cds"])
    assert np.mean(np.isfinite(mine["cds"]) == scored) > 0.99
    both = scored & np.isfinite(mine["cds"])
    assert np.median(np.abs(mine["cds"][both] - theirs["cds"][both])) < 1e-3
    assert not (out / ".lock.holder").exists()


@pytest.mark.slow
def test_a_killed_rank_costs_what_came_after_the_checkpoint(
    pictures: Path, finished: RunDirectory, tmp_path: Path
) -> None:
    study, out = tmp_path / "study.toml", tmp_path / "run"
    streamed = small_study(pictures, activations={"cache": False})
    study.write_text(dump_study(streamed))
    run_study(streamed, out, only=["images", "extract"])
    environment = {"KILLED_RANK": "1", "KILLED_AT": "25"}
    done = torchrun(3, "train", study, "--out", out, restarts=1, **environment)
    assert done.returncode == 0, done.stderr
    stamp = read_stamp(RunDirectory(out), "train")
    assert stamp is not None
    assert stamp.result["training"]["n_steps"] == 60
    alone = tmp_path / "alone"
    run_study(streamed, alone, only=["images", "extract", "train"])
    assert_same_training(RunDirectory(out), RunDirectory(alone))


@pytest.mark.slow
def test_probes_and_zero_shot_on_two_ranks_are_those_on_one(
    before: RunDirectory, probed: RunDirectory, tmp_path: Path
) -> None:
    study, out = tmp_path / "study.toml", tmp_path / "run"
    study.write_text(dump_study(probe_study()))
    shutil.copytree(before.root, out)
    done = torchrun(2, "run", study, "--out", out)
    assert done.returncode == 0, done.stderr
    assert [line[0] for line in ours(done.stderr)].count("✓") == 3  # probe, zeroshot, report
    for name in ("probes.parquet", "predictions.parquet", "tables/flips.parquet"):
        mine, theirs = read_table(out / name), read_table(probed.root / name)
        for column, expected in theirs.items():
            if expected.dtype.kind == "f":
                # the batches differ where a chunk ends, and with them the last bits of a token
                np.testing.assert_allclose(mine[column], expected, rtol=1e-4, atol=1e-5)
            else:
                np.testing.assert_array_equal(mine[column], expected, err_msg=column)
    assert not RunDirectory(out).parts("probe").exists()


@pytest.mark.slow
def test_an_error_is_told_once(pictures: Path, tmp_path: Path) -> None:
    study = tmp_path / "study.toml"
    study.write_text(dump_study(small_study(pictures)))
    done = torchrun(2, "train", study, "--out", tmp_path / "run")
    assert done.returncode != 0
    told = [line for line in ours(done.stderr) if "error:" in line]
    assert len(told) == 1, done.stderr
    assert told[0].startswith("error: stage 'extract' has not finished in")


@pytest.mark.slow
def test_a_rank_that_fails_alone_stops_the_others_and_tells_why(
    copied: RunDirectory, pictures: Path, tmp_path: Path
) -> None:
    study = tmp_path / "study.toml"
    study.write_text(dump_study(small_study(pictures, sae={"k": 4})))  # trained anew
    done = torchrun(2, "train", study, "--out", copied.root, FAILING_RANK="1")
    assert done.returncode != 0
    told = [line for line in ours(done.stderr) if "error:" in line]
    assert "error: [rank 1] the disk of this node is gone" in told, done.stderr
    others = [line for line in told if "[rank 1]" not in line]
    assert all("another process of the job has ended" in line for line in others)
    assert read_stamp(copied, "train") is None
