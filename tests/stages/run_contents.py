"""The results of a run, byte for byte."""

from vitscope.store.run_directory import RunDirectory

TIMED = ("stages/", ".lock", "report.html")
"""Stamps and the report say when and how fast; two runs that are equal differ there alone."""


def run_contents(run: RunDirectory) -> dict[str, bytes]:
    """Every result by name."""
    files = [path for path in sorted(run.root.rglob("*")) if path.is_file()]
    named = {str(path.relative_to(run.root)): path for path in files}
    return {name: p.read_bytes() for name, p in named.items() if not name.startswith(TIMED)}
