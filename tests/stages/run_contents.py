"""The results of a run, byte for byte."""

import json

from vitscope.store.run_directory import RunDirectory

TIMED = ("stages/", ".lock", "report.html")
"""Stamps and the report say when and how fast; two runs that are equal differ there alone."""


def run_contents(run: RunDirectory) -> dict[str, bytes]:
    """Every result by name: files, and the records within the stamps."""
    files = [path for path in sorted(run.root.rglob("*")) if path.is_file()]
    named = {str(path.relative_to(run.root)): path for path in files}
    found = {name: p.read_bytes() for name, p in named.items() if not name.startswith(TIMED)}
    for name, path in named.items():
        if name.startswith("stages/"):
            result = json.loads(path.read_text(encoding="utf-8"))["result"]
            found[f"{name}: result"] = json.dumps(result, sort_keys=True).encode()
    return found
