"""Stage «partition»: CDS of every feature, γ, and the two groups, as ``features.parquet``."""

from dataclasses import asdict, fields
from typing import Any

import numpy as np

from vitscope.backbones.zoo import ZOO
from vitscope.scope.cds import FeatureScores, summarise_pairs
from vitscope.scope.gamma_evidence import gamma_evidence
from vitscope.scope.partition import Partition, partition_features
from vitscope.scope.settings import Missing
from vitscope.scope.views import Overlap
from vitscope.stages.context import Context, StageOutcome
from vitscope.stages.score import read_pairs
from vitscope.store.atomic import write_json
from vitscope.store.stage import StageOutput
from vitscope.store.tables import read_table, write_table

READINGS: tuple[Missing, ...] = ("max", "drop", "zero")


PAPER_GAMMA = {"clip-b16": 0.14, "clip-l14": 0.20, "clip-l14-336": 0.13}
"""γ of the paper's Table 4, found for its own SAEs: shown beside ours, never used."""


def run_partition(context: Context) -> StageOutcome:
    """Average the pairs, find γ, and write the table of features."""
    study, run = context.study, context.run
    settings = study.scope

    def body(fingerprint: str) -> StageOutput:
        scores = read_scores(context)
        partition = partition_features(scores.cds, gamma=settings.gamma, unscored=settings.unscored)
        evidence = gamma_evidence(
            scores.cds, partition, seed=study.seed, paper=_paper_gamma(context)
        )
        write_table(
            run.features,
            _columns(context, scores, partition),
            {
                "stage": "partition",
                "fingerprint": fingerprint,
                "gamma": partition.gamma,
                "seed": study.seed,
                "scope": settings.model_dump(),
                "site": asdict(context.backbone.site),
            },
        )
        by_reading = {reading: _sizes(context, scores, reading) for reading in READINGS}
        summary = _describe(partition)
        table = summary | {"by_missing": by_reading, "evidence": asdict(evidence)}
        write_json(run.table("partition"), table)
        return StageOutput([run.features, run.table("partition")], summary)

    return context.finish(
        "partition",
        settings=settings.model_dump(
            include={"missing", "min_pairs", "unscored", "gamma", "shift"}
        ),
        after=("train", "evaluate", "score"),
        body=body,
    )


def read_scores(context: Context) -> FeatureScores:
    """Average the scored pairs of the run under its reading of a miss."""
    study = context.study
    diameter = Overlap(context.backbone.site.grid, study.scope.shift).diameter
    pairs = read_pairs(context.run.pairs)
    scope = study.scope
    return summarise_pairs(pairs, context.sae.n_features, diameter, scope.missing, scope.min_pairs)


def _columns(context: Context, scores: FeatureScores, partition: Partition) -> dict[str, Any]:
    n = context.sae.n_features
    return {
        "feature": np.arange(n),
        **{f.name: getattr(scores, f.name) for f in fields(FeatureScores)},
        **read_table(context.run.columns("activity")),
        "group": partition.labels(n),
    }


def _sizes(context: Context, scores: FeatureScores, reading: Missing) -> dict[str, Any]:
    settings, cds = context.study.scope, getattr(scores, f"cds_{reading}")
    if not np.isfinite(cds).any():
        return {"gamma": None, "low": 0, "high": 0, "unscored": len(cds)}
    split = partition_features(cds, gamma=settings.gamma, unscored=settings.unscored)
    sizes = {name: len(getattr(split, name)) for name in ("low", "high", "unscored")}
    return {"gamma": split.gamma, "source": split.source, **sizes}


def _paper_gamma(context: Context) -> float | None:
    name = context.study.backbone.name
    # of the block that the paper took
    at_its_layer = name in ZOO and ZOO[name].layer == context.backbone.site.layer
    return PAPER_GAMMA.get(name) if at_its_layer else None


def _describe(partition: Partition) -> dict[str, Any]:
    values = asdict(partition)
    for group in ("low", "high", "unscored"):
        values[group] = len(values[group])
    return values
