"""Whole runs are interrupted and filled here with what the tests of stages have for that."""

import sys
from pathlib import Path

STAGES = str(Path(__file__).parents[1] / "stages")
if STAGES not in sys.path:
    sys.path.append(STAGES)
