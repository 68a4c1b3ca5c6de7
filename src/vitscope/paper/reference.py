"""The paper's numbers, read from ``reference.toml`` and checked."""

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from vitscope.errors import ConfigError

PERCENT = ("classification.", "segmentation.")
"""Quantities that the paper prints in per cent and this project as shares."""


@dataclass(frozen=True)
class PaperNumber:
    """One printed number.

    Attributes:
        target: table of the paper.
        model: the zoo's name.
        quantity: what it is, as ``findings`` names it.
        value: in this project's units: accuracies and IoU are shares, distances patches, depth
            metres.
        digits: decimals to which it is known, in those units: it may be off by half of the last.
        heading: of its column in the paper.
        source: where it is printed.
    """

    target: str
    model: str
    quantity: str
    value: float
    digits: int
    heading: str
    source: str

    @property
    def rounding(self) -> float:
        """Half of the last printed digit."""
        return 0.5 * 10.0**-self.digits


@dataclass(frozen=True)
class ShownFeatures:
    """The features of a gallery figure.

    Attributes:
        target: the figure.
        features: indices in the paper's dictionary.
        cds: of each.
        source: where it is printed.
    """

    target: str
    features: tuple[int, ...]
    cds: tuple[float, ...]
    source: str


@dataclass(frozen=True)
class Reference:
    """Everything known.

    Attributes:
        paper: its title.
        arxiv: its number.
        numbers: every printed number, in the paper's order.
        shown: the galleries.
    """

    paper: str
    arxiv: str
    numbers: tuple[PaperNumber, ...]
    shown: tuple[ShownFeatures, ...]

    def of(self, target: str, model: str | None = None) -> tuple[PaperNumber, ...]:
        """Return the numbers of a target, of one model where it is named."""
        return tuple(
            number
            for number in self.numbers
            if number.target == target and model in (None, number.model)
        )

    def find(self, target: str, model: str, quantity: str) -> PaperNumber | None:
        """Return one number; None where the paper does not print it."""
        found = (number for number in self.of(target, model) if number.quantity == quantity)
        return next(found, None)


@cache
def load_reference() -> Reference:
    """Return the numbers that come with the package."""
    text = resources.files(__package__ or "").joinpath("reference.toml").read_text("utf-8")
    return parse_reference(text, source="reference.toml")


def parse_reference(text: str, *, source: str) -> Reference:
    """Read numbers from TOML.

    Raises:
        ConfigError: it is not TOML, or a row does not have one number for every column.
    """
    try:
        tables = tomllib.loads(text, parse_float=str)  # as printed: the digits count
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not a TOML file: {error}") from None
    numbers: list[PaperNumber] = []
    shown: list[ShownFeatures] = []
    for target, table in tables.items():
        if not isinstance(table, dict):
            continue
        where = f"{source}, {target}"
        if "rows" in table:
            numbers += _numbers(target, table, where)
        else:
            shown.append(_shown(target, table, where))
    missing = {"paper", "arxiv"} - set(tables)
    if missing:
        raise ConfigError(f"{source} lacks '{sorted(missing)[0]}'")
    return Reference(str(tables["paper"]), str(tables["arxiv"]), tuple(numbers), tuple(shown))


def _numbers(target: str, table: Mapping[str, Any], where: str) -> list[PaperNumber]:
    quantities, headings = table["quantities"], table["headings"]
    if len(quantities) != len(headings) or len(set(quantities)) != len(quantities):
        raise ConfigError(f"{where}: quantities and headings must be as many, each once")
    found: list[PaperNumber] = []
    for model, row in table["rows"].items():
        if len(row) != len(quantities):
            raise ConfigError(
                f"{where}, row {model}: {len(row)} numbers for {len(quantities)} columns"
            )
        for quantity, heading, printed in zip(quantities, headings, row, strict=True):
            text = str(printed)
            scale = 2 if quantity.startswith(PERCENT) else 0
            found.append(
                PaperNumber(
                    target=target,
                    model=model,
                    quantity=quantity,
                    value=float(text) / 10**scale,
                    digits=len(text.partition(".")[2]) + scale,
                    heading=heading,
                    source=f"{table['source']}, row {model}, column {heading}",
                )
            )
    return found


def _shown(target: str, table: Mapping[str, Any], where: str) -> ShownFeatures:
    features = tuple(int(feature) for feature in table["features"])
    cds = tuple(float(value) for value in table["cds"])
    if len(features) != len(cds):
        raise ConfigError(f"{where}: {len(features)} features for {len(cds)} scores")
    return ShownFeatures(target, features, cds, str(table["source"]))
