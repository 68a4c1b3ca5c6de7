"""The explorer on a port of this machine: who may ask, the web application, the socket.

A page of another site can make a browser send requests here. It is refused by the name it asked for
(DNS rebinding: another name that was made to point at this machine), by where it comes from, and,
for whatever is not a plain reading, by a token that only our own pages know.
"""

import secrets
import socket
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import uvicorn
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vitscope.errors import ConfigError, VitscopeError
from vitscope.explorer.api import ASK_AGAIN, add_api, answer_error
from vitscope.explorer.lens import Explorer
from vitscope.explorer.live import LiveRun
from vitscope.explorer.pages import add_pages

DEFAULT_PORT = 8765

STATIC = Path(__file__).with_name("static")

LOOPBACK = ("127.0.0.1", "localhost", "::1")

TOKEN_HEADER = "x-vitscope-token"

SAFE_METHODS = ("GET", "HEAD")

POLICY = (
    "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
"""No inline script or style, nothing from elsewhere, in no frame."""

SECURITY_HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
}


@dataclass(frozen=True)
class Access:
    """What a request must show.

    Attributes:
        names: host names that the explorer answers to.
        token: known to our own pages alone; new with every process.
    """

    names: tuple[str, ...] = LOOPBACK
    token: str = field(default_factory=lambda: secrets.token_urlsafe(32))

    def refusal(self, method: str, headers: Headers) -> str | None:
        """Return why a request is refused, None where it is not."""
        if not self._is_ours(headers.get("host", "")):
            return "this explorer does not answer to that host name"
        origin = headers.get("origin")
        if origin is not None and not self._is_same_origin(origin, headers.get("host", "")):
            return "this explorer does not answer to pages of other sites"
        if headers.get("sec-fetch-site") in ("cross-site", "same-site") and not (
            # a link to a page, followed by a person
            method in SAFE_METHODS
            and headers.get("sec-fetch-mode") == "navigate"
            and headers.get("sec-fetch-dest") == "document"
        ):
            return "this explorer does not answer to pages of other sites"
        if method in SAFE_METHODS:
            return None
        given = headers.get(TOKEN_HEADER, "")
        if not secrets.compare_digest(given.encode(), self.token.encode()):
            return "the page is older than this explorer; load it again"
        return None

    def _is_ours(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname
        except ValueError:
            return False
        return name is not None and name in self.names

    def _is_same_origin(self, origin: str, host: str) -> bool:
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.netloc == host


def access_for(host: str, also: Iterable[str] = ()) -> Access:
    """Return the access of a server on ``host``, and of further names for it."""
    return Access(tuple(dict.fromkeys([*LOOPBACK, host.lower(), *(name.lower() for name in also)])))


class Guard:
    """Refuses what may not ask, and puts the headers of caution on every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app = app
        self.access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return

        async def careful(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        if scope["type"] != "http":  # there are no web sockets here
            return
        refusal = self.access.refusal(scope["method"], Headers(scope=scope))
        if refusal is not None:
            await PlainTextResponse(refusal, status_code=403)(scope, receive, careful)
            return
        await self.app(scope, receive, careful)


def build_app(runs: list[LiveRun], access: Access) -> ASGIApp:
    """Return the application for one or two runs; their models load as soon as it starts."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncGenerator[None]:
        for run in runs:
            run.start_loading()
        yield

    # the framework's own documentation pages load scripts from elsewhere
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    explorer = Explorer(runs)
    app.mount("/static", _Revalidated(directory=STATIC), name="static")
    app.add_exception_handler(VitscopeError, answer_error)
    add_api(app, explorer)
    add_pages(app, explorer, access.token)
    return Guard(app, access)


class _Revalidated(StaticFiles):
    """Files of the package: the browser asks whether they changed, as after an upgrade."""

    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers["cache-control"] = ASK_AGAIN
        return response


def require_local(host: str, also: Sequence[str]) -> None:
    """Refuse to serve beyond this machine unless it was asked for in so many words.

    Raises:
        ConfigError: ``host`` is no loopback address, and no name is given that others will use.
    """
    if host not in LOOPBACK and not also:
        raise ConfigError(
            f"--host {host} would show the run's images to the network, to whoever asks, without "
            "encryption. If that is meant, name this machine as others do: --allow-host NAME "
            "(safer: keep 127.0.0.1 and forward the port with ssh -L)"
        )


def serve(
    runs: list[LiveRun],
    *,
    host: str = LOOPBACK[0],
    port: int = DEFAULT_PORT,
    also: Sequence[str] = (),
    on_ready: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve one or two runs until the process is interrupted.

    Args:
        runs: the first is ``a`` in addresses, the second ``b``.
        host: address to bind.
        port: 0 takes any that is free.
        also: further host names to answer to; needed where ``host`` is no loopback address.
        on_ready: called with the address once the port is bound.

    Raises:
        ConfigError: the port is taken or may not be bound, or the host is not of this machine.
    """
    require_local(host, also)
    with closing(_bound(host, port)) as bound:
        shown = f"[{host}]" if ":" in host else host
        on_ready(f"http://{shown}:{bound.getsockname()[1]}/")
        config = uvicorn.Config(
            build_app(runs, access_for(host, also)),
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=1,
        )
        with suppress(KeyboardInterrupt):  # the way to end it, and no accident
            uvicorn.Server(config).run(sockets=[bound])


def _bound(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen()  # who comes before the server is up waits, and is not turned away
    except (OSError, OverflowError) as error:
        found.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise ConfigError(
            f"cannot listen on {host} port {port}: {reason}; choose another --port (0 takes any "
            "that is free)"
        ) from None
    return found
