"""Damage to valid files: bits flipped, ends cut, pieces moved, and values of the wrong kind."""

import json
from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import tomli_w
from hypothesis import strategies as st

MOST_DAMAGES = 4

TELLING = (
    b"\0" * 8, b"\xff" * 8, b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\xff" * 7 + b"\x7f",
    b"\0\0\0\0\0\0\x10\0", b"\x7f\xff\xff\xff", b"", b"\n", b"[", b"{" * 40, b'"', b",", b"%n",
    b"../../", b"nan", b"-1", b"1e999", "é😀\u202e".encode(), b"\xed\xa0\x80", b"\xc3\x28",
)  # fmt: skip
"""Bytes that parsers have stumbled over: extreme lengths, broken UTF-8, brackets, paths."""

ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 3, 2**31, 2**63 - 1, -(2**63), 1e308, -0.5, float("nan"),
    float("inf"), "", "x", "\0", "../../../etc/passwd", "~nobody-here/x", "scenes:3", "hf:a/b",
    "a" * 5000, "é😀\u202e", [], [1], [[]], [None], {}, {"a": 1}, {"": ""}, [1, "two", None],
)  # fmt: skip
"""Values in place of what belongs there."""


@st.composite
def damaged(draw: st.DrawFn, valid: bytes, others: Sequence[bytes] = ()) -> bytes:
    """``valid`` with one to four damages; pieces may come from ``others``."""
    data = bytearray(valid)
    for _ in range(draw(st.integers(1, MOST_DAMAGES))):
        # near the beginning more often: there are the lengths and names
        start = draw(st.integers(0, len(data)) | st.integers(0, min(len(data), 200)))
        length = draw(st.integers(0, 64) | st.integers(0, max(0, len(data) - start)))
        match draw(st.integers(0, 6)):
            case 0 if start < len(data):
                data[start] ^= 1 << draw(st.integers(0, 7))
            case 1:
                piece = draw(st.sampled_from(TELLING))
                data[start : start + len(piece)] = piece
            case 2:
                data[start:start] = draw(st.sampled_from(TELLING) | st.binary(max_size=16))
            case 3:
                del data[start:]
            case 4:
                del data[start : start + length]
            case 5:
                data[start:start] = data[start : start + length][:4096]
            case _:
                other = draw(st.sampled_from([valid, *others]))
                place = draw(st.integers(0, len(other)))
                data[start:] = other[place:]
    return bytes(data)


@st.composite
def disordered(draw: st.DrawFn, valid: Any) -> Any:
    """A JSON-like value with one to three of its parts replaced, removed, or added."""
    value = json.loads(json.dumps(valid))
    for _ in range(draw(st.integers(1, 3))):
        value = _changed(draw, value)
    return value


def _changed(draw: st.DrawFn, value: Any) -> Any:
    is_inner = isinstance(value, dict | list) and len(value) > 0
    if not is_inner or draw(st.integers(0, 9)) == 0:
        return deepcopy(draw(st.sampled_from(ODD)))
    keys: list[Any] = sorted(value) if isinstance(value, dict) else list(range(len(value)))
    key = draw(st.sampled_from(keys))
    match draw(st.integers(0, 7)):
        case 0:
            del value[key]
        case 1 if isinstance(value, dict):
            value[draw(st.sampled_from(["", "extra", "__proto__", "schema"]))] = value[key]
        case 1 if isinstance(value, list):
            value.append(value[key])
        case _:
            value[key] = _changed(draw, value[key])
    return value


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def as_toml(value: Any) -> bytes:
    """TOML has no null: what holds one is left out."""
    plain = _without_none(value)
    return tomli_w.dumps(plain if isinstance(plain, dict) else {"value": plain}).encode()


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value if item is not None]
    return value
