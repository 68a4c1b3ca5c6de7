"""Probes and zero-shot within a run: what they leave, what is redone, and killed runs."""

import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.stages.interrupted_runs import SMALL_CHUNK, Job, run_jobs
from tests.stages.probe_study import BEFORE, probe_study
from tests.stages.run_contents import run_contents

from vitscope.errors import ConfigError, ImageSetError
from vitscope.pipeline import run_study
from vitscope.probes.features import FeatureCache
from vitscope.probes.labelled_images import LabelledScenes
from vitscope.run import Run
from vitscope.sae.quality import FeatureActivity
from vitscope.sae.storage import load_saved_sae
from vitscope.stages.probe import ProbesResult
from vitscope.stages.probe_plan import plan_lines, plan_notes, plan_probes
from vitscope.store.run_directory import RunDirectory
from vitscope.store.tables import read_metadata, read_table
from vitscope.study import Study, dump_study

TASKS = ("classification", "segmentation", "depth")


def probes_of(run: RunDirectory) -> ProbesResult:
    return Run(run.root).probes


def test_groups_are_those_of_the_partition_and_controls_match_them(probed: RunDirectory) -> None:
    found, features = probes_of(probed).removed, read_table(probed.features)
    energy, rate = features["energy"], features["rate"]
    groups = {row.variant: row for row in found.groups}
    for of in ("high", "low"):
        mask = features["group"] == of
        row = groups[f"{of}-removed"]
        assert row.n_features == mask.sum() > 0
        assert row.energy_share == pytest.approx(energy[mask].sum() / energy.sum())
        assert row.rate_share == pytest.approx(rate[mask].sum() / rate.sum())
    drawn = {row.variant: row for row in found.controls}
    assert set(drawn) == {"random-high-0", "random-low-0"}
    for name, row in drawn.items():
        assert (name in groups) is row.is_matched
        if row.is_matched:
            own = groups[f"{row.of}-removed"]
            assert groups[name].energy_share == pytest.approx(own.energy_share, rel=0.2)
        else:
            assert row.message.startswith("no matched control exists")
    assert any(row.is_matched for row in drawn.values()), "one kind of control is tested"
    assert not all(row.is_matched for row in drawn.values()), "and so is its absence"
    np.testing.assert_allclose(rate, features["density"])


def test_every_head_has_its_row_and_the_summary_follows_from_them(probed: RunDirectory) -> None:
    rows, found = read_table(probed.root / "probes.parquet"), probes_of(probed)
    variants = ["original", *(row.variant for row in found.removed.groups)]
    assert len(rows["value"]) == 3 * len(variants) * 2
    assert [task.task for task in found.tasks] == list(TASKS)
    for task in found.tasks:
        assert [one.variant for one in task.variants] == variants
        for one in task.variants:
            mine = (rows["task"] == task.task) & (rows["variant"] == one.variant)
            best = np.max if task.higher_is_better else np.min
            assert one.mean == pytest.approx(best(rows["value"][mine & ~rows["diverged"]]))
    stamp = Run(probed.root).stamp("probe")
    assert stamp.fingerprint == read_metadata(probed.root / "probes.parquet")["fingerprint"]


def test_predictions_of_every_image_add_up_to_the_summary(probed: RunDirectory) -> None:
    rows, found = read_table(probed.root / "predictions.parquet"), Run(probed.root).zeroshot
    images = LabelledScenes("classification", 0, 20, seed=4, side=88)
    original = rows["predicted"][rows["variant"] == "original"]
    for one in found.variants:
        mine = rows["variant"] == one.variant
        assert list(rows["image_id"][mine]) == list(images.ids)
        right = rows["predicted"][mine] == rows["label"][mine]
        assert one.top1 == pytest.approx(right.mean())
        assert one.flips == (rows["predicted"][mine] != original).sum()
    assert found.variants[0].top1 > 0.8, "scenes-vit knows its places by their names"
    flips = read_table(probed.table("flips"))
    for one in found.variants:
        assert flips["n_flips"][flips["variant"] == one.variant].sum() == one.flips


