"""Answers that a browser may keep, errors as a person reads them, and bodies within bounds."""

import hashlib
import json
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from vitscope.errors import VitscopeError
from vitscope.explorer.pictures import NoSuchPictureError
from vitscope.images.decode import UnreadableImageError

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


async def read_json(request: Request) -> dict[str, Any]:
    """Read a request's body as a JSON object.

    Raises:
        VitscopeError: it is none, or too large.
    """
    body = await read_body(request, MAX_JSON_BYTES)
    try:
        found = await run_in_threadpool(json.loads, body)
    except (ValueError, RecursionError):
        raise VitscopeError("the request is not JSON") from None
    if not isinstance(found, dict):
        raise VitscopeError("the request is not a JSON object")
    return found
