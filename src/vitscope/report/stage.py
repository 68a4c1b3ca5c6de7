"""Stage «report»: one self-contained page."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vitscope.errors import ArtifactError
from vitscope.report.page import render_report
from vitscope.run import Run
from vitscope.stages.extract import ExtractStage
from vitscope.stages.probe import ProbeStage
from vitscope.stages.stage import Job, Stage
from vitscope.stages.zeroshot import ZeroShotStage
from vitscope.store.atomic import fingerprint, write_text
from vitscope.store.stamp import read_stamp

NOT_IN_EVERY_RUN = (ExtractStage(), ProbeStage(), ZeroShotStage())
"""Stages that the page shows where the study wants them and they have finished."""

BESIDE = ("backbone", "outliers", "evaluate", "partition", "instability", "awcds")
"""What must have finished in a run that stands beside this one."""


@dataclass(frozen=True)
class ReportResult:
    """The page."""

    page: Path


class ReportStage(Stage[ReportResult]):
    """Renders what every stage has left; the gallery's views and maps are computed anew."""

    name = "report"
    after = (
        *("backbone", "images", "extract", "train", "outliers", "evaluate", "score", "partition"),
        *("stability", "gallery", "instability", "awcds", "probe", "zeroshot"),
    )
    Result = ReportResult

    def needs(self, job: Job) -> tuple[str, ...]:
        """Return the stages that the page shows, in the order in which they run."""
        absent = {
            stage.name
            for stage in NOT_IN_EVERY_RUN
            if not (stage.is_wanted(job.study) and read_stamp(job.run, stage.name))
        }
        return tuple(name for name in self.after if name not in absent)

    def settings(self, job: Job) -> Mapping[str, Any]:
        """Return what the page says besides what stages have found."""
        study = job.study
        return {"name": study.name, "note": study.note, "attention": study.outliers.attention}

    def inputs(self, job: Job) -> Mapping[str, str]:
        """Return the hash of what is shown of every other run."""
        return {str(path): _digest_beside(path) for path in job.study.beside.runs}

    def run(self, job: Job) -> ReportResult:
        """Render the page and write it at once."""
        created = datetime.now(UTC).isoformat(timespec="seconds")
        run = Run(job.run.root, models=job.models)
        write_text(job.run.report, render_report(run, self.needs(job), created))
        return ReportResult(job.run.report)


def _digest_beside(folder: Path) -> str:
    """Hash what the page reads of another run.

    Raises:
        ArtifactError: it has not finished.
    """
    try:
        run = Run(folder)
        return fingerprint({stage: run.stamp(stage).digest for stage in BESIDE})
    except ArtifactError as error:
        raise ArtifactError(f"beside.runs: {error}") from None
