"""A real browser on a real server: what a person does, and what the browser complains of."""

import os
import shutil
import socket
import threading
import time
from collections.abc import Generator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import pytest
import uvicorn
from playwright.sync_api import Browser, Error, Page, Request, expect, sync_playwright

from vitscope.explorer.live import LiveRun
from vitscope.explorer.server import Access, build_app
from vitscope.store.run_directory import RunDirectory

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

PATIENCE_MS = 60_000
"""Of a wait for a page; a loaded machine is no fault."""

expect.set_options(timeout=PATIENCE_MS)


def chromium() -> str | None:
    """Return the browser's program: $CHROMIUM, or one of the usual names."""
    given = os.environ.get("CHROMIUM")
    return given or next(filter(None, map(shutil.which, CHROMIUM)), None)


@contextmanager
def served(*runs: LiveRun) -> Generator[str]:
    """Serve runs on a free port of this machine; yield the address."""
    with closing(socket.socket()) as bound:
        bound.bind(("127.0.0.1", 0))
        app = build_app(list(runs), Access())
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", access_log=False))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{bound.getsockname()[1]}"
        server.should_exit = True
        thread.join()


@dataclass
class Visit:
    """A page of the explorer, and everything that went wrong on it.

    Attributes:
        page: Playwright's.
        address: of the server.
        complaints: errors on the console, and uncaught ones.
        elsewhere: addresses asked for that are not the server's.
    """

    page: Page
    address: str
    complaints: list[str] = field(default_factory=list[str])
    elsewhere: list[str] = field(default_factory=list[str])

    def __post_init__(self) -> None:
        self.page.set_default_timeout(PATIENCE_MS)
        self.page.on("console", self._heard)
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", self._asked)

    def go(self, path: str) -> None:
        """Open a page and wait until its script has done its work."""
        self.page.goto(self.address + path)

    def ready(self) -> None:
        """Wait until the page's script says that it is done."""
        self.page.wait_for_selector('body[data-ready="yes"]')

    def _heard(self, message: object) -> None:
        kind, text = getattr(message, "type", ""), getattr(message, "text", "")
        if kind in ("error", "warning"):
            self.complaints.append(f"{kind}: {text}")

    def _asked(self, request: Request) -> None:
        if not request.url.startswith((self.address, "blob:", "data:")):
            self.elsewhere.append(request.url)


@pytest.fixture(scope="module")
def browser() -> Generator[Browser]:
    """A headless Chromium; the test is skipped where there is none."""
    program = chromium()
    if program is None:
        pytest.skip("no Chromium on this machine: install it, or set CHROMIUM to its program")
    with sync_playwright() as playwright:
        try:
            found = playwright.chromium.launch(
                executable_path=program, args=["--no-sandbox", "--disable-gpu"]
            )
        except Error as error:
            pytest.skip(f"{program} does not start here: {str(error).splitlines()[0]}")
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(reading: LiveRun) -> Generator[str]:
    """Where the shared run is served; it cannot be written."""
    with served(reading) as found:
        yield found


@contextmanager
def visiting(browser: Browser, address: str) -> Generator[Visit]:
    """Open a tab; at its end nothing may have been complained of or asked for elsewhere."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    visit = Visit(context.new_page(), address)
    yield visit
    title = visit.page.title()
    context.close()
    assert visit.complaints == []
    assert visit.elsewhere == []
    assert title != "broken"


@pytest.fixture
def visit(browser: Browser, address: str) -> Generator[Visit]:
    """A tab on the shared run."""
    with visiting(browser, address) as found:
        yield found


@pytest.fixture
def writing(browser: Browser, copied_run: RunDirectory) -> Generator[Visit]:
    """A tab on a copy of the run, in which γ can be saved."""
    with served(LiveRun(copied_run.root)) as found, visiting(browser, found) as visit:
        yield visit
