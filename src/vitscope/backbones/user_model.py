"""A backbone of the user's own: a function in a file or module that returns one; is it a backbone?

``check_backbone`` asks once, on two made-up images, before hours of work.
"""

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from vitscope.backbones.backbone import Backbone
from vitscope.backbones.settings import BackboneSettings
from vitscope.draws import generator
from vitscope.errors import BackboneError

ROW_SUM_TOLERANCE = 1e-4
AGREEMENT = 1e-3
"""Largest relative difference between an image's tokens alone and beside another."""


def is_user_model(name: str) -> bool:
    """Return whether ``name`` has the form ``file.py:function`` or ``package.module:function``."""
    source, colon, function = name.rpartition(":")
    return bool(colon) and function.isidentifier() and not source.endswith(("/", "\\"))


def require_trust(name: str, folder: Path, run_code: bool) -> None:
    """Refuse to execute the code that a run names as its backbone, where it is only looked at.

    Raises:
        BackboneError: the backbone is Python code, and ``run_code`` does not allow it.
    """
    if is_user_model(name) and not run_code:
        raise BackboneError(
            f"the backbone of {folder} is Python code, {name}, and looking at a run does not "
            "execute it; if you trust that code, give --run-code"
        )


def load_user_model(settings: BackboneSettings) -> Backbone:
    """Call the user's function with ``settings`` and return what it builds.

    The file is Python code and is executed, as running it would.

    Raises:
        BackboneError: no such file, module or function, or what it returns is not a backbone.
    """
    source, _, function = settings.name.rpartition(":")
    module = _file_module(Path(source)) if source.endswith(".py") else _named_module(source)
    build: Any = getattr(module, function, None)
    if not callable(build):
        raise BackboneError(f"{source} has no function '{function}' to build a backbone with")
    try:
        backbone: Any = build(settings)
    except BackboneError:
        raise
    except Exception as error:  # the user's own code, of which we know nothing
        where = traceback.extract_tb(error.__traceback__)[-1]
        raise BackboneError(
            f"{settings.name} failed at {where.filename}:{where.lineno}: "
            f"{type(error).__name__}: {error}"
        ) from error
    lacking = [
        part
        for part in ("site", "preprocessing", "tokens", "attention", "resume")
        if not hasattr(backbone, part)
    ]
    if lacking:
        raise BackboneError(
            f"{settings.name} returned a {type(backbone).__name__} without {', '.join(lacking)}; "
            "docs/backbones.md shows an adapter in twenty lines"
        )
    return backbone


def _file_module(path: Path) -> ModuleType:
    if not path.is_file():
        raise BackboneError(f"{path} does not exist; backbone.name takes file.py:function")
    name = f"vitscope_user_model_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path.resolve())
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses and pickles look their module up by name
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise BackboneError(f"{path}, line {error.lineno}: {error.msg}") from None
    except ImportError as error:
        raise BackboneError(f"{path} cannot be imported: {error}") from None
    return module


def _named_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise BackboneError(f"module '{name}' cannot be imported: {error}") from None


@torch.inference_mode()
def check_backbone(backbone: Backbone) -> Backbone:
    """Run a backbone's three methods on two images of noise; return it when it keeps its word.

    Checked: shapes and types of what the methods return; that tokens are finite, do not depend on
    the rest of the batch, and differ between different images; that rows of attention are
    probabilities.

    Raises:
        BackboneError: naming the method, what it returned and what it should have.
    """

    def require(kept: object, what: str) -> None:
        if not kept:
            raise BackboneError(f"{backbone.site.model}: {what}")

    site = backbone.site
    shape = (2, 3, site.resolution, site.resolution)
    noise = generator(0, "conformance").integers(0, 256, shape, dtype="uint8")
    images = torch.from_numpy(noise)
    tokens = backbone.tokens(images)
    patch, prefix, wanted = tokens.patch, list(tokens.prefix.shape), [2, site.n_patches, site.width]
    require(list(patch.shape) == wanted, f"tokens().patch is {list(patch.shape)}, wanted {wanted}")
    require(
        len(prefix) == 3 and prefix == [2, prefix[1], site.width],
        f"tokens().prefix is {prefix}, wanted [2, n_prefix, {site.width}]",
    )
    numbers = patch.is_floating_point() and patch.isfinite().all()
    require(numbers, f"tokens().patch ({patch.dtype}) is not all finite numbers")
    difference = (backbone.tokens(images[:1]).patch[0] - patch[0]).abs().max()
    require(
        difference <= AGREEMENT * patch.abs().max(),
        "tokens() of an image depend on the other images of the batch",
    )
    require((patch[0] != patch[1]).any(), "tokens() of two different images are the same")

    attention, n_prefix = backbone.attention(images), prefix[1]
    n_tokens = n_prefix + site.n_patches
    require(
        (attention.n_prefix, attention.n_tokens) == (n_prefix, n_tokens),
        f"attention() has {attention.n_prefix} prefix tokens of {attention.n_tokens}, "
        f"tokens() has {n_prefix} of {n_tokens}",
    )
    rows = attention.rows(torch.tensor([n_prefix]))
    shape = list(rows.shape)
    require(
        rows.dtype == torch.float32 and shape == [2, *shape[1:2], 1, n_tokens],
        f"attention().rows() is {rows.dtype} {shape}, wanted torch.float32 [2, heads, 1, "
        f"{n_tokens}]",
    )
    sums = (rows.sum(-1) - 1).abs() <= ROW_SUM_TOLERANCE
    require(
        (rows >= 0).all() and sums.all(), "attention().rows() are not probabilities over the keys"
    )

    final = backbone.resume(tokens)
    require(
        final.patch.shape[:2] == patch.shape[:2] and final.pooled.shape[:1] == (2,),
        f"resume() returned patch {list(final.patch.shape)} and pooled "
        f"{list(final.pooled.shape)} for {list(patch.shape)} patch tokens",
    )
    return backbone
