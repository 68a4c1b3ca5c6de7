"""A folder of weights, or an index of shards, as the files that hold them."""

import json
import re
from pathlib import Path

from vitscope.errors import BackboneError
from vitscope.store.checksum import bytes_checksum, file_checksum

IN_A_FOLDER = (
    "model.safetensors.index.json",
    "model.safetensors",
    "open_clip_model.safetensors",
    "pytorch_model.bin.index.json",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
)
"""Files that the hub's folders keep weights in, the first that is there wins."""

INDEX_SUFFIX = ".index.json"


def weight_files(path: Path) -> dict[Path, frozenset[str] | None]:
    """Return the files under ``path`` that hold tensors, each with the names it must hold.

    Args:
        path: a file, an index of shards (``model.safetensors.index.json``), or a folder with one.

    Returns:
        Names are None for a file that stands alone: it holds what it holds.

    Raises:
        BackboneError: nothing there, nothing readable there, or not all of the shards.
    """
    if path.is_dir():
        present = [path / name for name in IN_A_FOLDER if (path / name).is_file()]
        if not present:
            raise BackboneError(
                f"{path} is a folder without weights; give the path of a checkpoint file, or a "
                f"folder with one of {', '.join(IN_A_FOLDER)}"
            )
        path = present[0]
    if not path.is_file():
        problem = "is no regular file" if path.exists() else "does not exist"
        raise BackboneError(f"{path} {problem}; give the path of a checkpoint file or folder")
    if path.name.endswith(INDEX_SUFFIX):
        return _shards(path)
    _refuse_lone_shard(path)
    return {path: None}


def weights_checksum(path: Path) -> str:
    """Return the SHA-256 of a file, or one of those of all shards, in the order of their names.

    Raises:
        BackboneError: as :func:`weight_files`.
    """
    checksums = [file_checksum(file) for file in weight_files(path)]
    if len(checksums) == 1:
        return checksums[0]
    return bytes_checksum(*(checksum.encode() for checksum in checksums))


def _refuse_lone_shard(path: Path) -> None:
    numbered = re.search(r"-\d{5}-of-(\d{5})\.", path.name)
    if numbered and int(numbered[1]) > 1:
        raise BackboneError(
            f"{path} is one of {int(numbered[1])} shards; give their folder, or the "
            f"'{INDEX_SUFFIX}' file beside them"
        )


def _shards(index: Path) -> dict[Path, frozenset[str] | None]:
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = sorted({str(shard) for shard in places.values()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise BackboneError(f"{index} is not an index of shards (a JSON 'weight_map')") from None
    if not shards:
        raise BackboneError(f"{index} lists no shards")
    # looked up in the list of what is there: a name may be too long, or a path to elsewhere
    beside = {file.name for file in index.parent.iterdir()}
    for shard in shards:
        if shard not in beside:
            raise BackboneError(f"{index} lists {shard}, which is not beside it; fetch all shards")
    return {
        index.parent / shard: frozenset(key for key, place in places.items() if place == shard)
        for shard in shards
    }