def test_energy_is_summed_over_all_tokens_in_parts(probed: RunDirectory) -> None:
    import vitscope as vs

    backbone, sae = vs.load_backbone("scenes-vit"), load_saved_sae(probed.sae)
    images = LabelledScenes("classification", 0, 24, seed=1, side=88)
    sums = FeatureActivity(sae.n_features)
    from torch import stack

    from vitscope.images.loading import to_square

    share = backbone.preprocessing.crop_share
    pixels = stack(
        [to_square(images.load(i)[0], backbone.site.resolution, share) for i in range(24)]
    )
    tokens = backbone.tokens(pixels).patch.flatten(0, 1)
    sums.update(sae.encode(tokens), tokens[:, 0] > 0)
    energy = read_table(probed.features)["energy"]
    np.testing.assert_allclose(energy, sums.energy(sae.w_dec).numpy(), rtol=1e-3, atol=1e-9)


def test_the_page_has_the_section_and_nothing_is_done_twice(
    probed: RunDirectory, tmp_path: Path
) -> None:
    page = probed.report.read_text(encoding="utf-8")
    assert "What each kind of feature does" in page and "reliability-title" in page
    assert "no matched control exists" in page
    copy = RunDirectory(Path(shutil.copytree(probed.root, tmp_path / "run")))

    def redone(study: Study) -> list[str]:
        outcomes = run_study(study, copy.root)
        return [name for name, outcome in outcomes.items() if not outcome.skipped]

    assert redone(probe_study()) == []
    assert redone(probe_study(memory_mb=1024)) == []
    assert redone(probe_study(zeroshot={"images": "scenes:12?seed=4&side=88"})) == [
        "zeroshot", "report",
    ]  # fmt: skip
    without = probe_study(classification=None, segmentation=None, depth=None, zeroshot=None)
    assert redone(without) == ["report"], "a study that asks for none shows none"
    assert "What each kind of feature does" not in copy.report.read_text(encoding="utf-8")
    alone = run_study(without, copy.root, only=["report"])
    assert alone["report"].skipped, "what stands of another study is not in the way"


