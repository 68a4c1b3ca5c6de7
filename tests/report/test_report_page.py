"""The page as a whole: self-contained, safe, complete, and whole where a run had little to show."""

import re
from dataclasses import fields, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.report.page_reader import read_page
from tests.report.synthetic_report import (
    N_FEATURES,
    group,
    make_data,
    make_scores,
    no_group,
    reading,
    two_modes,
    with_hostile_ids,
)

from vitscope.report.data import PartitionSizes, ReportData
from vitscope.report.page import render_report, write_report
from vitscope.sae.quality import GroupMetrics, ReconstructionMetrics
from vitscope.scope.awcds import NormSpectrum
from vitscope.scope.bootstrap import Interval
from vitscope.scope.cds import FeatureScores
from vitscope.scope.evidence import Evidence
from vitscope.scope.gallery import choose_gallery
from vitscope.scope.outliers import NormHistogram, OutlierSettings, OutlierThreshold
from vitscope.scope.partition import Partition, partition_features
from vitscope.scope.settings import ScopeSettings
from vitscope.store.atomic import TEMPORARY_SUFFIX

NAN = float("nan")
HOSTILE = """x"><script>alert('1')</script>&amp;{{ 7*7 }}.jpg"""


def all_nan() -> ReportData:
    """Return a run in which nothing whatever is defined."""
    m = N_FEATURES
    columns: dict[str, Any] = {f.name: np.full(m, NAN) for f in fields(FeatureScores)}
    columns |= {name: np.zeros(m, np.int64) for name in ("n_pairs", "n_missed", "n_exemplars")}
    scores = FeatureScores(**columns)
    none = np.zeros(0, np.int64)
    partition = Partition(NAN, "otsu", (), 0.0, "no scores", none, none, np.arange(m))
    unknown = Evidence(NAN, NAN, NAN, NAN, Interval(NAN, NAN, 0.0, 1000), "valley", 0.0, NAN, ())
    nothing = no_group()
    metrics = GroupMetrics(0, NAN, NAN, NAN, NAN, NAN)
    bins, zeros = np.full(4, NAN), np.zeros(4, np.int64)
    return make_data(
        scores=scores,
        columns={"density": np.full(m, NAN)},
        partition=partition,
        partition_by_missing={"max": PartitionSizes(NAN, 0, 0, m)},
        gamma_evidence=unknown,
        tau=OutlierThreshold(NAN, "percentile", NAN, (), "no norms"),
        tau_evidence=unknown,
        norm_histogram=NormHistogram(np.linspace(0, 1, 5), np.zeros(4, np.int64)),
        reconstruction=ReconstructionMetrics(metrics, metrics),
        instability=(reading("query", nothing, nothing),),
        diameter=NAN,
        spectrum=NormSpectrum(bins, bins, bins, bins, bins, zeros, zeros, zeros, bins),
        choice=choose_gallery(scores, partition, 8),
        gallery=(),
        curve=(),
    )


def no_outliers() -> ReportData:
    instability = tuple(
        reading(name, no_group(), group(0.6)) for name in ("query", "received", "key")
    )
    tau = OutlierThreshold(1e6, "given", 0.0, (20.0,), "τ was given")
    return make_data(instability=instability, tau=tau)


def empty_high_group() -> ReportData:
    cds = two_modes()
    partition = partition_features(cds, gamma=1.0)
    choice = choose_gallery(make_scores(cds), partition, 8)
    return replace(make_data(partition=partition, choice=choice), gallery=())


def nothing_to_show() -> ReportData:
    return make_data(
        instability=(), curve=(), notes=(), skipped=(), stages=(), versions={}, token_maps=()
    )


CASES = {
    "usual": make_data,
    "all_nan": all_nan,
    "no_outliers": no_outliers,
    "empty_high": empty_high_group,
    "nothing": nothing_to_show,
}


@cache
def html_of(case: str) -> str:
    return render_report(CASES[case]())


@pytest.mark.parametrize("case", CASES)
def test_page_asks_nothing_of_the_network(case: str) -> None:
    html = html_of(case)
    page = read_page(html)
    for name in ("src", "href", "srcset", "data", "action", "poster"):
        for value in page.attributes(name):
            assert value.startswith(("data:image/", "#")), value
    assert not page.tags("script")
    assert not page.tags("link")
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert "default-src 'none'" in html


@pytest.mark.parametrize("case", CASES)
def test_ids_are_unique_and_inner_links_lead_somewhere(case: str) -> None:
    page = read_page(html_of(case))
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    wanted = [to[1:] for to in page.attributes("href") if not to.startswith("data:")]
    wanted += page.attributes("aria-labelledby") + page.attributes("aria-describedby")
    assert set(wanted) <= set(ids)


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_defined_is_a_dash(case: str) -> None:
    html = html_of(case)
    page = read_page(html)
    assert not re.search(r"\b(nan|inf|None|NaN)\b", page.text)
    assert not re.search(r"\bnan\b", " ".join(page.attributes("style")))
    assert case != "all_nan" or page.text.count("–") > 20


