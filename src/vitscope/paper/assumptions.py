"""What the paper leaves open and numbers hang on, each with its option and its other readings."""

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vitscope.errors import ConfigError
from vitscope.study import Study

Value = str | int | float | bool


@dataclass(frozen=True)
class Assumption:
    """An open point.

    Attributes:
        key: typed after ``--assume``.
        places: options of a study that it sets, dotted.
        question: what the paper does not say.
        in_one_run: whether one run holds all its readings, so that none is run for it.
    """

    key: str
    places: tuple[str, ...]
    question: str
    in_one_run: bool = False

    def value_in(self, study: Study) -> Value | None:
        """Return the reading that a study takes."""
        found: Any = study
        for part in self.places[0].split("."):
            found = getattr(found, part)
        return found


_HEADS = ("classification", "segmentation", "depth")

ASSUMPTIONS: dict[str, Assumption] = {
    one.key: one
    for one in (
        Assumption(
            "attention",
            ("outliers.attention",),
            "which attention map an EMD compares: a token's row, what keys receive, or its column",
            in_one_run=True,
        ),
        Assumption(
            "membership",
            ("outliers.membership",),
            "in which of the two views an outlier's norm exceeds τ",
            in_one_run=True,
        ),
        Assumption(
            "missing",
            ("scope.missing",),
            "what a pair counts whose map is empty in one view",
            in_one_run=True,
        ),
        Assumption("k_cds", ("scope.top_images",), "how many images score a feature"),
        Assumption("unscored", ("scope.unscored",), "where features without a score go"),
        Assumption("gamma", ("scope.gamma",), "γ by hand instead of the histogram's valley"),
        Assumption("tau", ("outliers.tau",), "τ by hand"),
        Assumption("layer", ("backbone.layer",), "CLIP's block; others are in Table 5"),
        Assumption("resolution", ("backbone.resolution",), "the input's side in pixels"),
        Assumption("resize", ("scope.resize",), "crop or stretch before the views are cut"),
        Assumption("positions", ("backbone.positions",), "how position embeddings are resized"),
        Assumption(
            "keep_error",
            ("probes.keep_error",),
            "whether the SAE's reconstruction error stays in the tokens",
        ),
        Assumption(
            "probe_at",
            tuple(f"probes.{task}.probe_at" for task in _HEADS),
            "whether probes read the designated block or the last one",
        ),
        Assumption(
            "image_token",
            ("probes.depth.image_token",),
            "what stands beside every patch token for depth where there is no CLS token",
        ),
        Assumption("epochs", ("sae.epochs",), "how long the SAE is trained"),
        Assumption("searches", ("probes.seeds",), "whole searches of the probes"),
    )
}
"""By key, in the order in which a page lists them."""


def assume(study: Study, readings: Mapping[str, Value]) -> Study:
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


def read_assumptions(stated: Sequence[str]) -> dict[str, Value]:
    """Read ``KEY=VALUE`` as typed.

    Raises:
        ConfigError: no ``=``, or an unknown key.
    """
    found: dict[str, Value] = {}
    for text in stated:
        key, equals, value = text.partition("=")
        if not equals or key not in ASSUMPTIONS:
            raise ConfigError(
                f"--assume {text}: give KEY=VALUE with a key of {', '.join(ASSUMPTIONS)}"
            )
        found[key] = _value(value)
    return found


def label(readings: Mapping[str, Value]) -> str:
    """Return readings as they stand in a folder's name; nothing for none."""
    return ",".join(f"{key}={_written(value)}" for key, value in sorted(readings.items()))


def _written(value: Value) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _value(text: str) -> Value:
    try:
        found = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text
    return found if isinstance(found, str | int | float | bool) else text
