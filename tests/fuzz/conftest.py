"""Files to damage are made by the tests of the readers themselves."""

import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
for folder in ("stages", "sae/formats"):
    if str(TESTS / folder) not in sys.path:
        sys.path.append(str(TESTS / folder))
