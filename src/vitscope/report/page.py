"""The report as one HTML file that asks nothing of the network, rendered from a run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vitscope.figures import numbers
from vitscope.figures.catalogue import FIGURES, draw_figure
from vitscope.figures.curves import plot_awcds_beside
from vitscope.figures.files import inline_svg
from vitscope.figures.gallery import pair_streams, stream_width
from vitscope.figures.histograms import plot_cds_beside
from vitscope.figures.numbers import decimal, percent, whole, with_error
from vitscope.figures.pictures import data_uri, heat_png_bytes, view_jpeg_bytes
from vitscope.figures.removal import FEWEST_PREDICTIONS
from vitscope.report.headlines import MISSED, describe_coverage, group_rows, headlines, run_row
from vitscope.report.removal import diverged_heads, probe_table, task_sizes, zero_shot_table
from vitscope.report.thresholds import gamma_view, tau_view
from vitscope.run import Run
from vitscope.scope.gallery import GalleryFeature, GalleryImage
from vitscope.scope.pairs import MISS_KINDS
from vitscope.stages.images import ImagesStage
from vitscope.store.stamp import Stamp, library_versions
from vitscope.study import dump_study

SKIPPED_SHOWN = 50
"""Skipped images listed on the page; ``skipped.csv`` has them all."""

ON_PAGE = (
    "cds",
    "misses",
    "norms",
    "norm-maps",
    "awcds",
    "awcds-maps",
    "instability",
    "shifts",
    "training",
)
"""Figures of every report, where the run has what they are drawn from."""

THINNEST, THICKEST = 0.7, 2.4
"""Width of an arrow that carries nothing, and of one that carries all, in per cent of a view."""

WHERE = {"either": "either view", "first": "the first view", "both": "both views"}
"""Membership -> where the norm of an outlier token exceeds τ, in words."""

PAGE_FILTERS = ("whole", "decimal", "with_error", "with_interval", "percent", "duration", "p_value",
           "sentence")  # fmt: skip

RATES = {
    "decode_images_per_s": "{:.0f} images/s decoded",
    "encode_views_per_s": "{:.0f} views/s encoded",
    "checked_images_per_s": "{:.0f} images/s checked",
    "tokens_per_s": "{:.0f} tokens/s",
}
"""Rate of a stage -> how it is said."""


@dataclass(frozen=True)
class ViewCard:
    """One view: data URIs of the photograph and its heatmap, its overlap in per cent, arrows.

    An arrow is (x1, y1, x2, y2, width), in per cent of the view's side: a stream of mass.
    """

    photograph: str
    heat: str
    overlap_offset: float
    overlap_side: float
    arrows: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class FeatureCard:
    """One feature on show.

    Attributes:
        feature: its index.
        group: ``low`` or ``high``.
        score: CDS with its error.
        position: CDS in per cent of the scale from 0 to 1.
        facts: label, value, and what it means for whoever points at it.
        pairs: of each image: its id, what the distance of both maps is, and the views.
    """

    feature: int
    group: str
    score: str
    position: float
    facts: tuple[tuple[str, str, str], ...]
    pairs: tuple[tuple[str, str, tuple[ViewCard, ...]], ...]


def render_report(run: Run, stages: Sequence[str], created: str) -> str:
    """Return the page of a run; equal runs give equal text.

    Args:
        run: in which every stage but «probe» and «zeroshot» has finished.
        stages: that are shown, in the order in which they ran.
        created: when, in ISO 8601.
    """
    study, found, images = run.study, run.instability, run.result(ImagesStage)
    others = [run_row(Run(path)) for path in study.beside.runs]
    beside = [run_row(run), *others] if others else []
    at_own = [row for row in found.rows if row.shift == found.shift and row.reading != "received"]
    probes = run.probes if "probe" in stages else None
    zeroshot = run.zeroshot if "zeroshot" in stages else None
    trained = run.training.training is not None
    return _environment().get_template("report.html").render(
        run=run,
        study=study,
        created=created,
        notes=_notes(run),
        n_train=images.n_train if trained else 0,
        n_eval=images.n_train if images.n_eval is None else images.n_eval,
        n_skipped=images.n_skipped,
        skipped=_skipped(run),
        headlines=headlines(run),
        figures=_figures(run, beside, with_predictions=zeroshot is not None),
        groups=group_rows(run.partition),
        gamma=gamma_view(run.partition),
        tau=tau_view(run.outliers),
        coverage=describe_coverage(run.awcds.spectrum),
        by_membership=sorted(at_own, key=lambda row: row.reading != found.reading),
        probes=probes,
        sizes=probes and task_sizes(probes),
        diverged=probes and diverged_heads(probes),
        probe_table=probes and probe_table(probes),
        zeroshot=zeroshot,
        zero_shot_table=zeroshot and zero_shot_table(zeroshot),
        beside=beside,
        choice=run.gallery_choice,
        galleries=_galleries(run),
        stages=[_timing(run.stamp(stage)) for stage in stages],
        versions=library_versions(),
        missed=MISSED,
        where=WHERE,
        fewest=FEWEST_PREDICTIONS,
        skipped_shown=SKIPPED_SHOWN,
        study_toml=dump_study(study),
    )  # fmt: skip


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vitscope.report"),
        autoescape=True,  # image ids and paths are a stranger's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update({name: getattr(numbers, name) for name in PAGE_FILTERS})
    return environment


def _notes(run: Run) -> list[str]:
    """Return what a reader must know before looking at a number."""
    notes = [run.study.note] if run.study.note else []
    training = run.training.training
    if run.study.images.eval is None and training is not None:
        notes.append(
            "The SAE was trained and evaluated on the same images: reconstruction figures are "
            f"those of the training set; on {numbers.whole(training.held_out_tokens)} tokens held "
            f"out of it, the variance unexplained is {numbers.decimal(training.held_out_fvu)}."
        )
    return notes


def _skipped(run: Run) -> list[tuple[str, str]]:
    splits = ("train",) if run.study.images.eval is None else ("train", "eval")
    return [(bad.id, bad.reason) for split in splits for bad in run.verified(split).skipped]


def _timing(stamp: Stamp) -> tuple[str, float, str]:
    """Return a stage's name, its seconds, and its rates in words."""
    known = [text.format(stamp.rates[key]) for key, text in RATES.items() if stamp.rates.get(key)]
    return stamp.stage, stamp.seconds, ", ".join(known)


