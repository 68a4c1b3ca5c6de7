"""``train --sweep``, ``compare`` and streamed training, on the small study."""

import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.stages.interrupted_runs import Job, run_jobs
from tests.stages.run_contents import run_contents
from tests.stages.small_study import small_study

from vitscope.compare import compare_saes, comparison_lines, match_all
from vitscope.errors import ConfigError, SaeError
from vitscope.pipeline import run_stages, run_study, stage_named
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.storage import load_saved_sae, save_sae
from vitscope.stages.stage import Outcome
from vitscope.stages.sweep import SweepRow, sweep_lines, sweep_points
from vitscope.store.run_directory import RunDirectory
from vitscope.store.stamp import read_stamp
from vitscope.store.tables import read_table
from vitscope.study import Study, dump_study

STAGES = ("images", "extract", "sweep")


def swept(
    study: Study, out: Path, on_stage: Callable[[Outcome], None] | None = None
) -> tuple[SweepRow, ...]:
    stages = [stage_named(name) for name in STAGES[:-1]]
    stages.append(stage_named("sweep", "vitscope.stages.sweep"))
    return run_stages(stages, study, out, STAGES, on_stage)["sweep"].result.rows


SWEEP = {"seed": [0, 1], "k": [2, 3], "method": ["batch-topk", "topk"]}


def test_a_sweep_trains_every_combination_and_tells(pictures: Path, tmp_path: Path) -> None:
    study = small_study(pictures, sae={"sweep": SWEEP, "steps": 20})
    ended: list[tuple[str, bool]] = []

    def note(outcome: Outcome) -> None:
        ended.append((outcome.stage.name, outcome.skipped))

    rows = swept(study, tmp_path, note)
    assert [row.name for row in rows][:3] == [
        "seed0-k2-batch-topk", "seed0-k2-topk", "seed0-k3-batch-topk",
    ]  # fmt: skip
    assert len(rows) == 8
    run = RunDirectory(tmp_path)
    for row in rows:
        sae = load_saved_sae(tmp_path / "sweep" / row.name)
        assert (sae.k, sae.info["seed"]) == (row.k, row.seed)
        assert sae.info["held_out"] == "images"
        assert sae.info["held_out_fvu"] == row.held_out_fvu
        assert (tmp_path / "sweep" / row.name / "metrics.jsonl").read_text()
    assert not run.parts("sweep").exists()
    again = swept(study, tmp_path, note)
    assert again == rows
    assert ended == [
        *[(name, False) for name in ("images", "extract", "sweep")],
        *[(name, True) for name in ("images", "extract", "sweep")],
    ]
    headings, cells = sweep_lines(rows)
    assert all(len(row) == len(headings) for row in cells)
    assert "(" in cells[0][-1]  # θ with its interval
    assert "(" not in cells[1][-1]  # topk has none


def test_a_sweep_without_lists_or_with_a_value_twice_is_refused(pictures: Path) -> None:
    with pytest.raises(ConfigError, match=r"nothing to sweep; set lists under \[sae.sweep\]"):
        sweep_points(small_study(pictures).sae, 0)
    twice = small_study(pictures, sae={"sweep": {"k": [2, 2]}}).sae
    with pytest.raises(ConfigError, match="names a value twice"):
        sweep_points(twice, 0)
    given = small_study(pictures, sae={"sweep": {"k": [2]}, "path": pictures}).sae
    with pytest.raises(ConfigError, match="nothing to train"):
        sweep_points(given, 0)


def test_streamed_training_equals_that_from_shards(
    pictures: Path,
    finished: RunDirectory,
    tmp_path: Path,
) -> None:
    study = small_study(pictures, activations={"cache": False})
    run_study(study, tmp_path, only=["images", "extract", "train"])
    run = RunDirectory(tmp_path)
    assert [path.name for path in run.activations.iterdir()] == ["manifest.json"]
    streamed, shards = load_saved_sae(run.sae), load_saved_sae(finished.sae)
    # all images fit into one window: the same batches; the encoder begins on other samples
    cosine = (streamed.w_dec * shards.w_dec).sum(1)
    assert float(cosine.mean()) > 0.99
    assert streamed.threshold == pytest.approx(shards.threshold, rel=0.05)
    stamp = read_stamp(run, "train")
    assert stamp is not None
    assert stamp.result["training"]["held_out_fvu"] == round(
        float(streamed.info["held_out_fvu"]), 4
    )
    before = (run.sae / "sae.safetensors").read_bytes()
    run_study(study, tmp_path, only=["images", "extract", "train"])
    assert (run.sae / "sae.safetensors").read_bytes() == before


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--no-cache"]], ids=["shards", "stream"])
def test_a_killed_sweep_ends_as_one_left_alone(
    options: list[str], pictures: Path, tmp_path: Path
) -> None:
    path = tmp_path / "study.toml"
    path.write_text(dump_study(small_study(pictures, sae={"sweep": {"k": [2, 3]}})))

    def command(out: str) -> list[str]:
        return ["train", str(path), "--sweep", *options, "--out", str(tmp_path / out)]

    alone, killed, resumed = run_jobs(
        Job(command("alone")),
        Job(command("run"), "sweep", "SIGKILL", after=25),
        Job(command("run")),
        scratch=tmp_path,
    )
    assert (alone.code, killed.code, resumed.code) == (0, -signal.SIGKILL, 0), resumed.err
    assert resumed.skipped == {"train 2 SAEs": 20 * 512}, "the last checkpoint's steps"
    found, expected = (run_contents(RunDirectory(tmp_path / out)) for out in ("run", "alone"))
    assert found.keys() == expected.keys()
    for name, content in expected.items():
        assert found[name] == content, name


