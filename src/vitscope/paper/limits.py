"""What a run can and cannot support, and why: said beside its numbers."""

import re
from dataclasses import dataclass

from vitscope.backbones.zoo import ZOO
from vitscope.images.verify import read_image_table
from vitscope.paper.assumptions import label
from vitscope.paper.counts import IMAGENET
from vitscope.paper.runs import FinishedRun
from vitscope.paper.studies import is_scenes_model
from vitscope.paper.targets import TARGETS

SCOPE = frozenset({"table3", "table4", "table8", "figure6", "figure7", "figure8", "figure9",
                   "figure10", "activation"})  # fmt: skip
"""Targets whose numbers hang on every feature's score."""

SAE = SCOPE | {"table6"}
ATTENTION = frozenset({"table7", "table9"})
PROBES = frozenset(name for name, target in TARGETS.items() if target.tasks)
EVERY = frozenset(TARGETS)

INSTABILITY_IMAGES = 1000
"""Of Table 7."""

PROBE_EPOCHS, PROBE_TRIALS = 100, 5
"""Of the supplement's section C."""

K, EXPANSION = 30, 32
"""Of the supplement's section A."""


SYNSET, RELEASE = re.compile(r"n\d{8}"), re.compile(r"ILSVRC2012_")
"""A class folder of ImageNet's, and how the files of its release begin."""


@dataclass(frozen=True)
class Limit:
    """One thing that a run cannot support.

    Attributes:
        text: what is different, and what follows.
        targets: that it concerns.
        bars_comparison: whether a difference from the paper then says nothing of a reproduction.
    """

    text: str
    targets: frozenset[str]
    bars_comparison: bool = False

    def concerns(self, target: str) -> bool:
        """Whether it is to be said beside a target."""
        return target in self.targets


def limits_of(run: FinishedRun) -> tuple[Limit, ...]:
    """Return what keeps the numbers of a run from being those of the paper's experiment."""
    found: list[Limit] = []
    if run.model not in ZOO:
        found.append(
            Limit(
                f"'{run.model}' is no model of the paper: its numbers stand alone, and a verdict "
                "below is on this model and these images only",
                EVERY,
                bars_comparison=True,
            )
        )
    elif not _is_imagenet(run):
        found.append(
            Limit(
                "the images are not known for ImageNet's: statistics of other photographs may "
                "differ for that reason alone",
                EVERY,
                bars_comparison=True,
            )
        )
    if run.readings:
        found.append(Limit(f"read otherwise than by default: {label(run.readings)}", EVERY))
    return (*found, *_of_images(run), *_of_sae(run), *_of_probes(run))


def _is_imagenet(run: FinishedRun) -> bool:
    """Whether the scored images have ImageNet's class folders or its file names."""
    if not run.has("images"):
        return False
    split = "train" if run.study.images.eval is None else "eval"
    refs = read_image_table(run.run.images(split)).usable
    return all(SYNSET.fullmatch(ref.label or "") or RELEASE.match(ref.path.name) for ref in refs)


def _of_images(run: FinishedRun) -> list[Limit]:
    if not run.has("images"):
        return []
    study, found = run.study, list[Limit]()
    split = "train" if study.images.eval is None else "eval"
    n = len(read_image_table(run.run.images(split)).usable)
    if n < IMAGENET[1]:
        found.append(
            Limit(
                f"{n:,} images are scored, not {IMAGENET[1]:,}: each feature's strongest images "
                "are weaker ones, so that CDS, γ and both groups shift; counts say little, but an "
                "order between features, or between outlier and other tokens, means something",
                SCOPE,
                bars_comparison=run.model in ZOO,
            )
        )
        found.append(
            Limit(
                f"reconstruction is measured on {n:,} images: the interval is wider, the number "
                "the same kind of number",
                frozenset({"table6"}),
            )
        )
    compared = min(study.outliers.images, n)
    if compared < INSTABILITY_IMAGES:
        found.append(
            Limit(
                f"attention is compared on {compared:,} images, not {INSTABILITY_IMAGES:,}: the "
                "interval says how far that carries",
                ATTENTION | {"table5"},
            )
        )
    return found


def _of_sae(run: FinishedRun) -> list[Limit]:
    study, sae, found = run.study, run.study.sae, list[Limit]()
    if is_scenes_model(run.model):
        return found
    if sae.path is not None:
        found.append(
            Limit(
                "the SAE was brought along: its recipe is its own, and so are the numbers of its "
                "dictionary",
                SAE,
                bars_comparison=True,
            )
        )
        return found
    if study.images.eval is None:
        found.append(Limit("the SAE is scored on the images that it was trained on", SAE, True))
    n_train = len(read_image_table(run.run.images("train")).usable) if run.has("images") else 0
    if n_train < IMAGENET[0] and run.has("train"):
        found.append(
            Limit(
                f"the SAE is trained on {n_train:,} images, not {IMAGENET[0]:,}: more of its "
                "features are dead, and it reconstructs less",
                SAE,
                bars_comparison=True,
            )
        )
    if (sae.k, sae.expansion, study.activations.tokens_per_image) != (K, EXPANSION, 4):
        found.append(
            Limit("K, the expansion or the tokens per image are not the paper's", SAE, True)
        )
    if run.has("train"):
        found.append(
            Limit(
                "how long the paper's SAEs were trained is not stated: FVU and the dictionary hang "
                "on it",
                SAE,
            )
        )
    return found


def _of_probes(run: FinishedRun) -> list[Limit]:
    probes, found = run.study.probes, list[Limit]()
    if not probes.heads():
        return found
    if (probes.epochs, probes.trials) != (PROBE_EPOCHS, PROBE_TRIALS):
        found.append(
            Limit(
                f"probes are trained for {probes.epochs} epochs, not {PROBE_EPOCHS}: accuracies "
                "are lower, differences between variants may be",
                PROBES,
            )
        )
    if probes.seeds < 2:
        found.append(
            Limit(
                "one search of each probe: differences between variants have no interval, and no "
                "verdict on them is possible",
                PROBES,
            )
        )
    if any(head.train_limit for head in probes.heads().values()):
        found.append(Limit("probes see a part of their data sets", PROBES, True))
    return found
