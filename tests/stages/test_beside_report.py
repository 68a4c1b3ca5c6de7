"""Other runs in a report: their numbers, not this run's, and only from runs that have finished."""

from pathlib import Path

import numpy as np
import pytest
from tests.stages.small_study import small_study

from vitscope.errors import ArtifactError
from vitscope.figures.beside import plot_awcds_beside, plot_cds_beside
from vitscope.pipeline import run_study
from vitscope.report.spectrum import awcds_of_highest, awcds_of_median
from vitscope.scope.awcds import NormSpectrum
from vitscope.stages.beside import read_other_runs
from vitscope.store.atomic import read_json
from vitscope.store.run_directory import RunDirectory
from vitscope.store.tables import read_table


def test_the_report_shows_both_runs_and_follows_the_other(
    copied: RunDirectory, pictures: Path, tmp_path: Path
) -> None:
    other = RunDirectory(tmp_path / "other")
    changed = {"name": "<other & run>", "scope": {"shift": 2}, "sae": {"path": copied.sae}}
    run_study(small_study(pictures, **changed), other.root)
    study = small_study(pictures, beside={"runs": [other.root]})
    outcomes = run_study(study, copied.root)
    assert [name for name, outcome in outcomes.items() if not outcome.skipped] == ["report"]
    page = copied.report.read_text(encoding="utf-8")
    assert "Beside other runs" in page and "cds_beside-title" in page
    assert "&lt;other &amp; run&gt;" in page and "<other & run>" not in page
    assert all(outcome.skipped for outcome in run_study(study, copied.root).values())
    run_study(small_study(pictures, **changed | {"scope": {"shift": 2, "gamma": 0.3}}), other.root)
    assert not run_study(study, copied.root)["report"].skipped


def test_figures_of_a_run_are_those_of_its_tables(finished: RunDirectory) -> None:
    (found,) = read_other_runs((finished.root,))
    cds = read_table(finished.features)["cds"]
    np.testing.assert_array_equal(found.cds, cds)
    assert found.median_cds == pytest.approx(float(np.nanmedian(cds)))
    table = read_json(finished.table("partition"))
    assert (found.n_low, found.n_high, found.gamma) == (table["low"], table["high"], table["gamma"])
    assert found.name == "small" and found.model.startswith("planted")
    assert found.reconstruction.all.fvu == read_json(finished.table("reconstruction"))["all"]["fvu"]
    assert found.instability is not None and found.instability.reading == "query"


def test_an_unfinished_run_is_refused(copied: RunDirectory, pictures: Path) -> None:
    with pytest.raises(ArtifactError, match=r"stage 'evaluate' has not finished in .*pictures"):
        run_study(small_study(pictures, beside={"runs": [pictures]}), copied.root)


def test_lines_carry_the_share_of_scored_features(finished: RunDirectory) -> None:
    (run,) = read_other_runs((finished.root,))
    cds = np.array([0.01, 0.01, 0.31, np.nan])
    figure = plot_cds_beside([("this", cds), (run.name, run.cds)])
    heights = figure.axes[0].patches[0].get_data().values  # type: ignore[attr-defined]
    np.testing.assert_allclose(heights[[0, 15]], [2 / 3, 1 / 3])
    assert heights.sum() == pytest.approx(1.0)
    curves = plot_awcds_beside([("this", run.spectrum), ("that", run.spectrum)]).axes[0].lines
    np.testing.assert_array_equal(curves[0].get_ydata(), run.spectrum.awcds)
    assert curves[0].get_linestyle() != curves[1].get_linestyle()


def test_awcds_of_the_highest_norms_takes_the_last_bin_however_wide() -> None:
    def spectrum(n: int) -> NormSpectrum:
        values, counts = np.arange(n, dtype=np.float64), np.ones(n, np.int64)
        place = 100 * (values + 0.5) / n
        return NormSpectrum(place, values, values, values, values, counts, counts, counts, values)

    assert awcds_of_highest(spectrum(10)) == 9
    assert awcds_of_highest(spectrum(100)) == 98.5
    assert awcds_of_median(spectrum(10)) == 4.5
