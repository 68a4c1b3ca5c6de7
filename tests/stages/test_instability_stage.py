"""Stage «instability» on pictures: several shifts at once, and what it writes."""

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from tests.stages.shifted_runs import SHIFTS, again, shifted_study, table_of
from tests.stages.small_study import small_study
from torch import Tensor

from vitscope.backbones.attention import BlockAttention
from vitscope.backbones.planted.planted import PlantedBackbone, WrittenAttention
from vitscope.errors import ConfigError
from vitscope.run import Run
from vitscope.scope.instability import ATTENTION_READINGS, COMPARED_GROUPS, MEMBERSHIPS
from vitscope.scope.views import Overlap
from vitscope.stages import instability
from vitscope.store.run_directory import RunDirectory

KEYS = ["shift", "reading", "membership", "tokens"]


def test_every_shift_is_what_a_study_of_that_shift_finds(
    several: RunDirectory, copied_shifts: RunDirectory, shifted_pictures: Path
) -> None:
    together = table_of(several)
    assert sorted(together["shift"].unique()) == list(SHIFTS)
    for shift in SHIFTS:
        alone = again(copied_shifts, small_study(shifted_pictures, scope={"shift": shift}))
        rows = together[together["shift"] == shift].reset_index(drop=True)
        pd.testing.assert_frame_equal(rows, alone, rtol=1e-6)


def test_the_table_is_long_and_whole(several: RunDirectory) -> None:
    table = table_of(several)
    expected = set(itertools.product(SHIFTS, ATTENTION_READINGS, MEMBERSHIPS, COMPARED_GROUPS))
    for _, rows in table.groupby("image_id"):
        assert set(map(tuple, rows[KEYS].to_numpy())) == expected
        assert len(rows) == len(expected)
    assert table["image_id"].nunique() == 12
    assert (table["emd"].isna() == (table["n_maps"] == 0)).all()
    assert (table["n_missed"] <= table["n_maps"]).all()
    n = table.pivot_table("n_outliers", ["image_id", "shift"], "membership")
    assert (n["both"] <= n["first"]).all()
    assert (n["first"] <= n["either"]).all()
    tokens = table[(table["reading"] == "query") & (table["tokens"] == "other")]
    assert (tokens["n_maps"] == 16 * len(PlantedBackbone().spec.heads)).all()


def test_the_summary_is_what_duckdb_makes_of_the_table(several: RunDirectory) -> None:
    found = Run(several.root).instability
    query = f"""
        select {", ".join(KEYS)}, avg(emd), stddev_samp(emd) / sqrt(count(*)), count(*),
               sum(n_maps), sum(n_missed), sum(emd * n_maps) / sum(n_maps)
        from read_parquet('{several.outliers}') where not isnan(emd) group by all
    """
    with duckdb.connect() as connection:
        rows = {row[:4]: row[4:] for row in connection.sql(query).fetchall()}
    for row in found.rows:
        for name, group in (("outlier", row.outlier), ("other", row.other)):
            mean, error, n_images, n_maps, n_missed, pooled = rows[
                row.shift, row.reading, row.membership, name
            ]
            assert (group.mean, group.error, group.pooled) == pytest.approx((mean, error, pooled))
            counts = group.n_images, group.n_maps, group.n_missed
            assert counts == (n_images, n_maps, n_missed)
            assert group.low < group.mean < group.high or group.low == group.high == group.mean
    assert len(found.rows) == len(SHIFTS) * len(ATTENTION_READINGS) * len(MEMBERSHIPS)
    assert found.n_images == 12
    assert found.diameter == Overlap(14, 1).diameter


def test_the_result_knows_the_studys_own_shift_and_membership(
    several: RunDirectory, copied_shifts: RunDirectory, shifted_pictures: Path
) -> None:
    for run, membership in ((several, "either"), (copied_shifts, "both")):
        if run is copied_shifts:
            again(
                copied_shifts, shifted_study(shifted_pictures, outliers={"membership": membership})
            )
        found = Run(run.root).instability
        own = [r for r in found.rows if (r.shift, r.membership) == (1, membership)]
        assert list(found.own) == own
        assert [row.reading for row in own] == list(ATTENTION_READINGS)
        assert {row.membership for row in found.shown} == {membership}
        assert len(found.shown) == len(SHIFTS) * len(ATTENTION_READINGS)
        assert found.chosen == own[0]
        last = replace(found, reading="key")
        assert (last.chosen, last.own[1:]) == (own[-1], tuple(own[:-1]))


