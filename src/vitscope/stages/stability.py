"""Stage «stability»: would the scores be the same under another choice?"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vitscope.errors import ArtifactError
from vitscope.progress import track
from vitscope.sae.storage import load_saved_sae
from vitscope.scope.matching import match_features
from vitscope.scope.stability import Agreement, agreement, within_run
from vitscope.scope.views import Overlap
from vitscope.stages.context import Context, StageOutcome
from vitscope.stages.score import read_pairs
from vitscope.store.atomic import read_json, write_json
from vitscope.store.checksum import file_checksum
from vitscope.store.foreign import tables_of
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stage import StageOutput
from vitscope.store.tables import read_metadata, read_table

N_WITHIN = 6
"""Comparisons that a run's own pairs allow, where it has four exemplars or more."""

COMPARED = ("scope", "site", "seed")
"""What the metadata of two tables of features may differ in."""


def run_stability(context: Context) -> StageOutcome:
    """Write ``tables/stability.json``: one row per comparison."""
    study, run = context.study, context.run
    others = study.stability.against

    def body(fingerprint: str) -> StageOutput:
        described: list[dict[str, Any]] = []
        with track("stability", N_WITHIN + len(others), "comparisons") as progress:
            for row in chain(_within(context), (_against(context, other) for other in others)):
                described.append(asdict(row))
                progress.advance(1)
        write_json(run.table("stability"), {"fingerprint": fingerprint, "rows": described})
        return StageOutput([run.table("stability")], {"comparisons": len(described)})

    return context.finish(
        "stability",
        settings={**study.scope.model_dump(), "against": [str(path) for path in others]},
        after=("train", "score", "partition"),
        extra_inputs={str(path): _features_checksum(path) for path in others},
        body=body,
    )


def _within(context: Context) -> Iterator[Agreement]:
    study, run = context.study, context.run
    return within_run(
        read_pairs(run.pairs),
        [str(name) for name in read_table(run.pairs)["image_id"]],
        context.sae.n_features,
        Overlap(context.backbone.site.grid, study.scope.shift).diameter,
        study.scope,
        study.seed,
    )


def read_stability(run: RunDirectory) -> list[Agreement]:
    """Return what the stage found; nothing where it has not run."""
    path = run.table("stability")
    if not path.is_file():
        return []
    names = Agreement.__dataclass_fields__
    return [
        Agreement(**{name: _number(row[name]) for name in names}) for row in read_json(path)["rows"]
    ]


def _number(value: Any) -> Any:
    return float("nan") if value is None else value


def _features_checksum(folder: Path) -> str:
    path = RunDirectory(folder).features
    if not path.is_file():
        raise ArtifactError(
            f"stability.against: {folder} has no features.parquet; give the directory of a run "
            "whose stage «partition» has finished"
        )
    return file_checksum(path)


def _against(context: Context, folder: Path) -> Agreement:
    """Compare with another run: feature by feature for one SAE, by matched features for two."""
    other, own = RunDirectory(folder), context.run
    with tables_of(folder):
        one, two = (read_table(run.features)["cds"].astype(np.float64) for run in (own, other))
    theirs = load_saved_sae(other.sae)
    change = f"{folder.name}: {_difference(own, other)}"
    if not np.array_equal(theirs.w_dec.numpy(), context.sae.w_dec.cpu().numpy()):
        if theirs.width != context.sae.width:
            raise ArtifactError(
                f"stability.against: {folder} has an SAE of width {theirs.width}, this run of "
                f"{context.sae.width}: their features cannot be matched"
            )
        if len(two) != theirs.n_features:
            raise ArtifactError(
                f"stability.against: {folder} has {len(two)} features in its table, and "
                f"{theirs.n_features} in its SAE; run `vitscope run` on its study again"
            )
        matches = match_features(context.sae.w_dec.cpu(), theirs.w_dec)
        share = len(matches.one) / context.sae.n_features
        change += f" (another SAE: {share:.0%} of the features matched)"
        one, two = one[matches.one], two[matches.other]
    gamma, seed = context.study.scope.gamma, context.study.seed
    return agreement(change, one, two, gamma=gamma, seed=seed)


def _difference(own: RunDirectory, other: RunDirectory) -> str:
    one, two = (_flat(read_metadata(run.features)) for run in (own, other))
    changed = [
        f"{key} {one.get(key)} → {two.get(key)}"
        for key in sorted(one.keys() | two.keys())
        if one.get(key) != two.get(key)
    ]
    return ", ".join(changed) or "the same settings"


def _flat(metadata: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name in COMPARED:
        value = metadata.get(name)
        flat |= value if isinstance(value, dict) else {name: value}
    return flat