def test_features_are_kept_where_that_is_asked_and_serve_another_schedule(
    before: RunDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = RunDirectory(Path(shutil.copytree(before.root, tmp_path / "run")))
    one_task = {"segmentation": None, "zeroshot": None, "epochs": 1, "keep_features": True}
    run_study(probe_study(**one_task), copy.root, only=["probe"])
    kept = {"classification-train", "classification-val", "depth-train", "depth-val"}
    assert {path.name for path in copy.probe_features.iterdir()} == kept
    cache = FeatureCache.open(copy.probe_features / "classification-train")
    assert len(cache) == 24 and "high-removed" in cache.shards[0]
    assert not copy.parts("probe").exists()

    def refuse(*_: Any) -> Any:
        raise AssertionError("no image is needed again")

    monkeypatch.setattr(LabelledScenes, "load", refuse)
    again = run_study(probe_study(**one_task | {"epochs": 2}), copy.root, only=["probe"])
    assert not again["probe"].skipped
    found = run_study(probe_study(**one_task | {"epochs": 2, "keep_features": False}), copy.root,
                      only=["probe"])  # fmt: skip
    assert found["probe"].skipped


def test_what_probes_take_is_told_and_nothing_is_written(
    probed: RunDirectory, tmp_path: Path
) -> None:
    study = probe_study()
    plan = plan_probes(study, probed.root)
    variants = 1 + len(probes_of(probed).removed.groups)
    assert [one.name for one in plan.tasks] == list(TASKS) and plan.assumed == ""
    assert all(one.n_variants == variants for one in plan.tasks)
    assert plan.tasks[0].cache_bytes == 34 * (variants * 128 * 2 + 8)
    early = plan_probes(study, tmp_path / "later")
    assert early.tasks[0].n_variants == 5 and "as if every control matched" in early.assumed
    assert not (tmp_path / "later").exists()
    headings, rows = plan_lines(early)
    assert all(len(row) == len(headings) for row in rows)
    assert early.assumed in plan_notes(early)


def test_a_study_without_images_for_them_is_told_how(before: RunDirectory) -> None:
    none = probe_study(classification=None, segmentation=None, depth=None, zeroshot=None)
    with pytest.raises(ConfigError, match=r"no probe has images: set probes.classification.train"):
        run_study(none, before.root, only=["probe"])
    with pytest.raises(ConfigError, match=r"zero-shot has no images: set probes.zeroshot.images"):
        run_study(none, before.root, only=["zeroshot"])


def test_wrong_sets_are_refused_before_any_stage(tmp_path: Path) -> None:
    wrong = probe_study(segmentation={"train": tmp_path / "nowhere"})
    with pytest.raises(ImageSetError, match="nowhere"):
        run_study(wrong, tmp_path / "run")
    assert not (tmp_path / "run" / "stages").exists()
    blind = probe_study(zeroshot={"images": "scenes:12?seed=4&side=88"})
    planted = blind.model_copy(
        update={"backbone": blind.backbone.model_copy(update={"name": "planted"})}
    )
    with pytest.raises(ConfigError, match="'planted' has no text tower that is known"):
        run_study(planted, tmp_path / "run")
    assert not (tmp_path / "run" / "stages").exists()


@pytest.mark.slow
def test_a_run_killed_in_every_part_ends_as_one_left_alone(
    before: RunDirectory, tmp_path: Path
) -> None:
    (tmp_path / "study.toml").write_text(dump_study(probe_study()))
    for name in ("alone", "killed"):
        shutil.copytree(before.root, tmp_path / name)

    def command(out: str) -> list[str]:
        return ["run", str(tmp_path / "study.toml"), "--out", str(tmp_path / out)]

    def killed_in(label: str, after: int) -> Job:
        return Job(command("killed"), label, "SIGKILL", after, watch=str(tmp_path / "killed"))

    variants = 1 + len(probes_of(before_tables(before, tmp_path)).removed.groups)
    heads = f"{2 * variants} heads"
    jobs = [
        Job(command("alone")),
        killed_in("features for classification", 3),
        killed_in(heads, 3),
        killed_in("features for depth", 2),
        killed_in("zero-shot", 3),
        Job(command("killed")),
    ]
    alone, features, trained, depth, zero_shot, last = run_jobs(
        *jobs, scratch=tmp_path, imports=["vitscope.backbones.scenes_vit"]
    )
    assert (alone.code, last.code) == (0, 0), alone.err + last.err
    for job in (features, trained, depth, zero_shot):
        assert job.code == -signal.SIGKILL, job.err
    assert trained.skipped["features for classification"] >= SMALL_CHUNK
    assert "parts/probe/classification.training" in trained.files
    assert depth.skipped[heads] > 0, "heads go on from their checkpoint"
    assert {f"parts/probe/{task}.json" for task in TASKS[:2]} <= depth.files.keys()
    assert "features for classification" not in zero_shot.skipped, "a finished task stands"
    assert last.skipped["zero-shot"] >= SMALL_CHUNK
    found, expected = (run_contents(RunDirectory(tmp_path / n)) for n in ("killed", "alone"))
    assert found.keys() == expected.keys()
    for name in expected:
        assert found[name] == expected[name], name


def before_tables(before: RunDirectory, tmp_path: Path) -> RunDirectory:
    """Return a run with one quick task, to read which variants there are."""
    copy = Path(shutil.copytree(before.root, tmp_path / "quick"))
    quick = probe_study(segmentation=None, depth=None, zeroshot=None, epochs=1, trials=1)
    run_study(quick, copy, only=["probe"])
    assert BEFORE[-1] == "awcds"
    return RunDirectory(copy)
