"""The pages: their numbers are written here, what moves is added by their scripts."""

from collections import Counter
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response

from vitscope.explorer.cooccurrence import coarse_bins
from vitscope.explorer.lens import Explorer, Lens
from vitscope.explorer.pictures import PictureKey
from vitscope.figures import numbers
from vitscope.run import Run

IMAGES_A_PAGE = 96

TEMPLATE_FILTERS: dict[str, Any] = {
    "whole": numbers.whole,
    "decimal": numbers.decimal,
    "with_error": numbers.with_error,
    "percent": numbers.percent,
}


class _Pages:
    """Renders templates with what every page shows."""

    def __init__(self, explorer: Explorer, token: str) -> None:
        self.explorer = explorer
        self.token = token
        self.environment = Environment(
            loader=PackageLoader("vitscope.explorer"),
            autoescape=True,  # names of files, classes and runs are a stranger's text
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self.environment.filters.update(TEMPLATE_FILTERS)

    def render(self, template: str, key: str | None, **values: Any) -> Response:
        """Render a page about the run under ``key``, or about none of them."""
        live = None if key is None else self.explorer.lens(key).live
        page = self.environment.get_template(template).render(
            runs={name: lens.live.run for name, lens in self.explorer.lenses.items()},
            run_key=key,
            run=None if live is None else live.run,
            token=self.token,
            may_save=live is not None and live.may_save,
            **values,
        )
        # γ may have been saved meanwhile: a page is asked for again
        return HTMLResponse(page, headers={"cache-control": "no-store"})

    def picture(self, run: str, key: PictureKey) -> Response:
        """Render the page of a picture."""
        lens = self.explorer.lens(run)
        name = lens.name_of(key)  # refuses a position that is none
        label = None if key.position is None else lens.live.run.image_refs[key.position].label
        told = {"name": name, "label": label, "path": key.path, "position": key.position}
        return self.render("image.html", run, **told)


def add_pages(app: FastAPI, explorer: Explorer, token: str) -> None:
    """Add what answers with a page; ``token`` lets its scripts write."""
    pages = _Pages(explorer, token)

    @app.get("/")
    def start() -> Response:
        return RedirectResponse("/compare" if len(explorer.lenses) > 1 else "/a/")

    @app.get("/compare")
    def compare() -> Response:
        if len(explorer.lenses) < 2:
            raise HTTPException(404, "one run alone: start the explorer with two")
        return pages.render("compare.html", None)

    @app.get("/{run}/")
    def table(run: str) -> Response:
        return pages.render("table.html", run)

    @app.get("/{run}/feature/{feature}")
    def feature_page(run: str, feature: int) -> Response:
        lens = explorer.feature(run, feature)
        return pages.render("feature.html", run, **_feature(lens, feature))

    @app.get("/{run}/images")
    def images(run: str, query: str = "", page: int = 0) -> Response:
        found = _images(explorer.lens(run).live.run, query, page)
        return pages.render("images.html", run, **found)

    @app.get("/{run}/image/{position}")
    def image_page(run: str, position: int) -> Response:
        return pages.picture(run, PictureKey(position))

    @app.get("/{run}/upload/{upload}")
    def upload_page(run: str, upload: str) -> Response:
        return pages.picture(run, PictureKey(None, upload))

    @app.exception_handler(HTTPException)
    def problem(_: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        page = pages.render("problem.html", None, message=error.detail)
        page.status_code = error.status_code
        return page

    @app.exception_handler(404)
    def missing(request: Request, error: Exception) -> Response:
        detail = error.detail if isinstance(error, HTTPException) else "there is nothing here"
        return problem(request, HTTPException(404, detail))


def _feature(lens: Lens, feature: int) -> dict[str, Any]:
    run, shown = lens.live.run, lens.live.exemplars
    row = {
        name: values[feature] if values.dtype == object else float(values[feature])
        for name, values in run.features.items()
    }
    rows = shown.of(feature)
    refs = [run.image_refs[int(i)] for i in shown.image[rows]]
    pairs = [
        {
            "rank": int(shown.rank[i]),
            "position": int(shown.image[i]),
            "name": ref.id,
            "activation": float(shown.activation[i]),
            "emd": float(shown.emd[i]),
            "share": float(shown.emd[i]) / run.scoring.diameter,
            "cells": (int(shown.cells_first[i]), int(shown.cells_second[i])),
        }
        for i, ref in zip(range(rows.start, rows.stop), refs, strict=True)
    ]
    labels = Counter(sorted(ref.label for ref in refs if ref.label))
    common, n_common = max(labels.items(), key=lambda one: one[1], default=(None, 0))
    norms = coarse_bins(run.outliers.norms)
    return {
        "feature": feature,
        "row": row,
        "pairs": pairs,
        "common": common,
        "n_common": n_common,
        "tokens_edges": norms.edges.tolist(),
        "tokens_share": (norms.counts / max(norms.counts.sum(), 1)).tolist(),
    }


def _images(run: Run, query: str, page: int) -> dict[str, Any]:
    wanted = query.casefold()
    found = [place for place in enumerate(run.image_refs) if wanted in place[1].id.casefold()]
    n_pages = max(1, -(-len(found) // IMAGES_A_PAGE))
    page = min(max(page, 0), n_pages - 1)
    return {
        "query": query,
        "page": page,
        "n_pages": n_pages,
        "n_found": len(found),
        "found": found[page * IMAGES_A_PAGE : (page + 1) * IMAGES_A_PAGE],
    }
