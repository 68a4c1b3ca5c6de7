"""``vitscope instability``: Table 9 in one command."""

import json
import tomllib

import pytest
from tests.cli.command_line import QUICK, CommandLine, write_pictures

FEW = "[images]\ntrain = 'pictures'\nworkers = 1\n[outliers]\nimages = 4\n"


@pytest.fixture
def prepared(vitscope: CommandLine) -> CommandLine:
    write_pictures(vitscope.folder / "pictures", 4)
    for verb in ("images", "outliers"):
        assert vitscope(verb, vitscope.write(FEW)).code == 0
    return vitscope


def test_shifts_and_tokens_are_taken_from_the_command(prepared: CommandLine) -> None:
    ended = prepared("instability", "study.toml", "--shifts", "1-3", "--tokens", "2", "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)["stages"]["instability"]
    rows = [row for row in found["rows"] if row["membership"] == found["membership"]]
    assert [row["shift"] for row in rows] == [1] * 3 + [2] * 3 + [3] * 3
    own = {row["reading"]: row for row in rows if row["shift"] == found["shift"]}
    n_heads = own["received"]["other"]["n_maps"] // 4
    assert own["query"]["other"]["n_maps"] == 4 * 2 * n_heads
    resolved = tomllib.loads((prepared.folder / "runs/study/study.toml").read_text())
    assert resolved["instability"]["shifts"] == [1, 2, 3]
    assert resolved["outliers"]["tokens_per_image"] == 2


def test_every_shift_is_printed_with_its_interval(prepared: CommandLine) -> None:
    ended = prepared("instability", "study.toml", "--shifts", "2,4")
    assert ended.code == 0, ended.err
    lines = [line for line in ended.out.splitlines() if "D̄ outlier / other" in line]
    places = [(reading, s) for reading in ("query", "received", "key") for s in (1, 2, 4)]
    assert len(lines) == len(places)
    for line, (reading, shift) in zip(lines, places, strict=True):
        assert f"{reading}, s = {shift} " in line
        assert line.count("[") == 2


def test_what_later_commands_need_is_said(prepared: CommandLine) -> None:
    note = "later commands read study.toml"
    ended = prepared("instability", "study.toml", "--shifts", "1-2", "--tokens", "all")
    assert note in ended.err
    settings = tomllib.loads(ended.err[ended.err.index("[instability]") :])
    assert settings["instability"] == {"shifts": [1, 2]}
    assert settings["outliers"] == {"tokens_per_image": 0}
    refused = prepared("awcds", "study.toml")
    assert (refused.code, "'instability'" in refused.err) == (2, True)
    (prepared.folder / "study.toml").write_text(
        FEW.replace("images = 4\n", "images = 4\ntokens_per_image = 0\n")
        + "[instability]\nshifts = [1, 2]\n"
    )
    again = prepared("instability", "study.toml")
    assert (again.code, again.err.split()[:2]) == (0, ["·", "instability"]), "nothing to redo"
    assert note not in again.err
    assert note not in prepared("instability", "study.toml", "--shifts", "1-2").err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--shifts", "6-1"), "--shifts '6-1': give a range as 1-6, or a list as 1,3,5"),
        (("--shifts", "1-40"), "instability.shifts: 13 leaves no overlap of at least 2×2"),
        (("--tokens", "some"), "--tokens 'some': give a number from 1, or all"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    prepared: CommandLine, arguments: tuple[str, ...], message: str
) -> None:
    ended = prepared("instability", "study.toml", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert message in ended.err
    assert len(ended.err.splitlines()) == 1


def test_the_quick_study_has_its_own_shift_alone(vitscope: CommandLine) -> None:
    write_pictures(vitscope.folder / "pictures", 4)
    study = vitscope.write(QUICK)
    for verb in ("images", "outliers", "instability"):
        ended = vitscope(verb, study)
        assert ended.code == 0, ended.err
    lines = [line for line in ended.out.splitlines() if "D̄ outlier / other" in line]
    assert len(lines) == 3
    assert all("s =" not in line and "patches" in line for line in lines)
