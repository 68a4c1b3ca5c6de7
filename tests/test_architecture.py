"""The house stays in order: imports go one way, names say something, files and functions short."""

import ast
import graphlib
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "src" / "vitscope"

ORDER = [
    *("axes", "errors", "draws", "intervals", "settings", "progress", "compiled"),
    *("distributed", "store"),
    *("embedded", "images", "backbones", "tokens", "sae", "transport", "scope"),
    *("removal", "probes", "study", "stages", "run", "figures", "report", "pipeline", "explorer"),
    *("compare", "publish", "notebook", "look", "selfcheck", "demo", "paper", "cli", "__main__"),
]
"""Folders and files of the package, bottom to top: each imports only from those before it."""

FORBIDDEN_WORDS = {"utils", "util", "helpers", "helper", "common", "misc"}
MAX_FILE_LINES = 500
MAX_FUNCTION_LINES = 60
"""Without the docstring, which may be as long as it needs to be."""


def modules(package: Path) -> dict[str, Path]:
    """Dotted name -> file, the root package included."""
    found: dict[str, Path] = {}
    for path in sorted(package.rglob("*.py")):
        parts = path.relative_to(package.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imported(name: str, path: Path, known: set[str]) -> Iterator[tuple[str, int]]:
    """Yield (module of the package, line) for every import anywhere in a file."""
    root = name.partition(".")[0]
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        targets: list[str] = []
        if isinstance(node, ast.Import):
            targets = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *filter(None, [node.module])])
            # `from vitscope import sae` names a module, `from vitscope.sae.model import X` does not
            targets = [
                f"{base}.{a.name}" if f"{base}.{a.name}" in known else base for a in node.names
            ]
        elif isinstance(node, ast.Call) and node.args and "import" in ast.unparse(node.func):
            argument = node.args[
                0
            ]  # importlib.import_module("vitscope.x"), __import__("vitscope.x")
            if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                targets = [argument.value]
        for target in targets:
            if target.partition(".")[0] == root:
                yield target, getattr(node, "lineno", 0)


def level(name: str) -> int | None:
    """Place of a module in ORDER; the root package is above all, None is a stranger."""
    parts = name.split(".")
    if len(parts) == 1:
        return len(ORDER)
    return ORDER.index(parts[1]) if parts[1] in ORDER else None


def import_faults(package: Path) -> list[str]:
    faults: list[str] = []
    files = modules(package)
    for name, path in files.items():
        here = level(name)
        if here is None:
            faults.append(f"{name} has no place in ORDER of tests/test_architecture.py")
            continue
        for target, line in imported(name, path, set(files)):
            there = level(target)
            same_unit = target.split(".")[1:2] == name.split(".")[1:2]
            if not same_unit and (there is None or there >= here):
                faults.append(f"{name}:{line} imports {target}, which is not below it")
    return faults


def cycle(package: Path) -> list[str]:
    """Return the modules of an import cycle, empty where there is none."""
    files = modules(package)
    graph = {name: {t for t, _ in imported(name, path, set(files))} for name, path in files.items()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        return error.args[1]
    return []


def name_faults(package: Path) -> list[str]:
    """Return paths with a word in their name that says nothing."""
    paths = [path for path in package.rglob("*") if path.is_dir() or path.suffix == ".py"]
    return [
        str(path.relative_to(package))
        for path in paths
        if FORBIDDEN_WORDS & set(path.stem.lower().split("_"))
    ]


def function_length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from ``def`` to the end, without the docstring."""
    lines = (node.end_lineno or node.lineno) - node.lineno + 1
    first = node.body[0]
    if ast.get_docstring(node) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def length_faults(package: Path) -> list[str]:
    faults: list[str] = []
    for name, path in modules(package).items():
        text = path.read_text(encoding="utf-8")
        if (lines := len(text.splitlines())) > MAX_FILE_LINES:
            faults.append(f"{name} has {lines} lines, more than {MAX_FILE_LINES}")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = function_length(node)
                if lines > MAX_FUNCTION_LINES:
                    faults.append(
                        f"{name}:{node.lineno} {node.name} has {lines} lines, "
                        f"more than {MAX_FUNCTION_LINES}"
                    )
    return faults


def public_names(path: Path) -> Iterator[str]:
    """Yield the classes, functions and constants that a module defines for others."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        names: list[str] = []
        if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.AsyncFunctionDef):
            names = [node.name]
        elif isinstance(node, ast.Assign):
            names = [target.id for target in node.targets if isinstance(target, ast.Name)]
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names = [node.target.id]
        yield from (name for name in names if not name.startswith("_"))


def name_twins(package: Path) -> dict[str, list[str]]:
    """Return public names that several modules define, with those modules.

    A type variable is no name that anybody imports.
    """
    homes: dict[str, list[str]] = {}
    for module, path in modules(package).items():
        for name in public_names(path):
            homes.setdefault(name, []).append(module)
    return {name: where for name, where in homes.items() if len(where) > 1 and len(name) > 1}


