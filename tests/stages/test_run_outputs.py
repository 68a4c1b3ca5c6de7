"""Everything that a whole run leaves, opened by the tools that others would open it with."""

import csv
import json
import tomllib
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from safetensors import safe_open
from tests.stages.small_study import N_IMAGES, small_study

import vitscope as vs
from vitscope.pipeline import chosen_stages, run_study
from vitscope.sae.storage import load_saved_sae
from vitscope.scope.views import Overlap
from vitscope.store.run_directory import RunDirectory
from vitscope.store.tables import read_metadata

N_FEATURES = 192

TABLES = {
    "features.parquet": N_FEATURES,
    "exemplars.parquet": None,
    "pairs.parquet": None,
    "outliers.parquet": 12 * 3 * 3 * 2,
    "images/train.parquet": N_IMAGES,
    "tables/activity.parquet": N_FEATURES,
    "tables/awcds.parquet": 10,
    "tables/gallery.parquet": None,
    "tables/token_maps.parquet": 4 * 14 * 14,
    "tables/norm_histogram.parquet": 200,
    "tables/reconstruction_left_out.parquet": 1,
}


def frame(run: RunDirectory, name: str) -> Any:  # pandas ships no types for what is done here
    return pd.read_parquet(run.root / name)


@pytest.mark.parametrize(("name", "rows"), TABLES.items())
def test_tables_open_in_duckdb_and_pandas_alike(
    finished: RunDirectory, name: str, rows: int | None
) -> None:
    path = finished.root / name
    table = frame(finished, name)
    rows = len(table) if rows is None else rows
    assert len(table) == rows > 0
    with duckdb.connect() as connection:
        query = f"select * from read_parquet('{path}')"
        pd.testing.assert_frame_equal(connection.sql(query).df(), table, check_dtype=False)


def test_nothing_else_lies_in_the_run(finished: RunDirectory) -> None:
    expected = {
        *TABLES,
        *(f"stages/{stage.name}.json" for stage in chosen_stages(small_study(Path()))),
        *("study.toml", "skipped.csv", "metrics.jsonl", "report.html", ".lock"),
        *("sae/sae.json", "sae/sae.safetensors"),
        *("activations/manifest.json", "activations/part-000000.safetensors"),
    }
    found = {str(p.relative_to(finished.root)) for p in finished.root.rglob("*") if p.is_file()}
    assert found == expected


def test_every_stage_names_its_outputs(finished: RunDirectory) -> None:
    outputs: set[str] = set()
    for stage in chosen_stages(small_study(Path())):
        stamp = json.loads(finished.stamp(stage.name).read_text())
        assert stamp["stage"] == stage.name
        assert stamp["seconds"] >= 0
        assert not outputs & set(stamp["outputs"]), "two stages write one file"
        outputs |= set(stamp["outputs"])
    assert set(TABLES) | {"report.html", "skipped.csv", "sae/sae.json"} <= outputs


def test_tables_say_what_they_were_made_from(finished: RunDirectory) -> None:
    for name in ("features", "pairs", "exemplars", "outliers"):
        source = read_metadata(finished.root / f"{name}.parquet")
        stamp = json.loads(finished.stamp(source["stage"]).read_text())
        assert source["fingerprint"] == stamp["fingerprint"]


def test_features_agree_with_their_pairs(finished: RunDirectory) -> None:
    features, pairs = frame(finished, "features.parquet"), frame(finished, "pairs.parquet")
    exemplars = frame(finished, "exemplars.parquet")
    diameter = Overlap(14, 1).diameter
    one, other = pairs["cells_first"] > 0, pairs["cells_second"] > 0
    seen = pairs[one | other].assign(share=(pairs["emd"] / diameter).where(one & other, 1.0))
    cds = seen.groupby("feature")["share"].mean().reindex(range(N_FEATURES))
    np.testing.assert_allclose(features["cds"], cds, rtol=1e-12)
    counts = seen.groupby("feature").size().reindex(range(N_FEATURES), fill_value=0)
    np.testing.assert_array_equal(features["n_pairs"], counts)
    groups = features["group"].value_counts().to_dict()
    found = vs.open_run(finished.root).partition
    sizes = {name: found.group(name).size for name in ("low", "high", "unscored")}
    assert groups == {name: size for name, size in sizes.items() if size}
    keys = ["feature", "rank", "image", "image_id"]
    assert set(map(tuple, pairs[keys].to_numpy())) == set(map(tuple, exemplars[keys].to_numpy()))
    assert exemplars.groupby("feature").size().max() == 4


