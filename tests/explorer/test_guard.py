"""Only this machine's own pages are answered: names, origins, tokens, headers."""

import anyio
import pytest
from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.testclient import TestClient

from vitscope.errors import ConfigError
from vitscope.explorer.server import (
    SECURITY_HEADERS,
    TOKEN_HEADER,
    Access,
    Guard,
    access_for,
    require_local,
)

ACCESS = Access(token="secret")
OWN = {"host": "127.0.0.1:8765"}
WITH_TOKEN = {**OWN, TOKEN_HEADER: "secret"}
NAVIGATION = {
    "sec-fetch-site": "cross-site",
    "sec-fetch-mode": "navigate",
    "sec-fetch-dest": "document",
}


def refused(method: str, headers: dict[str, str]) -> bool:
    return ACCESS.refusal(method, Headers(headers)) is not None


@pytest.mark.parametrize(
    "host", ["127.0.0.1:8765", "127.0.0.1", "localhost:8765", "LOCALHOST:1", "[::1]:8765"]
)
def test_this_machine_is_answered_under_its_own_names(host: str) -> None:
    assert not refused("GET", {"host": host})


@pytest.mark.parametrize(
    "host",
    [
        "evil.example", "evil.example:8765", "127.0.0.1.evil.example", "localhost.evil.example",
        "evil.example@127.0.0.2", "192.168.0.7:8765", "", "[", "127.0.0.1:8765@evil.example",
    ],
)  # fmt: skip
def test_another_name_for_this_machine_is_refused(host: str) -> None:
    assert refused("GET", {"host": host})
    assert refused("POST", {"host": host, TOKEN_HEADER: "secret"})


def test_a_request_without_a_host_is_refused() -> None:
    assert refused("GET", {})


@pytest.mark.parametrize(
    "origin",
    [
        "http://evil.example",
        "null",
        "http://127.0.0.1:9999",
        "http://localhost:8765",
        "file://",
        "",
    ],
)
def test_a_page_of_another_origin_is_refused_whatever_it_knows(origin: str) -> None:
    assert refused("GET", {**OWN, "origin": origin})
    assert refused("POST", {**WITH_TOKEN, "origin": origin})


def test_our_own_pages_may_write_with_the_token_alone() -> None:
    own = {"origin": "http://127.0.0.1:8765", "sec-fetch-site": "same-origin"}
    assert not refused("POST", {**WITH_TOKEN, **own})
    assert refused("POST", {**OWN, **own})
    assert refused("POST", {**OWN, **own, TOKEN_HEADER: "secre"})
    assert refused("DELETE", {**OWN, **own})


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_another_site_may_link_here_and_no_more(site: str) -> None:
    followed = {**OWN, **NAVIGATION, "sec-fetch-site": site}
    assert not refused("GET", followed)
    assert refused("GET", {**followed, "sec-fetch-dest": "iframe"})
    assert refused("GET", {**followed, "sec-fetch-mode": "no-cors", "sec-fetch-dest": "image"})
    assert refused("POST", {**followed, TOKEN_HEADER: "secret"})


def test_tokens_differ_between_processes() -> None:
    assert Access().token != Access().token
    assert len(Access().token) >= 32


def test_a_further_name_is_answered_where_it_was_given() -> None:
    access = access_for("0.0.0.0", ["GPU-Box.lab"])
    assert access.refusal("GET", Headers({"host": "gpu-box.lab:8765"})) is None
    assert access.refusal("GET", Headers({"host": "other.lab:8765"})) is not None


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.0.7", "::", "example.org", ""])
def test_the_network_is_served_only_on_explicit_request(host: str) -> None:
    with pytest.raises(ConfigError, match="--allow-host"):
        require_local(host, [])
    require_local(host, ["box"])


def test_every_answer_has_the_headers_of_caution_refusals_too() -> None:
    client = TestClient(Guard(PlainTextResponse("fine"), ACCESS), base_url="http://127.0.0.1")
    for headers, status in (({}, 200), ({"host": "evil.example"}, 403)):
        answer = client.get("/", headers=headers)
        assert answer.status_code == status
        for name, value in SECURITY_HEADERS.items():
            assert answer.headers[name] == value
    assert "'unsafe-inline'" not in SECURITY_HEADERS["content-security-policy"]


def test_a_web_socket_gets_no_answer() -> None:
    called: list[str] = []

    async def application(*_: object) -> None:
        called.append("application")

    async def receive() -> dict[str, str]:
        return {"type": "websocket.connect"}

    async def send(_: object) -> None:
        called.append("answer")

    anyio.run(Guard(application, ACCESS), {"type": "websocket"}, receive, send)
    assert called == []
