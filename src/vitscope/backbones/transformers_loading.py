"""Weights of a ``transformers`` folder, strictly: what it does not hold would be left random."""

import importlib
import re
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch

from vitscope.backbones.transformers_families import Family
from vitscope.backbones.transformers_source import Source
from vitscope.errors import BackboneError

INSTALL = 'pip install "vitscope[hf]"'

TOWER_KEY = re.compile(r"(^|\.)(embeddings|encoder|layers?)\.")
"""Weights of a vision tower, as against heads, projections and poolers."""

TEXT_KEY = re.compile(r"^(module\.)?text_")
UNUSED_KEY = re.compile(r"\.(mask_token|position_ids)$")
"""Of masked training, and a count that old files carry: no image passes through them."""

MAX_NAMED_KEYS = 4


def require_transformers(name: str) -> Any:
    """Return the ``transformers`` package.

    Raises:
        BackboneError: it is not installed.
    """
    try:
        return importlib.import_module("transformers")
    except ImportError:
        raise BackboneError(f"{name} needs transformers: {INSTALL}") from None


def load_model(family: Family, found: Source, *, name: str) -> Any:
    """Return the vision model of a folder, fp32, in evaluation mode.

    Raises:
        BackboneError: weights that are unreadable or not exactly the model's, or a version of
            ``transformers`` that keeps the model's parts elsewhere.
    """
    transformers = require_transformers(name)
    try:
        with _quietly(transformers):
            model, report = getattr(transformers, family.model_class).from_pretrained(
                found.folder,
                output_loading_info=True,
                ignore_mismatched_sizes=True,  # they are refused below, by name
                dtype=torch.float32,
                attn_implementation="sdpa",
                local_files_only=True,
                **dict(family.options),
            )
    except Exception as error:  # transformers raises what it likes
        why = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BackboneError(f"{found.folder} cannot be loaded as {name}: {why}") from None
    # what is missing transformers leaves random, with a line in its log
    shapes = {key for key, *_ in report["mismatched_keys"]}
    unexpected = [k for k in report["unexpected_keys"] if TOWER_KEY.search(k)]
    problems = [
        *_listed("missing", report["missing_keys"]),
        *_listed("unexpected", [k for k in unexpected if not TEXT_KEY.search(k)]),
        *_listed("of another shape", shapes),
    ]
    if problems:
        raise BackboneError(
            f"{found.folder} does not hold weights of {name}: {'; '.join(problems)}"
        )
    if not all(bool(weight.isfinite().all()) for weight in model.parameters()):
        raise BackboneError(f"{found.folder} holds NaN or infinite weights")
    _require_layout(transformers, family, model)
    return model.eval()


def _listed(what: str, keys: Any) -> list[str]:
    named = sorted(key for key in keys if not UNUSED_KEY.search(key))
    if not named:
        return []
    more = len(named) - MAX_NAMED_KEYS
    shown = ", ".join(named[:MAX_NAMED_KEYS])
    return [f"{what}: {shown}" + (f" and {more} more" if more > 0 else "")]


def _require_layout(transformers: Any, family: Family, model: Any) -> None:
    try:
        attention = getattr(family.blocks_of(model)[0], family.attention)
        _ = attention.q_proj, attention.k_proj, attention.head_dim
    except AttributeError:
        raise BackboneError(
            f"transformers {transformers.__version__} arranges its {family.model_class} otherwise "
            f"than vitscope knows: {INSTALL} --upgrade"
        ) from None


@contextmanager
def _quietly(transformers: Any) -> Generator[None]:
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
