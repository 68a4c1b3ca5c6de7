"""The one codec of results: a frozen record to plain JSON and tables, and back.

A record is a dataclass of numbers, strings, tuples, mappings with string keys, other such records,
tables and paths. JSON has no NaN and no infinity: NaN is written as null, infinity as a string, and
a field that may be None keeps its null. A table is a file of the run, named by :class:`At` beside
its field; a path is any other file, written relative to the run's folder.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args, get_origin, get_type_hints

import cattrs
import numpy as np

from vitscope.errors import ArtifactError
from vitscope.store.tables import MOST_WORDS, Table, write_table

Record = TypeVar("Record")

INFINITIES = {"inf": math.inf, "-inf": -math.inf}


@dataclass(frozen=True)
class At:
    """Where in a run's folder a table of a record lies: ``features: Annotated[Table, At(...)]``."""

    path: str


def table_paths(kind: type) -> dict[str, str]:
    """Return field -> path in the run's folder of every table of a record."""
    found: dict[str, str] = {}
    for name, hint in get_type_hints(kind, include_extras=True).items():
        for note in get_args(hint) if get_origin(hint) is Annotated else ():
            if isinstance(note, At):
                found[name] = note.path
    return found


def save_record(record: Any, root: Path, metadata: Mapping[str, Any]) -> tuple[Any, list[Path]]:
    """Write a record's tables into ``root`` and return its JSON and every file that is part of it.

    Args:
        record: a dataclass.
        root: the run's folder.
        metadata: goes into each table: what it was made from.
    """
    places = table_paths(type(record))
    files: list[Path] = []
    for name, place in places.items():
        table: Table | None = getattr(record, name)
        if table is None:
            continue
        if table.path != root / place:  # one that was streamed to its place lies there already
            write_table(root / place, table.columns, metadata)
        files.append(root / place)
    files += _paths_in(record)
    kept = {f.name for f in fields(record)} - places.keys()
    plain = {name: to_json(getattr(record, name), root) for name in sorted(kept)}
    # a table that a record may lack, and lacks
    plain |= {name: None for name in places if getattr(record, name) is None}
    return plain, files


def load_record(kind: type[Record], values: Any, root: Path) -> Record:
    """Return the record that :func:`save_record` made; its tables are read when first asked.

    Raises:
        ArtifactError: ``values`` are not those of such a record.
    """
    if not isinstance(values, dict):
        raise ArtifactError(f"no {kind.__name__} stands there")
    places = table_paths(kind)
    tables = {n: None if n in values else Table.at(root / p) for n, p in places.items()}
    hints = get_type_hints(kind)
    converter = _converter(root)
    try:
        found = {
            f.name: converter.structure(values[f.name], hints[f.name])
            for f in fields(kind)  # pyright: ignore[reportArgumentType]
            if f.name not in places and (f.name in values or f.default is MISSING)
        }
        return kind(**found, **tables)
    except Exception as error:  # of a stranger's values, whatever the library makes of them
        why = " ".join(f"{type(error).__name__}: {error}".split())[:MOST_WORDS]
        raise ArtifactError(f"not a whole {kind.__name__} ({why})") from error


def to_json(value: Any, root: Path | None = None) -> Any:  # noqa: PLR0911  a case a kind
    """Return any field of a record as plain JSON values."""
    if is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_json(getattr(value, f.name), root) for f in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): to_json(item, root) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_json(item, root) for item in value]
    if isinstance(value, np.ndarray | np.generic):
        return to_json(value.tolist(), root)
    if isinstance(value, Path):
        return value.relative_to(root).as_posix() if root else value.as_posix()
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def from_json(kind: type[Record], value: Any) -> Record:
    """Return what :func:`to_json` made of a record without tables or paths.

    Raises:
        ArtifactError: ``value`` is not that of such a record.
    """
    return load_record(kind, value, Path())


def _paths_in(value: Any) -> Iterator[Path]:
    if isinstance(value, Path):
        yield value
    elif is_dataclass(value) and not isinstance(value, type):
        for f in fields(value):
            yield from _paths_in(getattr(value, f.name))
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _paths_in(item)
    elif isinstance(value, Mapping) and not isinstance(value, Table):
        for item in value.values():
            yield from _paths_in(item)


def _number(value: Any, _: Any) -> float:
    if value is None:
        return math.nan
    if isinstance(value, str):
        return INFINITIES[value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _exactly(kind: type) -> Any:
    def check(value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise TypeError(f"{value!r} is no {kind.__name__}")
        return value

    return check


def _array(value: Any, _: Any) -> Any:
    return np.asarray([math.nan if one is None else one for one in value])


@lru_cache(maxsize=16)
def _converter(root: Path) -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=False)
    converter.register_structure_hook(float, _number)
    for kind in (int, str, bool):
        converter.register_structure_hook(kind, _exactly(kind))
    converter.register_structure_hook_func(lambda kind: get_origin(kind) is np.ndarray, _array)

    def tuple_of(value: Any, kind: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):  # cattrs would take the letters of a word one by one
            raise TypeError(f"{value!r} is no list")
        kinds = get_args(kind)
        if kinds[-1] is Ellipsis:
            kinds = kinds[:1] * len(value)
        pairs = zip(value, kinds, strict=True)
        return tuple(converter.structure(item, of) for item, of in pairs)

    converter.register_structure_hook_func(lambda kind: get_origin(kind) is tuple, tuple_of)

    def below_root(value: Any, _: Any) -> Path:
        if ".." in Path(str(value)).parts or Path(str(value)).is_absolute():
            raise ValueError(f"{value!r} lies outside the run")
        return root / str(value)

    converter.register_structure_hook(Path, below_root)
    return converter
