"""What ``vitscope probe`` will need, told before it is run: ``--plan``."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from vitscope.probes.planning import TaskNeeds, needs_of, size, span
from vitscope.removal.remove import FeatureGroup
from vitscope.sae.model import SparseAutoencoder
from vitscope.stages.probe import extraction, open_tasks
from vitscope.stages.removal_groups import GROUPS, control_name, removed_groups
from vitscope.stages.stage import Job, Models
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stamp import read_stamp
from vitscope.study import Study


@dataclass(frozen=True)
class ProbePlan:
    """What the probes of a study need.

    Attributes:
        tasks: of the study.
        free_bytes: on the disk of the run.
        assumed: what had to be assumed, as its stages have not run; empty where nothing.
    """

    tasks: tuple[TaskNeeds, ...]
    free_bytes: int
    assumed: str


def plan_probes(study: Study, out: Path) -> ProbePlan:
    """Return what the study's probes need; nothing is written.

    Raises:
        VitscopeError: the backbone or a set of images cannot be used.
    """
    sets, run, assumed = open_tasks(study), RunDirectory(out), ""
    job = Job(study, run, Models(study, run))
    groups: Mapping[str, FeatureGroup]
    if read_stamp(run, "partition") is not None:
        sae, groups = job.models.sae, removed_groups(job)[1]
    else:
        assumed = "variants are counted as if every control matched: the partition has not run"
        # encoding, the dear part, takes as long whatever the weights and groups are
        given = None if study.sae.path is None else job.models.given_sae
        sae = (given or _random_sae(job.models.backbone.site.width, study)).to(job.models.device)
        removals = [f"{of}-removed" for of in GROUPS]
        controls = [control_name(of, i) for of in GROUPS for i in range(study.probes.n_controls)]
        groups = {name: range(0, sae.n_features, 2) for name in (*removals, *controls)}
    tasks = [
        needs_of(extraction(job, sae, groups, task, head), sets[task], study.probes)
        for task, head in study.probes.heads().items()
    ]
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    return ProbePlan(tuple(tasks), shutil.disk_usage(there).free, assumed)


def plan_lines(plan: ProbePlan) -> tuple[list[str], list[list[str]]]:
    """Return headings and cells of the plan as it is printed."""
    headings = ["probes", "images", "variants", "heads", "disk", "features", "training"]
    cells = [
        [
            one.name,
            f"{one.n_train:,} + {one.n_validation:,}",
            str(one.n_variants),
            str(one.n_heads),
            size(one.cache_bytes),
            span(one.feature_hours),
            span(one.head_hours),
        ]
        for one in plan.tasks
    ]
    return headings, cells


def plan_notes(plan: ProbePlan) -> list[str]:
    """Return what is to be said of the plan."""
    hours = sum(one.feature_hours + one.head_hours for one in plan.tasks)
    notes = [
        f"about {span(hours)} in all; {size(plan.free_bytes)} of disk are free",
        "from a batch and a step timed on this machine now, without loading images",
    ]
    return [*notes, plan.assumed] if plan.assumed else notes


def _random_sae(width: int, study: Study) -> SparseAutoencoder:
    g = torch.Generator().manual_seed(0)
    rows = torch.randn(study.sae.expansion * width, width, generator=g)
    return SparseAutoencoder(rows.T.contiguous(), rows[:, 0], rows, rows[0], 1e9, study.sae.k)
