"""Feature caches: resumed where they stopped, checked before use, refused without room."""

import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from vitscope.errors import ConfigError
from vitscope.probes.cache import ArrayPlan, CachePlan, FeatureCache, fill_cache

N, CHUNK = 23, 5
PLAN = CachePlan(N, {"a": ArrayPlan((3, 2), "float16"), "target": ArrayPlan((), "int64")})


class Work:
    """Computes chunks, counts them, and can be killed before one."""

    def __init__(self, *, die_before: int | None = None, value: float = 0.0) -> None:
        self.chunks: list[range] = []
        self.die_before, self.value = die_before, value

    def __call__(self, chunk: range) -> dict[str, np.ndarray]:
        if self.die_before == len(self.chunks):
            raise KeyboardInterrupt
        self.chunks.append(chunk)
        rows = np.asarray(chunk)
        entries = rows[:, None, None] + np.arange(6).reshape(3, 2) / 8 + self.value
        return {"a": entries, "target": rows * 10}


def fill(folder: Path, work: Work, fingerprint: str = "one") -> FeatureCache:
    return fill_cache(folder, fingerprint, PLAN, chunk_images=CHUNK, compute=work)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_cache_holds_what_was_computed(tmp_path: Path) -> None:
    cache = fill(tmp_path / "c", Work())
    assert cache.array("a").dtype == np.float16 and cache.array("a").shape == (N, 3, 2)
    assert cache.array("target").tolist() == [10 * i for i in range(N)]
    assert cache.array("a")[22, 2, 1] == 22.625
    assert PLAN.n_bytes == sum(len(b) for n, b in content(tmp_path / "c").items() if "bin" in n)


@pytest.mark.parametrize("died", range(5))
def test_a_killed_pass_ends_with_the_same_bytes(tmp_path: Path, died: int) -> None:
    fill(tmp_path / "whole", Work())
    with pytest.raises(KeyboardInterrupt):
        fill(tmp_path / "c", Work(die_before=died))
    rest = Work()
    fill(tmp_path / "c", rest)
    assert [chunk.start for chunk in rest.chunks] == list(range(CHUNK * died, N, CHUNK))
    assert content(tmp_path / "c") == content(tmp_path / "whole")
    again = Work()
    fill(tmp_path / "c", again)
    assert again.chunks == []


def test_a_changed_byte_is_computed_anew(tmp_path: Path) -> None:
    fill(tmp_path / "c", Work())
    whole = content(tmp_path / "c")
    changed = bytearray(whole["a.bin"])
    changed[12 * 11] ^= 1  # image 11, in the third chunk
    (tmp_path / "c" / "a.bin").write_bytes(changed)
    again = Work()
    fill(tmp_path / "c", again)
    assert [chunk.start for chunk in again.chunks] == [10, 15, 20]
    assert content(tmp_path / "c") == whole
    (tmp_path / "c" / "a.bin").write_bytes(changed[:50])
    again = Work()
    fill(tmp_path / "c", again)
    assert len(again.chunks) == 5 and content(tmp_path / "c") == whole


def test_a_cache_of_something_else_is_begun_anew(tmp_path: Path) -> None:
    fill(tmp_path / "c", Work())
    other = Work(value=1.0)
    cache = fill(tmp_path / "c", other, "two")
    assert len(other.chunks) == 5 and cache.array("a")[0, 0, 0] == 1.0


def test_writing_to_what_was_mapped_leaves_the_file_alone(tmp_path: Path) -> None:
    cache = fill(tmp_path / "c", Work())
    cache.array("a")[:] = 7
    assert cache.array("a")[0, 0, 0] == 0


def test_no_room_is_said_before_anything_is_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = SimpleNamespace(total=10**9, used=10**9 - 400, free=400)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: full)
    work = Work()
    with pytest.raises(ConfigError, match="features of 23 images take"):
        fill(tmp_path / "c", work)
    assert work.chunks == []
