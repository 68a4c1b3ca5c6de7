"""A backbone of the user's own: a function in a file or module that returns one."""

import importlib
import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from vitscope.backbones.backbone import Backbone
from vitscope.backbones.settings import BackboneSettings
from vitscope.errors import BackboneError


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
