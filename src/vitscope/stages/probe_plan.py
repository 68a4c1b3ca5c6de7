"""What ``vitscope probe`` will need, told before it is run: ``--plan``."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch.nn.functional import normalize

from vitscope.probes.features import Extraction
from vitscope.probes.planning import TaskNeeds, imagenet_needs, needs_of, size, span
from vitscope.removal.groups import Group
from vitscope.sae.model import SparseAutoencoder
from vitscope.stages.context import Context
from vitscope.stages.probe import extraction, open_tasks
from vitscope.stages.removal_groups import GROUPS, control_name, removed_groups
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stage import read_stamp
from vitscope.study import Study


@dataclass(frozen=True)
class ProbePlan:
    """What the probes of a study need.

    Attributes:
        tasks: of the study.
        imagenet: classification of the whole of ImageNet-1K with the same backbone and SAE.
        free_bytes: on the disk of the run.
        assumed: what had to be assumed, as its stages have not run; empty where nothing.
    """

    tasks: tuple[TaskNeeds, ...]
    imagenet: TaskNeeds
    free_bytes: int
    assumed: str


def plan_probes(study: Study, out: Path) -> ProbePlan:
    """Return what the study's probes need; nothing is written.

    Raises:
        VitscopeError: the backbone or a set of images cannot be used.
    """
    sets = open_tasks(study)
    context = Context(study, RunDirectory(out))
    sae, groups, assumed = _sae_and_groups(context)
    heads = study.probes.heads()
    made: list[Extraction] = [
        extraction(context, sae, groups, task, head) for task, head in heads.items()
    ]
    tasks = [
        needs_of(one, (len(both.train), len(both.validation)), both.n_outputs, study.probes)
        for one, both in zip(made, sets.values(), strict=True)
    ]
    there = next(folder for folder in (out.absolute(), *out.absolute().parents) if folder.exists())
    free = shutil.disk_usage(there).free
    return ProbePlan(tuple(tasks), imagenet_needs(made[0], study.probes), free, assumed)


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
        for one in (*plan.tasks, plan.imagenet)
    ]
    return headings, cells


def plan_notes(plan: ProbePlan) -> list[str]:
    """Return what is to be said of the plan."""
    together = sum(one.cache_bytes for one in plan.tasks)
    notes = [
        f"the study: {size(together)} of disk at once, {size(plan.free_bytes)} are free; about "
        f"{span(sum(one.feature_hours + one.head_hours for one in plan.tasks))}",
        f"features: one pass over the images; training: all heads at once, {plan.imagenet.epochs} "
        "epochs; both from a batch and a step timed on this machine now, without loading images",
    ]
    return [*notes, plan.assumed] if plan.assumed else notes


def _sae_and_groups(context: Context) -> tuple[SparseAutoencoder, Mapping[str, Group], str]:
    """Return those of the run, or stand-ins of the same size where it has not come so far."""
    study = context.study
    if read_stamp(context.run, "partition") is not None:
        return context.sae, removed_groups(context).masks, ""
    names = [f"{of}-removed" for of in GROUPS]
    names += [control_name(of, seed) for of in GROUPS for seed in range(study.probes.n_controls)]
    sae = context.given_sae if study.sae.path is not None else _random_sae(context)
    half: Group = np.arange(sae.n_features) % 2 == 0
    assumed = (
        "before the partition has run, variants are counted as if every control matched, and the "
        "groups are any halves of the dictionary"
    )
    groups: dict[str, Group] = dict.fromkeys(names, half)
    return sae.to(context.device), groups, assumed


def _random_sae(context: Context) -> SparseAutoencoder:
    site, k = context.backbone.site, context.study.sae.k
    m = context.study.sae.expansion * site.width
    g = torch.Generator().manual_seed(0)
    rows = normalize(torch.randn(m, site.width, generator=g), dim=1)
    zeros = torch.zeros(m)
    # no token passes it: encoding, the dear part, takes as long whatever passes
    threshold = torch.finfo(torch.float32).max
    return SparseAutoencoder(rows.T.contiguous(), zeros, rows, zeros[: site.width], threshold, k)
