from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vitscope.store.parts import discard_parts, resumable_map


class Work:
    """Squares chunks; remembers what it computed and what was reused."""

    def __init__(self, folder: Path, fail_at: int | None = None) -> None:
        self.folder = folder
        self.fail_at = fail_at
        self.computed: list[int] = []
        self.reused: list[int] = []

    def compute(self, chunk: int) -> dict[str, Tensor]:
        if chunk == self.fail_at:
            raise KeyboardInterrupt
        self.computed.append(chunk)
        return {"square": torch.tensor([chunk**2])}

    def run(self, chunks: Sequence[int], fingerprint: str = "a") -> list[int]:
        parts = resumable_map(
            self.folder, fingerprint, chunks, self.compute, on_reuse=self.reused.append
        )
        return [int(part["square"]) for part in parts]


def test_everything_is_computed_once_and_in_order(tmp_path: Path) -> None:
    work = Work(tmp_path / "parts")
    assert work.run([3, 1, 2]) == [9, 1, 4]
    assert (work.computed, work.reused) == ([3, 1, 2], [])


def test_an_interrupted_map_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first = Work(tmp_path, fail_at=2)
    with pytest.raises(KeyboardInterrupt):
        first.run([0, 1, 2, 3])
    second = Work(tmp_path)
    assert second.run([0, 1, 2, 3]) == [0, 1, 4, 9]
    assert (second.reused, second.computed) == ([0, 1], [2, 3])


def test_parts_of_other_settings_are_computed_anew(tmp_path: Path) -> None:
    Work(tmp_path).run([0, 1], fingerprint="a")
    work = Work(tmp_path)
    assert work.run([0, 1], fingerprint="b") == [0, 1]
    assert (work.reused, work.computed) == ([], [0, 1])


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_part_is_computed_anew_and_the_others_reused(tmp_path: Path, damage: str) -> None:
    Work(tmp_path).run([0, 1, 2])
    part = sorted(tmp_path.iterdir())[1]
    data = bytearray(part.read_bytes())
    data[-1] ^= 1
    part.write_bytes({"flip": bytes(data), "truncate": bytes(data[:-3]), "empty": b""}[damage])
    work = Work(tmp_path)
    assert work.run([0, 1, 2]) == [0, 1, 4]
    assert (work.reused, work.computed) == ([0, 2], [1])


def test_what_is_yielded_passed_through_the_disk(tmp_path: Path) -> None:
    handed = torch.zeros(3)
    (part,) = resumable_map(tmp_path, "a", [0], lambda _: {"x": handed}, on_reuse=print)
    handed += 1
    assert part["x"].tolist() == [0.0, 0.0, 0.0]


def test_discarded_parts_are_gone(tmp_path: Path) -> None:
    Work(tmp_path / "parts").run([0, 1])
    discard_parts(tmp_path / "parts")
    assert not (tmp_path / "parts").exists()
    discard_parts(tmp_path / "parts")
