"""What stage «instability» leaves: a long table of images, and means over them as JSON."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from vitscope.images.sources import ImageRef
from vitscope.scope.instability import GROUPS, MEMBERSHIPS, READINGS
from vitscope.scope.instability_summary import (
    GroupInstability,
    InstabilitySums,
    ReadingInstability,
)
from vitscope.scope.views import Overlap
from vitscope.store.atomic import read_json
from vitscope.store.table_stream import table_stream

TOKENS = ("outlier", "other")
"""The groups, as the table names them."""


@dataclass(frozen=True)
class InstabilityTable:
    """What stage «instability» found.

    Attributes:
        rows: every shift, membership and reading.
        n_images: images whose views were compared.
        diameter: D_grid of the study's own shift, in patches.
    """

    rows: tuple[ReadingInstability, ...]
    n_images: int
    diameter: float


def read_instability(path: Path) -> InstabilityTable:
    """Read ``tables/instability.json``.

    Raises:
        ArtifactError: the file is missing or damaged.
    """
    table = read_json(path)
    rows = tuple(_row(values) for values in table["rows"])
    return InstabilityTable(rows, int(table["n_images"]), float(table["diameter"]))


def write_parts(
    path: Path,
    refs: Sequence[ImageRef],
    parts: Iterable[Mapping[str, Tensor]],
    overlaps: Sequence[Overlap],
    source: Mapping[str, Any],
    *,
    seed: int,
) -> tuple[ReadingInstability, ...]:
    """Write the table of images part by part and sum it up; one part is in memory at a time.

    Args:
        path: of the table.
        refs: the images, in the order of the parts.
        parts: ``emd``, ``n_maps`` and ``n_missed`` [n, S, 3, 3, 2], ``n_outliers`` [n, S, 3].
        overlaps: one per shift.
        source: what the table was made from.
        seed: of the bootstrap.
    """
    sums, start = InstabilitySums(len(overlaps), seed), 0
    diameters = {str(overlap.shift): overlap.diameter for overlap in overlaps}
    with table_stream(path, {**source, "diameters": diameters}) as append:
        for part in parts:
            arrays = {name: values.numpy() for name, values in part.items()}
            ids = [ref.id for ref in refs[start : start + len(arrays["emd"])]]
            start += len(ids)
            append(_columns(ids, arrays, overlaps))
            sums.add(ids, arrays["emd"], arrays["n_maps"], arrays["n_missed"])
    return sums.summarise(overlaps)


def _columns(
    ids: Sequence[str], arrays: Mapping[str, NDArray[Any]], overlaps: Sequence[Overlap]
) -> dict[str, NDArray[Any] | list[str]]:
    """Return one row per image, shift, reading, membership and group of tokens."""
    shape = arrays["emd"].shape
    n_outliers = arrays["n_outliers"][:, :, None, :, None]

    def spread(values: Sequence[Any], axis: int) -> NDArray[Any]:
        along = np.asarray(values).reshape([-1 if i == axis else 1 for i in range(len(shape))])
        return np.broadcast_to(along, shape).ravel()

    return {
        "image_id": np.repeat(np.asarray(ids, object), int(np.prod(shape[1:]))).tolist(),
        "shift": spread([overlap.shift for overlap in overlaps], 1),
        "reading": spread(READINGS, 2).tolist(),
        "membership": spread(MEMBERSHIPS, 3).tolist(),
        "tokens": spread(TOKENS, 4).tolist(),
        "emd": arrays["emd"].ravel(),
        "n_maps": arrays["n_maps"].ravel(),
        "n_missed": arrays["n_missed"].ravel(),
        "n_outliers": np.broadcast_to(n_outliers, shape).ravel(),
    }


def _row(values: Mapping[str, Any]) -> ReadingInstability:
    known = _without_null(values)
    for name in GROUPS:
        known[name] = GroupInstability(**_without_null(values[name]))
    return ReadingInstability(**known)


def _without_null(values: Mapping[str, Any]) -> dict[str, Any]:
    """Turn null, which is JSON's NaN here, back into NaN."""
    return {key: float("nan") if value is None else value for key, value in values.items()}