def test_received_is_the_same_under_every_membership(several: RunDirectory) -> None:
    table = table_of(several)
    received = table[table["reading"] == "received"]
    by_rule = received.pivot_table("emd", ["image_id", "shift", "tokens"], "membership")
    assert (by_rule["either"] == by_rule["first"]).all()
    assert (by_rule["either"] == by_rule["both"]).all()


def test_each_view_is_encoded_once(
    copied_shifts: RunDirectory, shifted_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, list[bytes]] = {"tokens": [], "attention": []}
    for name, views in seen.items():
        honest = getattr(PlantedBackbone, name)

        def counted(self: Any, images: Tensor, honest: Any = honest, views: Any = views) -> Any:
            views += [image.numpy().tobytes() for image in images]
            return honest(self, images)

        monkeypatch.setattr(PlantedBackbone, name, counted)
    copied_shifts.stamp("instability").unlink()
    again(copied_shifts, shifted_study(shifted_pictures))
    for views in seen.values():
        assert len(views) == len(set(views)) == 12 * 2 * len(SHIFTS)
    assert set(seen["tokens"]) == set(seen["attention"])


def test_neither_batches_nor_calls_decide_anything(
    several: RunDirectory,
    copied_shifts: RunDirectory,
    shifted_pictures: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(instability, "IMAGES_PER_CALL", 1)
    copied_shifts.stamp("instability").unlink()
    found = again(copied_shifts, shifted_study(shifted_pictures, backbone={"batch_size": 7}))
    pd.testing.assert_frame_equal(found, table_of(several), rtol=1e-6)


def test_all_tokens_are_one_image_at_a_time(
    copied_shifts: RunDirectory, shifted_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    honest = PlantedBackbone.attention

    def attention(self: PlantedBackbone, images: Tensor) -> WrittenAttention:
        sizes.append(len(images))
        return honest(self, images)

    monkeypatch.setattr(PlantedBackbone, "attention", attention)
    table = again(
        copied_shifts, small_study(shifted_pictures, outliers={"images": 3, "tokens_per_image": 0})
    )
    assert set(sizes) == {1}
    query = table[(table["reading"] == "query") & (table["membership"] == "first")]
    n_maps = query.groupby("image_id")["n_maps"].sum()
    assert (n_maps == Overlap(14, 1).n_cells * len(PlantedBackbone().spec.heads)).all()


def test_rows_are_asked_for_and_never_the_whole_map(
    copied_shifts: RunDirectory, shifted_pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held: list[tuple[int, int]] = []
    honest = WrittenAttention.rows

    def rows(self: WrittenAttention, queries: Tensor) -> Tensor:
        found = honest(self, queries)
        held.append((found.shape[0], found.shape[2]))
        return found

    def refuse(self: BlockAttention) -> Tensor:
        raise AssertionError("all rows at once")

    monkeypatch.setattr(WrittenAttention, "rows", rows)
    monkeypatch.setattr(BlockAttention, "patch_rows", refuse)
    again(copied_shifts, small_study(shifted_pictures, outliers={"tokens_per_image": 8}))
    n_views, n_queries = np.asarray(held).T
    assert n_views.max() <= instability.IMAGES_PER_CALL
    assert n_queries.max() == 64
    assert int((n_views * n_queries).sum()) == 12 * 2 * Overlap(14, 1).n_cells, "each row once"


def test_a_shift_too_wide_is_refused_by_name(
    copied_shifts: RunDirectory, shifted_pictures: Path
) -> None:
    with pytest.raises(ConfigError, match=r"instability.shifts: 13 leaves no .* use 1 to 12"):
        again(copied_shifts, small_study(shifted_pictures, instability={"shifts": [2, 13]}))
