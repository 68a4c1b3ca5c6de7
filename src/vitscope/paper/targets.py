"""The paper's tables and figures as targets: which models, which stages, which data."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from vitscope.backbones.zoo import PAPER_ZOO
from vitscope.embedded.files import SCENES_VIT, SCENES_VIT_OTHER_SIZES, SCENES_VIT_SIZES
from vitscope.errors import ConfigError
from vitscope.probes.settings import Task

WITHOUT_SAE = ("images", "outliers")
WITH_ATTENTION = (*WITHOUT_SAE, "instability")
WITH_SAE = ("images", "extract", "train", "outliers", "evaluate")
WITH_SCOPE = (*WITH_SAE, "score", "partition")
WITH_PROBES = (*WITH_SCOPE, "probe")
WHOLE = (*WITH_SCOPE, "stability", "instability", "awcds", "gallery", "report")
"""Stages by what a target looks at: the first two need no SAE and no training images."""

BASE = ("dinov2-b", "deit3-b", "siglip2-b")
CLIP = ("clip-b16", "clip-l14", "clip-l14-336")
OTHERS = tuple(name for name in PAPER_ZOO if name not in CLIP)
PAPER_FAMILIES = (
    ("dinov2-b", "dinov2-l", "dinov2-g"),
    ("deit3-s", "deit3-b", "deit3-l"),
    ("siglip2-b", "siglip2-l", "siglip2-g"),
)
"""The models of Figure 8, each family from small to large."""

PROBED_CLIP = ("clip-b16", "clip-l14")
"""Of Table 3."""

DENSE: tuple[Task, ...] = ("segmentation", "depth")
SHIFTS = (1, 2, 3, 4, 5, 6)
"""Of Table 9."""


@dataclass(frozen=True)
class Target:
    """A table or figure of the paper.

    Attributes:
        name: typed on the command line.
        title: what it shows.
        models: those of the paper, in the zoo's names.
        stages: of the pipeline, those that leave what it shows.
        tasks: probes that it needs.
        shifts: at which attention is compared besides the study's own.
    """

    name: str
    title: str
    models: tuple[str, ...]
    stages: tuple[str, ...]
    tasks: tuple[Task, ...] = ()
    shifts: tuple[int, ...] = ()

    @property
    def data(self) -> tuple[str, ...]:
        """The data sets it reads."""
        named = {"segmentation": "ADE20K", "depth": "NYUd"}
        images = ("ImageNet-1K",) if "train" in self.stages else ("ImageNet-1K validation",)
        return (*images, *(named[task] for task in self.tasks if task in named))


_CLASSIFICATION: tuple[Task, ...] = ("classification",)
_ROWS = (
    Target("table3", "Linear probes of CLIP with and without each group", PROBED_CLIP, WITH_PROBES,
           (*_CLASSIFICATION, *DENSE)),
    Target("table4", "Dictionary, γ and the sizes of both groups", CLIP, WITH_SCOPE),
    Target("table5", "Layer and outlier threshold τ", OTHERS, WITHOUT_SAE),
    Target("table6", "Reconstruction of all and of outlier tokens", tuple(PAPER_ZOO), WITH_SAE),
    Target("table7", "Attention instability, outlier and other tokens", BASE, WITH_ATTENTION),
    Target("table8", "Dense probes of other ViTs", BASE, WITH_PROBES, DENSE),
    Target("table9", "Attention instability over the shift s", ("clip-l14-336",), WITH_ATTENTION,
           shifts=SHIFTS),
    Target("figure6", "Distribution of CDS", BASE, WITH_SCOPE),
    Target("figure7", "awCDS over the norm spectrum", BASE, (*WITH_SCOPE, "awcds")),
    Target("figure8", "ImageNet probes over the sizes of a family", OTHERS, WITH_PROBES,
           _CLASSIFICATION),
    Target("figure9", "Low-CDS features", ("clip-l14-336",), WHOLE),
    Target("figure10", "High-CDS features", ("clip-l14-336",), WHOLE),
    Target("activation", "Activation per token, by group", ("clip-b16",), WITH_SCOPE),
)  # fmt: skip

TARGETS: dict[str, Target] = {target.name: target for target in _ROWS}
"""In the paper's order; ``activation`` stands in its text."""

ALL = "all"


def chosen_targets(names: Sequence[str]) -> tuple[Target, ...]:
    """Return the targets by name, in the paper's order; ``all`` names every one.

    Raises:
        ConfigError: a name is unknown.
    """
    for name in names:
        if name not in TARGETS and name != ALL:
            raise ConfigError(f"no target '{name}'; targets: {', '.join(TARGETS)}, {ALL}")
    return tuple(t for t in TARGETS.values() if t.name in names or ALL in names)


def families(models: Collection[str]) -> tuple[tuple[str, ...], ...]:
    """Return the families that have one of ``models``, each from small to large.

    The embedded one is of the sizes that come with the package, and of larger ones that were
    trained. Its ``s`` is that of the default's own run where no other was made.
    """
    small = (
        (*SCENES_VIT_SIZES[:-1], SCENES_VIT)
        if SCENES_VIT_SIZES[-1] not in models and SCENES_VIT in models
        else SCENES_VIT_SIZES
    )
    embedded = (*small, *(model for model in SCENES_VIT_OTHER_SIZES if model in models))
    every = (*PAPER_FAMILIES, PROBED_CLIP, embedded)
    return tuple(family for family in every if any(model in family for model in models))


def stages_of(targets: Sequence[Target]) -> tuple[str, ...]:
    """Return the stages that these targets need together, in no order."""
    return tuple(dict.fromkeys(stage for target in targets for stage in target.stages))


def tasks_of(targets: Sequence[Target]) -> tuple[Task, ...]:
    """Return the probes that these targets need together."""
    return tuple(dict.fromkeys(task for target in targets for task in target.tasks))
