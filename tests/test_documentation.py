"""docs/protocol.md lists every option of a study, with the default that the code has."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from vitscope.study import Study

PROTOCOL = Path(__file__).parent.parent / "docs" / "protocol.md"


def documented(text: str) -> dict[str, str]:
    """Option -> default, as the table of options says."""
    _, _, options = text.partition("## All options")
    return dict(re.findall(r"^\| `([\w.]+)` \| `?([^|`]+|)`? \|", options, re.MULTILINE))


def defaults(group: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield (option, default as TOML writes it)."""
    for name, field in group.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from defaults(field.annotation, f"{prefix}{name}.")
        elif field.default is PydanticUndefined:
            yield prefix + name, "required"
        else:
            yield prefix + name, "unset" if field.default is None else json.dumps(field.default)


def test_every_option_is_documented_with_its_default() -> None:
    assert documented(PROTOCOL.read_text(encoding="utf-8")) == dict(defaults(Study))


def test_a_wrong_or_missing_default_would_be_seen() -> None:
    text = PROTOCOL.read_text(encoding="utf-8")
    expected = dict(defaults(Study))
    assert len(expected) > 30
    assert (
        documented(text.replace("| `scope.shift` | `1` |", "| `scope.shift` | `2` |")) != expected
    )
    assert documented(text.replace("| `scope.shift` |", "| `scope.shfit` |")) != expected
