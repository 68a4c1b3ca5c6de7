"""What an imported SAE's card says: its origin, what was assumed, what its file declares."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from vitscope.errors import SaeError
from vitscope.sae.formats.source import Source
from vitscope.sae.model import Info
from vitscope.sae.storage import DECLARED_HOOK, DECLARED_LAYER

ASSUMED, CAUTION = "assumed", "caution"
"""Keys of ``info``: how the file was read, and what a user should know before trusting scores."""

_RESIDUAL_HOOK = re.compile(r"(?:^|\.)blocks\.(\d+)\.hook_resid_(pre|post)$")
_BLOCK_OUTPUT = re.compile(r"(?:^|\.)(?:blocks|layers?|resblocks|h)\.(\d+)$")
_OTHER_HOOK = re.compile(r"\.(?:hook_\w+|mlp|attn|attention|self_attn)(?:\.|$)")


def imported_info(
    source: Source,
    library: str,
    *,
    assumed: Sequence[str],
    caution: Sequence[str] = (),
    model: object = None,
    hook: object = None,
) -> Info:
    """Return the ``info`` of an imported SAE.

    Args:
        source: its files.
        library: whose format it is, and which variant.
        assumed: how the file was read where another reading is possible.
        caution: what could make it misleading here.
        model: the backbone as the file names it.
        hook: where it was trained, as the file names it.
    """
    info: Info = {"format": library, "file": source.weights.name, ASSUMED: "; ".join(assumed)}
    if caution:
        info[CAUTION] = "; ".join(caution)
    if isinstance(model, str):
        info["declared_model"] = model
    return info | (_declared(hook) if isinstance(hook, str) else {})


def _declared(hook: str) -> Info:
    """Return hook and block; a block, from 1, is the one whose output that is."""
    if found := _RESIDUAL_HOOK.search(hook):
        block = int(found[1]) + (found[2] == "post")
        return {DECLARED_HOOK: hook} | ({DECLARED_LAYER: block} if block else {})
    if found := _BLOCK_OUTPUT.search(hook):
        return {DECLARED_HOOK: hook, DECLARED_LAYER: int(found[1]) + 1}
    return {DECLARED_HOOK: hook} if _OTHER_HOOK.search(hook) else {}


def whole(values: Mapping[str, Any], key: str, where: object) -> int:
    """Return a whole number of a configuration.

    Raises:
        SaeError: it is missing or none.
    """
    value = values.get(key)
    if isinstance(value, bool) or not isinstance(value, int | float) or not value == value // 1:
        raise SaeError(f"{where}: {key} is {value!r}, not a whole number")
    return int(value)


def one_of(values: Mapping[str, Any], key: str, default: str, known: Sequence[str]) -> str:
    """Return a named choice of a configuration, ``default`` where it is not there.

    Raises:
        SaeError: a choice that is not supported.
    """
    value = values.get(key)
    value = default if value is None else value
    if value not in known:
        raise SaeError(f"{key} = {value!r} is not supported; supported: {', '.join(known)}")
    return str(value)
