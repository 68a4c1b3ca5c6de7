"""The verbs about SAEs: training several, streaming, comparing."""

import json
from pathlib import Path

from tests.cli.command_line import QUICK, CommandLine, write_pictures

SWEEP = "\n[sae.sweep]\nseed = [0, 1]\nk = [2, 3]\n"


def test_a_sweep_trains_every_combination_and_tells_of_each(vitscope: CommandLine) -> None:
    write_pictures(vitscope.folder / "pictures", 6)
    study = vitscope.write(QUICK + SWEEP)
    ended = vitscope("train", study, "--sweep", "--json")
    assert ended.code == 0, ended.err
    found = json.loads(ended.out)
    assert len(found["saes"]) == 4
    folders = sorted(path.name for path in (Path(found["run"]) / "sweep").iterdir())
    assert folders == sorted(row["name"] for row in found["saes"])
    again = vitscope("train", study, "--sweep")
    assert again.code == 0 and "· sweep" in again.err
    assert all(name in again.out for name in folders)


def test_saes_of_a_sweep_are_compared(vitscope: CommandLine) -> None:
    write_pictures(vitscope.folder / "pictures", 6)
    study = vitscope.write(QUICK + "\n[sae.sweep]\nseed = [0, 1]\n")
    run = Path(json.loads(vitscope("train", study, "--sweep", "--json").out)["run"])
    one, other = (str(path) for path in sorted((run / "sweep").iterdir()))
    same = json.loads(vitscope("compare", one, one, "--json").out)
    assert same["recovered_in_all"] == 1.0
    assert same["pairs"][0]["cds_correlation"] is None
    ended = vitscope("compare", one, other)
    assert ended.code == 0 and "features of the first that all others have" in ended.out


def test_without_a_cache_no_token_is_kept(vitscope: CommandLine) -> None:
    write_pictures(vitscope.folder / "pictures", 6)
    study = vitscope.write(QUICK)
    assert vitscope("images", study).code == 0
    ended = vitscope("train", study, "--no-cache")
    assert ended.code == 0, ended.err
    assert not list((vitscope.folder / "runs/study").rglob("activations/*.safetensors"))
    assert (vitscope.folder / "runs/study/sae/sae.safetensors").is_file()


def test_nothing_to_sweep_and_nothing_to_compare_are_one_line(vitscope: CommandLine) -> None:
    write_pictures(vitscope.folder / "pictures", 2)
    study = vitscope.write(QUICK)
    for command, says in (
        (("train", study, "--sweep"), "there is nothing to sweep; set lists under [sae.sweep]"),
        (("compare", "one"), "compare needs two SAEs or more"),
        (("compare", "one", "other"), "one holds no SAE: it does not exist"),
    ):
        ended = vitscope(*command)
        assert ended.code == 2, ended.err
        assert says in ended.err.splitlines()[-1] and "Traceback" not in ended.err
