import tomllib
from typing import Any, Literal

import pytest
from pydantic import Field, ValidationError, field_validator, model_validator

from vitscope.errors import ConfigError, VitscopeError
from vitscope.settings import Settings


class Scope(Settings):
    shift: int = Field(default=1, ge=1, le=6)
    top_images: int = Field(default=16, ge=1)
    missing: Literal["max", "drop", "zero"] = "max"
    gamma: float | Literal["valley"] = "valley"


class Ours(Settings):
    expansion: int = 32


class Foreign(Settings):
    path: str

    @field_validator("path")
    @classmethod
    def _not_empty(cls, value: str) -> str:
        if not value:
            raise ValueError("an empty path names no SAE; leave the key out to train one")
        return value


class Study(Settings):
    scope: Scope = Scope()
    second: Scope | None = None
    sae: Ours | Foreign = Ours()
    more: tuple[Scope, ...] = ()
    named: dict[str, int] = Field(default_factory=dict)
    out: str = "run"
    low: float = 0.0
    high: float = 1.0

    @model_validator(mode="after")
    def _ordered(self) -> "Study":
        if self.low > self.high:
            raise ValueError(f"low ({self.low}) is above high ({self.high})")
        return self


def complaint(toml: str) -> str:
    with pytest.raises(ConfigError) as caught:
        Study.parse(tomllib.loads(toml), source="study.toml")
    assert isinstance(caught.value, VitscopeError)
    assert caught.value.__suppress_context__, "pydantic's own report must not be shown beside ours"
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_valid_settings_are_parsed_and_defaults_filled() -> None:
    study = Study.parse({"scope": {"shift": 3, "gamma": 0.14}}, source="study.toml")
    assert (study.scope.shift, study.scope.gamma, study.scope.missing) == (3, 0.14, "max")
    assert study.second is None


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Scope().shift = 2


def test_a_default_out_of_range_is_an_error_of_ours() -> None:
    class Wrong(Settings):
        shift: int = Field(default=0, ge=1)

    with pytest.raises(ValidationError):
        Wrong()


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        ("[scpoe]\nshift = 1", "unknown key 'scpoe' (did you mean 'scope'?)"),
        ("[scope]\nshfit = 1", "unknown key 'scope.shfit' (did you mean 'shift'?)"),
        ("[scope]\ntop-images = 1", "unknown key 'scope.top-images' (did you mean 'top_images'?)"),
        ("[second]\nshfit = 1", "unknown key 'second.shfit' (did you mean 'shift'?)"),
        ("[[more]]\n[[more]]\nshfit = 1", "unknown key 'more.1.shfit' (did you mean 'shift'?)"),
        ("shift = 1", "unknown key 'shift' (did you mean 'scope.shift'?)"),
        (
            "[scope]\nzzz = 1",
            "unknown key 'scope.zzz' (valid keys here: gamma, missing, shift, top_images)",
        ),
    ],
)
def test_an_unknown_key_is_refused_with_the_nearest(toml: str, expected: str) -> None:
    assert complaint(toml) == f"study.toml: {expected}"


def test_an_unknown_key_of_a_union_of_groups_has_no_tag_in_its_place() -> None:
    told = complaint("[sae]\nexpansoin = 8")
    assert "unknown key 'sae.expansoin' (did you mean 'expansion'?)" in told
    assert "sae.path: required, but not given" in told
    assert "Ours" not in told
    assert "Foreign" not in told


@pytest.mark.parametrize(
    ("toml", "expected"),
    [
        (
            "[scope]\nshift = 'two'",
            "scope.shift: input should be a valid integer, "
            "unable to parse string as an integer (got 'two')",
        ),
        ("out = 3", "out: input should be a valid string (got 3)"),
        ("scope = 3", "scope: a group of settings is expected (got 3)"),
        ("[named]\na = 'x'", "named: input should be a valid integer, unable"),
        (
            "[scope]\nmissing = 'none'",
            "scope.missing: input should be 'max', 'drop' or 'zero' (got 'none')",
        ),
        ("[scope]\nshift = 0", "scope.shift: input should be greater than or equal to 1 (got 0)"),
        ("[scope]\nshift = 7", "scope.shift: input should be less than or equal to 6 (got 7)"),
        (
            "low = 2.0",
            "low (2.0) is above high (1.0)",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_its_place_and_what_was_given(
    toml: str, expected: str
) -> None:
    assert complaint(toml).startswith(f"study.toml: {expected}")


def test_the_readings_of_a_union_are_alternatives_of_one_key() -> None:
    assert complaint("[scope]\ngamma = 'vally'") == (
        "study.toml: scope.gamma: input should be a valid number, unable to parse string as a "
        "number (got 'vally'), or input should be 'valley' (got 'vally')"
    )


def test_an_explanation_of_our_own_stands_as_written() -> None:
    told = complaint("[sae]\npath = ''")
    assert "sae.path: an empty path names no SAE; leave the key out to train one" in told


def test_every_mistake_is_named_at_once() -> None:
    told = complaint("ouT = 1\n[scope]\nshift = 0\nmising = 'max'")
    assert "unknown key 'ouT' (did you mean 'out'?)" in told
    assert "scope.shift: " in told
    assert "unknown key 'scope.mising' (did you mean 'missing'?)" in told
    assert told.count("; ") == 2


def test_a_missing_required_key_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        Foreign.parse({}, source="--set")
    assert str(caught.value) == "--set: path: required, but not given"


@pytest.mark.parametrize("value", [None, [], "x", float("nan")])
def test_any_value_in_place_of_a_group_is_explained_not_crashed_on(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"study\.toml: "):
        Study.parse({"scope": value, "sae": value, "more": value}, source="study.toml")
