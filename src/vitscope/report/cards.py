"""The gallery's cards: what the page shows of one feature."""

import math
from dataclasses import dataclass

import numpy as np

from vitscope.figures.streams import pair_streams, stream_width
from vitscope.report.data import ReportData
from vitscope.report.heatmap import heat_png, view_jpeg
from vitscope.report.numbers import decimal, percent, whole, with_error
from vitscope.scope.exemplar_views import GalleryFeature, GalleryImage


@dataclass(frozen=True)
class Fact:
    """A labelled figure, with what it means for whoever points at it."""

    label: str
    value: str
    meaning: str


THINNEST, THICKEST = 0.7, 2.4
"""Width of an arrow that carries nothing, and of one that carries all, in per cent of a view."""


@dataclass(frozen=True)
class Arrow:
    """One stream of mass over view 2: ends and width in per cent of the view's side."""

    x1: float
    y1: float
    x2: float
    y2: float
    width: float


@dataclass(frozen=True)
class ViewCard:
    """One view: data URIs of the photograph and its heatmap, its overlap in per cent, arrows."""

    photograph: str
    heat: str
    overlap_offset: float
    overlap_side: float
    arrows: tuple[Arrow, ...]


@dataclass(frozen=True)
class PairCard:
    """Both views of one exemplar image, and what their maps' distance is."""

    image_id: str
    views: tuple[ViewCard, ...]
    distance: str


@dataclass(frozen=True)
class FeatureCard:
    """One feature on show; ``position`` is its CDS in per cent of the scale from 0 to 1."""

    feature: int
    group: str
    score: str
    position: float
    facts: tuple[Fact, ...]
    pairs: tuple[PairCard, ...]


def feature_card(shown: GalleryFeature, group: str, data: ReportData) -> FeatureCard:
    """Gather the numbers of ``shown`` and encode its images."""
    scores, j = data.scores, shown.feature
    cds = float(scores.cds[j])
    return FeatureCard(
        feature=j,
        group=group,
        score=with_error(cds, float(scores.cds_se[j])),
        position=100 * min(max(cds, 0.0), 1.0) if math.isfinite(cds) else 0.0,
        facts=_facts(j, data),
        pairs=tuple(_pair_card(image, data) for image in shown.images),
    )


def _facts(j: int, data: ReportData) -> tuple[Fact, ...]:
    scores = data.scores
    density = float(data.columns["density"][j]) if "density" in data.columns else math.nan
    return (
        Fact("pairs", whole(scores.n_pairs[j]), "exemplar pairs that enter the score"),
        Fact("missed", whole(scores.n_missed[j]), "pairs active in exactly one of the two views"),
        Fact(
            "support",
            decimal(float(scores.support[j]), 1),
            "active patches of the overlap, on average",
        ),
        Fact("null", decimal(float(scores.null[j])), "score if the same maps lay at random"),
        Fact(
            "of null",
            decimal(float(scores.relative[j]), 2),
            "score without missed pairs over the null: about 1 at random",
        ),
        Fact("density", percent(density), "share of all tokens on which it is active"),
    )


def _pair_card(image: GalleryImage, data: ReportData) -> PairCard:
    shift, grid = data.scope.shift, data.site.grid
    peak = float(np.nanmax(image.maps, initial=0.0))
    # the overlap starts at patch s in view 1, at patch 0 in view 2
    offsets = (100 * shift / grid, 0.0)
    views = tuple(
        ViewCard(
            photograph=view_jpeg(view),
            heat=heat_png(activation, peak),
            overlap_offset=offset,
            overlap_side=100 * (grid - shift) / grid,
            arrows=over,
        )
        for view, activation, offset, over in zip(
            image.views, image.maps, offsets, ((), _arrows(image, shift)), strict=True
        )
    )
    return PairCard(image.image_id, views, _distance(image, data))


def _arrows(image: GalleryImage, shift: int) -> tuple[Arrow, ...]:
    streams = pair_streams(image, shift)
    if streams is None:
        return ()
    scale = 100 / image.maps.shape[-1]
    widths = stream_width(streams.mass, THINNEST, THICKEST)
    return tuple(
        Arrow(x1, y1, x2, y2, width)
        for (x1, y1), (x2, y2), width in zip(
            (scale * streams.start).tolist(), (scale * streams.end).tolist(), widths, strict=True
        )
    )


def _distance(image: GalleryImage, data: ReportData) -> str:
    if math.isfinite(image.emd):
        share = decimal(image.emd / data.diameter if data.diameter > 0 else math.nan, 3)
        return f"EMD {image.emd:.2f} patches, {share} of D_grid"
    if any((one > 0).any() for one in image.on_overlap(data.scope.shift)):
        counts = {"max": "counts D_grid", "drop": "is not counted", "zero": "counts 0"}
        return f"missed: active in one view only, {counts[data.scope.missing]}"
    return "silent on the shared content: not counted"
