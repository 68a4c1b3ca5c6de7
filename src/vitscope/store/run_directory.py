"""A run directory: where every artifact of a study lies, and who may write there."""

import os
import socket
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from vitscope.errors import ArtifactError, RunLockedError
from vitscope.store.atomic import discard_temporaries, write_text


@dataclass(frozen=True)
class RunDirectory:
    """The paths of a run; nothing is created until a stage writes."""

    root: Path

    @property
    def study(self) -> Path:
        """The configuration as resolved."""
        return self.root / "study.toml"

    @property
    def activations(self) -> Path:
        """Token shards and their manifest."""
        return self.root / "activations"

    @property
    def sae(self) -> Path:
        """The trained SAE: weights and JSON."""
        return self.root / "sae"

    @property
    def checkpoint(self) -> Path:
        """The state of an unfinished training; discarded with the stage's parts."""
        return self.parts("train") / "checkpoint.safetensors"

    @property
    def training_log(self) -> Path:
        """One JSON line per logged training step."""
        return self.root / "metrics.jsonl"

    @property
    def features(self) -> Path:
        """One row per SAE feature."""
        return self.root / "features.parquet"

    @property
    def exemplars(self) -> Path:
        """The top images of every feature."""
        return self.root / "exemplars.parquet"

    @property
    def pairs(self) -> Path:
        """One row per scored (feature, exemplar) pair."""
        return self.root / "pairs.parquet"

    @property
    def outliers(self) -> Path:
        """One row per (image, shift, reading, membership, tokens): mean attention EMD."""
        return self.root / "outliers.parquet"

    @property
    def skipped(self) -> Path:
        """Images that could not be used, with the reason."""
        return self.root / "skipped.csv"

    @property
    def probe_features(self) -> Path:
        """Features that probes were trained on, where a study keeps them."""
        return self.root / "probe_features"

    @property
    def report(self) -> Path:
        """The self-contained page."""
        return self.root / "report.html"

    @property
    def figures(self) -> Path:
        """What `vitscope figures` draws: a file per figure and format."""
        return self.root / "figures"

    def images(self, split: str) -> Path:
        """The usable images of a split, ``train`` or ``eval``."""
        return self.root / "images" / f"{split}.parquet"

    def table(self, name: str) -> Path:
        """A table of a stage by name."""
        return self.root / "tables" / f"{name}.parquet"

    def stamp(self, stage: str) -> Path:
        """What a finished stage leaves: what it was made from, and its result."""
        return self.root / "stages" / f"{stage}.json"

    def parts(self, stage: str) -> Path:
        """Partial results of an unfinished stage."""
        return self.root / "parts" / stage

    def _folders(self) -> list[Path]:
        # named one by one: --out may be a user's own folder, which is not ours to search
        named = [self.activations, self.sae, self.images("").parent, self.table("").parent]
        named.append(self.figures)
        parts = self.parts("")
        unfinished = sorted(parts.iterdir()) if parts.is_dir() else []
        return [self.root, *named, self.stamp("").parent, *unfinished]

    @contextmanager
    def locked(self) -> Generator[None]:
        """Hold the run directory for this process; the lock dies with the process.

        Raises:
            RunLockedError: another process holds it; the message says which.
            ArtifactError: the directory cannot be created or written.
        """
        holder = self.root / ".lock.holder"
        try:
            self.root.mkdir(parents=True, exist_ok=True)
            lock = FileLock(self.root / ".lock")
            lock.acquire(timeout=0)
        except Timeout:
            who = (
                holder.read_text(encoding="utf-8").strip() if holder.exists() else "another process"
            )
            raise RunLockedError(
                f"{self.root} is in use by {who}; wait for it to end, or choose another --out"
            ) from None
        except OSError as error:
            raise ArtifactError(f"cannot write in {self.root}: {error.strerror}") from error
        try:
            for folder in self._folders():
                discard_temporaries(folder)
            write_text(holder, f"process {os.getpid()} on {socket.gethostname()}\n")
            yield
        finally:
            holder.unlink(missing_ok=True)
            lock.release()
