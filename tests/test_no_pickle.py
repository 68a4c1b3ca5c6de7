"""Nothing in the package unpickles, evaluates or loads code from data; hostile files are elsewhere.

``tests/fuzz/test_bombs.py`` and ``tests/sae/formats/test_formats_refusals.py`` hand them in.
"""

import ast
from pathlib import Path

import pytest

import vitscope

PACKAGE = Path(str(vitscope.__file__)).parent
SOURCES = sorted(PACKAGE.rglob("*.py"))

UNPICKLERS = frozenset(
    ["pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"]
)

RESTRICTED = {"backbones/weights/torchscript.py": {"pickle"}}
"""An Unpickler that knows a dozen harmless names and refuses every other."""

RUNS_CODE = {
    "backbones/user_model.py": {"exec_module"},
}
"""A backbone of the user's own is Python code, named in the study, and executed as such."""


def faults(source: str) -> set[str]:
    """What a source does that would run what a file holds."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=names):
                found |= {n.name for n in names if n.name.split(".")[0] in UNPICKLERS}
            case ast.ImportFrom(module=str(module)) if module.split(".")[0] in UNPICKLERS:
                found.add(module)
            case ast.Call(func=ast.Name(id="eval" | "exec" | "compile" as name)):
                found.add(name)
            case ast.Call(func=ast.Attribute(attr="exec_module" | "loads_pickle" as name)):
                found.add(name)
            case ast.Call(func=ast.Attribute(attr="load" | "read_pickle" as name) as function):
                found |= _unsafe_load(name, ast.unparse(function), node)
            case ast.keyword(arg="allow_pickle" | "shell" | "trust_remote_code", value=value):
                if not (isinstance(value, ast.Constant) and value.value is False):
                    found.add(f"{node.arg}={ast.unparse(value)}")
            case _:
                pass
    return found


def _unsafe_load(name: str, function: str, call: ast.Call) -> set[str]:
    given = {key.arg: key.value for key in call.keywords}
    weights_only = given.get("weights_only")
    is_safe = isinstance(weights_only, ast.Constant) and weights_only.value is True
    is_torch = function in ("torch.load", "torch.jit.load") and not is_safe
    return {function} if is_torch or name == "read_pickle" else set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_nothing_runs_what_a_file_holds(path: Path) -> None:
    name = path.relative_to(PACKAGE).as_posix()
    allowed = RESTRICTED.get(name, set()) | RUNS_CODE.get(name, set())
    assert faults(path.read_text(encoding="utf-8")) == allowed


@pytest.mark.parametrize(
    "source",
    [
        "import pickle", "from pickle import loads", "import yaml", "torch.load(f)", "eval(x)",
        "torch.load(f, weights_only=False)", "np.load(f, allow_pickle=True)", "exec(x)",
        "torch.jit.load(f)", "pd.read_pickle(f)", "run(x, shell=True)", "import joblib",
        "spec.loader.exec_module(module)", "f(trust_remote_code=True)",
    ],
)  # fmt: skip
def test_the_test_sees(source: str) -> None:
    assert faults(source)


@pytest.mark.parametrize("source", ["torch.load(f, weights_only=True)", "json.load(f)"])
def test_the_test_lets_pass(source: str) -> None:
    assert not faults(source)
