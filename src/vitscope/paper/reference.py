"""The paper's numbers, read from ``reference.toml``."""

import tomllib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any

from vitscope.paper.targets import Target

PERCENT = ("classification.", "segmentation.")
"""Quantities that the paper prints in per cent and this project as shares."""

TASK_OF_SET = {"ImageNet": "classification", "ADE20K": "segmentation", "NYUd": "depth"}
"""The paper's data sets and what is probed on them."""


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

    @property
    def printed(self) -> str:
        """The number with its digits."""
        return f"{self.value:,.{self.digits}f}"


@dataclass(frozen=True)
class Reference:
    """Everything that the paper prints.

    Attributes:
        paper: its title.
        arxiv: its number.
        numbers: every printed number, in the paper's order.
        shown: gallery figure -> CDS of the features in it.
    """

    paper: str
    arxiv: str
    numbers: tuple[PaperNumber, ...]
    shown: dict[str, tuple[float, ...]]


def read_rows(name: str, parse_float: Callable[[str], Any] = float) -> dict[str, Any]:
    """Return the tables of a TOML file of this folder."""
    text = resources.files(__package__ or "").joinpath(name).read_text("utf-8")
    return tomllib.loads(text, parse_float=parse_float)


@cache
def load_reference() -> Reference:
    """Return the numbers that come with the package."""
    tables = read_rows("reference.toml", parse_float=str)  # as printed: the digits count
    title, arxiv = tables.pop("paper"), tables.pop("arxiv")
    numbers: list[PaperNumber] = []
    shown: dict[str, tuple[float, ...]] = {}
    for target, table in tables.items():
        if "cds" in table:
            shown[target] = tuple(map(float, table["cds"]))
            continue
        for model, row in table["rows"].items():
            columns = zip(table["quantities"], table["headings"], row, strict=True)
            for quantity, heading, printed in columns:
                scale = 2 if quantity.startswith(PERCENT) else 0
                value = float(printed) / 10**scale
                digits = len(str(printed).partition(".")[2]) + scale
                source = f"{table['source']}, row {model}, column {heading}"
                numbers.append(PaperNumber(target, model, quantity, value, digits, heading, source))
    return Reference(title, arxiv, tuple(numbers), shown)


def numbers_of(target: str, model: str | None = None) -> tuple[PaperNumber, ...]:
    """Return the numbers of a target, of one model where it is named."""
    numbers = load_reference().numbers
    return tuple(n for n in numbers if n.target == target and model in (None, n.model))


def find_number(target: str, model: str, quantity: str) -> PaperNumber | None:
    """Return one number; None where the paper does not print it."""
    return next((n for n in numbers_of(target, model) if n.quantity == quantity), None)


def columns_of(target: Target) -> tuple[PaperNumber, ...]:
    """Return the columns of a target, for models that the paper does not show there.

    Headings name the task where the paper names its data set: other models may be probed on
    others. Figure 8 prints no numbers; its columns are those of Table 3.
    """
    first: dict[str, PaperNumber] = {}
    for number in numbers_of("table3" if target.name == "figure8" else target.name):
        heading = number.heading
        for name, task in TASK_OF_SET.items():
            heading = heading.replace(name, task)
        if target.name != "figure8" or number.quantity.partition(".")[0] in target.tasks:
            first.setdefault(number.quantity, replace(number, target=target.name, heading=heading))
    return tuple(first.values())
