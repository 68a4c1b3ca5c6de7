"""Stage «report»: everything the run found, on one self-contained page."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from numpy.typing import NDArray

from vitscope.report.beside import RunFigures
from vitscope.report.data import PartitionSizes, ReportData, StageTiming
from vitscope.report.page import write_report
from vitscope.scope.evidence import Evidence
from vitscope.scope.gallery import choose_gallery, minimum_pairs
from vitscope.scope.partition import partition_features
from vitscope.stages.beside import other_runs_digest, read_other_runs, read_run_figures
from vitscope.stages.context import Context, StageOutcome
from vitscope.stages.figure_source import show_features, show_tokens
from vitscope.stages.instability_table import read_instability
from vitscope.stages.partition import read_scores
from vitscope.stages.probe import probes_are_set
from vitscope.stages.removal_tables import read_removal
from vitscope.stages.run_tables import (
    number,
    read_norm_histogram,
    read_reconstruction,
    read_spectrum,
    read_threshold,
)
from vitscope.stages.stability import read_stability
from vitscope.stages.zeroshot import zero_shot_is_set
from vitscope.store.atomic import read_json
from vitscope.store.stage import StageOutput, Stamp, library_versions, read_stamp
from vitscope.store.tables import read_table

BEFORE = ("images", "extract", "train", "outliers", "evaluate", "score", "partition", "stability",
          "instability", "awcds", "probe", "zeroshot")  # fmt: skip
NEEDED = tuple(name for name in BEFORE if name not in ("extract", "probe", "zeroshot"))

PAGE = 2
"""Bumped when the page shows something new: reports of earlier runs are then written anew."""

Table = Mapping[str, NDArray[Any]]


def run_report(context: Context) -> StageOutcome:
    """Gather the artifacts of every stage, render the gallery, and write ``report.html``."""
    run = context.run

    def body(_: str) -> StageOutput:
        data = gather(context)
        write_report(run.report, data)
        return StageOutput([run.report], {"path": run.report.name})

    return context.finish(
        "report",
        settings={
            "page": PAGE,
            "name": context.study.name,
            "note": context.study.note,
            **context.study.outliers.model_dump(include={"attention"}),
        },
        after=(*NEEDED, *_removal_stages(context)),
        extra_inputs={
            "backbone": context.backbone_digest,
            **{str(path): other_runs_digest(path) for path in context.study.beside.runs},
        },
        body=body,
    )


def gather(context: Context) -> ReportData:
    """Read what every stage left; the gallery's views and maps are computed anew."""
    study, run = context.study, context.run
    scores = read_scores(context)
    partition = partition_features(
        scores.cds, gamma=study.scope.gamma, unscored=study.scope.unscored
    )
    choice = choose_gallery(scores, partition, minimum_pairs(study.scope.top_images))
    instability = read_instability(run.table("instability"))
    gamma, tau = read_json(run.table("partition")), read_json(run.table("outliers"))
    trained = study.sae.path is None
    splits = ("train",) if study.images.eval is None else ("train", "eval")
    skipped = [(bad.id, bad.reason) for split in splits for bad in context.images(split).skipped]
    return ReportData(
        title=study.name,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        notes=_notes(context),
        study=study.model_dump(mode="json"),
        scope=study.scope,
        outliers=study.outliers,
        site=context.backbone.site,
        n_train_images=len(context.images("train").usable) if trained else 0,
        n_eval_images=len(context.eval_refs()),
        n_skipped=int(context.done("images").summary["skipped"]),
        reconstruction=read_reconstruction(run),
        scores=scores,
        columns=read_table(run.columns("activity")),
        partition=partition,
        partition_by_missing=_by_missing(gamma),
        gamma_evidence=Evidence.from_table(gamma["evidence"]),
        tau=read_threshold(run),
        tau_evidence=Evidence.from_table(tau["evidence"]),
        norm_histogram=read_norm_histogram(run),
        instability=instability.rows,
        n_instability_images=instability.n_images,
        diameter=instability.diameter,
        stability=tuple(read_stability(run)),
        spectrum=read_spectrum(run),
        beside=_beside(context),
        removal=read_removal(run, _removal_stages(context)),
        choice=choice,
        token_maps=show_tokens(context, scores),
        gallery=show_features(context, choice.features),
        stages=_timings(context),
        versions=library_versions(),
        curve=_curve(context) if trained else (),
        skipped=tuple(skipped),
    )


def _removal_stages(context: Context) -> tuple[str, ...]:
    """Return which of «probe» and «zeroshot» the study asks for and the run has."""
    study = context.study
    wanted = {"probe": probes_are_set(study), "zeroshot": zero_shot_is_set(study)}
    return tuple(
        name for name, is_wanted in wanted.items() if is_wanted and read_stamp(context.run, name)
    )


def _beside(context: Context) -> tuple[RunFigures, ...]:
    """Return this run and those beside it; nothing where there is none."""
    folders = context.study.beside.runs
    if not folders:
        return ()
    return (read_run_figures(context.run, context.study), *read_other_runs(folders))


def _notes(context: Context) -> tuple[str, ...]:
    study = context.study
    notes = [study.note] if study.note else []
    if study.images.eval is None and study.sae.path is None:
        notes.append(
            "The SAE was trained and evaluated on the same images: reconstruction figures are "
            "those of the training set."
        )
    return tuple(notes)


def _by_missing(table: Mapping[str, Any]) -> dict[str, PartitionSizes]:
    return {
        reading: PartitionSizes(
            number(row["gamma"]), int(row["low"]), int(row["high"]), int(row["unscored"])
        )
        for reading, row in table["by_missing"].items()
    }


def _timings(context: Context) -> tuple[StageTiming, ...]:
    optional = {"probe", "zeroshot"} - set(_removal_stages(context))
    stamps = (read_stamp(context.run, name) for name in BEFORE if name not in optional)
    return tuple(StageTiming(stamp.stage, stamp.seconds, _rate(stamp)) for stamp in stamps if stamp)


def _rate(stamp: Stamp) -> str:
    words = {
        "decode_images_per_s": "{:.0f} images/s decoded",
        "encode_views_per_s": "{:.0f} views/s encoded",
        "checked_images_per_s": "{:.0f} images/s checked",
        "tokens_per_s": "{:.0f} tokens/s",
    }
    known = [text.format(stamp.summary[k]) for k, text in words.items() if stamp.summary.get(k)]
    return ", ".join(known)


def _curve(context: Context) -> tuple[Mapping[str, float], ...]:
    lines = context.run.training_log.read_text(encoding="utf-8").splitlines()
    return tuple(json.loads(line) for line in lines)
