"""Damaged files of every kind: an answer or one line of error, nothing written, bounded memory."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fuzz.damage import damaged_file
from tests.fuzz.guarded import leash
from tests.fuzz.targets import TARGETS, Target

from vitscope.errors import VitscopeError

FEW = 6
MANY = int(os.environ.get("FUZZ_INPUTS", "1500"))
"""Inputs per reader in `make test`, and in `make soak` where FUZZ_INPUTS says nothing else."""

_made: dict[tuple[Path, Callable[[Path], object]], Path] = {}


def made(target: Target, factory: pytest.TempPathFactory) -> Path:
    """The valid files of a target, made once."""
    key = factory.getbasetemp(), target.make
    if key not in _made:
        folder = factory.mktemp("valid")
        target.make(folder)
        _made[key] = folder
    return _made[key]


def try_many(target: Target, folder: Path, n: int, *, derandomize: bool) -> None:
    """Damage one file at a time and read."""
    paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    paths = [p for p in paths if not target.suffixes or p.suffix in target.suffixes]
    valid = {path: path.read_bytes() for path in paths}
    for path in paths:  # as they are, they are read
        target.read(folder, path)

    @settings(
        max_examples=n,
        deadline=None,
        derandomize=derandomize,
        database=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
    )
    @given(st.data())
    def one(data: st.DataObject) -> None:
        path = data.draw(st.sampled_from(paths), label="file")
        others = [valid[other] for other in paths if other.suffix == path.suffix]
        path.write_bytes(data.draw(damaged_file(path.name, valid[path], others), label="bytes"))
        try:
            with leash():
                target.read(folder, path)
        except VitscopeError as error:
            assert "\n" not in str(error).strip(), "one line"
            assert len(str(error)) < LONGEST_MESSAGE
        finally:
            path.write_bytes(valid[path])

    one()


LONGEST_MESSAGE = 20_000
"""Characters: a message may name many files, but does not print a file's content."""


@pytest.mark.parametrize("name", TARGETS)
def test_damaged_files_are_read_or_refused(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = TARGETS[name]
    try_many(target, made(target, tmp_path_factory), FEW, derandomize=True)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("name", TARGETS)
def test_many_damaged_files_are_read_or_refused(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = TARGETS[name]
    try_many(target, made(target, tmp_path_factory), MANY, derandomize=False)
