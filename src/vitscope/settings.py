"""The base of every configuration record: frozen, and closed to unknown keys."""

import difflib
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Self, get_args

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from vitscope.errors import ConfigError

MOST_TOML_BYTES = 16 << 20
"""ImageNet's thousand classes take some thirty kilobytes."""

NEAREST_KEY_CUTOFF = 0.5
"""Similarity (difflib's ratio) from which a valid key is offered for a mistyped one."""


def read_toml(path: Path, *, most_bytes: int = MOST_TOML_BYTES) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        ConfigError: it is no TOML, too long, or nested too deeply; of OSError what the system says.
    """
    with path.open("rb") as file:
        text = file.read(most_bytes + 1)
    if len(text) > most_bytes:
        raise ConfigError(f"{path} is longer than {most_bytes} bytes; it is no file of settings")
    try:
        return tomllib.loads(text.decode())
    except ValueError as error:  # of its syntax, of its encoding, or a number of too many digits
        raise ConfigError(f"{path} is not a TOML file: {' '.join(str(error).split())}") from None
    except RecursionError:
        raise ConfigError(f"{path} is not a TOML file: it is nested too deeply") from None


class Settings(BaseModel):
    """A frozen, validated group of settings; an unknown key is refused, never ignored."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True)

    @classmethod
    def parse(cls, values: dict[str, Any], *, source: str) -> Self:
        """Validate ``values`` as read from ``source``.

        Raises:
            ConfigError: naming every wrong key, its place, and the nearest valid one.
        """
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise ConfigError(f"{source}: {_explain_all(cls, error.errors())}") from None


def _explain_all(root: type[BaseModel], errors: Sequence[ErrorDetails]) -> str:
    readings: dict[str, list[str]] = {}
    for error in errors:
        place = ".".join(_place(root, error["loc"]))
        if error["type"] == "extra_forbidden":
            readings[f"unknown key '{place}' ({_hint(root, error['loc'])})"] = []
        else:
            readings.setdefault(f"{place}: " if place else "", []).append(_explain(error))
    # what the readings of a union complain of are alternatives for one key, not several mistakes
    return "; ".join(place + ", or ".join(messages) for place, messages in readings.items())


def _explain(error: ErrorDetails) -> str:
    if error["type"] == "missing":
        return "required, but not given"
    if error["type"] == "model_type":
        return f"a group of settings is expected (got {error['input']!r})"
    message = error["msg"].removeprefix("Value error, ")
    message = message[0].lower() + message[1:]
    if error["type"] == "value_error":
        return message  # our own validators say what they were given
    return f"{message} (got {error['input']!r})"


def _hint(root: type[BaseModel], location: Sequence[int | str]) -> str:
    valid = sorted(key for model in _groups_at(root, location[:-1]) for key in model.model_fields)
    wrong = str(location[-1])
    near = difflib.get_close_matches(wrong, valid, n=1, cutoff=NEAREST_KEY_CUTOFF)
    if near:
        return f"did you mean '{near[0]}'?"
    elsewhere = [path for path in _key_paths(root) if path.endswith(f".{wrong}")]
    if elsewhere:
        return f"did you mean '{elsewhere[0]}'?"
    return f"valid keys here: {', '.join(valid)}"


def _place(root: type[BaseModel], location: Sequence[int | str]) -> Iterator[str]:
    """Yield the parts of ``location`` that a user wrote; pydantic adds tags for unions."""
    for depth, part in enumerate(location):
        groups = _groups_at(root, location[:depth])
        is_tag = len(groups) > 1 and any(group.__name__ == part for group in groups)
        if isinstance(part, int) or (groups and not is_tag):
            yield str(part)


def _groups_at(root: type[BaseModel], path: Sequence[int | str]) -> list[type[BaseModel]]:
    """Return the groups that may stand at ``path``: several for a union, none for a plain value."""
    groups = [root]
    for part in path:
        fields = [g.model_fields[str(part)] for g in groups if str(part) in g.model_fields]
        if fields:
            groups = [group for field in fields for group in _groups_in(field.annotation)]
        elif not isinstance(part, int):  # a union's tag: the name of the group that was tried
            groups = [g for g in groups if g.__name__ == part]
    return groups


def _groups_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [group for inner in get_args(annotation) for group in _groups_in(inner)]


def _key_paths(root: type[BaseModel], prefix: str = "") -> Iterator[str]:
    for name, field in root.model_fields.items():
        yield prefix + name
        for group in _groups_in(field.annotation):
            yield from _key_paths(group, f"{prefix}{name}.")
