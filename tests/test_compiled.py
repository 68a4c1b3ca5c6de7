"""Compiled functions: what is kept on disk, and what happens where nothing can be kept."""

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from vitscope import compiled
from vitscope.compiled import compiled_entry

FILL = "def fill(x):\n    x[0] = 3\n"


def module(path: Path) -> ModuleType:
    """Load a file as a module of its own."""
    spec = importlib.util.spec_from_file_location(f"own_{path.stem}", path)
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


def filled(fill: Callable[..., None]) -> float:
    room = np.zeros(1)
    fill(room)
    return float(room[0])


def test_a_changed_file_of_the_folder_changes_the_name(tmp_path: Path) -> None:
    def name() -> str:
        entry = module(tmp_path / "entry.py").fill
        assert filled(compiled_entry(entry, "void(float64[::1])")) == 3
        return entry.__qualname__

    (tmp_path / "entry.py").write_text(FILL)
    (tmp_path / "part.py").write_text("one = 1\n")
    before = name()
    assert name() == before
    assert any(before in path.name for path in (tmp_path / "__pycache__").glob("*.nbi"))
    (tmp_path / "part.py").write_text("one = 2\n")
    assert name() != before


@pytest.mark.parametrize("signature", [None, "void(float64[::1])"])
def test_code_that_cannot_be_kept_is_compiled_all_the_same(
    tmp_path: Path, signature: str | None
) -> None:
    # numba finds no source file, so no place for a cache: as in an installation nobody can write to
    bare: dict[str, Callable[..., None]] = {}
    exec(FILL, bare)
    assert filled(compiled_entry(bare["fill"], signature)) == 3
    (tmp_path / "gone.py").write_text(FILL)
    gone = module(tmp_path / "gone.py")
    (tmp_path / "gone.py").unlink()
    assert filled(compiled_entry(gone.fill, signature)) == 3


def test_without_numba_functions_stay_plain_python(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "numba", None)
    plain = module(Path(str(compiled.__file__)))

    def one() -> int:
        return 1

    for wrapper in ("compiled", "compiled_inline", "compiled_sum", "compiled_entry"):
        assert getattr(plain, wrapper)(one) is one
