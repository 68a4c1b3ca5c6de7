"""`vitscope figures`: what it prints, as words and as JSON, and how it ends without a run."""

import json
from pathlib import Path

import pytest
from tests.cli.command_line import CommandLine

from vitscope.stages import figures
from vitscope.stages.figures import FigureOutcome

DRAWN = (
    FigureOutcome("cds", "CDS histogram", (Path("out/cds.pdf"), Path("out/cds.png"))),
    FigureOutcome("shifts", "over shifts", (), "one shift [only]: `vitscope instability`"),
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    calls: list[object] = []

    def write(runs: list[Path], out: Path | None, *, run_code: bool) -> tuple[FigureOutcome, ...]:
        calls.append((runs, out, run_code))
        return DRAWN

    monkeypatch.setattr(figures, "write_figures", write)
    return calls


def test_each_figure_is_told_with_its_reason(vitscope: CommandLine, asked: list[object]) -> None:
    ended = vitscope("figures", "one", "two", "--out", "out")
    assert (ended.code, ended.err) == (0, "")
    assert asked == [([Path("one"), Path("two")], Path("out"), False)]
    first, second = ended.out.splitlines()[:2]
    assert first.startswith("✓") and "CDS histogram" in first
    assert second.startswith("·") and "one shift [only]: `vitscope instability`" in second
    assert ended.out.rstrip().endswith("figures  out")


def test_json_has_files_and_reasons(vitscope: CommandLine, asked: list[object]) -> None:
    ended = vitscope("figures", "one", "--json", "--run-code")
    assert asked == [([Path("one")], None, True)]
    assert json.loads(ended.out) == {
        "figures": {
            "cds": {"files": ["out/cds.pdf", "out/cds.png"], "reason": ""},
            "shifts": {"files": [], "reason": DRAWN[1].reason},
        }
    }


def test_a_folder_without_a_run_is_one_line(vitscope: CommandLine) -> None:
    ended = vitscope("figures", "nowhere")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == (
        "error: nowhere holds no run (no study.toml); give the directory of a run, runs/NAME\n"
    )
