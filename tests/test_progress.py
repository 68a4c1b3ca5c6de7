import re
from collections.abc import Generator
from contextlib import contextmanager

import pytest

from vitscope import progress
from vitscope.progress import Tracker, track


class Clock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress.time, "monotonic", clock)
    return clock


@pytest.fixture(autouse=True)
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)


@contextmanager
def plain(clock: Clock, label: str, total: int, unit: str) -> Generator[Tracker]:
    with track(label, total, unit) as tracker:
        tracker.started = tracker._last_line = clock.now
        yield tracker


def test_plain_lines_off_a_terminal(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with plain(clock, "decode", 100, "images") as tracker:
        for _ in range(10):
            clock.now += 4.0
            tracker.advance(10)
    written = capsys.readouterr().err
    assert written.splitlines() == [
        "decode: 30/100 images, 2.5/s, 28 s left",
        "decode: 60/100 images, 2.5/s, 16 s left",
        "decode: 90/100 images, 2.5/s, 4 s left",
        "decode: 100/100 images, 2.5/s",
    ]
    assert not {"\x1b", "\r"} & set(written), "a log is no place for cursor movements"


def test_short_work_writes_no_line(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with plain(clock, "decode", 2, "images") as tracker:
        clock.now += progress.PLAIN_INTERVAL_S - 0.1
        tracker.advance(2)
    assert capsys.readouterr().err == ""


def test_the_last_line_is_written_once(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with plain(clock, "decode", 2, "images") as tracker:
        clock.now += progress.PLAIN_INTERVAL_S
        tracker.advance(2)
    assert capsys.readouterr().err.splitlines() == ["decode: 2/2 images, 0.2/s"]


def test_work_that_fails_does_not_claim_its_end(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match="broken"), plain(clock, "decode", 3, "images") as tracker:
        clock.now += progress.PLAIN_INTERVAL_S
        tracker.advance(1)
        tracker.advance(1)
        raise ValueError("broken")
    assert capsys.readouterr().err.splitlines() == ["decode: 1/3 images, 0.1/s, 20 s left"]


def test_units_of_an_earlier_process_do_not_enter_the_rate(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with plain(clock, "score", 1000, "pairs") as tracker:
        tracker.skip(900)
        clock.now += 10.0
        tracker.advance(50)
        assert tracker.rate == pytest.approx(5.0)
    assert capsys.readouterr().err.splitlines() == ["score: 950/1000 pairs, 5.0/s, 10 s left"]


def test_notes_and_brackets_are_written_as_they_are(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with plain(clock, "train [sae]", 10, "steps") as tracker:
        tracker.note("loss 0.25 [red]")
        clock.now += 10.0
        tracker.advance(10)
    assert capsys.readouterr().err == "train [sae]: 10/10 steps, 1.0/s, loss 0.25 [red]\n"


def test_a_long_line_is_not_broken(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    with plain(clock, "x" * 300, 1, "images") as tracker:
        clock.now += 10.0
        tracker.advance(1)
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize(
    ("rate", "text"), [(0.25, "0.2"), (9.9, "9.9"), (12.3, "12"), (1500, "1.5k"), (2.5e6, "2.5M")]
)
def test_rates_are_short(
    rate: float, text: str, clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with plain(clock, "decode", 10**9, "tokens") as tracker:
        clock.now += 1000.0
        tracker.advance(round(rate * 1000))
    assert f", {text}/s" in capsys.readouterr().err


def test_results_on_standard_out_are_left_alone(
    clock: Clock, capsys: pytest.CaptureFixture[str]
) -> None:
    with plain(clock, "decode", 1, "images") as tracker:
        clock.now += 10.0
        tracker.advance(1)
    assert capsys.readouterr().out == ""


def test_a_terminal_gets_a_bar_that_goes_away(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with track("decode", 4, "images") as tracker:
        tracker.advance(1)
        tracker.note("12 skipped")
        assert tracker.bar is not None
        tracker.bar.refresh()
        shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capsys.readouterr().err)
        assert "decode" in shown
        assert "1/4" in shown
    assert capsys.readouterr().err.endswith("\x1b[1A\x1b[2K"), (
        "the bar's line is cleared at the end"
    )


def test_units_of_an_earlier_process_do_not_enter_the_rate_of_the_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with track("score", 10**6, "pairs") as tracker:
        assert tracker.bar is not None
        tracker.advance(1)
        tracker.skip(900_000)
        (task,) = tracker.bar.tasks
        assert task.completed == 900_001
        assert task.speed is None, "a jump has no speed"
        assert task.fields["note"] == ""
