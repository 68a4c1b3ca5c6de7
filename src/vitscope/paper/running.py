"""Making the runs of a reproduction, from what is there already."""

import os
import shutil
from pathlib import Path

from vitscope.backbones.planted.planted import PlantedBackbone
from vitscope.distributed import current_ranks
from vitscope.paper.planning import PlannedRun, oracle_folder
from vitscope.paper.runs import MARK, FinishedRun, read_run, served_targets
from vitscope.paper.targets import TARGETS
from vitscope.pipeline import STAGES, OnStage, run_study
from vitscope.sae.storage import save_sae
from vitscope.selfcheck.oracle import oracle_sae
from vitscope.store.atomic import write_json
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stage import read_stamp


def run_planned(planned: PlannedRun, on_stage: OnStage | None = None) -> FinishedRun:
    """Run what is not up to date; what an unchanged earlier run left is kept.

    Raises:
        VitscopeError: naming what was wrong; what had finished stays finished.
    """
    ranks = current_ranks()
    if planned.from_ is not None and ranks.rank == 0:
        take_over(RunDirectory(planned.from_), RunDirectory(planned.folder))
    oracle = oracle_folder(planned.folder)
    if ranks.rank == 0 and planned.study.sae.path == oracle:
        save_sae(oracle, oracle_sae(PlantedBackbone()))
    ranks.tell("its beginning stands")
    run_study(planned.study, planned.folder, only=planned.stages, on_stage=on_stage)
    if ranks.rank == 0:
        _write_mark(planned)
    ranks.tell("its mark stands")
    return read_run(planned.folder)


def _write_mark(planned: PlannedRun) -> None:
    names = {target.name for target in (*planned.targets, *served_targets(planned.folder))}
    write_json(
        planned.folder / MARK,
        {
            "model": planned.model,
            "readings": dict(planned.readings),
            "targets": [name for name in TARGETS if name in names],
        },
    )


def take_over(source: RunDirectory, run: RunDirectory) -> None:
    """Link the outputs of the finished stages of ``source`` into ``run``, unless it has begun.

    Files are replaced, never rewritten, so that a link is safe: what changes becomes a new file.
    """
    if run.stamp("images").exists() or not source.stamp("images").exists():
        return
    for stage in STAGES:
        stamp = read_stamp(source, stage.name)
        if stamp is None:
            continue
        for relative in stamp.outputs:
            _link(source.root / relative, run.root / relative)
        _link(source.stamp(stage.name), run.stamp(stage.name))


def _link(source: Path, target: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        if source.suffix == ".jsonl":  # a log is appended to
            raise OSError
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
