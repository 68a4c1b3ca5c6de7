"""Make the pictures of docs/figures.md, and docs/tutorial.md with its pictures, anew.

python docs/make_pictures.py

Runs examples/scenes_figures.toml and its untrained control (minutes the first time; what is
unchanged is skipped), draws every figure, and executes examples/tutorial.ipynb. Charts become PNG
of few colours, what shows photographs becomes JPEG: together below a megabyte.
"""

import base64
import io
import shutil
import tempfile
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from PIL import Image
from playwright.sync_api import sync_playwright

from vitscope.embedded.files import SCENES_VIT_UNTRAINED, shipped_sae
from vitscope.figures.catalogue import write_figures
from vitscope.pipeline import run_study
from vitscope.run import Run
from vitscope.sae.settings import SaeSettings
from vitscope.study import Study, load_study

DOCS = Path(__file__).resolve().parent
IMAGES = DOCS / "images"
STUDY = DOCS.parent / "examples" / "scenes_figures.toml"
NOTEBOOK = DOCS.parent / "examples" / "tutorial.ipynb"
RUNS = DOCS.parent / "runs"

CHART_WIDTH, PHOTOGRAPHS_WIDTH = 760, 960
"""Pixels: as wide as a page shows them, on a usual screen."""

COLOURS = 48
"""Of a chart: two hues, greys, and what softens their edges."""

JPEG_QUALITY = 76

SHOWS_PHOTOGRAPHS = ("gallery-low", "gallery-high", "norm-maps", "awcds-maps")

HEAD = """<!-- made from examples/tutorial.ipynb by docs/make_pictures.py: change it there -->

*This page is `examples/tutorial.ipynb`, executed. Open it in Jupyter to try things: `jupyter lab
examples/tutorial.ipynb`.*

"""


REPORT_WIDTH, README_WIDTH = 1060, 780
"""Pixels: three cards beside one another, and as wide as GitHub shows them."""

EXCERPT = """() => {
  for (const s of document.querySelectorAll("main > section:not(#gallery), nav, footer, .subtitle"))
    s.remove();
  for (const p of document.querySelectorAll(
    "#gallery > h2, #gallery > p:not(.gallery-head + p), .facts, header .notes")) p.remove();
  for (const group of document.querySelectorAll(".cards"))
    [...group.children].forEach((card, i) => { if (i % 4) card.remove(); });
  for (const card of document.querySelectorAll(".card"))
    [...card.querySelectorAll(".pair")].slice(2).forEach((pair) => pair.remove());
  document.querySelector("#gallery").style.cssText = "border: 0; margin: 0; padding: 0";
  document.querySelector("h1").remove();
  document.body.style.padding = "0 .8rem .8rem";
}"""
"""Leaves the headlines, and of each group the lowest, the middle and the highest feature."""


def main() -> None:
    """Make everything."""
    study = load_study(STUDY)
    run, control = RUNS / "scenes-figures", RUNS / "scenes-figures-untrained"
    run_study(study, run)
    run_study(_untrained(study), control)
    with tempfile.TemporaryDirectory() as folder:
        for one in write_figures([Run(run), Run(control)], Path(folder)):
            if one.files:
                picture = Image.open(next(f for f in one.files if f.suffix == ".png"))
                keep(picture, f"figure-{one.name}", photographs=one.name in SHOWS_PHOTOGRAPHS)
    photograph_report(run / "report.html")
    (DOCS / "tutorial.md").write_text(tutorial(), encoding="utf-8")


def _untrained(study: Study) -> Study:
    backbone = study.backbone.model_copy(update={"name": SCENES_VIT_UNTRAINED})
    sae = SaeSettings(path=shipped_sae(SCENES_VIT_UNTRAINED))
    changed = {"name": "untrained copy", "backbone": backbone, "sae": sae}
    probes = study.probes.model_copy(update={"zeroshot": type(study.probes.zeroshot)()})
    return study.model_copy(update=changed | {"probes": probes})


def keep(picture: Image.Image, name: str, *, photographs: bool) -> str:
    """Write a picture below docs/images, small; return its path from docs/."""
    width = min(PHOTOGRAPHS_WIDTH if photographs else CHART_WIDTH, picture.width)
    size = width, round(picture.height * width / picture.width)
    small = picture.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    path = IMAGES / f"{name}.{'jpg' if photographs else 'png'}"
    if photographs:
        small.save(path, quality=JPEG_QUALITY, optimize=True)
    else:
        small.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    return path.relative_to(DOCS).as_posix()


def photograph_report(report: Path) -> None:
    """Write docs/images/report.jpg, the README's picture, with the chromium that tests use."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        size = {"width": REPORT_WIDTH, "height": 800}
        page = browser.new_page(viewport=size, color_scheme="light")
        page.goto(report.as_uri())
        page.evaluate(EXCERPT)
        shown = page.screenshot(full_page=True)
        browser.close()
    picture = Image.open(io.BytesIO(shown))
    picture.thumbnail((README_WIDTH, picture.height), Image.Resampling.LANCZOS)
    keep(picture, "report", photographs=True)


def tutorial() -> str:
    """Execute the notebook and return it as a page of Markdown."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    manager = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    NotebookClient(notebook, km=manager, timeout=600).execute()
    parts: list[str] = []
    for number, cell in enumerate(notebook.cells):
        if cell.cell_type == "markdown":
            parts.append(cell.source)
            continue
        source = cell.source.removeprefix("%matplotlib inline\n")
        parts.append(f"```python\n{source}\n```")
        said = "".join(o.text for o in cell.outputs if o.get("name") == "stdout").rstrip()
        if said:
            parts.append(f"```text\n{said}\n```")
        for shown in cell.outputs:
            if "image/png" in shown.get("data", {}):
                data = base64.b64decode(shown.data["image/png"])
                photographs = 'figure("cds")' not in source
                path = keep(
                    Image.open(io.BytesIO(data)), f"tutorial-{number:02d}", photographs=photographs
                )
                parts.append(f"![what the cell above shows]({path})")
    return HEAD + "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
