"""The twelve backbones at their true width, heads and patches, six blocks each: the table's rows.

`benchmarks/parity.py` prints the table at full depth.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.backbones.parity_comparison import TOLERANCE, WIDE

from vitscope.backbones.zoo import ZOO

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "parity.py"
DEPTH = 6


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ZOO)
def test_a_row_of_the_table(name: str) -> None:
    command = [sys.executable, "-W", "ignore", str(SCRIPT), "--one", name, "--depth", str(DEPTH)]
    answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    row = json.loads(answer.splitlines()[-1])
    assert row["blocks"] == DEPTH
    assert row["bit_identical"]
    for right in ("tokens", "pooled", "final", "attention"):
        assert row[right] <= TOLERANCE
    for wrong in ("neighbour", "norms"):
        assert row[wrong] > WIDE
    assert row["activation"] > 10 * TOLERANCE