def test_a_run_compared_with_itself_and_with_another_seed(
    pictures: Path,
    finished: RunDirectory,
    tmp_path: Path,
) -> None:
    same = compare_saes([finished.root, finished.root])
    (pair,) = same.pairs
    assert same.recovered_in_all == pair.recovered == 1
    assert pair.mean_cosine == pytest.approx(1)
    assert pair.cds_difference == 0
    assert pair.cds_correlation == pytest.approx(1)
    rows = swept(small_study(pictures, sae={"sweep": {"seed": [0, 1]}}), tmp_path)
    folders = [tmp_path / "sweep" / row.name for row in rows]
    other = compare_saes([finished.root, *folders])
    assert len(other.pairs) == 3
    assert other.recovered_in_all <= min(pair.recovered for pair in other.pairs[:2])
    for pair in other.pairs:
        assert pair.n_scored == 0
        assert 0 <= pair.recovered <= 1
    headings, cells = comparison_lines(other)
    assert all(len(row) == len(headings) for row in cells)


def test_matched_features_of_two_scored_runs_agree_in_cds(
    pictures: Path, finished: RunDirectory, tmp_path: Path
) -> None:
    """The same dictionary in another order: nothing but the matching can bring scores together."""
    sae = load_saved_sae(finished.sae)
    order = torch.randperm(sae.n_features, generator=torch.Generator().manual_seed(1))
    save_sae(
        tmp_path / "sae",
        replace(sae, w_enc=sae.w_enc[:, order], b_enc=sae.b_enc[order], w_dec=sae.w_dec[order]),
    )
    study = small_study(pictures, sae={"path": tmp_path / "sae"}, scope={"gamma": 0.3})
    wanted = ["images", "train", "outliers", "evaluate", "score", "partition"]
    run_study(study, tmp_path / "run", only=wanted)
    other = RunDirectory(tmp_path / "run")
    one, two = (read_table(run.features)["cds"] for run in (finished, other))
    assert not np.allclose(one, two, equal_nan=True), "in another order"
    (pair,) = compare_saes([finished.root, other.root]).pairs
    assert pair.recovered == 1
    assert pair.n_scored == np.isfinite(one).sum() > 50
    assert pair.cds_correlation == pytest.approx(1, abs=1e-6)
    assert pair.cds_difference == pytest.approx(0, abs=1e-6)


def test_matching_finds_a_permutation_and_is_one_to_one() -> None:
    g = torch.Generator().manual_seed(0)
    rows = torch.nn.functional.normalize(torch.randn(40, 16, generator=g), dim=1)
    order = torch.randperm(40, generator=g)
    matches, method = match_all(rows, rows[order])
    assert method == "hungarian"
    assert np.array_equal(order.numpy()[matches.other], matches.one)
    # two features nearest to the same one: it is given to one of them
    crowded = torch.cat([rows[:1], rows[:1], rows[2:]])
    matches, _ = match_all(crowded, rows)
    assert len(set(matches.other.tolist())) == 40
    assert int((matches.cosine > 0.999).sum()) == 39


def test_what_cannot_be_compared_is_refused(finished: RunDirectory, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="two SAEs or more"):
        compare_saes([finished.root])
    eye, zero = torch.eye(5), torch.zeros(5)
    save_sae(tmp_path, SparseAutoencoder(eye, zero, eye.clone(), zero.clone(), 0.0, 1))
    with pytest.raises(SaeError, match="cannot be matched"):
        compare_saes([finished.root, tmp_path])
