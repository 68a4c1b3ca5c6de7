"""A figure as files of its own: SVG for pages and editors, PDF for papers, PNG for slides."""

from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.figure import Figure

from vitscope.store.atomic import atomic_path

FORMATS = ("svg", "pdf", "png")
DPI = 300
"""Of the PNG, and of photographs and maps within SVG and PDF: what journals ask for."""

_RC: dict[Any, Any] = {
    "pdf.fonttype": 42,  # TrueType: journals refuse type 3, and text can be searched and edited
    "svg.fonttype": "none",  # text stays text
    "svg.hashsalt": "vitscope",
    "savefig.bbox": None,
}

_METADATA: dict[str, dict[str, Any]] = {
    "svg": {"Date": None},
    "pdf": {"CreationDate": None},
    "png": {},
}
"""Without dates: equal figures are equal files."""


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``NAME.svg``, ``NAME.pdf`` and ``NAME.png`` on white paper into ``folder``.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    files = [folder / f"{name}.{kind}" for kind in FORMATS]
    for file, kind in zip(files, FORMATS, strict=True):
        with atomic_path(file) as temporary, rc_context(_RC):
            figure.savefig(
                temporary, format=kind, dpi=DPI, facecolor="white", metadata=_METADATA[kind]
            )
    return files
