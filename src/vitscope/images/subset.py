"""Choosing some images of a set, the same ones for any order, worker or restart."""

from collections import defaultdict
from collections.abc import Sequence

from vitscope.draws import draw_key
from vitscope.images.order import natural_key
from vitscope.images.sources import ImageRef


def pick_images(refs: Sequence[ImageRef], n: int, seed: int) -> tuple[ImageRef, ...]:
    """Choose ``n`` images at random, one per class in turn when there are classes.

    Every image has a random rank within its class, and every class a random place; both depend
    on ``(seed, id)`` alone. Classes give their first-ranked image each, then their second, …

    Returns:
        ``n`` references, or all when there are fewer, in natural order.
    """
    classes: defaultdict[str | None, list[ImageRef]] = defaultdict(list)
    for ref in refs:
        classes[ref.label].append(ref)
    turns: list[tuple[int, int, ImageRef]] = []
    for label, members in classes.items():
        place = draw_key(seed, "class", label or "")
        members.sort(key=lambda ref: draw_key(seed, "image", ref.id))
        turns += [(rank, place, ref) for rank, ref in enumerate(members)]
    turns.sort(key=lambda turn: turn[:2])
    return tuple(sorted((ref for _, _, ref in turns[:n]), key=lambda ref: natural_key(ref.id)))
