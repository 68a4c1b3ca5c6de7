"""Two runs side by side: two SAEs, two layers, two models."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vitscope.backbones.backbone import Site
from vitscope.explorer.live import LiveRun
from vitscope.explorer.records import Models, RunRecord
from vitscope.scope.awcds import NormSpectrum
from vitscope.scope.matching import LEAST_COSINE, match_features

BINS = 50
"""Of the CDS histograms."""

MOST_MATCHED = 3_000
"""Points drawn; all of them enter the correlation."""


def describe_comparison(one: LiveRun, other: LiveRun) -> dict[str, Any]:
    """Return what the page of both runs shows, as plain JSON."""
    records = [one.record, other.record]
    return {
        "edges": np.linspace(0.0, 1.0, BINS + 1).tolist(),
        "runs": [_describe(record) for record in records],
        "matched": _matched(one, other),
    }


def _describe(run: RunRecord) -> dict[str, Any]:
    cds = np.asarray(run.features["cds"], np.float64)
    scored = cds[np.isfinite(cds)]
    counts, _ = np.histogram(scored, BINS, (0.0, 1.0))
    return {
        "name": run.name,
        "gamma": run.gamma,
        "share": (counts / max(scored.size, 1)).tolist(),
        "spectrum": None if run.spectrum is None else _spectrum(run.spectrum),
    }


def _spectrum(spectrum: NormSpectrum) -> dict[str, list[float | None]]:
    def plain(values: NDArray[np.float64]) -> list[float | None]:
        return [float(v) if np.isfinite(v) else None for v in values]

    return {
        "percentile": plain(spectrum.percentile),
        "awcds": plain(spectrum.awcds),
        "low": plain(spectrum.low),
        "high": plain(spectrum.high),
    }


def why_unmatched(one: Site, other: Site) -> str | None:
    """Return why features of two runs cannot be told to be the same; None where they can."""
    for name, text in (("model", "models"), ("weights", "weights"), ("layer", "blocks")):
        if getattr(one, name) != getattr(other, name):
            return (
                f"the runs read different {text}: their features live in different spaces, and "
                "no cosine between decoder directions means anything"
            )
    return None


def _matched(one: LiveRun, other: LiveRun) -> dict[str, Any]:
    """Match features by their decoder directions, where both runs read the same activations."""
    reason = why_unmatched(one.record.site, other.record.site)
    if reason is not None:
        return {"why_not": reason}
    decoders = [_unit_rows(run.models()) for run in (one, other)]
    found = match_features(*decoders)
    cds = [np.asarray(run.record.features["cds"], np.float64) for run in (one, other)]
    a, b = cds[0][found.one], cds[1][found.other]
    scored = np.isfinite(a) & np.isfinite(b)
    drawn = np.flatnonzero(scored)[:: max(1, -(-int(scored.sum()) // MOST_MATCHED))]
    several = scored.sum() > 2
    return {
        "least": LEAST_COSINE,
        "n_matched": len(found.one),
        "n_scored": int(scored.sum()),
        "n_features": [len(values) for values in cds],
        "correlation": float(np.corrcoef(a[scored], b[scored])[0, 1]) if several else None,
        "points": [
            [int(found.one[i]), int(found.other[i]), float(a[i]), float(b[i])] for i in drawn
        ],
    }


def _unit_rows(models: Models) -> Any:
    rows = models.sae.w_dec.detach().float().cpu()
    return rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-12)
