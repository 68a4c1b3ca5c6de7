"""A figure as files of its own, or as inline SVG within a page.

Files are SVG for pages and editors, PDF for papers, PNG for slides. In a page text stays text, and
colours follow its light or dark scheme. Equal figures give equal bytes.
"""

import io
import re
from collections.abc import Generator
from contextlib import contextmanager
from html import escape
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from vitscope.figures.style import ROLES
from vitscope.store.atomic import atomic_path

FIGURE_FORMATS = ("svg", "pdf", "png")
DPI = 300
"""Of the PNG, and of photographs and maps within SVG and PDF: what journals ask for."""

PAGE_DPI = 160
"""Of photographs and maps within a page's figures: enough for a screen, few bytes."""

_RC: dict[Any, Any] = {
    "pdf.fonttype": 42,  # TrueType: journals refuse type 3, and text can be searched and edited
    "svg.fonttype": "none",  # text, not outlines: searchable, small, in the page's own font
    "svg.hashsalt": "vitscope",  # equal figures, equal bytes
    "savefig.bbox": None,
}

_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {},
}
"""Without dates: equal figures are equal files."""

_SIZE = re.compile(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>')
# matplotlib writes the family alone, or (before 3.10) within the shorthand
_FAMILY = re.compile(r"(font-family: |font: (?:[\w.%]+ )*[\d.]+px )[^;\"]+")
_DEFINED = re.compile(r'\bid="([^"]+)"')


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``NAME.svg``, ``NAME.pdf`` and ``NAME.png`` on white paper into ``folder``.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    files = [folder / f"{name}.{kind}" for kind in FIGURE_FORMATS]
    with rc_context(_RC), _laid_out(figure):
        for file, kind in zip(files, FIGURE_FORMATS, strict=True):
            with atomic_path(file) as temporary:
                figure.savefig(
                    temporary, format=kind, dpi=DPI, facecolor="white", metadata=_METADATA[kind]
                )
    return files


def inline_svg(figure: Figure, name: str, description: str) -> str:
    """Return ``figure`` as an ``<svg>`` element to stand in an HTML page; the same each time.

    Every colour of :data:`vitscope.figures.style.ROLES` becomes ``var(--fig-ROLE, colour)``, so
    that a page without these variables still shows the figure.

    Args:
        figure: drawn in the house style.
        name: unique on the page; every id within the element starts with it.
        description: what a reader who cannot see the figure is told.
    """
    buffer = io.StringIO()
    with rc_context(_RC), _laid_out(figure):
        figure.savefig(
            buffer, format="svg", metadata={"Date": None}, transparent=True, dpi=PAGE_DPI
        )
    body = _without_preamble(buffer.getvalue())
    return _titled(_themed(_renamed(body, name)), name, description)


@contextmanager
def _laid_out(figure: Figure) -> Generator[None]:
    """Lay ``figure`` out, once for all formats.

    ``savefig`` would draw everything an extra time, photographs resampled, before each format.
    """
    engine = figure.get_layout_engine()
    if engine is None:
        yield
        return
    engine.execute(figure)
    figure.set_layout_engine(None)  # "none" would still be an engine, and be drawn for
    try:
        yield
    finally:
        figure.set_layout_engine(engine)


def _without_preamble(text: str) -> str:
    """Drop what only a file of its own needs: XML declaration, doctype, metadata, namespaces."""
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    return text.replace("xlink:href=", "href=").strip()


def _renamed(text: str, name: str) -> str:
    """Prefix every id, and every reference to one, with ``name``."""
    for found in sorted(set(_DEFINED.findall(text)), key=len, reverse=True):
        text = text.replace(f'id="{found}"', f'id="{name}-{found}"')
        text = text.replace(f"url(#{found})", f"url(#{name}-{found})")
        text = text.replace(f'href="#{found}"', f'href="#{name}-{found}"')
    return text


def _themed(text: str) -> str:
    for colour, role in ROLES.items():
        text = text.replace(colour, f"var(--fig-{role}, {colour})")
    return _FAMILY.sub(r"\1var(--font, sans-serif)", text)


def _titled(text: str, name: str, description: str) -> str:
    safe = escape(description, quote=False)
    opening = (
        rf'<svg class="figure" viewBox="\1" role="img" aria-labelledby="{name}-title">'
        f'<title id="{name}-title">'
    )
    head, tail = _SIZE.sub(opening, text, count=1).split(">", 1)
    return f"{head}>{tail[: tail.index('>') + 1]}{safe}</title>{tail[tail.index('>') + 1 :]}"
