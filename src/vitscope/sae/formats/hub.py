"""An SAE from the Hugging Face hub: ``hf:owner/repo[/folder][@revision]``, its few files alone."""

import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from vitscope.backbones.hub import require_answer
from vitscope.errors import BackboneError, SaeError
from vitscope.sae.formats.source import CONFIGS, MAPPINGS, WEIGHT_SUFFIXES, some

HUB_PREFIX = "hf:"
_ADDRESS = re.compile(
    r"hf:(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<inside>[^@]*[^@/]))?/?(?:@(?P<revision>[\w./-]+))?"
)


@dataclass(frozen=True)
class HubAddress:
    """A place on the hub.

    Attributes:
        repo: ``owner/name``.
        inside: folder or file of the repository; empty for its root.
        revision: branch, tag or commit; None for the default branch.
    """

    repo: str
    inside: str
    revision: str | None


@dataclass(frozen=True)
class Fetched:
    """What was fetched.

    Attributes:
        path: local folder or file.
        revision: the commit it is of.
    """

    path: Path
    revision: str


def is_hub_address(source: Path | str) -> bool:
    """Tell whether a source of an SAE is a place on the hub rather than a path."""
    return str(source).startswith(HUB_PREFIX)


def parse_address(text: str) -> HubAddress:
    """Return the parts of ``hf:owner/repo[/folder][@revision]``.

    Raises:
        SaeError: it does not have that form.
    """
    found = _ADDRESS.fullmatch(text)
    inside = (found["inside"] or "") if found else ""
    if found is None or ".." in PurePosixPath(inside).parts:
        raise SaeError(f"'{text}' is no place on the hub; write hf:owner/repo[/folder][@revision]")
    return HubAddress(found["repo"], inside, found["revision"])


def fetch_sae(text: str) -> Fetched:
    """Fetch the files of one SAE: those of its folder that hold tensors or say what they mean.

    What the local cache has is not asked for again; ``@revision`` names another.

    Raises:
        SaeError: the hub cannot be reached within seconds, or has no SAE there.
    """
    address = parse_address(text)
    cached = _cached(address)
    if cached is not None:
        return cached
    try:
        url = huggingface_hub.hf_hub_url(address.repo, "README.md", revision=address.revision)
        require_answer(url, text)
    except BackboneError as error:
        raise _unfetched(text, why_unreachable(error)) from None
    try:
        names = _files_of(address, text)
        first = Path(
            huggingface_hub.hf_hub_download(address.repo, names[0], revision=address.revision)
        )
        root = first.parents[len(PurePosixPath(names[0]).parts) - 1]
        for name in names[1:]:  # of that very commit: a branch may move meanwhile
            huggingface_hub.hf_hub_download(address.repo, name, revision=root.name)
    except (OSError, HfHubHTTPError, LocalEntryNotFoundError) as error:
        raise _unfetched(text, _first_line(error)) from None
    return Fetched(root / address.inside, root.name)


def _files_of(address: HubAddress, text: str) -> list[str]:
    """Return the repository's files to fetch, the ones with tensors first."""
    api = huggingface_hub.HfApi()
    listed: list[str] = api.list_repo_files(address.repo, revision=address.revision)
    here = [name for name in listed if _wanted(name, address.inside)]
    weights = [name for name in here if name.endswith(WEIGHT_SUFFIXES)]
    if not weights:
        prefix = f"{address.inside}/" if address.inside else ""
        folders = {
            str(PurePosixPath(name).parent)
            for name in listed
            if name.startswith(prefix) and name.endswith(WEIGHT_SUFFIXES)
        }
        where = f"; there are SAEs in {some(sorted(folders))}" if folders else ""
        raise SaeError(f"'{text}' holds no file of tensors{where}")
    return [*weights, *(name for name in here if name not in weights)]


def _wanted(name: str, inside: str) -> bool:
    path = PurePosixPath(name)
    if inside.endswith(WEIGHT_SUFFIXES):  # one file, and what says something about it
        beside = str(path.parent) == str(PurePosixPath(inside).parent)
        return name == inside or (beside and path.name in (*CONFIGS, *MAPPINGS))
    kinds = path.name.endswith(WEIGHT_SUFFIXES) or path.name in (*CONFIGS, *MAPPINGS)
    return kinds and str(path.parent) == str(PurePosixPath(inside))


def _cached(address: HubAddress) -> Fetched | None:
    """Return what is in the cache already, where it has tensors."""
    try:
        snapshot: Any = huggingface_hub.snapshot_download(
            address.repo, revision=address.revision, local_files_only=True
        )
    except (OSError, ValueError):  # nothing of it
        return None
    root = Path(str(snapshot))
    path = root / address.inside
    files = [path] if path.is_file() else list(path.glob("*")) if path.is_dir() else []
    if any(file.name.endswith(WEIGHT_SUFFIXES) for file in files):
        return Fetched(path, root.name)
    return None


def why_unreachable(error: BackboneError) -> str:
    """Return the reason alone: what a backbone's user should do next is not said to an SAE's."""
    found = re.search(r"hub \((.*)\); ", str(error))
    return found[1] if found else str(error)


def _unfetched(text: str, why: str) -> SaeError:
    return SaeError(
        f"'{text}' could not be fetched: {why}; download its folder by other means and give the "
        "path"
    )


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:160]
