"""What the report shows of other runs: read from their tables."""

from pathlib import Path
from typing import Any

from vitscope.errors import ArtifactError
from vitscope.report.beside import RunFigures
from vitscope.report.instability import chosen_reading
from vitscope.scope.evidence import Evidence
from vitscope.stages.instability_table import read_instability
from vitscope.stages.run_tables import read_reconstruction, read_spectrum, read_threshold
from vitscope.store.atomic import read_json
from vitscope.store.checksum import bytes_checksum, file_checksum
from vitscope.store.foreign import tables_of
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stage import read_stamp
from vitscope.store.tables import read_metadata, read_table
from vitscope.study import Study, load_study

STAGES = ("evaluate", "partition", "outliers", "instability", "awcds")
"""What must have finished in a run that is shown."""


def read_run_figures(run: RunDirectory, study: Study) -> RunFigures:
    """Gather the figures of a finished run.

    Raises:
        ArtifactError: a table is missing or damaged, or the run has not finished.
    """
    features, cut = read_table(run.features), read_json(run.table("partition"))
    site: dict[str, Any] = read_metadata(run.features)["site"]
    stamp = read_stamp(run, "evaluate")
    if stamp is None:
        raise ArtifactError(f"stage 'evaluate' has not finished in {run.root}; run its study again")
    return RunFigures(
        name=study.name,
        model=site["model"],
        layer=int(site["layer"]),
        n_images=int(stamp.summary["forward_views"]),
        cds=features["cds"],
        relative=features["relative"],
        n_low=int(cut["low"]),
        n_high=int(cut["high"]),
        n_unscored=int(cut["unscored"]),
        gamma=float(cut["gamma"]),
        gamma_evidence=Evidence.from_table(cut["evidence"]),
        reconstruction=read_reconstruction(run),
        tau=read_threshold(run),
        instability=chosen_reading(
            read_instability(run.table("instability")).rows, study.scope, study.outliers
        ),
        spectrum=read_spectrum(run),
    )


def read_other_runs(folders: tuple[Path, ...]) -> tuple[RunFigures, ...]:
    """Gather the figures of the runs in ``folders``.

    Raises:
        ArtifactError: one of them has not finished, or its tables are not whole.
    """
    found: list[RunFigures] = []
    for folder in folders:
        run = RunDirectory(folder)
        with tables_of(folder):
            found.append(read_run_figures(run, load_study(run.study)))
    return tuple(found)


def other_runs_digest(folder: Path) -> str:
    """Hash of what the report reads of the run in ``folder``.

    Raises:
        ArtifactError: it has not finished.
    """
    run = RunDirectory(folder)
    for stage in STAGES:
        if read_stamp(run, stage) is None:
            raise ArtifactError(
                f"beside.runs: stage '{stage}' has not finished in {folder}; give the directory "
                "of a finished run"
            )
    files: list[Path] = [run.features, run.columns("awcds")]
    files += [run.table(name) for name in ("partition", "reconstruction", "outliers")]
    files.append(run.table("instability"))
    try:
        return bytes_checksum(*(file_checksum(path).encode() for path in files))
    except OSError as error:
        raise ArtifactError(
            f"beside.runs: {error.filename} cannot be read ({error.strerror}); run `vitscope run` "
            "on its study again"
        ) from None
