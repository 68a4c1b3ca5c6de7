"""`vitscope explore`: what it refuses before anything is served, and that it serves."""

import re
import signal
import subprocess
import sys
from urllib.request import urlopen

from tests.cli.command_line import QUICK, CommandLine, write_pictures

from vitscope.store.run_directory import RunDirectory


def test_what_cannot_be_served_is_said_in_one_line(vitscope: CommandLine) -> None:
    for arguments, said in (
        (["nowhere"], "is no run directory: it has no study.toml"),
        (["a", "b", "c"], "3 runs given"),
        (["a", "--host", "0.0.0.0"], "--allow-host NAME"),
    ):
        called = vitscope("explore", *arguments, "--no-browser")
        assert (called.code, called.out) == (2, "")
        assert said in called.err.replace("\n", " ")
        assert "Traceback" not in called.err


def test_an_unfinished_run_says_which_stage_is_missing(vitscope: CommandLine) -> None:
    write_pictures(vitscope.folder / "pictures", 6)
    assert vitscope("images", vitscope.write(QUICK), "--out", "run").code == 0
    called = vitscope("explore", "run", "--no-browser")
    assert called.code == 2
    assert "stage 'train' has not finished" in called.err


def test_a_run_is_served_until_interrupted_and_a_taken_port_refused(
    vitscope: CommandLine, finished: RunDirectory
) -> None:
    run = str(finished.root)
    command = [sys.executable, "-m", "vitscope", "explore", run, "--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as it:
        try:
            assert it.stdout is not None
            address = re.search(r"http://127\.0\.0\.1:(\d+)/", it.stdout.readline())
            assert address is not None
            # who asks before the server is up waits
            assert b"<title>" in urlopen(f"{address[0]}a/", timeout=60).read()
            called = vitscope("explore", run, "--port", address[1], "--no-browser")
            it.send_signal(signal.SIGINT)
            it.communicate(timeout=60)
        finally:
            it.kill()
    assert it.returncode == 0
    assert called.code == 2
    assert f"cannot listen on 127.0.0.1 port {address[1]}" in called.err.replace("\n", " ")


def test_a_host_that_is_not_of_this_machine_is_refused(
    vitscope: CommandLine, finished: RunDirectory
) -> None:
    named = ["--host", "192.0.2.1", "--allow-host", "box"]
    called = vitscope("explore", str(finished.root), *named, "--no-browser")
    assert called.code == 2
    assert "cannot listen on 192.0.2.1" in called.err
