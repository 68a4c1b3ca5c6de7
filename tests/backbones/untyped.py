"""transformers, without its types: pyright reads each of its 500 models for them, 25 s in all."""

from importlib import import_module
from typing import Any

transformers: Any = import_module("transformers")
