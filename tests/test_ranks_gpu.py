"""Ranks on GPUs, over NCCL, where there are some; skipped, and so unproven, elsewhere."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist

from vitscope.distributed import JobRanks
from vitscope.images.sources import ImageSettings
from vitscope.paper.studies import TINY, Sources, scenes_study
from vitscope.pipeline import run_study
from vitscope.store.run_directory import RunDirectory
from vitscope.store.tables import read_table
from vitscope.study import Study, dump_study

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

N_GPUS = torch.cuda.device_count()


def test_what_ranks_exchange_passes_through_nccl(tmp_path: Path) -> None:
    store = f"file://{tmp_path / 'store'}"
    dist.init_process_group("cpu:gloo,cuda:nccl", store, rank=0, world_size=1)
    try:
        ranks = JobRanks(0, 1)
        rows = torch.randn(7, 3, device="cuda")
        torch.testing.assert_close(ranks.sum(rows.clone()), rows, rtol=0, atol=0)
        torch.testing.assert_close(ranks.all_gather(rows), rows, rtol=0, atol=0)
        assert ranks.all_gather(rows[:0]).shape == (0, 3)
        assert ranks.broadcast("word") == "word"
        assert ranks.gather_bytes(b"bytes") == [b"bytes"]
    finally:
        dist.destroy_process_group()


def study() -> Study:
    """Tokens drawn, an SAE trained, every stage up to awCDS, on rendered scenes."""
    images = ImageSettings(train=Path("scenes:96?seed=2&side=88"))
    tiny = scenes_study("scenes-vit-t", (), Sources(), TINY)
    return tiny.model_copy(update={"images": images})


@pytest.mark.skipif(N_GPUS < 2, reason="needs two CUDA devices")
def test_a_run_on_two_gpus_is_that_on_one(tmp_path: Path) -> None:
    file = tmp_path / "study.toml"
    file.write_text(dump_study(study()))
    run_study(study(), tmp_path / "one")
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "vitscope"]
    done = subprocess.run(
        [sys.executable, "-m", *launch, "run", str(file), "--out", str(tmp_path / "two")],
        env=dict(os.environ), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    one, two = RunDirectory(tmp_path / "one"), RunDirectory(tmp_path / "two")
    mine, theirs = read_table(two.features), read_table(one.features)
    both = np.isfinite(mine["cds"]) & np.isfinite(theirs["cds"])
    assert both.sum() > 0.9 * np.isfinite(theirs["cds"]).sum()
    assert np.median(np.abs(mine["cds"][both] - theirs["cds"][both])) < 1e-2
