"""Every command begins at once: libraries that take seconds to import wait until one is needed."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "vitscope"

SLOW = {"ot", "timm", "transformers", "open_clip", "pandas", "sklearn", "torchvision"}
"""POT and timm bring others: scikit-learn and pandas, torchvision and torch's compiler."""

INSTANT = {*SLOW, "torch", "scipy", "matplotlib", "numba", "pyarrow"}
"""What not even the list of commands may wait for."""


def at_once(tree: ast.Module) -> Iterator[str]:
    """Yield what a module imports as it is imported itself."""
    for node in tree.body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def chains(module: str, package: Path = PACKAGE) -> dict[str, str]:
    """Return library -> the module that imports it, over all that ``module`` imports at once."""
    found: dict[str, str] = {}
    waiting, seen = [module], {module}
    while waiting:
        name = waiting.pop()
        path = package.joinpath(*name.split(".")[1:]).with_suffix(".py")
        if not path.exists():
            continue  # a folder, or a name in a module
        for wanted in at_once(ast.parse(path.read_text(encoding="utf-8"))):
            if wanted.partition(".")[0] != package.name:
                found.setdefault(wanted.partition(".")[0], name)
            elif wanted not in seen:
                seen.add(wanted)
                waiting.append(wanted)
    return found


@pytest.mark.parametrize(
    ("module", "slow"),
    [("vitscope.run", SLOW), ("vitscope.pipeline", INSTANT), ("vitscope.cli.main", INSTANT)],
)
def test_what_takes_seconds_is_imported_where_it_is_needed(module: str, slow: set[str]) -> None:
    found = chains(module)
    assert {"pathlib", "collections"} <= found.keys()
    assert {name: by for name, by in found.items() if name in slow} == {}


def test_an_import_is_seen_through_others_and_not_in_a_function(tmp_path: Path) -> None:
    package = tmp_path / "vitscope"
    (package / "sae").mkdir(parents=True)
    (package / "cli.py").write_text("from vitscope.sae import model\nimport json\n")
    (package / "sae" / "model.py").write_text("import ot.lp\n\ndef f():\n    import timm\n")
    assert chains("vitscope.cli", package) == {"json": "vitscope.cli", "ot": "vitscope.sae.model"}
