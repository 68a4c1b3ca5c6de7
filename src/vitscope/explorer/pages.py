"""The pages: their numbers are written here, what moves is added by their scripts."""

import math
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.responses import HTMLResponse, RedirectResponse, Response

from vitscope.explorer.explorer import Explorer
from vitscope.explorer.lens import Lens
from vitscope.explorer.norm_bins import coarse_bins
from vitscope.explorer.pictures import PictureKey, Uploads, picture_name
from vitscope.explorer.records import RunRecord
from vitscope.report import numbers

IMAGES_A_PAGE = 96

FILTERS: dict[str, Any] = {
    "whole": numbers.whole,
    "decimal": numbers.decimal,
    "with_error": numbers.with_error,
    "percent": numbers.percent,
}


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("vitscope.explorer"),
        autoescape=True,  # names of files, classes and runs are a stranger's text
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(FILTERS)
    return environment


class _Pages:
    """Renders templates with what every page shows."""

    def __init__(self, explorer: Explorer) -> None:
        self.explorer = explorer
        self.environment = _environment()

    def render(self, template: str, run: str | None, **values: Any) -> Response:
        page = self.environment.get_template(template).render(
            runs={key: lens.run.record for key, lens in self.explorer.lenses.items()},
            run_key=run,
            token=self.explorer.access.token,
            may_save=run is not None and self.explorer.lens(run).run.save is not None,
            **values,
        )
        # γ may have been saved meanwhile: a page is asked for again
        return HTMLResponse(page, headers={"cache-control": "no-store"})


def add_pages(app: FastAPI, explorer: Explorer) -> None:
    """Add what answers with a page."""
    pages = _Pages(explorer)

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
        return pages.render("table.html", run, record=explorer.lens(run).run.record)

    @app.get("/{run}/feature/{feature}")
    def feature_page(run: str, feature: int) -> Response:
        lens = explorer.feature(run, feature)
        return pages.render("feature.html", run, **_feature(lens, feature))

    @app.get("/{run}/images")
    def images(run: str, query: str = "", page: int = 0) -> Response:
        record = explorer.lens(run).run.record
        return pages.render("images.html", run, record=record, **_images(record, query, page))

    @app.get("/{run}/image/{position}")
    def image_page(run: str, position: int) -> Response:
        return _picture_page(pages, run, PictureKey(position))

    @app.get("/{run}/upload/{upload}")
    def upload_page(run: str, upload: str) -> Response:
        return _picture_page(pages, run, PictureKey(None, upload))

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


def _picture_page(pages: _Pages, run: str, key: PictureKey) -> Response:
    record, uploads = pages.explorer.lens(run).run.record, pages.explorer.uploads
    label = None if key.position is None else _label(record, key, uploads)
    return pages.render(
        "image.html",
        run,
        record=record,
        name=picture_name(key, record, uploads),
        label=label,
        path=key.path,
        position=key.position,
        cds=None,
    )


def _label(record: RunRecord, key: PictureKey, uploads: Uploads) -> str | None:
    picture_name(key, record, uploads)  # refuses a position that is none
    assert key.position is not None
    return record.images[key.position].label


def _feature(lens: Lens, feature: int) -> dict[str, Any]:
    record = lens.run.record
    row = {
        name: values[feature] if values.dtype == object else float(values[feature])
        for name, values in record.features.items()
    }
    rows = record.exemplars.of(feature)
    shown = record.exemplars
    overlap = record.site.grid - record.scope.shift
    diameter = math.sqrt(2.0) * (overlap - 1)
    pairs = [
        {
            "rank": int(shown.rank[i]),
            "position": int(shown.image[i]),
            "name": record.images[int(shown.image[i])].id,
            "label": record.images[int(shown.image[i])].label,
            "activation": float(shown.activation[i]),
            "emd": float(shown.emd[i]),
            "share": float(shown.emd[i]) / diameter,
            "cells": (int(shown.cells_first[i]), int(shown.cells_second[i])),
        }
        for i in range(rows.start, rows.stop)
    ]
    labels = [record.images[int(i)].label for i in shown.image[rows]]
    names = sorted({name for name in labels if name})
    common = max(names, key=labels.count) if names else None
    norms = coarse_bins(record.norms)
    return {
        "record": record,
        "feature": feature,
        "row": row,
        "pairs": pairs,
        "diameter": diameter,
        "common": common,
        "n_common": labels.count(common) if common else 0,
        "tokens_edges": norms.edges.tolist(),
        "tokens_share": (norms.counts / max(norms.counts.sum(), 1)).tolist(),
    }


def _images(record: RunRecord, query: str, page: int) -> dict[str, Any]:
    wanted = query.casefold()
    found = [
        (position, ref) for position, ref in enumerate(record.images) if wanted in ref.id.casefold()
    ]
    n_pages = max(1, -(-len(found) // IMAGES_A_PAGE))
    page = min(max(page, 0), n_pages - 1)
    return {
        "query": query,
        "page": page,
        "n_pages": n_pages,
        "n_found": len(found),
        "found": found[page * IMAGES_A_PAGE : (page + 1) * IMAGES_A_PAGE],
    }