def _figures(
    run: Run, beside: Sequence[dict[str, Any]], *, with_predictions: bool
) -> dict[str, Markup]:
    names = (*ON_PAGE, "reliability") if with_predictions else ON_PAGE
    drawn = {
        name: (draw_figure(run, name), FIGURES[name].shows)
        for name in names
        if not FIGURES[name].lacks(run)
    }
    if beside:
        scores = plot_cds_beside([(row["name"], row["cds"]) for row in beside])
        drawn["cds-runs"] = scores, "CDS histograms of the runs"
        spectra = plot_awcds_beside([(row["name"], row["spectrum"]) for row in beside])
        drawn["awcds-runs"] = spectra, "awCDS over norms of the runs"
    # names of runs come out as the SVG writer escapes them; the rest is fixed words and numbers.
    return {name: Markup(inline_svg(f, name, text)) for name, (f, text) in drawn.items()}


def _galleries(run: Run) -> list[dict[str, Any]]:
    """Return both groups' cards, with what a reader must know of how they were chosen."""
    choice = run.gallery_choice
    cards = [feature_card(shown, run) for shown in run.gallery()]
    parts = (
        ("low", "Low-CDS features: local", choice.n_low),
        ("high", "High-CDS features: context-dependent", choice.n_high),
    )
    return [
        {
            "group": group,
            "title": title,
            "n": len(run.partition.group(group)),
            "n_eligible": n_eligible,
            "cards": [card for card in cards if card.group == group],
        }
        for group, title, n_eligible in parts
    ]


def feature_card(shown: GalleryFeature, run: Run) -> FeatureCard:
    """Gather the numbers of a feature and encode its images."""
    row = {name: values[shown.feature] for name, values in run.features.items()}
    cds, shift = float(row["cds"]), run.study.scope.shift
    return FeatureCard(
        feature=shown.feature,
        group=str(row["group"]),
        score=with_error(cds, float(row["cds_se"])),
        position=100 * min(max(cds, 0.0), 1.0) if math.isfinite(cds) else 0.0,
        facts=(
            ("pairs", whole(row["n_pairs"]), "exemplar pairs that enter the score"),
            ("missed", _missed(row), "pairs active in exactly one of the two views, and why"),
            ("support", decimal(row["support"], 1), "active patches of the overlap, on average"),
            ("null", decimal(row["null"]), "score if the same maps lay at random"),
            (
                "of null",
                decimal(row["relative"], 2),
                "score without missed pairs over the null: about 1 at random",
            ),
            ("density", percent(row["density"]), "share of all tokens on which it is active"),
        ),
        pairs=tuple(
            (image.image_id, _distance(image, run), _views(image, shift)) for image in shown.images
        ),
    )


def _missed(row: Mapping[str, Any]) -> str:
    """Write how many pairs were missed, and what the most of them are."""
    kinds = {kind: float(row[kind]) for kind in MISS_KINDS}
    if not row["n_missed"] or not all(map(math.isfinite, kinds.values())):
        return whole(row["n_missed"])
    return f"{whole(row['n_missed'])}, mostly {max(kinds, key=kinds.__getitem__)}"


def _views(image: GalleryImage, shift: int) -> tuple[ViewCard, ...]:
    grid, peak = image.maps.shape[-1], float(np.nanmax(image.maps, initial=0.0))
    # the overlap starts at patch s in view 1, at patch 0 in view 2
    offsets, arrows = (100 * shift / grid, 0.0), ((), _arrows(image, shift))
    return tuple(
        ViewCard(
            photograph=data_uri("jpeg", view_jpeg_bytes(view)),
            heat=data_uri("png", heat_png_bytes(activation, peak)),
            overlap_offset=offset,
            overlap_side=100 * (grid - shift) / grid,
            arrows=over,
        )
        for view, activation, offset, over in zip(
            image.views, image.maps, offsets, arrows, strict=True
        )
    )


def _arrows(image: GalleryImage, shift: int) -> tuple[tuple[float, ...], ...]:
    streams = pair_streams(image, shift)
    if streams is None:
        return ()
    ends = 100 / image.maps.shape[-1] * np.concatenate([streams.start, streams.end], 1)
    widths = stream_width(streams.mass, THINNEST, THICKEST)
    return tuple((*row, width) for row, width in zip(ends.tolist(), widths, strict=True))


def _distance(image: GalleryImage, run: Run) -> str:
    if math.isfinite(image.emd):
        share = decimal(image.emd / run.scoring.diameter, 3)
        return f"EMD {image.emd:.2f} patches, {share} of D_grid"
    if any((one > 0).any() for one in image.on_overlap(run.study.scope.shift)):
        counts = {"max": "counts D_grid", "drop": "is not counted", "zero": "counts 0"}
        return f"missed: active in one view only, {counts[run.study.scope.missing]}"
    return "silent on the shared content: not counted"
