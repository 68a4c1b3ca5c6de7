"""MATLAB files are read in a process of their own: whatever it dies of is one line of error."""

import io
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import scipy.io

from vitscope.errors import ImageSetError
from vitscope.images import matlab
from vitscope.images.matlab import read_matlab

DOUBLES = np.array([[1.5], [2.5]])


def saved(**values: object) -> bytearray:
    file = io.BytesIO()
    scipy.io.savemat(file, values)
    return bytearray(file.getvalue())


def with_unknown_type() -> bytes:
    """The numbers of a file, stated to be of a type that there is not."""
    content = saved(a=DOUBLES)
    tag = content.index(DOUBLES.tobytes()) - 8
    content[tag : tag + 4] = (8).to_bytes(4, "little")
    return bytes(content)


def without_its_text(rows: int, columns: int) -> bytes:
    """A text of that many letters, none of which are there."""
    content = saved(a="x")
    shape = np.array([1, 1], "<i4").tobytes()
    place = content.index(shape)
    content[place : place + 8] = np.array([rows, columns], "<i4").tobytes()
    return bytes(content[:-8] + bytes(8))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "set.mat"
    path.write_bytes(saved(a=DOUBLES))
    return path


def refused(path: Path, name: str = "a") -> str:
    with pytest.raises(ImageSetError) as error:
        read_matlab(path, (name,), "a list")
    said = str(error.value)
    assert said.startswith(f"cannot read a list from {path}: ") and "\n" not in said
    assert said.endswith("; take the file from its data set's own page")
    return said


def test_variables_and_fields_come_back_as_flat_lists(tmp_path: Path) -> None:
    kind = [("n", "O"), ("text", "O")]
    rows = np.array([(3, "three"), (4, "four")], dtype=kind)[:, None]
    values = {"a": np.array([[2], [4]], np.uint16), "rows": rows, "one": rows[:1]}
    asked = ("rows.text", "a", "rows.n", "one.text")
    scipy.io.savemat(tmp_path / "set.mat", values, do_compression=True)
    found = read_matlab(tmp_path / "set.mat", asked, "all")
    assert found == (["three", "four"], [2, 4], [3, 4], ["three"])
    scipy.io.savemat(tmp_path / "four.mat", {"a": DOUBLES}, format="4")
    assert read_matlab(tmp_path / "four.mat", ("a",), "all") == ([1.5, 2.5],)


def test_what_is_not_there_is_said(tmp_path: Path, file: Path) -> None:
    assert "it lacks b;" in refused(file, "b")
    assert "it lacks a.n;" in refused(file, "a.n")
    assert "no such file" in refused(tmp_path / "none.mat")
    assert "no such file" in refused(tmp_path)
    file.write_bytes(saved(a=DOUBLES + 1j))
    assert "a is no list of numbers or text" in refused(file)


def test_a_file_that_crashes_scipy_is_one_line(file: Path) -> None:
    file.write_bytes(with_unknown_type())
    # where SciPy has learnt to refuse it, it says that it does not know the type
    assert "crashed on it (signal 11)" in (said := refused(file)) or "type" in said


def test_a_few_bytes_that_unfold_are_bounded(file: Path) -> None:
    file.write_bytes(without_its_text(60_000, 60_000))
    assert file.stat().st_size < 300
    assert "MemoryError" in refused(file)


def test_a_large_file_is_not_read(file: Path) -> None:
    with file.open("r+b") as opened:
        opened.truncate(matlab.MOST_BYTES + 1)
    assert "more than 16 MB" in refused(file)


READERS = {
    "os.abort()": r"crashed on it \(signal 6\)",
    "os._exit(3)": r"ended with code 3",
    "bytearray(1 << 40)": "MemoryError",
    "time.sleep(60)": "had not read it after 4 s;",
    "while True: pass": "had not read it after 1 s of work",
    "os.write(os.open(os.environ['MARK'], os.O_WRONLY | os.O_CREAT), b'x')": "File too large",
    "raise ValueError('two\\nlines')": "ValueError: two lines;",
    "return {'a': np.array(['x' * (17 << 20)])}": "unfolds to more than 16 MB",
    "return {'a': np.array([{}])}": "no list of numbers or text",
}
"""What a reader may do -> what is said of it."""


def stand_in(folder: Path, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A SciPy whose reader does something else."""
    package = folder / "scipy" / "io"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").touch()
    (package / "__init__.py").touch()
    imports = "import os, sys, time\nimport numpy as np\n"
    source = f"{imports}def loadmat(*args, **options):\n    {body}\n    return {{'a': [0]}}\n"
    (package / "matlab.py").write_text(source)
    monkeypatch.syspath_prepend(folder)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems bound less")
@pytest.mark.parametrize("body", READERS)
def test_whatever_the_reader_does(
    body: str, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_in(tmp_path / "path", body, monkeypatch)
    monkeypatch.setenv("MARK", str(tmp_path / "mark"))
    monkeypatch.setattr(matlab, "MOST_WORK_S", 1)
    if "sleep" in body:
        monkeypatch.setattr(matlab, "MOST_TIME_S", 4)
    with pytest.raises(ImageSetError, match=READERS[body]):
        read_matlab(file, ("a",), "a list")
    assert not (tmp_path / "mark").exists() or not (tmp_path / "mark").read_text()


def test_the_child_needs_no_torch_and_takes_nothing_from_the_working_folder(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heavy = "('torch', 'timm', 'PIL', 'pydantic')"
    stand_in(
        tmp_path / "path",
        f"return {{'a': np.array([name in sys.modules for name in {heavy}])}}",
        monkeypatch,
    )
    (tmp_path / "numpy.py").write_text(f"open({str(tmp_path / 'mark')!r}, 'w')")
    monkeypatch.chdir(tmp_path)
    assert read_matlab(file, ("a",), "a list") == ([False] * 4,)
    assert not (tmp_path / "mark").exists()


def test_threads_ranks_and_spawned_processes_read(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"}.items():
        monkeypatch.setenv(name, value)
    with ThreadPoolExecutor(3) as threads:
        asked = [threads.submit(read_matlab, file, ("a",), "a list") for _ in range(3)]
        assert [one.result() for one in asked] == [([1.5, 2.5],)] * 3
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as spawned:
        assert spawned.submit(read_matlab, file, ("a",), "a list").result() == ([1.5, 2.5],)


def test_a_program_without_an_interpreter_beside_it_says_so(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert "takes a Python interpreter" in refused(file)
