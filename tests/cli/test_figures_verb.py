"""`vitscope figures`: what it prints, as words and as JSON, and how it ends without a run."""

import json
from pathlib import Path

import pytest
from tests.cli.command_line import CommandLine

from vitscope import run as runs
from vitscope.figures import catalogue as figures
from vitscope.figures.catalogue import FigureOutcome

DRAWN = (
    FigureOutcome("cds", "CDS histogram", (Path("out/cds.pdf"), Path("out/cds.png"))),
    FigureOutcome("shifts", "over shifts", (), "one shift [only]: `vitscope instability`"),
)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    calls: list[object] = []

    def write(opened: list[Path], out: Path | None) -> tuple[FigureOutcome, ...]:
        calls.append((opened, out))
        return DRAWN

    monkeypatch.setattr(figures, "write_figures", write)
    monkeypatch.setattr(runs, "Run", lambda folder: folder)
    return calls


def test_each_figure_is_told_with_its_reason(vitscope: CommandLine, asked: list[object]) -> None:
    ended = vitscope("figures", "one", "two", "--out", "out")
    assert (ended.code, ended.err) == (0, "")
    assert asked == [([Path("one"), Path("two")], Path("out"))]
    first, second = ended.out.splitlines()[:2]
    assert first.startswith("✓") and "CDS histogram" in first
    assert second.startswith("·") and "one shift [only]: `vitscope instability`" in second
    assert ended.out.rstrip().endswith("figures  out")


def test_json_has_files_and_reasons(vitscope: CommandLine, asked: list[object]) -> None:
    ended = vitscope("figures", "one", "--json")
    assert asked == [([Path("one")], None)]
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
        "error: nowhere is no run directory: it has no study.toml; give the --out of `vitscope "
        "run`, or runs/demo after `vitscope demo`\n"
    )
