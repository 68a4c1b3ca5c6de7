"""Weights from the Hugging Face hub: the local cache first, then a hub that answers at once."""

from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as TooLate
from pathlib import Path
from typing import Any

import huggingface_hub
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

from vitscope.errors import BackboneError, first_line

ANSWER_SECONDS = 3.5
"""How long the hub may take to answer at all; its own client would retry for most of a minute."""

SERVER_ERROR = 500
"""HTTP statuses from here on are the server's own trouble, which the client would retry."""

HUB_WEIGHTS = ("model.safetensors", "open_clip_model.safetensors", "pytorch_model.bin")


def fetch_weights(
    repo: str, *, name: str, revision: str | None = None, files: tuple[str, ...] = HUB_WEIGHTS
) -> Path:
    """Return the local path of a repository's weights, downloaded where they are not cached.

    Args:
        repo: ``owner/name`` on the hub.
        name: the backbone, for messages.
        revision: branch, tag or commit.
        files: names to try, in order.

    Raises:
        BackboneError: the hub cannot be reached within seconds, or has no such weights.
    """
    cached = cached_weights(repo, revision, files)
    if cached is not None:
        return cached
    require_answer(huggingface_hub.hf_hub_url(repo, files[0], revision=revision), name)
    for file in files:
        try:
            return Path(huggingface_hub.hf_hub_download(repo, file, revision=revision))
        except (OSError, HfHubHTTPError, EntryNotFoundError) as error:
            # a hub that goes away raises a subclass of what a missing file raises
            absent = isinstance(error, EntryNotFoundError)
            if not absent or isinstance(error, LocalEntryNotFoundError):
                raise unfetched(name, first_line(error)) from None
    raise unfetched(name, f"{repo} holds none of {', '.join(files)}")


def split_revision(address: str | None) -> tuple[str, str | None]:
    """Return the repository and the revision of ``owner/repo[@revision]``; none gives none."""
    repo, _, revision = (address or "").partition("@")
    return repo, revision or None


def cached_weights(
    repo: str, revision: str | None = None, files: tuple[str, ...] = HUB_WEIGHTS
) -> Path | None:
    """Return a repository's weights in the hub's local cache, None where they are not there."""
    for file in files:
        found = huggingface_hub.try_to_load_from_cache(repo, file, revision=revision)
        if isinstance(found, str):
            return Path(found)
    return None


def require_answer(url: str, name: str) -> None:
    """Ask the hub for an answer, whichever.

    Raises:
        BackboneError: none within seconds, or the environment says to stay offline.
    """
    why = why_unreachable(url)
    if why:
        raise unfetched(name, why)


def why_unreachable(url: str) -> str:
    """Return why the hub gives no answer to ``url`` within seconds; empty where it does."""
    if constants.is_offline_mode():
        return "HF_HUB_OFFLINE is set"
    host = constants.ENDPOINT
    # a thread, since looking a host name up knows no timeout; it is left behind when too late
    pool = ThreadPoolExecutor(1)
    try:
        status = pool.submit(_status_of, url).result(ANSWER_SECONDS)
    except TooLate:
        return f"{host} did not answer in {ANSWER_SECONDS:g} s"
    except Exception as error:  # of whichever HTTP library the hub's client uses
        return f"{host} cannot be reached: {first_line(error)}"
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    return f"{host} answers with status {status}" if status >= SERVER_ERROR else ""


def unfetched(name: str, why: str) -> BackboneError:
    """Return the error for weights that could not be had, with the way out."""
    return BackboneError(
        f"the weights of {name} could not be fetched from the Hugging Face hub ({why}); "
        "set backbone.weights (--weights) to a local checkpoint file"
    )


def _status_of(url: str) -> int:
    session: Any = huggingface_hub.get_session()
    return int(session.head(url, timeout=ANSWER_SECONDS).status_code)
