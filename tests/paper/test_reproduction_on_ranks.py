"""``torchrun -m vitscope reproduce``: several processes make what one makes, and tell it once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vitscope.paper.planning import Request, plan_runs
from vitscope.paper.reproduction import gather, to_values
from vitscope.paper.running import run_planned
from vitscope.paper.sources import Sources

MODEL, TARGETS, N_IMAGES = "scenes-vit", ("table6", "table7"), 6


@pytest.mark.slow
def test_two_ranks_make_the_numbers_of_one(tmp_path: Path) -> None:
    alone, shared = tmp_path / "alone", tmp_path / "shared"
    for planned in plan_runs(Request(TARGETS, (MODEL,), Sources(limit=N_IMAGES), out=alone)):
        run_planned(planned)
    expected = json.loads(json.dumps(to_values(gather(alone))))
    launch = ["torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "vitscope"]
    asked = ["--model", MODEL, "--limit", str(N_IMAGES), "--out", str(shared), "--json"]
    done = subprocess.run(
        [sys.executable, "-m", *launch, "reproduce", *TARGETS, *asked],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert Path(told.pop("page")).is_file()
    assert told == expected
    assert {row["target"] for row in told["numbers"]} == set(TARGETS)
    assert len({row["reading"] for row in told["readings"] if row["assumption"] == "layer"}) == 2
