"""docs/backbones.md says what the code does: the zoo's table, and every study it shows."""

import re
import tomllib
from pathlib import Path

from vitscope.backbones.settings import BackboneSettings
from vitscope.backbones.zoo import ZOO

PAGE = (Path(__file__).parents[2] / "docs" / "backbones.md").read_text(encoding="utf-8")


def table_rows(page: str) -> dict[str, tuple[str, ...]]:
    """Name -> timm model, block, τ, input, grid, width, of the table of the zoo."""
    rows = re.findall(r"^\| `([\w-]+)` \| `([\w.]+)` \| (.*?) \|$", page, re.MULTILINE)
    return {name: (timm_name, *rest.split(" | ")) for name, timm_name, rest in rows}


def test_the_table_is_the_zoo() -> None:
    expected = {
        name: (
            entry.timm_name,
            f"{entry.layer} of {entry.depth}",
            "–" if entry.tau is None else f"{entry.tau:g}",
            *(str(number) for number in (entry.resolution, entry.grid, entry.width)),
        )
        for name, entry in ZOO.items()
    }
    assert table_rows(PAGE) == expected
    assert table_rows(PAGE.replace("11 of 12", "10 of 12")) != expected


def test_every_study_shown_is_valid() -> None:
    shown = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    assert len(shown) >= 2
    for text in shown:
        BackboneSettings.parse(tomllib.loads(text)["backbone"], source="backbones.md")
