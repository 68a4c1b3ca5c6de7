"""Fixtures that tests of several folders share: each stands beside what makes it."""

import os
from pathlib import Path

ROOT = Path(__file__).parents[1]
# the scripts that tests start import what stands here as these tests do
os.environ["PYTHONPATH"] = os.pathsep.join(
    [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
)

# one that imports another comes after it, or pytest could no longer rewrite its assertions
pytest_plugins = [
    "tests.stages.small_study",
    "tests.stages.shifted_runs",
    "tests.stages.probe_study",
    "tests.report.made_up_run",
    "tests.explorer.explored_run",
    "tests.explorer.in_browser",
    "tests.cli.command_line",
    "tests.selfcheck.broken_pipeline",
]
