"""What the paper leaves open and numbers hang on: each point's option, and runs of other readings.

A reading is one choice among several that the paper leaves open.
"""

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitscope.errors import ConfigError
from vitscope.paper.prices import shape_of
from vitscope.paper.studies import PLANTED_MODEL, is_scenes_model
from vitscope.paper.targets import BASE, CLIP, WITH_ATTENTION, WITH_PROBES, Target
from vitscope.probes.settings import Task
from vitscope.study import Study

OptionValue = str | int | float | bool
Readings = Mapping[str, OptionValue]
"""Key of an assumption -> what is taken instead of the default."""


@dataclass(frozen=True)
class Assumption:
    """An open point.

    Attributes:
        question: what the paper does not say.
        places: options of a study that it sets, dotted.
    """

    question: str
    places: tuple[str, ...]

    def value_in(self, study: Study) -> OptionValue | None:
        """Return the reading that a study takes."""
        found: Any = study
        for part in self.places[0].split("."):
            found = getattr(found, part)
        return found


ASSUMPTIONS: dict[str, Assumption] = {
    key: Assumption(question, tuple(places.split()))
    for key, places, question in (
        ("attention", "outliers.attention",
         "which attention map an EMD compares: a token's row, what keys receive, or its column"),
        ("membership", "outliers.membership",
         "in which of the two views an outlier's norm exceeds τ"),
        ("missing", "scope.missing", "what a pair counts whose map is empty in one view"),
        ("k_cds", "scope.top_images", "how many images score a feature"),
        ("unscored", "scope.unscored", "where features without a score go"),
        ("gamma", "scope.gamma", "γ by hand instead of the histogram's valley"),
        ("tau", "outliers.tau", "τ by hand"),
        ("layer", "backbone.layer", "CLIP's block; others are in Table 5"),
        ("resolution", "backbone.resolution", "the input's side in pixels"),
        ("resize", "scope.resize", "crop or stretch before the views are cut"),
        ("positions", "backbone.positions", "how position embeddings are resized"),
        ("keep_error", "probes.keep_error",
         "whether the SAE's reconstruction error stays in the tokens"),
        ("probe_at",
         "probes.classification.probe_at probes.segmentation.probe_at probes.depth.probe_at",
         "whether probes read the designated block or the last one"),
        ("image_token", "probes.depth.image_token",
         "what stands beside every patch token for depth where there is no CLS token"),
        ("epochs", "sae.epochs", "how long the SAE is trained"),
        ("searches", "probes.seeds", "whole searches of the probes"),
    )
}  # fmt: skip
"""By the key typed after ``--assume``, in the order in which a page lists them."""


def assume(study: Study, readings: Readings) -> Study:
    """Return ``study`` under other readings.

    Raises:
        ConfigError: a key is unknown, or a value is none of the option's.
    """
    values = study.model_dump()
    for key, value in readings.items():
        for place in ASSUMPTIONS[key].places:
            *groups, last = place.split(".")
            inner = values
            for group in groups:
                inner = inner[group]
            inner[last] = value
    stated = " ".join(f"{key}={value}" for key, value in readings.items())
    return Study.parse(values, source=f"--assume {stated}") if readings else study


def read_assumptions(stated: Sequence[str]) -> dict[str, OptionValue]:
    """Read ``KEY=VALUE`` as typed.

    Raises:
        ConfigError: no ``=``, or an unknown key.
    """
    found: dict[str, OptionValue] = {}
    for text in stated:
        key, equals, value = text.partition("=")
        if not equals or key not in ASSUMPTIONS:
            raise ConfigError(
                f"--assume {text}: give KEY=VALUE with a key of {', '.join(ASSUMPTIONS)}"
            )
        found[key] = _value(value)
    return found


def _value(text: str) -> OptionValue:
    try:
        found = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return found if isinstance(found, str | int | float | bool) else text


def readings_label(readings: Readings) -> str:
    """Return readings as they stand in a folder's name; nothing for none."""
    return ",".join(f"{key}={written_value(value)}" for key, value in sorted(readings.items()))


def written_value(value: OptionValue) -> str:
    """Write a reading as it is typed."""
    return str(value).lower() if isinstance(value, bool) else str(value)


OTHER_RESOLUTIONS = {
    "dinov2-b": 518,
    "dinov2-l": 518,
    "dinov2-g": 518,
    "siglip2-b": 256,
    "siglip2-l": 384,
}
"""The input side of the release, or the next larger one, where the paper's may have been that."""


@dataclass(frozen=True)
class Variation:
    """One further run of a model.

    Attributes:
        readings: other than the model's own run takes.
        stages: that leave what they change.
        tasks: probes that they change.
    """

    readings: Readings
    stages: tuple[str, ...]
    tasks: tuple[Task, ...] = ()

    def applied_to(self, study: Study) -> Study:
        """Return ``study`` under these readings, with no other probes and without controls."""
        read = assume(study, self.readings)
        update: dict[str, object] = {
            task: head.model_copy(update={"train": None, "validation": None})
            for task, head in read.probes.heads().items()
            if task not in self.tasks
        }
        probes = read.probes.model_copy(update={**update, "n_controls": 0})
        return read.model_copy(update={"probes": probes})


def variations(study: Study, targets: Sequence[Target]) -> Iterator[Variation]:
    """Yield the runs that show the other readings of the numbers of ``targets``.

    Only what needs no new SAE: attention under another block, resolution or crop, and probes.
    """
    model, probes = study.backbone.name, study.probes
    if any(set(target.stages) == set(WITH_ATTENTION) for target in targets):
        if model in OTHER_RESOLUTIONS and study.backbone.resolution is None:
            yield Variation({"resolution": OTHER_RESOLUTIONS[model]}, WITH_ATTENTION)
        has_blocks = study.backbone.layer is None and model != PLANTED_MODEL
        if has_blocks and (model in CLIP or is_scenes_model(model)):
            yield Variation({"layer": shape_of(study).depth}, WITH_ATTENTION)
        if not is_scenes_model(model):  # scenes are square: a crop and a stretch are the same
            other = "stretch" if study.scope.resize == "crop" else "crop"
            yield Variation({"resize": other}, WITH_ATTENTION)
    heads = probes.heads()
    # the sizes that only Figure 8 has would cost as much again, and decide nothing more
    if not heads or not (model in (*CLIP, *BASE) or is_scenes_model(model)):
        return
    yield Variation({"keep_error": not probes.keep_error}, WITH_PROBES, tuple(heads))
    for place in ("designated", "final"):
        tasks: tuple[Task, ...] = tuple(
            task for task, head in heads.items() if head.probe_at != place
        )
        if tasks:
            yield Variation({"probe_at": place}, WITH_PROBES, tasks)
    for token in ("pooled", "mean", "none"):
        if "depth" in heads and token != probes.depth.image_token:
            yield Variation({"image_token": token}, WITH_PROBES, ("depth",))
