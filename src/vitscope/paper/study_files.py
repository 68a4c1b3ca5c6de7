"""The study of every model as a file a person reads, with its price in a comment on top."""

from pathlib import Path

import tomli_w

from vitscope.backbones.zoo import ZOO
from vitscope.paper.counts import published_counts
from vitscope.paper.pricing import Machine, price_study
from vitscope.paper.shape import shape_of
from vitscope.paper.sources import Sources
from vitscope.paper.studies import paper_study, targets_of
from vitscope.paper.targets import Target, stages_of
from vitscope.store.atomic import write_text
from vitscope.study import Study, without_none

DATA = Path("../data")
"""Where the files look for data sets, from their own folder."""


def study_file(model: str) -> str:
    """Return the text of a model's study file, for all the targets that the paper shows it in.

    What is left out is the default, as docs/protocol.md lists it.

    Raises:
        BackboneError: the zoo has no such model.
    """
    targets = targets_of(model)
    study = paper_study(model, targets, Sources(root=DATA))
    values = without_none(study.model_dump(mode="json", exclude_defaults=True))
    return "".join(f"# {line}\n" for line in _header(study, targets)) + "\n" + tomli_w.dumps(values)


def write_study_files(folder: Path) -> tuple[Path, ...]:
    """Write the study of every model of the paper into ``folder``."""
    paths = [folder / f"{model}.toml" for model in ZOO]
    for path in paths:
        write_text(path, study_file(path.stem))
    return tuple(paths)


def _header(study: Study, targets: tuple[Target, ...]) -> tuple[str, ...]:
    shape, stages = shape_of(study), stages_of(targets)
    price = price_study(study, stages, Machine(), published_counts(study))
    m = study.sae.expansion * shape.width
    return (
        f"{study.name}: {ZOO[study.name].timm_name}, output of block {shape.layer} of "
        f"{shape.depth}; {m:,} features, K = {study.sae.k}.",
        f"For {', '.join(target.name for target in targets)}. Written by "
        "`vitscope reproduce --studies studies`; not to be edited here.",
        f"About {price.hours():.0f} hours on one GPU of 80 GB, {price.hours(8):.1f} on 8 that "
        f"share the work evenly; {price.memory / 1e9:.0f} GB of memory, "
        f"{price.disk / 1e9:.0f} GB of disk.",
        price.machine.assumptions(),
    )
