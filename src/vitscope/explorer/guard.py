"""Who may ask: this machine's own browser, for these pages alone.

A page of another site can make a browser send requests here. It is refused by the name it asked for
(DNS rebinding: another name that was made to point at this machine), by where it comes from, and,
for whatever is not a plain reading, by a token that only our own pages know.
"""

import secrets
from collections.abc import Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK = ("127.0.0.1", "localhost", "::1")

TOKEN_HEADER = "x-vitscope-token"

SAFE_METHODS = ("GET", "HEAD")

POLICY = (
    "default-src 'self'; img-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
"""No inline script or style, nothing from elsewhere, in no frame."""

HEADERS = {
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
        name = _name(f"//{host}")
        return name is not None and name in self.names

    def _is_same_origin(self, origin: str, host: str) -> bool:
        parts = urlsplit(origin)
        return parts.scheme in ("http", "https") and parts.netloc == host


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


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
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        if scope["type"] != "http":  # there are no web sockets here
            return
        refusal = self.access.refusal(scope["method"], Headers(scope=scope))
        if refusal is not None:
            await PlainTextResponse(refusal, status_code=403)(scope, receive, careful)
            return
        await self.app(scope, receive, careful)
