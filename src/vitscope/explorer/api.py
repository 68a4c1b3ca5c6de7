"""Data and pictures: what the pages' scripts ask for, and how it is answered or refused."""

import hashlib
import json
from typing import Any, TypeVar
from urllib.parse import unquote

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vitscope.errors import VitscopeError
from vitscope.explorer.ablation import Ablation, describe_ablation
from vitscope.explorer.cooccurrence import describe_cooccurrence
from vitscope.explorer.lens import VIEWS, Explorer, Lens, describe_picture
from vitscope.explorer.pairs import describe_pair, exemplar_row, heat
from vitscope.explorer.pictures import MAX_UPLOAD_BYTES, NoSuchPictureError, PictureKey
from vitscope.explorer.tables import describe_comparison, why_unmatched
from vitscope.figures.pictures import view_jpeg_bytes
from vitscope.images.decode import UnreadableImageError
from vitscope.images.loading import to_square

THUMBNAIL_SIDE = 112
SHOWN_SIDE = 336
"""Pixels of a view on a feature's page; at most what the backbone sees."""

BINARY = "application/octet-stream"

ASK_AGAIN = "private, no-cache"
"""The browser keeps it, and asks each time whether it still stands."""

KEEP = "private, max-age=3600"
"""The picture behind an address does not change while the explorer runs."""

MAX_JSON_BYTES = 2 * 2**20


class TooLargeError(VitscopeError):
    """A body has more bytes than it may."""


STATUS: dict[type[Exception], int] = {
    NoSuchPictureError: 404,
    UnreadableImageError: 422,
    TooLargeError: 413,
}
CONFLICT = 409
"""Any other error of a user: the request is fine, the run or its models are not."""


class GammaRequest(BaseModel):
    """Save γ as the run's partition."""

    model_config = ConfigDict(extra="forbid", strict=True)

    gamma: float | None = Field(ge=0, le=1)
    """None: as the histogram proposes it."""


Body = TypeVar("Body", bound=BaseModel)


def answer(request: Request, body: bytes, media_type: str, *, cache: str = ASK_AGAIN) -> Response:
    """Return ``body``, or that the browser's copy still stands."""
    tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": cache}
    if tag in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(body, media_type=media_type, headers=headers)


def answer_json(request: Request, value: Any) -> Response:
    """Return plain values as JSON; NaN has no place in it."""
    return answer(request, json.dumps(value, allow_nan=False).encode(), "application/json")


def answer_error(_: Request, error: Exception) -> Response:
    """Return a user's error as its one line."""
    return JSONResponse({"error": str(error)}, STATUS.get(type(error), CONFLICT))


async def read_body(request: Request, most: int) -> bytes:
    """Read a request's body.

    Raises:
        TooLargeError: it has more than ``most`` bytes; what it says of itself is not believed.
    """
    found = bytearray()
    async for part in request.stream():
        found += part
        if len(found) > most:
            raise TooLargeError(f"more than {most / 2**20:g} MiB")
    return bytes(found)


async def read_request(kind: type[Body], request: Request) -> Body:
    """Read and check a request's body, a JSON object.

    Raises:
        VitscopeError: it is none, too large, or not what may be asked.
    """
    body = await read_body(request, MAX_JSON_BYTES)
    try:
        found = await run_in_threadpool(json.loads, body)
    except (ValueError, RecursionError):
        raise VitscopeError("the request is not JSON") from None
    if not isinstance(found, dict):
        raise VitscopeError("the request is not a JSON object")
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise VitscopeError(f"{place}: {first['msg']}") from None


def add_api(app: FastAPI, explorer: Explorer) -> None:
    """Add what answers with data or pictures."""
    _add_tables(app, explorer)
    _add_pictures(app, explorer)
    _add_encodings(app, explorer)
    _add_writing(app, explorer)


