"""Data and pictures: what the pages' scripts ask for."""

from typing import Any
from urllib.parse import unquote

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from pydantic import ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from vitscope.errors import VitscopeError
from vitscope.explorer.answers import KEEP, answer, answer_json, read_body, read_json
from vitscope.explorer.columns import encode_columns
from vitscope.explorer.company import describe_company
from vitscope.explorer.compare import describe_comparison
from vitscope.explorer.explorer import Explorer
from vitscope.explorer.lens import VIEWS, Lens
from vitscope.explorer.looking import describe_picture
from vitscope.explorer.pairs import describe_pair, exemplar, heat
from vitscope.explorer.pictures import MAX_UPLOAD_BYTES, PictureKey, open_picture, picture_name
from vitscope.explorer.requests import GammaRequest, RemovalRequest
from vitscope.explorer.without import Removal, describe_removal
from vitscope.images.loading import to_square
from vitscope.report.heatmap import view_jpeg_bytes

THUMBNAIL_SIDE = 112
VIEW_SIDE = 336
"""Pixels of a view on a feature's page; at most what the backbone sees."""

BINARY = "application/octet-stream"


def add_api(app: FastAPI, explorer: Explorer) -> None:
    """Add what answers with data or pictures."""
    _add_tables(app, explorer)
    _add_pictures(app, explorer)
    _add_looking(app, explorer)
    _add_writing(app, explorer)


def _add_tables(app: FastAPI, explorer: Explorer) -> None:
    @app.get("/{run}/columns")
    def columns(request: Request, run: str) -> Response:
        record = explorer.lens(run).run.record
        data = explorer.rendered.get_or(
            ("columns", run, record.digest), lambda: encode_columns(record)
        )
        return answer(request, data, BINARY)

    @app.get("/{run}/state")
    def state(run: str) -> Response:
        state, error = explorer.lens(run).run.state()
        return JSONResponse({"state": state, "error": error})

    @app.get("/{run}/feature/{feature}/pair/{rank}")
    def pair(request: Request, run: str, feature: int, rank: int) -> Response:
        lens = explorer.feature(run, feature)
        return answer_json(request, describe_pair(lens, exemplar(lens, feature, rank)))

    @app.get("/{run}/feature/{feature}/company")
    def company(request: Request, run: str, feature: int) -> Response:
        return answer_json(request, describe_company(explorer.feature(run, feature), feature))

    @app.get("/compare/data")
    def comparison(request: Request) -> Response:
        if len(explorer.lenses) < 2:
            raise HTTPException(404, "one run alone: start the explorer with two")
        one, other = explorer.lenses.values()
        return answer_json(request, describe_comparison(one.run, other.run))


def _add_pictures(app: FastAPI, explorer: Explorer) -> None:
    @app.get("/{run}/image/{position}/thumbnail")
    def thumbnail(request: Request, run: str, position: int) -> Response:
        lens = explorer.lens(run)
        data = explorer.rendered.get_or(
            ("thumbnail", run, position), lambda: _thumbnail(lens, PictureKey(position))
        )
        return answer(request, data, "image/jpeg", cache=KEEP)

    @app.get("/{run}/image/{position}/view/{view}")
    def image_view(request: Request, run: str, position: int, view: str) -> Response:
        return _view(request, explorer, run, PictureKey(position), view)

    @app.get("/{run}/upload/{upload}/view/{view}")
    def upload_view(request: Request, run: str, upload: str, view: str) -> Response:
        return _view(request, explorer, run, PictureKey(None, upload), view)

    @app.get("/{run}/feature/{feature}/heat/{rank}/{view}")
    def heat_of(request: Request, run: str, feature: int, rank: int, view: str) -> Response:
        lens, which = explorer.feature(run, feature), _view_number(view)
        shown = exemplar(lens, feature, rank)
        data = explorer.rendered.get_or(
            ("heat", run, feature, rank, which), lambda: heat(lens, feature, shown.key, which)
        )
        return answer(request, data, "image/png", cache=KEEP)


def _add_looking(app: FastAPI, explorer: Explorer) -> None:
    @app.get("/{run}/image/{position}/look")
    def look_at_image(request: Request, run: str, position: int) -> Response:
        return answer_json(request, describe_picture(explorer.lens(run), PictureKey(position)))

    @app.get("/{run}/upload/{upload}/look")
    def look_at_upload(request: Request, run: str, upload: str) -> Response:
        return answer_json(request, describe_picture(explorer.lens(run), PictureKey(None, upload)))

    @app.post("/{run}/image/{position}/remove")
    async def remove_from_image(request: Request, run: str, position: int) -> Response:
        return await _remove(request, explorer.lens(run), PictureKey(position))

    @app.post("/{run}/upload/{upload}/remove")
    async def remove_from_upload(request: Request, run: str, upload: str) -> Response:
        return await _remove(request, explorer.lens(run), PictureKey(None, upload))


def _add_writing(app: FastAPI, explorer: Explorer) -> None:
    @app.post("/upload")
    async def upload(request: Request) -> Response:
        data = await read_body(request, MAX_UPLOAD_BYTES)
        name = unquote(request.headers.get("x-file-name", ""), errors="replace")
        key = await run_in_threadpool(explorer.uploads.add, data, name or "dropped-in picture")
        return JSONResponse({"key": key})

    @app.post("/{run}/gamma")
    async def gamma(request: Request, run: str) -> Response:
        live = explorer.lens(run).run
        wanted = _parsed(GammaRequest, await read_json(request))
        record = await run_in_threadpool(live.save_gamma, wanted.gamma)
        return JSONResponse(
            {
                "gamma": record.gamma,
                "source": record.gamma_source,
                "message": record.gamma_message,
                "groups": {
                    name: int(np.sum(record.features["group"] == name))
                    for name in ("low", "high", "unscored")
                },
            }
        )


async def _remove(request: Request, lens: Lens, key: PictureKey) -> Response:
    wanted = _parsed(RemovalRequest, await read_json(request))
    removal = Removal(**wanted.model_dump())
    return JSONResponse(await run_in_threadpool(describe_removal, lens, key, removal))


def _parsed(kind: type[Any], values: dict[str, Any]) -> Any:
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise VitscopeError(f"{place}: {first['msg']}") from None


def _thumbnail(lens: Lens, key: PictureKey) -> bytes:
    picture = open_picture(key, lens.run.record, lens.uploads)
    return view_jpeg_bytes(to_square(picture, THUMBNAIL_SIDE).numpy(), THUMBNAIL_SIDE)


def _view(request: Request, explorer: Explorer, run: str, key: PictureKey, view: str) -> Response:
    lens, which = explorer.lens(run), _view_number(view)
    picture_name(key, lens.run.record, lens.uploads)  # a picture that is gone is no picture

    def draw() -> bytes:
        return view_jpeg_bytes(lens.look(key).pixels[which].numpy(), VIEW_SIDE)

    data = explorer.rendered.get_or(("view", run, key, which), draw)
    return answer(request, data, "image/jpeg", cache=KEEP)


def _view_number(view: str) -> int:
    if view not in VIEWS:
        raise HTTPException(404, f"no view '{view}'; there are {', '.join(VIEWS)}")
    return VIEWS.index(view)
