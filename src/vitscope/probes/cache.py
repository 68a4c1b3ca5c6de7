"""Features on disk, memory-mapped: written chunk by chunk, resumed where they stopped."""

import math
import os
import shutil
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from vitscope.distributed import Ranks, current_ranks
from vitscope.errors import ArtifactError, ConfigError
from vitscope.progress import Tracker
from vitscope.store.atomic import read_json, write_json

RECORD = "cache.json"
SCHEMA = 1

Arrays = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class ArrayPlan:
    """One array of a cache: what each image adds to it.

    Attributes:
        shape: of one image's entry.
        dtype: NumPy's name of its type.
    """

    shape: tuple[int, ...]
    dtype: str

    @property
    def bytes_per_image(self) -> int:
        """Size of one image's entry."""
        return int(np.prod(self.shape, dtype=np.int64)) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True)
class CachePlan:
    """What a cache will hold; known before anything is computed.

    Attributes:
        n_images: N, entries of every array.
        arrays: by name.
    """

    n_images: int
    arrays: Mapping[str, ArrayPlan]

    @property
    def n_bytes(self) -> int:
        """Size on disk."""
        return self.n_images * sum(plan.bytes_per_image for plan in self.arrays.values())


@dataclass(frozen=True)
class FeatureCache:
    """A complete cache.

    Attributes:
        folder: where it lies.
        plan: what it holds.
        fingerprint: of everything that decided its content.
    """

    folder: Path
    plan: CachePlan
    fingerprint: str

    def __len__(self) -> int:
        return self.plan.n_images

    def array(self, name: str) -> NDArray[Any]:
        """Map one array [N, …]; nothing is read yet."""
        # copy on write: torch wants writable memory, and the file must stay as it is
        return _map(self.folder, name, self.plan, "c")


def fill_cache(
    folder: Path,
    fingerprint: str,
    plan: CachePlan,
    *,
    chunk_images: int,
    compute: Callable[[range], Arrays],
    progress: Tracker | None = None,
) -> FeatureCache:
    """Compute what a cache lacks, chunk by chunk, and return it complete.

    In a job of several ranks each computes every so many-th chunk, and rank 0 alone writes.
    A chunk counts as done once its bytes and its checksums are on the disk; a killed process loses
    the chunk it was in. What stands is checked against its checksums before it is used.

    Args:
        folder: of this cache alone.
        fingerprint: of everything that decides the content; a cache of another is begun anew.
        plan: what it will hold.
        chunk_images: images between two records.
        compute: images -> the entries of every array.
        progress: told of images that stood already; ``compute`` tells of the others.

    Raises:
        ConfigError: the disk has no room for it.
        ArtifactError: the folder cannot be written.
    """
    chunks = [
        range(start, min(start + chunk_images, plan.n_images))
        for start in range(0, plan.n_images, chunk_images)
    ]
    ranks = current_ranks()
    sums = _begun(folder, fingerprint, plan, chunk_images) if ranks.rank == 0 else []
    n_done = int(ranks.tell(str(len(sums))))
    if progress is not None and n_done:
        progress.skip(chunks[n_done - 1].stop)
    for first in range(n_done, len(chunks), ranks.size):
        turn = chunks[first : first + ranks.size]
        for chunk, found in _computed(ranks, turn, compute, progress):
            sums.append(
                {name: _write(folder, name, plan, chunk, found[name]) for name in plan.arrays}
            )
            record = {"schema": SCHEMA, "fingerprint": fingerprint, "chunk": chunk_images}
            record |= {"n_images": plan.n_images, "arrays": asdict(plan)["arrays"]}
            write_json(folder / RECORD, record | {"checksums": sums})
    return FeatureCache(folder, plan, fingerprint)


def _computed(
    ranks: Ranks, turn: list[range], compute: Callable[[range], Arrays], progress: Tracker | None
) -> list[tuple[range, Arrays]]:
    """Compute a chunk on each rank; return all of them on rank 0, and none on the others."""
    if ranks.size == 1:
        return [(turn[0], compute(turn[0]))]
    mine = compute(turn[ranks.rank]) if ranks.rank < len(turn) else {}
    parts = ranks.collect(save({name: np.ascontiguousarray(a) for name, a in mine.items()}))
    if progress is not None and parts:
        progress.advance(sum(map(len, turn[1:])))
    return [(chunk, load(part)) for chunk, part in zip(turn, parts, strict=False)]


