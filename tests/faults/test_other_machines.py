"""Another machine, imitated: what is said of it in docs/reliability.md holds.

`benchmarks/other_machines.py` runs a study with the oldest instructions of every library, and
compares all tables; it says more, of more machines.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "other_machines.py"

OLDEST = "all of these, two threads"

SIZES = ("--images", "48", "--probe-images", "24", "--steps", "100")

LARGEST = {
    "scenes: pixels": 0,
    "exact EMD of given maps": 1e-9,
    "activations, length of the gap": 1e-5,
    "FVU": 1e-4,
    "cosine": 1e-4,
    "L0": 1e-4,
    "τ": 1e-4,
    "max activation of a feature": 1e-4,
    "EMD of a pair, the same cells": 1e-4,
    "CDS, nothing of it stepped": 1e-4,
    "attention EMD of an image, the same tokens": 1e-4,
    "margin of an exemplar that differs": 1e-4,
    "mean CDS": 1e-3,
    "awCDS of a norm percentile": 1e-2,
}
"""Differences that the page states, relative or absolute as the quantity is compared."""

STEPPED = {
    "exemplars": 1e-3,
    "pairs with a cell switched on or off": 1e-3,
    "CDS more than 1e-4 apart": 1e-2,
    "group of a feature": 1e-2,
}
"""Share of those that lay so near a threshold that they are on its other side."""


@pytest.fixture(scope="module")
def oldest() -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", str(SCRIPT), "--json", "--machines", OLDEST]
    done = subprocess.run([*command, *SIZES], check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_results_of_the_oldest_instructions_are_as_near_as_stated(oldest: dict[str, Any]) -> None:
    if not oldest["changed"]:
        pytest.skip("the libraries of this processor know no other instructions")
    assert "tokens of scenes-vit" in oldest["changed"]
    found = {one["quantity"]: one for one in oldest["differences"]}
    for quantity, bound in (LARGEST | STEPPED).items():
        assert found[quantity]["largest"] <= bound, found[quantity]
    assert found["EMD of a pair, the same cells"]["n"] > 1000, "something was compared"


@pytest.mark.slow
@pytest.mark.timeout(1500)
def test_a_newly_trained_sae_moves_less_than_with_another_seed(oldest: dict[str, Any]) -> None:
    first = oldest["seeds"][0]
    for figure in ("FVU", "cosine", "mean CDS"):
        seeds = [own[figure] for own in oldest["seeds"]]
        assert abs(oldest["trained"][figure] - first[figure]) <= max(seeds) - min(seeds), figure