def export_faults(package: Path) -> list[str]:
    """Return folders whose ``__init__.py`` holds more than a docstring (the root's may)."""
    faults: list[str] = []
    for path in package.glob("*/**/__init__.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        if len(tree.body) != 1 or ast.get_docstring(tree) is None:
            faults.append(str(path.relative_to(package)))
    return faults


def test_imports_go_one_way() -> None:
    assert len(modules(PACKAGE)) > 1
    assert import_faults(PACKAGE) == []


def test_no_module_is_part_of_an_import_cycle() -> None:
    assert cycle(PACKAGE) == []


def test_no_module_has_a_name_that_says_nothing() -> None:
    assert name_faults(PACKAGE) == []


def test_no_public_name_is_defined_twice() -> None:
    assert name_twins(PACKAGE) == {}


def test_files_and_functions_are_short() -> None:
    assert length_faults(PACKAGE) == []


def test_folders_export_nothing() -> None:
    assert export_faults(PACKAGE) == []


# The checks above are worth what they can see: each is shown a fault of its kind.


def house(folder: Path, files: dict[str, str]) -> Path:
    """Write a made-up package; every folder gets its ``__init__.py``."""
    package = folder / "vitscope"
    for name, text in {"__init__.py": '"""Root."""\n', **files}.items():
        path = package / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        if path.parent != package:
            (path.parent / "__init__.py").touch()
    return package


UPWARD = {
    "plain": "import vitscope.scope.cds\n",
    "renamed": "import vitscope.scope.cds as x\n",
    "from": "from vitscope.scope.cds import score\n",
    "folder from root": "from vitscope import scope\n",
    "the root itself": "from vitscope import __version__\n",
    "stranger": "import vitscope.elsewhere\n",
    "relative": "from ..scope.cds import score\n",
    "relative folder": "from .. import scope\n",
    "in a function": "def f():\n    from vitscope.scope import cds\n",
    "in a method": "class A:\n    async def f(self):\n        import vitscope.scope.cds\n",
    "for types only": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n"
    "    from vitscope.scope.cds import Scores\n",
    "by name": "import importlib\nimportlib.import_module('vitscope.scope.cds')\n",
}


@pytest.mark.parametrize("text", UPWARD.values(), ids=UPWARD.keys())
def test_an_upward_import_is_seen(tmp_path: Path, text: str) -> None:
    package = house(tmp_path, {"images/decode.py": text, "scope/cds.py": ""})
    (fault,) = import_faults(package)
    assert fault.startswith("vitscope.images.decode:")
    assert "which is not below it" in fault


def test_a_downward_or_foreign_import_is_no_fault(tmp_path: Path) -> None:
    package = house(
        tmp_path,
        {
            "images/decode.py": "",
            "scope/views.py": "import vitscope_other\nimport torch.nn\nfrom json import loads\n",
            "scope/cds.py": "from vitscope.images.decode import x\n"
            "from vitscope.scope import views\nfrom . import views\nfrom .views import y\n",
            "__init__.py": "from vitscope.scope.cds import z\n",
        },
    )
    assert import_faults(package) == []
    assert cycle(package) == []


def test_a_folder_without_a_place_is_seen(tmp_path: Path) -> None:
    package = house(tmp_path, {"extras/a.py": ""})
    assert all("has no place in ORDER" in fault for fault in import_faults(package))
    assert len(import_faults(package)) == 2


def test_a_cycle_within_a_folder_is_seen(tmp_path: Path) -> None:
    files = {
        "sae/model.py": "def f():\n    from vitscope.sae.storage import load\n",
        "sae/storage.py": "from vitscope.sae.model import Sae\n",
    }
    assert set(cycle(house(tmp_path, files))) == {"vitscope.sae.model", "vitscope.sae.storage"}


@pytest.mark.parametrize("name", ["utils.py", "sae/helpers.py", "image_utils.py", "common/a.py"])
def test_a_name_that_says_nothing_is_seen(tmp_path: Path, name: str) -> None:
    assert len(name_faults(house(tmp_path, {name: "", "scope/commons.py": ""}))) == 1


@pytest.mark.parametrize(
    "twin", ["def load(): ...", "class load: ...", "load = 1", "load: int = 1"]
)
def test_a_name_of_two_modules_is_seen(tmp_path: Path, twin: str) -> None:
    files = {"sae/model.py": "def load(): ...\ndef _own(): ...\n", "scope/cds.py": f"{twin}\n"}
    files["scope/views.py"] = "from vitscope.sae.model import load\ndef _own(): ...\n"
    package = house(tmp_path, files)
    assert name_twins(package) == {"load": ["vitscope.sae.model", "vitscope.scope.cds"]}


@pytest.mark.parametrize(("lines", "n_faults"), [(MAX_FILE_LINES, 0), (MAX_FILE_LINES + 1, 1)])
def test_a_long_file_is_seen(tmp_path: Path, lines: int, n_faults: int) -> None:
    package = house(tmp_path, {"images/decode.py": "x = 1\n" * lines})
    assert len(length_faults(package)) == n_faults


@pytest.mark.parametrize("extra", [0, 1])
def test_a_long_function_is_seen_and_its_docstring_is_not_counted(
    tmp_path: Path, extra: int
) -> None:
    body = '    """First.\n\n    Long.\n    """\n' + "    x = 1\n" * (
        MAX_FUNCTION_LINES - 1 + extra
    )
    package = house(tmp_path, {"images/decode.py": f"class A:\n  def f(self):\n{body}"})
    assert len(length_faults(package)) == extra


@pytest.mark.parametrize(
    ("text", "n_faults"), [('"""Idea."""\n', 0), ("", 1), ('"""Idea."""\nfrom x import y\n', 1)]
)
def test_an_export_of_a_folder_is_seen(tmp_path: Path, text: str, n_faults: int) -> None:
    package = house(tmp_path, {"images/decode.py": ""})
    (package / "images" / "__init__.py").write_text(text)
    assert len(export_faults(package)) == n_faults
