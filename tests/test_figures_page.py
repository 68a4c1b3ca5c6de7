"""docs/figures.md names every figure and its function, and the Python that it shows runs."""

import re
from importlib import import_module
from pathlib import Path

import pytest

import vitscope as vs
from vitscope.figures.catalogue import FIGURES, FIGURES_OF_SEVERAL
from vitscope.figures.files import FIGURE_FORMATS

DOCS = Path(__file__).parent.parent / "docs"


@pytest.fixture(scope="module")
def page() -> str:
    return (DOCS / "figures.md").read_text(encoding="utf-8")


def test_every_figure_has_its_row_and_its_function(page: str) -> None:
    rows = re.findall(r"^\| (`.*?`) \| `([\w.]+)` \|", page, re.MULTILINE)
    named = [name for cell, _ in rows for name in re.findall(r"`([\w-]+)`", cell)]
    assert sorted(named) == sorted({*FIGURES, *FIGURES_OF_SEVERAL})
    for _, function in rows:
        module, _, name = function.rpartition(".")
        assert callable(getattr(import_module(module), name))


def test_every_picture_shown_is_there_and_small(page: str) -> None:
    files = [DOCS / name for name in re.findall(r"!\[[^\]]+\]\((\S+)\)", page)]
    assert len(files) >= len(FIGURES)  # all but the training, and two of several runs
    sizes = [file.stat().st_size for file in files]
    assert max(sizes) < 150_000 and sum(sizes) < 1_000_000


def test_the_python_shown_runs(page: str, tmp_path: Path) -> None:
    (code,) = re.findall(r"^```python\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    names = {
        "backbone": vs.load_backbone("scenes-vit"),
        "sae": vs.load_sae(vs.shipped_sae("scenes-vit")),
        "images": vs.SceneSet(20, seed=1, side=88),
        "folder": tmp_path,
    }
    exec(compile(code, "figures.md", "exec"), names)
    expected = {f"{name}.{kind}" for name in ("cds", "gallery-high") for kind in FIGURE_FORMATS}
    assert {path.name for path in tmp_path.iterdir()} == {*expected, "feature.png"}
