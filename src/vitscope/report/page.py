"""The run's report as one HTML file that asks nothing of the network."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from vitscope.figures.awcds import plot_awcds
from vitscope.figures.beside import plot_awcds_beside, plot_cds_beside
from vitscope.figures.cds import plot_cds
from vitscope.figures.instability import plot_instability
from vitscope.figures.norms import plot_norms
from vitscope.figures.reliability import FEWEST, plot_reliability
from vitscope.figures.shifts import plot_shifts
from vitscope.figures.svg import inline_svg
from vitscope.figures.token_maps import plot_awcds_maps, plot_norm_maps
from vitscope.figures.training import plot_training
from vitscope.report import numbers
from vitscope.report.cards import FeatureCard, feature_card
from vitscope.report.data import ReportData
from vitscope.report.groups import group_profiles
from vitscope.report.headlines import MISSED, headlines
from vitscope.report.instability import instability_view
from vitscope.report.removal import reliability_lines
from vitscope.report.removal_view import removal_view
from vitscope.report.spectrum import describe_coverage
from vitscope.report.study import study_toml
from vitscope.report.thresholds import gamma_view, tau_view
from vitscope.store.atomic import write_text

SKIPPED_SHOWN = 50
"""Skipped images listed on the page; ``skipped.csv`` has them all."""

FILTERS: dict[str, Any] = {
    "whole": numbers.whole,
    "decimal": numbers.decimal,
    "with_error": numbers.with_error,
    "with_interval": numbers.with_interval,
    "percent": numbers.percent,
    "duration": numbers.duration,
    "p_value": numbers.p_value,
    "sentence": numbers.sentence,
}


def write_report(path: Path, data: ReportData) -> None:
    """Write the page to ``path`` atomically.

    Raises:
        ArtifactError: the disk is full or the folder cannot be written.
    """
    write_text(path, render_report(data))


def render_report(data: ReportData) -> str:
    """Return the page; equal data give equal text."""
    template = _environment().get_template("report.html")
    return template.render(
        data=data,
        beside=data.beside,
        figures=_figures(data),
        headlines=headlines(data),
        groups=group_profiles(data),
        instability=instability_view(data.instability, data.scope, data.outliers),
        removal=removal_view(data.removal),
        fewest=FEWEST,
        galleries=_galleries(data),
        missed=MISSED,
        gamma=gamma_view(data),
        tau=tau_view(data),
        coverage=describe_coverage(data.spectrum),
        study=study_toml(data.study),
        skipped_shown=SKIPPED_SHOWN,
    )


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vitscope.report"),
        autoescape=True,  # image ids and paths are a stranger's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


def _figures(data: ReportData) -> dict[str, Markup]:
    instability = instability_view(data.instability, data.scope, data.outliers)
    drawn = {
        "cds": (
            plot_cds(data.scores.cds, data.partition, data.gamma_evidence),
            "Histogram of CDS, split at γ, with other thresholds",
        ),
        "norms": (
            plot_norms(data.norm_histogram, data.tau, data.tau_evidence),
            "Histogram of norms, with τ and other thresholds",
        ),
        "awcds": (plot_awcds(data.spectrum, data.tau.tau), "awCDS over norm percentiles"),
        "instability": (
            plot_instability(instability.own, data.diameter),
            "Mean EMD of outlier and other tokens under three readings",
        ),
    }
    if len(instability.shifts) > 1:
        curves = plot_shifts(instability.shown)
        drawn["shifts"] = (curves, "Mean EMD of outlier and other tokens over the shift")
    if data.token_maps:
        norms = plot_norm_maps(data.token_maps, data.tau.tau)
        drawn["norm_maps"] = (norms, "Images and the norms of their tokens, outliers ringed")
        weighed = plot_awcds_maps(data.token_maps, data.tau.tau)
        drawn["awcds_maps"] = (weighed, "Images and the awCDS of their tokens, outliers ringed")
    if data.curve:
        drawn["training"] = (plot_training(data.curve), "FVU and dead features over steps")
    if data.beside:
        scores = [(run.name, run.cds) for run in data.beside]
        spectra = [(run.name, run.spectrum) for run in data.beside]
        drawn["cds_beside"] = (plot_cds_beside(scores), "Histograms of CDS of several runs")
        drawn["awcds_beside"] = (plot_awcds_beside(spectra), "awCDS over norms of several runs")
    if data.removal is not None and data.removal.zero_shot is not None:
        diagrams = reliability_lines(data.removal)
        text = "Accuracy over confidence, with and without each group"
        drawn["reliability"] = (plot_reliability(diagrams), text)
    # names of runs come out as the SVG writer escapes them; the rest is fixed words and numbers.
    return {name: Markup(inline_svg(f, name, text)) for name, (f, text) in drawn.items()}


def _galleries(data: ReportData) -> list[dict[str, Any]]:
    """Return both groups' cards, with what a reader must know of how they were chosen."""
    shown = {feature.feature: feature for feature in data.gallery}

    def cards(features: tuple[int, ...], group: str) -> list[FeatureCard]:
        return [feature_card(shown[j], group, data) for j in features if j in shown]

    choice, partition = data.choice, data.partition
    return [
        {
            "group": "low",
            "title": "Low-CDS features: local",
            "n": int(partition.low.size),
            "n_eligible": choice.n_low,
            "cards": cards(choice.low, "low"),
        },
        {
            "group": "high",
            "title": "High-CDS features: context-dependent",
            "n": int(partition.high.size),
            "n_eligible": choice.n_high,
            "cards": cards(choice.high, "high"),
        },
    ]
