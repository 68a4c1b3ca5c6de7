import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from vitscope.errors import ArtifactError
from vitscope.store.atomic import (
    atomic_path,
    discard_temporaries,
    read_json,
    write_json,
    write_text,
)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_writer_that_succeeds_leaves_the_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "folder" / "a.txt", "größe\n")
    assert (tmp_path / "new" / "folder" / "a.txt").read_bytes() == "größe\n".encode()
    assert names(tmp_path / "new" / "folder") == ["a.txt"]


@pytest.mark.parametrize("raised", [ValueError("broken"), KeyboardInterrupt(), SystemExit(3)])
def test_a_writer_that_raises_leaves_neither_file_nor_temporary(
    tmp_path: Path, raised: BaseException
) -> None:
    with pytest.raises(type(raised)), atomic_path(tmp_path / "a.bin") as temporary:
        temporary.write_bytes(b"half of it")
        raise raised
    assert names(tmp_path) == []


def test_a_writer_that_raises_leaves_the_earlier_file_as_it_was(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with pytest.raises(ValueError, match="broken"), atomic_path(tmp_path / "a.txt") as temporary:
        temporary.write_text("new")
        raise ValueError("broken")
    assert (tmp_path / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["a.txt"]


def test_the_final_name_appears_only_when_the_writer_is_done(tmp_path: Path) -> None:
    final = tmp_path / "a.txt"
    with atomic_path(final) as temporary:
        temporary.write_text("half")
        assert not final.exists()
        temporary.write_text("whole")
    assert final.read_text() == "whole"


def test_a_reader_of_the_earlier_file_never_sees_the_new_one(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "old")
    with (tmp_path / "a.txt").open() as reader:
        write_text(tmp_path / "a.txt", "new")
        assert reader.read() == "old", "replaced, not overwritten in place"
    assert (tmp_path / "a.txt").read_text() == "new"


def test_a_written_file_is_readable_by_others(tmp_path: Path) -> None:
    write_text(tmp_path / "a.txt", "x")
    assert (tmp_path / "a.txt").stat().st_mode & 0o777 == 0o644


def test_a_folder_that_cannot_be_written_is_a_user_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(ArtifactError, match=r"cannot write .*file/a\.txt"):
        write_text(tmp_path / "file" / "a.txt", "x")


def test_a_full_disk_is_a_user_error_that_names_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(ArtifactError, match=r"cannot write .*a\.bin: No space left on device"),
        atomic_path(tmp_path / "a.bin") as temporary,
    ):
        temporary.write_bytes(b"half")
        raise OSError(28, os.strerror(28))
    assert names(tmp_path) == []


def test_a_killed_writer_leaves_a_temporary_that_is_found_and_removed(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys; from pathlib import Path\n"
        "from vitscope.store.atomic import atomic_path\n"
        "with atomic_path(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path / "a.bin")], check=False)
    assert done.returncode == -signal.SIGKILL
    (tmp_path / ".mine.tmp").write_text("a user's own")
    assert len(names(tmp_path)) == 2
    discard_temporaries(tmp_path)
    assert names(tmp_path) == [".mine.tmp"]
    discard_temporaries(tmp_path / "absent")


def test_json_writes_nan_as_null_at_any_depth(tmp_path: Path) -> None:
    nan = float("nan")
    write_json(tmp_path / "a.json", {"τ": 1.5, "nan": nan, "deep": [{"x": (nan, 2)}], "n": None})
    expected = {"τ": 1.5, "nan": None, "deep": [{"x": [None, 2]}], "n": None}
    assert json.loads((tmp_path / "a.json").read_text()) == expected
    assert read_json(tmp_path / "a.json") == expected


def test_json_refuses_infinity_and_keeps_the_earlier_file(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"τ": 1.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", {"τ": float("inf")})
    assert read_json(tmp_path / "a.json") == {"τ": 1.5}
    assert names(tmp_path) == ["a.json"]


@pytest.mark.parametrize("content", [b"{", b"", b"\xff\xfe"])
def test_damaged_json_is_a_user_error_that_says_what_to_do(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(ArtifactError, match=r"a\.json is damaged.*delete it and run again"):
        read_json(tmp_path / "a.json")


def test_missing_json_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match=r"a\.json does not exist"):
        read_json(tmp_path / "a.json")
