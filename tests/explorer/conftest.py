"""Fixtures of every test of the explorer; a stranger's run is made as for the stages' tests."""

import sys
from pathlib import Path

from explored_run import client, copied_run, explored, reading

STAGES = str(Path(__file__).parents[1] / "stages")
if STAGES not in sys.path:
    sys.path.append(STAGES)

__all__ = ["client", "copied_run", "explored", "reading"]
