"""Stage «images»: every file decoded once, what is unusable listed and left out."""

from pathlib import Path

from vitscope.distributed import current_ranks, part_of, rank_0_goes_on
from vitscope.images.sources import ImageSet, open_image_set
from vitscope.images.verify import (
    VerifiedImages,
    check_skips,
    joined,
    verify_images,
    write_image_table,
    write_skipped,
)
from vitscope.stages.context import Context, StageOutcome
from vitscope.store.stage import StageOutput


def run_images(context: Context) -> StageOutcome:
    """Verify the training images, and the evaluation images where they are others."""
    settings = context.study.images
    folders = {"train": open_image_set(settings.train, limit=settings.train_limit)}
    if settings.eval is not None:
        folders["eval"] = open_image_set(settings.eval, limit=settings.eval_limit)
    context.require_consistent()  # a mistyped setting should not wait for a million images

    def body(_: str) -> StageOutput:
        checked = {split: _check(context, folder) for split, folder in folders.items()}
        rank_0_goes_on()
        verified = {split: joined(parts) for split, parts in checked.items()}
        skipped = [bad for images in verified.values() for bad in images.skipped]
        write_skipped(context.run.skipped, skipped)
        files: list[Path] = [context.run.skipped]
        for split, images in verified.items():
            check_skips(images, settings.max_skipped)
            write_image_table(context.run.images(split), images)
            files.append(context.run.images(split))
        rates = [images.decode_rate for images in verified.values() if images.decode_rate]
        summary = {split: len(images.usable) for split, images in verified.items()}
        summary["skipped"] = len(skipped)
        return StageOutput(files, summary | {"checked_images_per_s": round(min(rates), 1)})

    return context.finish(
        "images",
        settings={"max_skipped": settings.max_skipped, "max_pixels": settings.max_pixels},
        after=(),
        # where they lie too: the table of images leads there
        extra_inputs={
            split: f"{folder.root} {folder.listing_digest}" for split, folder in folders.items()
        },
        body=body,
        shared=True,
    )


def _check(context: Context, folder: ImageSet) -> list[VerifiedImages]:
    """Return, on rank 0, what every rank found in its part of a folder."""
    settings, ranks = context.study.images, current_ranks()
    parts = [part_of(len(folder.refs), rank, ranks.size) for rank in range(ranks.size)]
    refs = [folder.refs[part] for part in parts]
    mine = verify_images(refs[ranks.rank], workers=settings.workers, max_pixels=settings.max_pixels)
    if ranks.size == 1:
        return [mine]
    found = ranks.collect(mine.to_json().encode())
    return [VerifiedImages.from_json(one, part) for one, part in zip(found, refs, strict=False)]
