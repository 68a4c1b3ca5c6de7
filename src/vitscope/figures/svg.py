"""A figure as inline SVG: text stays text, and colours follow the page's light or dark scheme."""

import io
import re
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from vitscope.figures.style import ROLES

_RC: dict[Any, Any] = {
    "svg.fonttype": "none",  # text, not outlines: searchable, small, in the page's own font
    "svg.hashsalt": "vitscope",  # equal figures, equal bytes
    "savefig.bbox": None,
}
PICTURE_DPI = 160
"""Pixels per inch of photographs and maps within a figure: enough for a screen, few bytes."""

_SIZE = re.compile(r'<svg [^>]*?viewBox="([^"]+)"[^>]*>')
# matplotlib writes the family alone, or (before 3.10) within the shorthand
_FAMILY = re.compile(r"(font-family: |font: (?:[\w.%]+ )*[\d.]+px )[^;\"]+")
_DEFINED = re.compile(r'\bid="([^"]+)"')


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
    with rc_context(_RC):
        figure.savefig(
            buffer, format="svg", metadata={"Date": None}, transparent=True, dpi=PICTURE_DPI
        )
    body = _without_preamble(buffer.getvalue())
    return _titled(_themed(_renamed(body, name)), name, description)


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
    safe = description.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    opening = (
        rf'<svg class="figure" viewBox="\1" role="img" aria-labelledby="{name}-title">'
        f'<title id="{name}-title">'
    )
    head, tail = _SIZE.sub(opening, text, count=1).split(">", 1)
    return f"{head}>{tail[: tail.index('>') + 1]}{safe}</title>{tail[tail.index('>') + 1 :]}"
