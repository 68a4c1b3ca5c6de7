"""Where a ``transformers`` model comes from: a folder of ``save_pretrained``, or the hub."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from huggingface_hub.utils import validate_repo_id

from vitscope.backbones.hub import require_answer, unfetched
from vitscope.errors import BackboneError
from vitscope.store.checksum import bytes_checksum, file_checksum

CONFIG = "config.json"
SAFETENSORS = ("model.safetensors", "model-*.safetensors", "model.safetensors.index.json")
PICKLES = ("pytorch_model.bin", "pytorch_model-*.bin", "pytorch_model.bin.index.json")


@dataclass(frozen=True)
class Source:
    """A folder with a model.

    Attributes:
        folder: with ``config.json`` and the weights.
        label: what the model is called in a site: the hub's name, or the folder's own.
        weights: what was loaded: a checksum, or ``hub:``, the hub's name and the commit.
    """

    folder: Path
    label: str
    weights: str


def find_source(source: str, weights: Path | None, *, name: str) -> Source:
    """Return the folder of ``source``, downloaded where it is a hub's name and not cached.

    Args:
        source: a folder, or ``owner/name`` on the hub.
        weights: a folder, or a file in one, to take in place of what ``source`` names.
        name: the backbone, for messages.

    Raises:
        BackboneError: no such folder, nothing in it, or a hub that does not answer in seconds.
    """
    local = Path(source).expanduser()
    if weights is not None:
        folder = weights.parent if weights.is_file() else weights
        return _in_folder(folder, local.resolve().name if local.is_dir() else source)
    if local.is_dir():
        return _in_folder(local, local.resolve().name)
    try:
        validate_repo_id(source)
    except HFValidationError:
        raise BackboneError(
            f"{name}: '{source}' is neither a folder nor a name on the Hugging Face hub "
            "(owner/name)"
        ) from None
    folder = _snapshot(source, name)
    weight_files(folder)
    return Source(folder, source, f"hub:{source}@{folder.name}")


def read_json(path: Path) -> dict[str, Any]:
    """Return a JSON object of a file.

    Raises:
        BackboneError: not there, or not one.
    """
    try:
        found: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BackboneError(f"{path} does not exist") from None
    except (OSError, ValueError, RecursionError) as error:
        raise BackboneError(f"{path} cannot be read: {error}") from None
    if not isinstance(found, dict):
        raise BackboneError(f"{path} is not a JSON object")
    return found


def weight_files(folder: Path) -> list[Path]:
    """Return the files of a folder that hold its weights, all of them there.

    Raises:
        BackboneError: none, or some of them missing.
    """
    for whole, _, index in (SAFETENSORS, PICKLES):
        if (folder / whole).is_file():
            return [folder / whole]
        if (folder / index).is_file():
            shards: Any = read_json(folder / index).get("weight_map", {})
            places: list[Any] = list(shards.values()) if isinstance(shards, dict) else []
            # an index names files beside it, never files elsewhere
            if any(not isinstance(name, str) or Path(name).name != name for name in places):
                raise BackboneError(f"{folder / index} names what is no file beside it")
            names = sorted(set(places))
            # looked up in the list of what is there: a name may be too long to be asked for
            lacking = sorted(set(names) - {file.name for file in folder.iterdir()})
            if lacking or not names:
                raise BackboneError(f"{folder} lacks {', '.join(lacking) or 'weights'} of {index}")
            return [folder / name for name in names]
    raise BackboneError(f"{folder} holds neither {SAFETENSORS[0]} nor {PICKLES[0]}")


def _in_folder(folder: Path, label: str) -> Source:
    if not folder.exists():
        raise BackboneError(f"{folder} does not exist; give a folder with a transformers model")
    if not (folder / CONFIG).is_file():
        raise BackboneError(
            f"{folder} has no {CONFIG}; give a folder as transformers' save_pretrained leaves it"
        )
    sums = [file_checksum(file) for file in weight_files(folder)]
    weights = sums[0] if len(sums) == 1 else bytes_checksum(*(one.encode() for one in sums))
    return Source(folder, label, weights)


def _snapshot(repo: str, name: str) -> Path:
    cached = huggingface_hub.try_to_load_from_cache(repo, CONFIG)
    if isinstance(cached, str) and _has_weights(Path(cached).parent):
        return Path(cached).parent
    require_answer(huggingface_hub.hf_hub_url(repo, CONFIG), name)
    try:
        folder = _download(repo, SAFETENSORS)
        if not any(folder.glob("*.safetensors")):
            folder = _download(repo, PICKLES)
    except (OSError, HfHubHTTPError) as error:
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise unfetched(name, why) from None
    if not (folder / CONFIG).is_file():
        raise unfetched(name, f"{repo} has no {CONFIG}")
    return folder


def _download(repo: str, files: tuple[str, ...]) -> Path:
    configurations = [CONFIG, "preprocessor_config.json", "processor_config.json"]
    return Path(huggingface_hub.snapshot_download(repo, allow_patterns=[*configurations, *files]))


def _has_weights(folder: Path) -> bool:
    try:
        return bool(weight_files(folder))
    except BackboneError:
        return False
