"""What is redone when something changes, and nothing else."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.stages.run_contents import run_contents
from tests.stages.small_study import small_study

from vitscope.errors import ArtifactError, ConfigError, SaeError
from vitscope.images.verify import read_image_table
from vitscope.pipeline import chosen_stages, run_study
from vitscope.sae.storage import load_saved_sae, save_sae
from vitscope.store.run_directory import RunDirectory
from vitscope.study import Study

EVERY = [stage.name for stage in chosen_stages(small_study(Path()))]
"""Without probes, as their images are not named."""


def redone(study: Study, run: RunDirectory) -> list[str]:
    outcomes = run_study(study, run.root)
    assert list(outcomes) == EVERY
    return [name for name, outcome in outcomes.items() if not outcome.skipped]


def after(first: str, *left_out: str) -> list[str]:
    return [name for name in EVERY[EVERY.index(first) :] if name not in left_out]


def test_an_unchanged_study_is_skipped_whole(copied: RunDirectory, pictures: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in copied.root.rglob("*.parquet")}
    assert redone(small_study(pictures), copied) == []
    assert {p: p.stat().st_mtime_ns for p in copied.root.rglob("*.parquet")} == before


def change(expected: list[str], *, slow: bool = False, **settings: Any) -> Any:
    marks = [pytest.mark.slow] if slow else []
    return pytest.param(settings, expected, id=str(settings), marks=marks)


CUT = ["partition", "stability", "gallery", "awcds", "report"]
"""A partition, and what reads it."""

CHANGES = [
    change(CUT, scope={"gamma": 0.3}),
    change(
        ["partition", "stability", "gallery", "awcds", "report"],
        scope={"missing": "drop"},
        slow=True,
    ),
    change(
        ["evaluate", "score", *CUT],
        scope={"top_images": 5},
    ),
    change(
        ["score", *CUT],
        scope={"null_draws": 0},
        slow=True,
    ),
    change(
        ["score", *CUT[:-2], "instability", *CUT[-2:]],
        scope={"shift": 2},
    ),
    change(["backbone", *after("extract")], scope={"resize": "stretch"}, slow=True),
    change(after("train", "outliers", "instability"), sae={"steps": 50}, slow=True),
    change(
        after("extract", "outliers", "instability"),
        activations={"tokens_per_image": 100},
        slow=True,
    ),
    change(after("outliers"), outliers={"tau": 10.0}, slow=True),
    change(["instability", "report"], outliers={"membership": "both"}),
    change(["report"], outliers={"attention": "key"}),
    change(["instability", "report"], instability={"shifts": [2]}),
    change([], instability={"shifts": [1]}),
    change(["awcds", "report"], awcds={"bins": 5}),
    change(["report"], note="look again"),
    change(after("images"), images={"train_limit": 30}),
    change(EVERY, seed=4, slow=True),
    change([], images={"workers": 2}, backbone={"batch_size": 7}),
    change([], sae={"checkpoint_every": 7}),
]


@pytest.mark.parametrize(("settings", "expected"), CHANGES)
def test_a_changed_setting_redoes_what_depends_on_it(
    copied: RunDirectory, pictures: Path, settings: dict[str, Any], expected: list[str]
) -> None:
    study = small_study(pictures, **settings)
    assert redone(study, copied) == expected
    assert redone(study, copied) == []


def test_pictures_that_change_are_touched_or_move(
    copied: RunDirectory, pictures: Path, tmp_path: Path
) -> None:
    stages_all = ["images", "extract", "train", "outliers"]

    def redone_with(folder: Path) -> list[str]:
        outcomes = run_study(small_study(folder), copied.root, only=stages_all)
        return [name for name, outcome in outcomes.items() if not outcome.skipped]

    own = Path(shutil.copytree(pictures, tmp_path / "own"))
    first, second = sorted(own.iterdir())[:2]
    assert redone_with(own) == stages_all, "they lie elsewhere"
    assert redone_with(own) == []
    os.utime(first, (1, 1))
    assert redone_with(own) == ["images"], "looked at anew, and found the same"
    first.write_bytes(second.read_bytes())
    assert redone_with(own) == stages_all
    # same ids, sizes and times: only the place tells, and the table of images leads there
    moved = own.rename(tmp_path / "moved")
    assert redone_with(moved) == stages_all
    first_row = read_image_table(copied.images("train")).usable[0]
    assert first_row.path.is_relative_to(moved)


OUTPUTS = {
    "images": "images/train.parquet",
    "extract": "activations/part-000000.safetensors",
    "train": "sae/sae.safetensors",
    "outliers": "tables/norm_histogram.parquet",
    "evaluate": "exemplars.parquet",
    "score": "pairs.parquet",
    "partition": "features.parquet",
    "gallery": "tables/gallery.parquet",
    "instability": "outliers.parquet",
    "awcds": "tables/awcds.parquet",
    "report": "report.html",
}


@pytest.mark.parametrize("damage", ["delete", "corrupt"])
def test_a_lost_or_damaged_output_is_made_again_and_nothing_else(
    copied: RunDirectory, pictures: Path, damage: str
) -> None:
    for stage, name in OUTPUTS.items():
        path = copied.root / name
        whole = path.read_bytes()
        if damage == "delete":
            path.unlink()
        else:
            middle = len(whole) // 2
            path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        assert redone(small_study(pictures), copied) == [stage]
        assert stage == "report" or path.read_bytes() == whole, f"{name} came out differently"


@pytest.mark.parametrize(
    ("stage", "needed"),
    [
        ("extract", "images"), ("train", "extract"), ("outliers", "images"),
        ("evaluate", "train"), ("score", "train"), ("partition", "train"),
        ("instability", "outliers"), ("awcds", "train"), ("report", "train"),
    ],
)  # fmt: skip
def test_a_stage_alone_says_what_must_run_before(
    pictures: Path, tmp_path: Path, stage: str, needed: str
) -> None:
    study = small_study(pictures)
    with pytest.raises(ArtifactError, match=r"stage '\w+' has not finished in .*empty; run"):
        run_study(study, tmp_path / "empty", only=[stage])
    run_study(study, tmp_path / "one", only=["images"])
    if needed != "images":
        with pytest.raises(
            ArtifactError,
            match=rf"stage '{needed}' has not finished in .*one; run `vitscope run .*one`, or "
            rf"`vitscope {needed} .*one` first",
        ):
            run_study(study, tmp_path / "one", only=[stage])


def test_stages_one_by_one_are_the_whole(
    finished: RunDirectory, pictures: Path, tmp_path: Path
) -> None:
    study = small_study(pictures)
    for stage in EVERY:
        outcomes = run_study(study, tmp_path, only=[stage])
        # the backbone is described where another stage needs it; asked for alone, it stands by now
        skipped = stage == "backbone"
        assert [(n, o.skipped) for n, o in outcomes.items()] == [(stage, skipped)]
    assert run_contents(RunDirectory(tmp_path)) == run_contents(finished)


def test_a_stage_that_does_not_exist_is_refused(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no stage 'evalaute'; stages: .*evaluate"):
        run_study(small_study(pictures), tmp_path, only=["evalaute"])


def test_an_sae_of_another_width_or_site_is_refused(
    finished: RunDirectory, pictures: Path, tmp_path: Path
) -> None:
    sae = load_saved_sae(finished.sae)
    narrow = replace(sae, w_enc=sae.w_enc[:100], w_dec=sae.w_dec[:, :100], b_dec=sae.b_dec[:100])
    save_sae(tmp_path / "narrow", replace(narrow, site=None))
    with pytest.raises(SaeError, match="takes activations of width 100, but planted gives width"):
        run_study(small_study(pictures, sae={"path": tmp_path / "narrow"}), tmp_path / "run")
    assert sae.site is not None
    save_sae(tmp_path / "other", replace(sae, site=replace(sae.site, layer=7)))
    with pytest.raises(SaeError, match="trained on layer 7, but the study reads layer 1"):
        run_study(small_study(pictures, sae={"path": tmp_path / "other"}), tmp_path / "run")


def test_another_given_sae_is_taken_in_anew(
    copied: RunDirectory, pictures: Path, tmp_path: Path
) -> None:
    own = tmp_path / "own"
    sae = load_saved_sae(copied.sae)
    save_sae(own, sae)
    study = small_study(pictures, sae={"path": own})
    run_study(study, copied.root)
    save_sae(own, replace(sae, w_enc=sae.w_enc * 1.5, b_enc=sae.b_enc * 1.5))
    outcomes = run_study(study, copied.root, only=["train", "evaluate"])
    assert not outcomes["train"].skipped
    assert not outcomes["evaluate"].skipped
    torch.testing.assert_close(load_saved_sae(copied.sae).w_enc, sae.w_enc * 1.5)


def test_a_stage_alone_refuses_to_build_on_what_is_out_of_date(
    copied: RunDirectory, pictures: Path
) -> None:
    study = small_study(pictures)
    changed = study.model_copy(
        update={"scope": study.scope.model_copy(update={"top_images": study.scope.top_images + 1})}
    )
    before = copied.stamp("evaluate").read_bytes()
    with pytest.raises(ArtifactError, match=r"stage 'evaluate' .* other settings or inputs"):
        run_study(changed, copied.root, only=["score"])
    assert copied.stamp("evaluate").read_bytes() == before, "what stood still stands"
