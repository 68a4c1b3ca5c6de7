"""Photographs that are there twice: the same bytes under two names, or nearly the same picture."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vitscope.images.loading import tracked_map
from vitscope.images.sources import ImageRef, open_image
from vitscope.images.verify import SkippedImage, VerifiedImages

HASH_SIDE = 8
"""A difference hash has a bit for each of 8 × 8 steps of brightness from left to right."""

STEP = 2
"""Grey levels that count as brighter: on an even wall the noise of JPEG would decide."""

FEWEST_BITS = 8
"""A picture with fewer steps is even all over, as fog is, and like every other such picture."""

ALIKE_BITS = 6
"""Pictures whose hashes differ in at most so many of 64 bits look nearly alike. Of 700 photographs
of different things two pairs of 244,650 do; a picture cropped by 2 % differs in 4 from itself."""


def without_duplicates(verified: VerifiedImages) -> VerifiedImages:
    """Return the images with the same bytes only once; the others are skipped, each with its twin.

    The first in the order of the set stays.
    """
    first: dict[str, str] = {}
    kept: list[int] = []
    skipped: list[SkippedImage] = []
    for place, (ref, checksum) in enumerate(zip(verified.usable, verified.checksums, strict=True)):
        if checksum in first:
            skipped.append(SkippedImage(ref.id, f"the same file as {first[checksum]}"))
        else:
            first[checksum] = ref.id
            kept.append(place)
    return replace(
        verified,
        usable=tuple(verified.usable[i] for i in kept),
        sizes=tuple(verified.sizes[i] for i in kept),
        checksums=tuple(verified.checksums[i] for i in kept),
        skipped=(*verified.skipped, *skipped),
    )


def near_duplicates(
    refs: Sequence[ImageRef], *, workers: int, max_pixels: int
) -> tuple[tuple[int, ...], ...]:
    """Return the groups of images that look nearly alike, by their positions: bursts, edits, sizes.

    Args:
        refs: verified images; each is decoded once.
        workers: threads; 0 takes one per core.
        max_pixels: as for verification.

    Raises:
        UnreadableImageError: a file no longer decodes.
    """

    def hashed(ref: ImageRef) -> np.uint64:
        return difference_hash(open_image(ref, max_pixels=max_pixels))

    found = tracked_map(hashed, refs, "looking for bursts", "images", workers)
    return groups_alike(np.fromiter(found, np.uint64, len(refs)))


def difference_hash(image: Image.Image) -> np.uint64:
    """Return 64 bits that change little when a picture does: is it brighter to the right?"""
    small = image.convert("L").resize((HASH_SIDE + 1, HASH_SIDE), Image.Resampling.BOX)
    grey = np.asarray(small).astype(np.int16)
    bits = (grey[:, 1:] > grey[:, :-1] + STEP).ravel()
    return np.packbits(bits).view(np.uint64)[0]


def groups_alike(hashes: NDArray[np.uint64]) -> tuple[tuple[int, ...], ...]:
    """Return the groups of positions that a chain of near hashes connects, lone ones left out."""
    leader = np.arange(len(hashes))
    for place in range(1, len(hashes)):
        near = np.bitwise_count(hashes[:place] ^ hashes[place]) <= ALIKE_BITS
        near &= bool(np.bitwise_count(hashes[place]) >= FEWEST_BITS)
        joined = np.unique(leader[:place][near])
        if joined.size:  # all of these groups become that of the first
            leader[place] = joined[0]
            leader[np.isin(leader, joined)] = joined[0]
    members: defaultdict[int, list[int]] = defaultdict(list)
    for place, group in enumerate(leader.tolist()):
        members[group].append(place)
    return tuple(tuple(group) for group in members.values() if len(group) > 1)