def _add_tables(app: FastAPI, explorer: Explorer) -> None:
    @app.get("/{run}/columns")
    def columns(request: Request, run: str) -> Response:
        return answer(request, explorer.lens(run).live.columns, BINARY)

    @app.get("/{run}/state")
    def state(run: str) -> Response:
        state, error = explorer.lens(run).live.state()
        return JSONResponse({"state": state, "error": error})

    @app.get("/{run}/feature/{feature}/pair/{rank}")
    def pair(request: Request, run: str, feature: int, rank: int) -> Response:
        return answer_json(request, describe_pair(explorer.feature(run, feature), feature, rank))

    @app.get("/{run}/feature/{feature}/cooccurrence")
    def cooccurrence(request: Request, run: str, feature: int) -> Response:
        return answer_json(request, describe_cooccurrence(explorer.feature(run, feature), feature))

    @app.get("/compare/data")
    def comparison(request: Request) -> Response:
        if len(explorer.lenses) < 2:
            raise HTTPException(404, "one run alone: start the explorer with two")
        runs = [lens.live for lens in explorer.lenses.values()]
        if why_unmatched(runs[0].run.site, runs[1].run.site) is None:
            for live in runs:
                live.loaded()
        return answer_json(request, describe_comparison(runs[0].run, runs[1].run))


def _add_pictures(app: FastAPI, explorer: Explorer) -> None:
    @app.get("/{run}/image/{position}/thumbnail")
    def thumbnail(request: Request, run: str, position: int) -> Response:
        lens = explorer.lens(run)

        def draw() -> bytes:
            square = to_square(lens.open(PictureKey(position)), THUMBNAIL_SIDE)
            return view_jpeg_bytes(square.numpy(), THUMBNAIL_SIDE)

        data = explorer.rendered.get_or(("thumbnail", run, position), draw)
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
        exemplar_row(lens, feature, rank)  # what is no exemplar is refused, and not kept
        data = explorer.rendered.get_or(
            ("heat", run, feature, rank, which), lambda: heat(lens, feature, rank, which)
        )
        return answer(request, data, "image/png", cache=KEEP)


def _add_encodings(app: FastAPI, explorer: Explorer) -> None:
    @app.get("/{run}/image/{position}/tokens")
    def tokens_of_image(request: Request, run: str, position: int) -> Response:
        return answer_json(request, describe_picture(explorer.lens(run), PictureKey(position)))

    @app.get("/{run}/upload/{upload}/tokens")
    def tokens_of_upload(request: Request, run: str, upload: str) -> Response:
        return answer_json(request, describe_picture(explorer.lens(run), PictureKey(None, upload)))

    @app.post("/{run}/image/{position}/remove")
    async def remove_from_image(request: Request, run: str, position: int) -> Response:
        return await _ablate(request, explorer.lens(run), PictureKey(position))

    @app.post("/{run}/upload/{upload}/remove")
    async def remove_from_upload(request: Request, run: str, upload: str) -> Response:
        return await _ablate(request, explorer.lens(run), PictureKey(None, upload))


def _add_writing(app: FastAPI, explorer: Explorer) -> None:
    @app.post("/upload")
    async def upload(request: Request) -> Response:
        data = await read_body(request, MAX_UPLOAD_BYTES)
        name = unquote(request.headers.get("x-file-name", ""), errors="replace")
        key = await run_in_threadpool(explorer.uploads.add, data, name or "dropped-in picture")
        return JSONResponse({"key": key})

    @app.post("/{run}/gamma")
    async def gamma(request: Request, run: str) -> Response:
        live = explorer.lens(run).live
        wanted = await read_request(GammaRequest, request)
        await run_in_threadpool(live.save_gamma, wanted.gamma)
        found = live.run.partition
        sizes = {name: int(found.group(name).size) for name in ("low", "high", "unscored")}
        told = {"gamma": found.gamma, "source": found.source, "message": found.message}
        return JSONResponse({**told, "groups": sizes})


async def _ablate(request: Request, lens: Lens, key: PictureKey) -> Response:
    wanted = await read_request(Ablation, request)
    return JSONResponse(await run_in_threadpool(describe_ablation, lens, key, wanted))


def _view(request: Request, explorer: Explorer, run: str, key: PictureKey, view: str) -> Response:
    lens, which = explorer.lens(run), _view_number(view)
    lens.name_of(key)  # a picture that is gone is no picture

    def draw() -> bytes:
        return view_jpeg_bytes(lens.encode(key).pixels[which].numpy(), SHOWN_SIDE)

    data = explorer.rendered.get_or(("view", run, key, which), draw)
    return answer(request, data, "image/jpeg", cache=KEEP)


def _view_number(view: str) -> int:
    if view not in VIEWS:
        raise HTTPException(404, f"no view '{view}'; there are {', '.join(VIEWS)}")
    return VIEWS.index(view)
