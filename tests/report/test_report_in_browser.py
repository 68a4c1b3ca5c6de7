"""The page in a real browser: no sideways scroll on a phone, dark where asked, light in print."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page, expect, sync_playwright
from tests.report.made_up_run import PageOf

CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PHONE, DESK = 390, 1200
WHITE = "rgb(255, 255, 255)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    program = os.environ.get("CHROMIUM") or next(filter(None, map(shutil.which, CHROMIUM)), None)
    if program is None:
        pytest.skip("no Chromium on this machine: install it, or set CHROMIUM to its program")
    with sync_playwright() as playwright:
        try:
            started = playwright.chromium.launch(
                executable_path=program, args=["--no-sandbox", "--disable-gpu"]
            )
        except Error as error:
            pytest.skip(f"{program} does not start here: {str(error).splitlines()[0]}")
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(page_of: PageOf, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    name = "a-run-of-a-name-without-a-place-to-break" * 3
    html = page_of("usual").html
    assert html.count("<h1>A study</h1>") == 1
    path.write_text(html.replace("<h1>A study</h1>", f"<h1>{name}</h1>"), encoding="utf-8")
    return path


def opened(browser: Browser, report: Path, width: int, scheme: str) -> Page:
    page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)  # type: ignore[arg-type]
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(report.as_uri())
    assert said == []
    return page


def background(page: Page) -> str:
    return page.evaluate("getComputedStyle(document.body).backgroundColor")


@pytest.mark.parametrize("width", [PHONE, DESK])
def test_the_page_is_never_wider_than_the_screen(
    browser: Browser, report: Path, width: int
) -> None:
    page = opened(browser, report, width, "light")
    assert page.evaluate("document.documentElement.scrollWidth") == width
    outside = """() => [...document.querySelectorAll("svg.figure, .card, .headlines li, h1, p")]
        .filter((e) => e.getBoundingClientRect().right > innerWidth + 0.5).length"""
    assert page.evaluate(outside) == 0
    page.close()


def test_it_is_dark_where_asked_and_light_in_print(browser: Browser, report: Path) -> None:
    page = opened(browser, report, DESK, "dark")
    assert background(page) != WHITE
    page.emulate_media(media="print")
    assert background(page) == WHITE
    for selector in ("nav", ".switches"):
        assert page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).display") == (
            "none"
        )
    page.close()
    light = opened(browser, report, DESK, "light")
    assert background(light) == WHITE
    light.close()


def test_arrows_and_heatmaps_are_switched_off_without_a_script(
    browser: Browser, report: Path
) -> None:
    page = opened(browser, report, DESK, "light")
    for box, shown in (("#arrows", ".flow"), ("#heatmaps", ".heat")):
        opacity = f"getComputedStyle(document.querySelector('{shown}')).opacity"
        assert page.evaluate(opacity) == "1"
        page.uncheck(box)
        expect(page.locator(shown).first).to_have_css("opacity", "0")  # it fades
    page.close()