def test_equal_data_give_equal_pages(tmp_path: Path) -> None:
    write_report(tmp_path / "run" / "report.html", make_data())
    written = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert written == html_of("usual")
    assert not list(tmp_path.rglob(f"*{TEMPORARY_SUFFIX}"))


def test_a_strangers_text_stays_text() -> None:
    data = replace(
        with_hostile_ids(make_data(), HOSTILE),
        title=HOSTILE,
        notes=(HOSTILE,),
        study={"images": {"train": HOSTILE}},
        versions={HOSTILE: HOSTILE},
    )
    page = read_page(render_report(data))
    assert not page.tags("script")
    alts = [alt for alt in page.attributes("alt") if alt]
    assert {alt.rsplit(",", 1)[0] for alt in alts} == {HOSTILE}
    assert HOSTILE in page.attributes("title")
    # title element, heading, note, skipped id and reason, versions, ids under the pictures
    assert page.text.count(HOSTILE) >= 8


def test_notes_stand_on_top() -> None:
    html = render_report(make_data(notes=("first warning", "second warning")))
    text = read_page(html).text
    assert text.index("first warning") < text.index("second warning") < text.index("Scope of")
    assert 'role="note"' not in render_report(make_data(notes=()))


def test_headlines_follow_the_data_and_name_their_readings() -> None:
    data = make_data(scope=ScopeSettings(missing="drop"), outliers=OutlierSettings(attention="key"))
    instability = (
        reading("query", group(5.0), group(1.0)),
        reading("key", group(6.25), group(2.5)),
    )
    text = read_page(render_report(replace(data, instability=instability))).text
    head = text[: text.index("Scope of the features")]
    assert f"{data.partition.high.size}" in head
    assert "missing = drop" in head
    assert re.search(r"6\.25\s*\|\s*2\.50", head)
    assert "attention = key" in head
    assert "2.5 times as far (2.0 to 3.0)" in head


def test_all_three_readings_and_every_setting_are_on_the_page() -> None:
    sizes = {
        name: PartitionSizes(0.1 * i, 1000 + i, 2000 + i, 3000 + i)
        for i, name in enumerate(("max", "drop", "zero"), 1)
    }
    text = read_page(render_report(make_data(partition_by_missing=sizes))).text
    for size in sizes.values():
        for value in (size.low, size.high, size.unscored):
            assert f"{value:,}" in text
    assert 'train = "photos"' in text
    assert "gamma" not in text[text.index("[scope]") :].split("Site and images")[0]  # unset
    assert "class/broken.jpg" in text
    assert "212 images/s" in text


def test_a_percentile_for_tau_is_not_sold_as_a_mode() -> None:
    tau = OutlierThreshold(50.0, "percentile", 0.02, (20.0,), "no second mode")
    text = read_page(render_report(make_data(tau=tau))).text
    assert "98th percentile, no second mode" in text
    assert "says nothing of outliers" in text
    assert "says nothing of outliers" not in read_page(html_of("usual")).text


def test_a_gallery_with_too_few_features_says_so() -> None:
    cds = two_modes()
    pairs = np.where(np.isfinite(cds), 16, 0)
    partition = partition_features(cds)
    pairs[partition.high[4:]] = 2
    scores = make_scores(cds, pairs)
    choice = choose_gallery(scores, partition, 8)
    full = make_data()
    shown = tuple(replace(full.gallery[0], feature=j) for j in choice.features)
    text = read_page(render_report(make_data(scores=scores, choice=choice, gallery=shown))).text
    assert "4 of the 4 features with enough pairs" in text
    assert "fewer than 9 are available" in text
    assert text.count("feature ") >= 13
    none = choose_gallery(scores, partition, 17)
    text = read_page(render_report(make_data(scores=scores, choice=none, gallery=()))).text
    assert "has at least 17 pairs" in text
    assert "No feature is in this group" in read_page(render_report(empty_high_group())).text


def test_maps_of_tokens_stand_with_the_figures_they_explain() -> None:
    html, without = html_of("usual"), html_of("nothing")
    order = [html.index(name) for name in ("norms-title", "norm_maps-title", "awcds-title")]
    assert [*order, html.index("awcds_maps-title")] == sorted(
        [*order, html.index("awcds_maps-title")]
    )
    assert "norm_maps-title" not in without and "Where high norms are" not in without
    assert "awcds_maps-title" not in without
