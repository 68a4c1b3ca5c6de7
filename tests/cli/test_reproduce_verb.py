"""``vitscope reproduce`` as typed, and every command that its page shows."""

import json
import re
import shlex
from pathlib import Path

import pytest
from tests.cli.command_line import CommandLine

from vitscope.backbones.zoo import PAPER_ZOO
from vitscope.paper.targets import TARGETS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "reproduction.md"
SHOWN = [
    line
    for block in re.findall(r"^```\n(.*?)^```", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    for line in block.splitlines()
]


def test_the_page_shows_commands() -> None:
    assert len(SHOWN) >= 10
    assert all(line.startswith("vitscope reproduce") for line in SHOWN)


@pytest.mark.parametrize("line", SHOWN)
def test_every_command_shown_can_be_planned(vitscope: CommandLine, line: str) -> None:
    _, *arguments = shlex.split(line)
    (vitscope.folder / "examples").symlink_to(ROOT / "examples")
    if "--plan" not in arguments and "--list" not in arguments:
        arguments.append("--plan")
    called = vitscope(*arguments)
    assert called.code == 0, called.err
    assert "hours" in called.out


def test_what_each_target_needs_is_listed(vitscope: CommandLine) -> None:
    listed = json.loads(vitscope("reproduce", "--list", "--json").out)
    assert set(listed) == set(TARGETS)
    assert listed["table7"]["data"] == "ImageNet-1K validation"
    assert float(listed["table6"]["GPU hours"]) > float(listed["table7"]["GPU hours"]) > 0


def test_a_faster_machine_is_cheaper(vitscope: CommandLine) -> None:
    slow, fast = (
        json.loads(vitscope("reproduce", "table4", "--plan", "--json", "--tflops", tflops).out)[
            "runs"
        ]
        for tflops in ("1", "100")
    )
    assert len(slow) == 3
    assert all(float(a["GPU h"]) > float(b["GPU h"]) for a, b in zip(slow, fast, strict=True))


def test_studies_are_written(vitscope: CommandLine) -> None:
    assert vitscope("reproduce", "--studies", "here").code == 0
    assert {path.stem for path in (vitscope.folder / "here").iterdir()} == set(PAPER_ZOO)


def test_a_target_is_made_and_told(vitscope: CommandLine) -> None:
    arguments = ["reproduce", "table5", "--model", "scenes-vit", "--limit", "8", "--no-readings"]
    called = vitscope(*arguments)
    assert called.code == 0, called.err
    assert "reproduction.html" in called.out.replace("\n", "")
    told = json.loads(vitscope(*arguments, "--json").out)
    assert {row["quantity"] for row in told["numbers"]} == {"layer", "tau"}
    assert Path(told["page"]).is_file()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no target given"),
        (["table1"], "no target 'table1'"),
        (["table7", "--model", "dino"], "unknown backbone 'dino'"),
        (["table7", "--assume", "attention"], "KEY=VALUE"),
        (["table7", "--assume", "attention=red"], "attention"),
        (["table7", "--weights", "w.pth"], "of one model"),
        (["table7", "--study", "s.toml", "--model", "planted"], "leave the other options out"),
        (["table7", "--study", "s.toml"], "s.toml does not exist"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(
    vitscope: CommandLine, arguments: list[str], said: str
) -> None:
    called = vitscope("reproduce", *arguments, "--plan")
    assert called.code == 2
    assert said in called.err
    assert len(called.err.strip().splitlines()) == 1
