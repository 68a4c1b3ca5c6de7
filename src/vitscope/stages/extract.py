"""Stage «extract»: patch tokens of the training images, as shards."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitscope.distributed import leave_unless_rank_0
from vitscope.stages.stage import Job, Stage
from vitscope.store.atomic import write_json
from vitscope.study import Study
from vitscope.tokens.extraction import MANIFEST_SCHEMA, extract_tokens


@dataclass(frozen=True)
class ExtractResult:
    """Tokens on disk.

    Attributes:
        n_images: that they are of.
        n_tokens: kept; 0 where training streams them.
        files: shards and their manifest.
    """

    n_images: int
    n_tokens: int
    files: tuple[Path, ...]


class ExtractStage(Stage[ExtractResult]):
    """Writes the drawn tokens; whole shards of an interrupted run are kept."""

    name = "extract"
    after = ("backbone", "images")
    shared = True
    Result = ExtractResult

    def is_wanted(self, study: Study) -> bool:
        """Whether an SAE is trained."""
        return study.sae.path is None

    def settings(self, job: Job) -> Mapping[str, Any]:
        """Return which tokens are drawn."""
        settings = job.study.activations
        # the same shards, whatever a stream's window would be
        return settings.model_dump(exclude={"cache", "window_images"} if settings.cache else None)

    def run(self, job: Job) -> ExtractResult:
        """Encode the training images."""
        study = job.study
        if not study.activations.cache:
            leave_unless_rank_0()
            return _nothing_kept(job)
        found = extract_tokens(
            job.models.backbone,
            job.images("train").usable,
            job.run.activations,
            study.activations,
            job.options,
            seed=study.seed,
            fingerprint=job.fingerprint,
            stretch=study.stretch,
        )
        job.rates.update(found.rates)
        return ExtractResult(found.n_images, found.n_tokens, tuple(found.files))


def _nothing_kept(job: Job) -> ExtractResult:
    """Leave a note in place of shards: training streams, and must notice other images."""
    folder = job.run.activations
    for shard in folder.glob("part-*.safetensors"):
        shard.unlink()
    note = folder / "manifest.json"
    streamed = {"schema": MANIFEST_SCHEMA, "streamed": True, "fingerprint": job.fingerprint}
    write_json(note, streamed)
    return ExtractResult(len(job.images("train").usable), 0, (note,))
