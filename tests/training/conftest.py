"""The training scripts are no package: their folder goes onto the path, as it does for a script."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "training"))