def test_ids_are_paths_below_the_folder(finished: RunDirectory, pictures: Path) -> None:
    images = frame(finished, "images/train.parquet")
    assert [pictures / i for i in images["id"]] == [Path(p) for p in images["path"]]
    pairs = frame(finished, "pairs.parquet")
    np.testing.assert_array_equal(images["id"].to_numpy()[pairs["image"]], pairs["image_id"])


def test_the_sae_opens_and_belongs_to_the_backbone(finished: RunDirectory) -> None:
    sae = load_saved_sae(finished.sae)
    assert (sae.width, sae.n_features) == (N_FEATURES, N_FEATURES)
    assert sae.site == vs.load_backbone("planted").site
    with safe_open(finished.sae / "sae.safetensors", "np") as plain:
        names = set(plain.keys())
    assert names == {"w_enc", "b_enc", "w_dec", "b_dec"}


def test_text_files_are_what_their_names_say(finished: RunDirectory) -> None:
    lines = [json.loads(line) for line in finished.training_log.read_text().splitlines()]
    assert [line["step"] for line in lines] == [10, 20, 30, 40, 50, 60]
    assert list(csv.reader(finished.skipped.read_text().splitlines())) == [["id", "reason"]]
    assert tomllib.loads(finished.study.read_text())["name"] == "small"
    assert vs.load_study(finished.study).seed == 3

    def refuse(constant: str) -> Any:
        raise AssertionError(f"{constant} is not JSON")

    for path in finished.root.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=refuse)


def test_the_report_is_whole(finished: RunDirectory) -> None:
    page = finished.report.read_text(encoding="utf-8")
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert page.rstrip().endswith("</html>")
    assert page.count('class="card"') > 0


def test_unlocked_and_without_leftovers(finished: RunDirectory) -> None:
    assert not (finished.root / ".lock.holder").exists()
    assert not any(finished.root.glob("parts/*/*"))
    assert not list(finished.root.rglob("*.vitscope.tmp"))


def test_a_score_of_objects_is_that_of_a_study(finished: RunDirectory, pictures: Path) -> None:
    scored = vs.score(
        vs.load_backbone("planted"),
        vs.load_sae(finished.sae),
        vs.ImageFolder(pictures),
        scope={"top_images": 4, "null_draws": 1},
        outliers={"images": 12},
        seed=3,
    )
    folder = scored.root
    for name in ("features.parquet", "pairs.parquet"):
        one, other = frame(finished, name), frame(RunDirectory(folder), name)
        pd.testing.assert_frame_equal(one, other, obj=name)
    assert scored.partition.gamma == vs.open_run(finished.root).partition.gamma
    assert scored.figure("cds").axes
    del scored
    assert not folder.exists(), "it lives as long as the run that is returned"


def test_a_given_sae_scores_as_it_did(
    finished: RunDirectory, pictures: Path, tmp_path: Path
) -> None:
    study = small_study(pictures, sae={"path": finished.sae})
    outcomes = run_study(study, tmp_path / "given")
    assert "extract" not in outcomes
    given = RunDirectory(tmp_path / "given")
    one, other = frame(finished, "features.parquet"), frame(given, "features.parquet")
    pd.testing.assert_frame_equal(one, other)
    for name in ("sae.json", "sae.safetensors"):
        assert (given.sae / name).read_bytes() == (finished.sae / name).read_bytes()
    assert given.report.exists()
    assert not given.training_log.exists()
