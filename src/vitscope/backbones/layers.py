"""Which block is the designated one: counted from 1, from the end, or by name."""

from vitscope.backbones.settings import PENULTIMATE
from vitscope.errors import BackboneError


def designated_layer(wanted: int | str | None, default: int | None, depth: int, name: str) -> int:
    """Return the 1-based block of ``wanted`` in a backbone of ``depth`` blocks.

    Args:
        wanted: from 1; negative from the end (-1 is the last block); ``penultimate``; None.
        default: what None means; None where the backbone has no designated block of its own.
        depth: number of blocks.
        name: the backbone, for messages.

    Raises:
        BackboneError: no such block, or none chosen where one must be.
    """
    if wanted is None:
        wanted = default
    if wanted is None:
        raise BackboneError(
            f"{name} has no designated block of its own: set backbone.layer (--layer) to one of "
            f"1..{depth}, to a negative number from the end, or to '{PENULTIMATE}'"
        )
    layer = -2 if wanted == PENULTIMATE else int(wanted)
    if layer < 0:
        layer += depth + 1
    if not 1 <= layer <= depth:
        raise BackboneError(
            f"backbone.layer = {wanted}, but {name} has {depth} blocks: give 1..{depth}, or "
            f"-{depth}..-1 from the end"
        )
    return layer
