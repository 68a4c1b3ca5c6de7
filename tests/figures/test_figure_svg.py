"""Figures as inline SVG: the same bytes each time, ids of their own, colours from the page."""

import re
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure
from tests.report.made_up_run import make_outliers, make_partition, norm_table

from vitscope.figures.curves import plot_training
from vitscope.figures.files import inline_svg
from vitscope.figures.histograms import plot_cds, plot_norms
from vitscope.figures.style import ROLES
from vitscope.scope.bootstrap import Interval
from vitscope.scope.outliers import OutlierThreshold
from vitscope.scope.thresholds import Alternative, ThresholdEvidence

NAN = float("nan")
EVIDENCE = ThresholdEvidence(
    0.1, 0.01, 0.01, 300.0, Interval(0.2, 0.3, 1.0, 1000), "valley", 1.0, 0.1,
    (Alternative("otsu", 0.5, 200, 100), Alternative("mixture", NAN, 0, 0)),
)  # fmt: skip


def cds_figure() -> Figure:
    cds = np.random.default_rng(0).beta(1, 5, 300)
    return plot_cds(make_partition(cds, evidence=EVIDENCE))


def norms_figure() -> Figure:
    tau = OutlierThreshold(30.0, "given", 0.1, (), "")
    histogram = norm_table(np.linspace(0, 3, 40), np.arange(39))
    return plot_norms(make_outliers(threshold=tau, evidence=EVIDENCE, histogram=histogram))


def training_figure() -> Figure:
    return plot_training([{"step": s, "fvu": 1 / s, "dead_share": 0.1} for s in range(1, 9)])


FIGURES = {"cds": cds_figure, "norms": norms_figure, "training": training_figure}


@pytest.mark.parametrize("name", FIGURES)
def test_equal_figures_give_equal_text(name: str) -> None:
    first = inline_svg(FIGURES[name](), name, "words")
    assert inline_svg(FIGURES[name](), name, "words") == first


@pytest.mark.parametrize("name", FIGURES)
def test_every_id_carries_the_name_and_every_reference_finds_one(name: str) -> None:
    text = inline_svg(FIGURES[name](), name, "words")
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len(set(ids)) > 1
    assert all(found.startswith(f"{name}-") for found in ids)
    references = re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', text)
    assert references
    assert {one or other for one, other in references} <= set(ids)


def test_two_figures_share_no_id() -> None:
    ids = [
        set(re.findall(r'\bid="([^"]+)"', inline_svg(cds_figure(), name, "")))
        for name in ("one", "two")
    ]
    assert not ids[0] & ids[1]


@pytest.mark.parametrize("name", FIGURES)
def test_every_colour_is_the_pages(name: str) -> None:
    text = inline_svg(FIGURES[name](), name, "words")
    bare = re.sub(r"var\(--fig-\w+, #[0-9a-f]{6}\)", "", text)
    assert not re.findall(r"#[0-9a-fA-F]{3,8}\b(?!\w)(?=[;\"\s])", bare)
    used = set(re.findall(r"var\(--fig-(\w+),", text))
    assert {"ink", "muted", "grid"} <= used <= set(ROLES.values())


@pytest.mark.parametrize("name", FIGURES)
def test_svg_is_well_formed_and_names_no_address(name: str) -> None:
    text = inline_svg(FIGURES[name](), name, "words")
    root = ElementTree.fromstring(text)
    assert root.tag == "svg"
    assert "http" not in text
    assert root.attrib["viewBox"].startswith("0 0 ")


def test_text_stays_text_and_takes_the_pages_font() -> None:
    text = inline_svg(cds_figure(), "cds", "words")
    assert "Contextual Dependency Score" in text
    assert "var(--font, sans-serif)" in text
    assert "DejaVu" not in text


def test_description_is_escaped_and_comes_first() -> None:
    root = ElementTree.fromstring(inline_svg(cds_figure(), "cds", "a < b & c"))
    assert root[0].tag == "title"
    assert root[0].text == "a < b & c"


def test_saving_leaves_matplotlib_as_it_was() -> None:
    before = dict(matplotlib.rcParams)
    inline_svg(training_figure(), "training", "words")
    assert dict(matplotlib.rcParams) == before
