"""Upload of a hub-ready folder, or, dry, the list of what it would upload."""

import re
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HfHubHTTPError

from vitscope.backbones.hub import require_answer
from vitscope.errors import BackboneError, SaeError
from vitscope.sae.formats.hub import why_unreachable
from vitscope.sae.formats.hub_folder import README
from vitscope.sae.storage import load_saved_sae

_REPO = re.compile(r"[\w.-]+/[\w.-]+")


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


def push(folder: Path | str, repo: str, *, dry_run: bool, private: bool = True) -> Push:
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
    load_saved_sae(folder)  # whole, and what its card says
    if not (folder / README).is_file():
        raise SaeError(f"{folder} has no {README}; write the folder with `vitscope export` first")
    planned = Push(repo, private, _files(folder))
    return planned if dry_run else _uploaded(folder, planned)


def _files(folder: Path) -> tuple[tuple[str, int], ...]:
    found = [path for path in folder.rglob("*") if path.is_file()]
    strangers = [path for path in found if path.is_symlink() or path.name.startswith(".")]
    if strangers:
        raise SaeError(
            f"{strangers[0]} is a link or hidden file, which might not be meant for others; "
            "remove it from the folder"
        )
    return tuple(sorted((str(path.relative_to(folder)), path.stat().st_size) for path in found))


def _uploaded(folder: Path, planned: Push) -> Push:
    try:
        require_answer(huggingface_hub.hf_hub_url(planned.repo, README), planned.repo)
    except BackboneError as error:
        raise SaeError(
            f"'{planned.repo}' cannot be uploaded: {why_unreachable(error)}; nothing was sent"
        ) from None
    api = huggingface_hub.HfApi()
    try:
        api.create_repo(planned.repo, private=planned.private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=planned.repo,
            folder_path=folder,
            allow_patterns=[name for name, _ in planned.files],
            commit_message="Sparse autoencoder, written by vitscope",
        )
    except (OSError, HfHubHTTPError, ValueError) as error:
        raise SaeError(
            f"'{planned.repo}' was not uploaded: {_first_line(error)}; log in with `hf auth "
            "login` as someone who may write there"
        ) from None
    return Push(planned.repo, planned.private, planned.files, str(commit.commit_url))


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")[:160]
