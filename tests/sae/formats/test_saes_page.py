"""docs/saes.md says what the code does: formats, versions, every key of a mapping."""

import re
import tomllib
from pathlib import Path

from tests.sae.formats.cases import FIXTURES

from vitscope.backbones.weights.reading import MAX_TEXT_BYTES
from vitscope.sae.formats.load import SAE_FORMATS
from vitscope.sae.formats.mapping import SaeMapping, TensorNames

PAGE = (Path(__file__).parents[3] / "docs" / "saes.md").read_text(encoding="utf-8")


def documented_keys(page: str) -> set[str]:
    """Keys in the first column of the mapping's table."""
    _, _, section = page.partition("## A mapping file")
    rows = re.findall(r"^\| (`[^|]*) \|", section.partition("\n## ")[0], re.MULTILINE)
    return {key for row in rows for key in re.findall(r"`([\w.]+)`", row)}


def test_every_key_of_a_mapping_is_documented() -> None:
    keys = set(SaeMapping.model_fields) - {"tensors"}
    keys |= {f"tensors.{name}" for name in TensorNames.model_fields}
    assert documented_keys(PAGE) == keys
    assert documented_keys(PAGE.replace("| `unit_rows` |", "| `unit_row` |")) != keys


def test_the_mapping_shown_is_one() -> None:
    (text,) = re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    SaeMapping.parse(tomllib.loads(text), source="saes.md")


def test_every_format_is_in_the_table() -> None:
    rows = set(re.findall(r"^\| ([\w-]+)", PAGE.partition("## Does it")[0], re.MULTILINE))
    assert {known.name for known in SAE_FORMATS} | {"vitscope", "mapping"} <= rows


def test_the_versions_are_those_of_the_files() -> None:
    folders = [path.name for path in FIXTURES.iterdir() if path.name != "exported-to-sae-lens"]
    assert len(folders) == 6
    for name in folders:
        library, _, version = name.rpartition("-")
        assert f"{library} {version}" in PAGE


def test_the_limit_is_the_codes() -> None:
    assert f"{MAX_TEXT_BYTES // 2**20} MB" in PAGE
