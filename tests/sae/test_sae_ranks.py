"""Several gloo processes against one, on the same global batches."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from vitscope.distributed import ALONE, DistributedError, JobRanks, share

SCRIPT = Path(__file__).with_name("ranks_training.py")


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("jobs")
    names = ["1:-1", "2:-1", "3:-1", "2:1"]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), str(folder), *names],
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3])
def test_ranks_train_as_one(size: int, jobs: Path) -> None:
    folder, alone = jobs / f"{size}:-1", jobs / "1:-1"
    ours, expected = lines(folder), lines(alone)
    assert [line["step"] for line in ours] == list(range(1, 201))
    assert any(line["auxiliary"] > 0 for line in expected)
    for mine, theirs in zip(ours, expected, strict=True):
        for figure in ("loss", "auxiliary", "fvu", "l0", "dead_share"):
            assert mine[figure] == pytest.approx(theirs[figure], rel=1e-5, abs=1e-5), figure
    first, reference = (load_file(job / "sae-0.safetensors") for job in (folder, alone))
    for rank in range(1, size):  # to the bit: nothing lets the ranks drift apart
        other = load_file(folder / f"sae-{rank}.safetensors")
        assert all(torch.equal(first[name], other[name]) for name in first)
    for name, tensor in reference.items():
        torch.testing.assert_close(first[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.slow
def test_a_bad_row_on_one_rank_stops_all_of_them_alike(jobs: Path) -> None:
    errors = [(jobs / "2:1" / f"error-{rank}").read_text() for rank in range(2)]
    assert errors[0] == errors[1]
    assert errors[0].startswith("step 4: the activations contain NaN")


@pytest.mark.parametrize("n", [3, 4, 10, 11])
def test_shares_are_the_rows_in_order(n: int) -> None:
    parts = [share(n, JobRanks(rank, 3)) for rank in range(3)]
    assert [row for part in parts for row in range(n)[part]] == list(range(n))
    assert max(p.stop - p.start for p in parts) - min(p.stop - p.start for p in parts) <= 1
    assert share(n, ALONE) == slice(0, n)


def test_more_ranks_than_rows_are_refused() -> None:
    with pytest.raises(DistributedError, match="2 rows cannot be shared by 3 processes"):
        share(2, JobRanks(0, 3))
