"""SAEs from and to the Hugging Face hub: ``hf:owner/repo[/folder][@revision]``, few files alone."""

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError

from vitscope.backbones.hub import why_unreachable
from vitscope.backbones.weights.reading import some_of
from vitscope.errors import SaeError, first_line
from vitscope.sae import storage
from vitscope.sae.formats.source import CONFIGS, MAPPINGS, MAX_NAMED, WEIGHT_SUFFIXES

HUB_PREFIX = "hf:"
README = "README.md"

_REPO = re.compile(r"[\w.-]+/[\w.-]+")
_ADDRESS = re.compile(
    rf"hf:(?P<repo>{_REPO.pattern})(?:/(?P<inside>[^@]*[^@/]))?/?(?:@(?P<revision>[\w./-]+))?"
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
class Push:
    """What was uploaded, or would be.

    Attributes:
        repo: ``owner/name``.
        private: whether the repository is made private where it is new.
        files: paths in the repository with their sizes in bytes, sorted.
        url: of the commit; empty for a dry run.
    """

    repo: str
    private: bool
    files: tuple[tuple[str, int], ...]
    url: str = ""

    @property
    def n_bytes(self) -> int:
        """Bytes in all."""
        return sum(size for _, size in self.files)


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


def fetch_sae(text: str) -> tuple[Path, str]:
    """Fetch the files of one SAE: those of its folder that hold tensors or say what they mean.

    What the local cache has is not asked for again; ``@revision`` names another.

    Returns:
        The local folder or file, and the commit it is of.

    Raises:
        SaeError: the hub cannot be reached within seconds, or has no SAE there.
    """
    address = parse_address(text)
    repo, revision = address.repo, address.revision
    cached = _cached(address)
    if cached is not None:
        return cached / address.inside, cached.name
    why = why_unreachable(huggingface_hub.hf_hub_url(repo, README, revision=revision))
    if why:
        raise _unfetched(text, why)
    try:
        names = _files_of(address, text)
        first = Path(huggingface_hub.hf_hub_download(repo, names[0], revision=revision))
        root = first.parents[len(PurePosixPath(names[0]).parts) - 1]
        for name in names[1:]:  # of that very commit: a branch may move meanwhile
            huggingface_hub.hf_hub_download(repo, name, revision=root.name)
    except (OSError, HfHubHTTPError) as error:
        raise _unfetched(text, first_line(error)) from None
    return root / address.inside, root.name


def push_sae(folder: Path | str, repo: str, *, dry_run: bool, private: bool = True) -> Push:
    """Upload what :func:`vitscope.sae.formats.hub_folder.write_hub_folder` wrote.

    The login is the hub client's own (``hf auth login``, or ``HF_TOKEN``).

    Args:
        folder: hub-ready.
        repo: ``owner/name``; made where it does not exist.
        dry_run: say what would be uploaded; nothing is sent, nobody is asked.
        private: whether a new repository is private.

    Raises:
        SaeError: the folder is not hub-ready or damaged, the name is none, the hub cannot be
            reached, or it refuses.
    """
    folder = Path(folder)
    if _REPO.fullmatch(repo) is None:
        raise SaeError(f"'{repo}' is no repository of the hub; write owner/name")
    storage.load_saved_sae(folder)  # whole, and what its card says
    if not (folder / README).is_file():
        raise SaeError(f"{folder} has no {README}; write the folder with `vitscope export` first")
    files = [path for path in folder.rglob("*") if path.is_file()]
    strangers = [path for path in files if path.is_symlink() or path.name.startswith(".")]
    if strangers:
        raise SaeError(
            f"{strangers[0]} is a link or hidden file, which might not be meant for others; "
            "remove it from the folder"
        )
    sizes = sorted((str(path.relative_to(folder)), path.stat().st_size) for path in files)
    planned = Push(repo, private, tuple(sizes))
    if dry_run:
        return planned
    why = why_unreachable(huggingface_hub.hf_hub_url(repo, README))
    if why:
        raise SaeError(f"'{repo}' cannot be uploaded: {why}; nothing was sent")
    api = huggingface_hub.HfApi()
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            allow_patterns=[name for name, _ in planned.files],
            commit_message="Sparse autoencoder, written by vitscope",
        )
    except (OSError, HfHubHTTPError, ValueError) as error:
        raise SaeError(
            f"'{repo}' was not uploaded: {first_line(error)}; log in with `hf auth "
            "login` as someone who may write there"
        ) from None
    return replace(planned, url=str(commit.commit_url))


def _files_of(address: HubAddress, text: str) -> list[str]:
    """Return the repository's files to fetch, the ones with tensors first.

    Those of one folder; beside a file that was named, only what says something about it.
    """
    inside = PurePosixPath(address.inside)
    one_file = address.inside.endswith(WEIGHT_SUFFIXES)
    folder = inside.parent if one_file else inside
    listed = huggingface_hub.HfApi().list_repo_files(address.repo, revision=address.revision)
    weights, described = list[str](), list[str]()
    for path in map(PurePosixPath, listed):
        if path.parent == folder and path.name.endswith(WEIGHT_SUFFIXES):
            weights += [str(path)] if not one_file or path == inside else []
        elif path.parent == folder and path.name in (*CONFIGS, *MAPPINGS):
            described.append(str(path))
    if not weights:
        below = (path for path in map(PurePosixPath, listed) if inside in path.parents)
        folders = {str(path.parent) for path in below if path.name.endswith(WEIGHT_SUFFIXES)}
        where = f"; there are SAEs in {some_of(folders, MAX_NAMED)}" if folders else ""
        raise SaeError(f"'{text}' holds no file of tensors{where}")
    return [*weights, *described]


def _cached(address: HubAddress) -> Path | None:
    """Return the cached snapshot of a repository, where it has the tensors asked for."""
    try:
        root = Path(
            huggingface_hub.snapshot_download(
                address.repo, revision=address.revision, local_files_only=True
            )
        )
    except (OSError, ValueError):  # nothing of it
        return None
    path = root / address.inside
    files = [path] if path.is_file() else path.glob("*")
    return root if any(file.name.endswith(WEIGHT_SUFFIXES) for file in files) else None


def _unfetched(text: str, why: str) -> SaeError:
    return SaeError(
        f"'{text}' could not be fetched: {why}; download its folder by other means and give the "
        "path"
    )
