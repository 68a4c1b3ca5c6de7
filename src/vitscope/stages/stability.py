"""Stage «stability»: would another choice score and split the features alike?"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np

from vitscope.errors import ArtifactError
from vitscope.progress import track
from vitscope.sae.storage import load_saved_sae
from vitscope.scope.stability import Agreement, agreement, match_features, within_run
from vitscope.stages.backbone import BackboneStage
from vitscope.stages.partition import PartitionStage
from vitscope.stages.score import ScoreStage
from vitscope.stages.stage import Job, Models, Stage
from vitscope.stages.train import TrainStage
from vitscope.store.atomic import file_checksum
from vitscope.store.run_directory import RunDirectory
from vitscope.study import load_study

N_WITHIN = 6
"""Comparisons that a run's own pairs allow, where it has four exemplars or more."""


@dataclass(frozen=True)
class StabilityResult:
    """The scores held against those of other choices and other runs: one row a comparison."""

    rows: tuple[Agreement, ...]


class StabilityStage(Stage[StabilityResult]):
    """Compares fewer exemplars, halves, rules, the null, and the runs of ``stability.against``."""

    name = "stability"
    after = ("train", "score", "partition")
    Result = StabilityResult

    def settings(self, job: Job) -> Mapping[str, Any]:
        """Return what the scores depend on, and the other runs."""
        against = [str(path) for path in job.study.stability.against]
        return {**job.study.scope.model_dump(), "against": against}

    def inputs(self, job: Job) -> Mapping[str, str]:
        """Return the hash of every other run's features."""
        return {str(path): _features_checksum(path) for path in job.study.stability.against}

    def run(self, job: Job) -> StabilityResult:
        """Compare one after the other."""
        others = job.study.stability.against
        rows: list[Agreement] = []
        with track("stability", N_WITHIN + len(others), "comparisons") as progress:
            for row in chain(_within(job), (_against(job, other) for other in others)):
                rows.append(row)
                progress.advance(1)
        return StabilityResult(tuple(rows))


def _within(job: Job) -> Iterator[Agreement]:
    found, study = job.result(ScoreStage), job.study
    pairs = found.scores.strong(study.scope.min_strength)
    names = dict(zip(found.pairs["image"].tolist(), found.pairs["image_id"].tolist(), strict=True))
    return within_run(
        pairs,
        [str(names[image]) for image in pairs.image.tolist()],
        job.result(TrainStage).n_features,
        found.diameter,
        study.scope,
        study.seed,
    )


def _features_checksum(folder: Path) -> str:
    path = RunDirectory(folder).features
    if not path.is_file():
        raise ArtifactError(
            f"stability.against: {folder} has no features.parquet; give the directory of a run "
            "whose stage «partition» has finished"
        )
    return file_checksum(path)


def _against(job: Job, folder: Path) -> Agreement:
    """Compare with another run: feature by feature for one SAE, by matched features for two."""
    theirs = _job_of(folder)
    one, two = (each.result(PartitionStage).cds for each in (job, theirs))
    own_sae, other_sae = (load_saved_sae(each.run.sae) for each in (job, theirs))
    change = f"{folder.name}: {_difference(job, theirs)}"
    if not np.array_equal(other_sae.w_dec.numpy(), own_sae.w_dec.numpy()):
        if other_sae.width != own_sae.width:
            raise ArtifactError(
                f"stability.against: {folder} has an SAE of width {other_sae.width}, this run of "
                f"{own_sae.width}: their features cannot be matched"
            )
        if len(two) != other_sae.n_features:
            raise ArtifactError(
                f"stability.against: {folder} has {len(two)} features in its table, and "
                f"{other_sae.n_features} in its SAE; run `vitscope run` on its study again"
            )
        matches = match_features(own_sae.w_dec, other_sae.w_dec)
        share = len(matches.one) / own_sae.n_features
        change += f" (another SAE: {share:.0%} of the features matched)"
        one, two = one[matches.one], two[matches.other]
    gamma, seed = job.study.scope.gamma, job.study.seed
    return agreement(change, one, two, gamma=gamma, seed=seed)


def _job_of(folder: Path) -> Job:
    run = RunDirectory(folder)
    study = load_study(run.study)
    return Job(study, run, Models(study, run))


def _difference(own: Job, other: Job) -> str:
    one, two = (_chosen(job) for job in (own, other))
    changed = [f"{key} {one[key]} → {two[key]}" for key in sorted(one) if one[key] != two[key]]
    return ", ".join(changed) or "the same settings"


def _chosen(job: Job) -> dict[str, Any]:
    site = job.result(BackboneStage).site
    return {**job.study.scope.model_dump(), **vars(site), "seed": job.study.seed}
