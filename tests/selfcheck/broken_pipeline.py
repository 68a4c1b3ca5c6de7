"""An honest oracle run, and the same run with one piece of the pipeline broken on purpose."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import pytest

from vitscope.selfcheck import checks
from vitscope.selfcheck import selfcheck as runs
from vitscope.selfcheck.checks import Check
from vitscope.selfcheck.selfcheck import SelfcheckReport, run_selfcheck
from vitscope.store.run_directory import RunDirectory

N_IMAGES = 100
TOP_IMAGES = 24
INSTABILITY_IMAGES = 32
"""Small, and yet every bound is sharp enough to see the mistakes made here."""


@dataclass(frozen=True)
class HonestRun:
    """A finished oracle run; ``root`` holds the pictures, the oracle SAE and the run."""

    root: Path
    report: SelfcheckReport

    def again(self, scratch: Path, redo: Sequence[str]) -> SelfcheckReport:
        """Repeat the run, its copy in ``scratch``: the stages ``redo`` anew, the rest as it was.

        A patch is no setting, and would redo nothing by itself. A given SAE is known by its path
        and time: it stays where it is, and so does the run, which is put back afterwards.
        """
        shutil.copytree(self.root, scratch)
        try:
            for stage in redo:
                RunDirectory(self.root / "oracle").stamp(stage).unlink()
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(runs, "ORACLE_STAGES", tuple(redo))
                patch.setattr(runs, "save_sae", lambda *_: None)
                return selfcheck(self.root / "images", self.root)
        finally:
            shutil.rmtree(self.root)
            shutil.move(scratch, self.root)


def selfcheck(images: Path | None, out: Path) -> SelfcheckReport:
    return run_selfcheck(images=images, out=out, modes=("oracle",), n_images=N_IMAGES)


def by_name(report: SelfcheckReport) -> dict[str, Check]:
    return {check.name.strip(): check for check in report.checks["oracle"]}


@pytest.fixture(scope="session")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HonestRun]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runs, "TOP_IMAGES", TOP_IMAGES)
        patch.setattr(runs, "INSTABILITY_IMAGES", INSTABILITY_IMAGES)
        # simulated from the specification alone, for seconds: once is enough
        expected = lru_cache(checks.expected_instability)
        patch.setattr(checks, "expected_instability", expected)
        root = tmp_path_factory.mktemp("honest")
        yield HonestRun(root, selfcheck(None, root))
