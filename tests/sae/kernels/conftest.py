"""Kernels in Triton's interpreter: on the CPU, one program after the other.

``TRITON_INTERPRET=1 python -m pytest tests/sae/kernels -n0``. The switch is read when Triton is
imported, which other tests' libraries do, so these have a process of their own:
``test_sae_triton.py`` starts it.
"""

import importlib.util
import os
from typing import Any

if os.environ.get("TRITON_INTERPRET") != "1" or importlib.util.find_spec("triton") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    from triton.runtime import interpreter

    _patch, _patched = interpreter._patch_lang, set[str]()

    def _patch_once(function: Any) -> Any:
        """Patch the language as the interpreter does, but once for a module, and for good.

        It scans the whole language at every launch and every call of ``tl.sum`` and its like: four
        milliseconds each, thousands of times. Nothing is compiled in this process.
        """
        if function.__module__ not in _patched:
            _patch(function)
            _patched.add(function.__module__)
        return interpreter._LangPatchScope()  # holds nothing to restore

    interpreter._patch_lang = _patch_once