def read_cache(folder: Path) -> FeatureCache:
    """Return a complete cache by its record, arrays and all; their bytes are not checked.

    Raises:
        ArtifactError: there is none, or it was never completed.
    """
    record = read_json(folder / RECORD)
    try:
        arrays = {
            name: ArrayPlan(tuple(plan["shape"]), plan["dtype"])
            for name, plan in record["arrays"].items()
        }
        plan = CachePlan(int(record["n_images"]), arrays)
        is_whole = len(record["checksums"]) == math.ceil(plan.n_images / record["chunk"])
        found = FeatureCache(folder, plan, str(record["fingerprint"]))
        if is_whole:
            _require_files(found)
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, OSError) as error:
        raise ArtifactError(f"{folder / RECORD} is no record of features: {error}") from None
    if not is_whole:
        raise ArtifactError(
            f"{folder} was never completed; run `vitscope probe` on its study again"
        )
    return found


def _require_files(cache: FeatureCache) -> None:
    for name, array in cache.plan.arrays.items():
        if Path(name).name != name or array.bytes_per_image < 1:  # a file here, none elsewhere
            raise ValueError(f"no array is called {name!r}, or it has no size")
        if _file(cache.folder, name).stat().st_size != len(cache) * array.bytes_per_image:
            raise ValueError(f"{name}.bin has another size")


def _begun(
    folder: Path, fingerprint: str, plan: CachePlan, chunk_images: int
) -> list[dict[str, int]]:
    """Return the checksums of the chunks that can be kept; begin anew where nothing can."""
    sums = _standing(folder, fingerprint, plan, chunk_images)
    if sums is None:
        _begin(folder, plan)
    return sums or []


def _standing(
    folder: Path, fingerprint: str, plan: CachePlan, chunk_images: int
) -> list[dict[str, int]] | None:
    """Return the checksums of the chunks that can be kept; None where nothing can."""
    try:
        record = read_json(folder / RECORD)
        kept = (record["schema"], record["fingerprint"], record["chunk"])
        sums: list[dict[str, int]] = record["checksums"]
    except (ArtifactError, KeyError, TypeError):
        return None
    if kept != (SCHEMA, fingerprint, chunk_images):
        return None
    for index, expected in enumerate(sums):
        start = index * chunk_images
        rows = slice(start, min(start + chunk_images, plan.n_images))
        try:
            actual = {name: _checksum(_map(folder, name, plan, "r")[rows]) for name in plan.arrays}
        except (OSError, ValueError):
            return None
        if actual != expected:
            return sums[:index]
    return sums


def _begin(folder: Path, plan: CachePlan) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if plan.n_bytes > free:
            raise ConfigError(
                f"the features of {plan.n_images} images take {plan.n_bytes / 1e9:.1f} GB, and "
                f"{folder} has {free / 1e9:.1f} GB left; use fewer images or variants, or "
                "another --out"
            )
        for name, array in plan.arrays.items():
            with _file(folder, name).open("wb") as file:
                _reserve(file.fileno(), plan.n_images * array.bytes_per_image)
    except OSError as error:
        raise ArtifactError(f"cannot write {folder}: {error.strerror}") from error


def _reserve(file: int, n_bytes: int) -> None:
    """Take the room of an array now: a mapped file without it is killed where the disk is full."""
    if n_bytes and hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, n_bytes)
    else:
        os.ftruncate(file, n_bytes)


def _write(folder: Path, name: str, plan: CachePlan, chunk: range, entries: NDArray[Any]) -> int:
    array = plan.arrays[name]
    assert entries.shape == (len(chunk), *array.shape), (name, entries.shape, array.shape)
    stored = np.ascontiguousarray(entries, dtype=array.dtype)
    mapped = _map(folder, name, plan, "r+")
    mapped[chunk.start : chunk.stop] = stored
    mapped.flush()
    return _checksum(stored)


def _checksum(entries: NDArray[Any]) -> int:
    return zlib.crc32(np.ascontiguousarray(entries).reshape(-1).view(np.uint8).data)


def _map(folder: Path, name: str, plan: CachePlan, mode: Any) -> "np.memmap[Any, Any]":
    array = plan.arrays[name]
    shape = (plan.n_images, *array.shape)
    return np.memmap(_file(folder, name), dtype=array.dtype, mode=mode, shape=shape)


def _file(folder: Path, name: str) -> Path:
    return folder / f"{name}.bin"
