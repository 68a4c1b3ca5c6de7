"""A figure as files of its own: SVG for pages and editors, PDF for papers, PNG for slides."""

from pathlib import Path

from matplotlib import rc_context
from matplotlib.figure import Figure

from vitscope.artifacts.atomic import atomic_path

FORMATS = ("svg", "pdf", "png")
PNG_DPI = 200

_METADATA = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}
"""Without dates: equal figures are equal files."""


def save_figure(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Write ``NAME.svg``, ``NAME.pdf`` and ``NAME.png`` on white paper into ``folder``.

    Raises:
        ArtifactError: the folder cannot be written.
    """
    files = [folder / f"{name}.{kind}" for kind in FORMATS]
    for file, kind in zip(files, FORMATS, strict=True):
        with (
            atomic_path(file) as temporary,
            rc_context({"svg.hashsalt": "vitscope", "pdf.fonttype": 42}),
        ):
            figure.savefig(
                temporary, format=kind, dpi=PNG_DPI, facecolor="white", metadata=_METADATA[kind]
            )
    return files
