"""The tutorial notebook runs from top to bottom, and the page made of it says the same."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest

ROOT = Path(__file__).parent.parent
NOTEBOOK, PAGE = ROOT / "examples" / "tutorial.ipynb", ROOT / "docs" / "tutorial.md"
MOST_CELLS = 15


def read() -> Any:
    return nbformat.read(NOTEBOOK, as_version=4)


def cells(kind: str) -> list[str]:
    return [cell.source for cell in read().cells if cell.cell_type == kind]


# No kernel but the one of this Python: a user's own `python3` may be anything. In a process of its
# own, which closes all that a kernel's client leaves open.
RUNNER = """
import sys, nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
manager = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
NotebookClient(notebook, km=manager, timeout=240).execute()
nbformat.write(notebook, sys.argv[1])
"""


def execute(notebook: Any, path: Path) -> Any:
    """Return the executed notebook; a cell's error is a CalledProcessError that shows it."""
    nbformat.write(notebook, path)
    command = [sys.executable, "-c", RUNNER, str(path)]
    subprocess.run(command, check=True, capture_output=True, text=True)
    return nbformat.read(path, as_version=4)


def outputs(notebook: Any, kind: str) -> list[Any]:
    return [o for c in notebook.cells for o in c.get("outputs", ()) if o.output_type == kind]


def test_it_runs_from_top_to_bottom_in_this_python(tmp_path: Path) -> None:
    notebook = read()
    for cell in notebook.cells:  # the same calls, on fewer scenes
        cell.source = cell.source.replace("SceneSet(150,", "SceneSet(40,")
    notebook.cells.append(nbformat.v4.new_code_cell("import sys; print(sys.executable)"))
    notebook = execute(notebook, tmp_path / "tutorial.ipynb")
    said = "".join(o.text for o in outputs(notebook, "stream") if o.name == "stdout")
    assert said.rstrip().endswith(sys.executable)
    assert "shared pixels are equal: True" in said
    accuracy = dict(re.findall(r"^(.+?) +accuracy ([\d.]+),", said, re.MULTILINE))
    assert float(accuracy["original"]) > 0.9
    assert float(accuracy["low-CDS removed"]) < float(accuracy["original"])
    shown = [o for o in outputs(notebook, "execute_result") if "image/png" in o.data]
    assert len(shown) == 6  # the picture, and five figures


def test_a_cell_that_fails_would_be_seen(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("import vitscope.nosuch")])
    with pytest.raises(subprocess.CalledProcessError) as caught:
        execute(notebook, tmp_path / "fails.ipynb")
    assert "No module named 'vitscope.nosuch'" in caught.value.stderr


def test_it_is_short_and_stored_without_outputs() -> None:
    code = [cell for cell in read().cells if cell.cell_type == "code"]
    assert len(code) <= MOST_CELLS
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert "numpy" in code[0].source and "import" not in "".join(c.source for c in code[1:])


def test_the_page_shows_the_notebook_as_it_is() -> None:
    page = PAGE.read_text(encoding="utf-8")
    shown = re.findall(r"^```python\n(.*?)\n```$", page, re.DOTALL | re.MULTILINE)
    assert shown == [source.removeprefix("%matplotlib inline\n") for source in cells("code")]
    places = [page.index(source) for source in cells("markdown")]
    assert places == sorted(places)
    for picture in re.findall(r"!\[[^\]]*\]\((\S+)\)", page):
        assert (PAGE.parent / picture).is_file()
