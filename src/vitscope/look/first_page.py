"""The first picture of a folder of photographs: a page of a few features, while the rest runs."""

from html import escape
from pathlib import Path

from vitscope.figures.files import inline_svg
from vitscope.notebook import open_run
from vitscope.store.atomic import write_text

GALLERIES = {
    "gallery-low": "Local: the feature stays on the same spot of the picture",
    "gallery-high": "Global by its score: the feature moves, or goes out",
}

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}: a first look</title>
<style>
:root {{ color-scheme: light; --font: system-ui, sans-serif }}
body {{ font: 16px/1.5 var(--font); max-width: 60rem; margin: 2rem auto; padding: 0 1rem;
  background: #fff; color: #1c1f26 }}
h1 {{ font-size: 1.5rem }} h2 {{ font-size: 1.1rem; margin-top: 2rem }}
svg.figure {{ width: 100%; height: auto }}
p {{ max-width: 44rem }}
</style></head><body>
<h1>{title}: a first look</h1>
<p>{n_first} of {n_all} photographs, and {n_scored} features drawn at random. Each pair shows one
photograph twice, cut one patch apart, with the places where the feature fires. So few photographs
decide nothing: the groups below may change when all are scored, and the explorer opens then.</p>
{galleries}
</body></html>
"""


def write_first_page(folder: Path, n_all: int) -> Path:
    """Write the page of a first part's run, and return its path.

    Args:
        folder: run directory in which stage «gallery» has finished.
        n_all: photographs in all.
    """
    run = open_run(folder)
    galleries = "\n".join(
        f"<h2>{escape(heading)}</h2>\n{inline_svg(run.figure(name), name, heading)}"
        for name, heading in GALLERIES.items()
    )
    page = folder / "first-look.html"
    values = {
        "title": escape(run.name),
        "n_first": run.reconstruction.n_images,
        "n_all": n_all,
        "n_scored": run.scoring.n_features,
        "galleries": galleries,
    }
    write_text(page, PAGE.format(**values))
    return page
