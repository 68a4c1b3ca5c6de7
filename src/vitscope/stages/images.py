"""Stage «images»: decode every image once; list what cannot be used."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitscope.distributed import current_ranks, leave_unless_rank_0, part_of
from vitscope.images.duplicates import without_duplicates
from vitscope.images.sources import ImageSet
from vitscope.images.verify import (
    SkippedImage,
    VerifiedImages,
    check_skips,
    joined,
    verify_images,
    write_image_table,
    write_skipped,
)
from vitscope.stages.stage import Job, Stage


@dataclass(frozen=True)
class ImagesResult:
    """The images of a run.

    Attributes:
        n_train: usable training images.
        n_eval: usable evaluation images, where they are others; None where they are the same.
        n_skipped: images left out, over both sets.
        files: a table for each set, and ``skipped.csv``: id and reason.
    """

    n_train: int
    n_eval: int | None
    n_skipped: int
    files: tuple[Path, ...]


class ImagesStage(Stage[ImagesResult]):
    """Verifies the training images, and the evaluation images where they are others."""

    name = "images"
    shared = True
    Result = ImagesResult

    def settings(self, job: Job) -> Mapping[str, Any]:
        """Return what makes an image unusable."""
        return job.study.images.model_dump(include={"max_skipped", "max_pixels", "duplicates"})

    def inputs(self, job: Job) -> Mapping[str, str]:
        """Return the hash of every listing, and where they lie: the tables lead there."""
        sets = _image_sets(job)
        return {split: f"{found.root} {found.listing_digest}" for split, found in sets.items()}

    def run(self, job: Job) -> ImagesResult:
        """Decode every file."""
        checked = {split: _check(job, found) for split, found in _image_sets(job).items()}
        leave_unless_rank_0()
        verified = {split: joined(parts) for split, parts in checked.items()}
        write_skipped(job.run.skipped, _skipped(verified))  # before they are refused
        for images in verified.values():
            check_skips(images, job.study.images.max_skipped)
        if job.study.images.duplicates == "once":
            verified = {split: without_duplicates(images) for split, images in verified.items()}
            write_skipped(job.run.skipped, _skipped(verified))
        files = [job.run.skipped]
        for split, images in verified.items():
            write_image_table(job.run.images(split), images)
            files.append(job.run.images(split))
        rates = [images.decode_rate for images in verified.values() if images.decode_rate]
        job.rates["checked_images_per_s"] = round(min(rates), 1)
        counts = {split: len(images.usable) for split, images in verified.items()}
        return ImagesResult(
            counts["train"], counts.get("eval"), len(_skipped(verified)), tuple(files)
        )

    def headline(self, result: ImagesResult) -> list[tuple[str, str]]:
        """Return how many there are."""
        text = f"{result.n_train} train"
        text += "" if result.n_eval is None else f", {result.n_eval} eval"
        text += f", {result.n_skipped} skipped (skipped.csv)" if result.n_skipped else ""
        return [("images", text)]


def _skipped(verified: Mapping[str, VerifiedImages]) -> list[SkippedImage]:
    return [bad for images in verified.values() for bad in images.skipped]


def _image_sets(job: Job) -> dict[str, ImageSet]:
    found = {split: job.models.image_set(split) for split in ("train", "eval")}
    return {split: images for split, images in found.items() if images is not None}


def _check(job: Job, images: ImageSet) -> list[VerifiedImages]:
    """Return, on rank 0, what every rank found in its part of a set."""
    settings, ranks = job.study.images, current_ranks()
    parts = [part_of(len(images.refs), rank, ranks.size) for rank in range(ranks.size)]
    refs = [images.refs[part] for part in parts]
    mine = verify_images(refs[ranks.rank], workers=settings.workers, max_pixels=settings.max_pixels)
    if ranks.size == 1:
        return [mine]
    found = ranks.gather_bytes(mine.to_json().encode())
    return [VerifiedImages.from_json(one, part) for one, part in zip(found, refs, strict=False)]
