"""Screenshots of the explorer for the documentation, as docs/images/explorer-*.webp.

python benchmarks/explorer_pictures.py RUN [RUN2], with Chromium on the PATH and finished runs, such
as runs/demo and runs/demo/live after `vitscope demo`. γ is moved, never saved.
"""

import argparse
import io
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, sync_playwright

OUT = Path(__file__).parent.parent / "docs" / "images"
NARROW, WIDE = (1280, 800), (1480, 860)
QUALITY = 86
"""Of WebP: a page stays below 150 kB and its text sharp."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--feature", type=int, default=None, help="default: a high-CDS feature")
    parser.add_argument("--image", type=int, default=3)
    given = parser.parse_args()
    command = [sys.executable, "-m", "vitscope", "explore", *map(str, given.runs)]
    command += ["--port", "0", "--no-browser"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        address = next(word for word in server.stdout.readline().split() if "://" in word)
        try:
            take_all(address.rstrip("/"), given, len(given.runs) > 1)
        finally:
            server.terminate()


def take_all(address: str, given: Any, compared: bool) -> None:
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        for scheme in ("light", "dark"):
            page = browser.new_context(color_scheme=scheme).new_page()
            for name, take in TAKES.items():
                wants_dark = name == "image"
                if (scheme == "dark") != wants_dark or (name == "compare" and not compared):
                    continue
                width, height = WIDE if name in ("feature", "image") else NARROW
                page.set_viewport_size({"width": width, "height": height})
                take(page, address, given)
                save(page, name)
        browser.close()


def table(page: Page, address: str, _: Any) -> None:
    page.goto(f"{address}/a/?sort=-mean_on_outlier")
    page.wait_for_selector('body[data-ready="yes"]')


def feature(page: Page, address: str, given: Any) -> None:
    chosen = given.feature
    if chosen is None:
        page.goto(f"{address}/a/?groups=high&n_pairs=16..&sort=-density")
        page.wait_for_selector('body[data-ready="yes"]')
        chosen = int(page.locator("#features tbody tr[data-place] a").first.inner_text())
    page.goto(f"{address}/a/feature/{chosen}")
    page.wait_for_selector('#cooccurrence[aria-busy="false"]')
    page.wait_for_load_state("networkidle")


def image(page: Page, address: str, given: Any) -> None:
    page.goto(f"{address}/a/image/{given.image}")
    page.wait_for_selector('body[data-ready="yes"]')
    page.get_by_label("Group").select_option("low")
    box = page.locator("#patches").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 0.45 * box["width"], box["y"] + 0.55 * box["height"])
    page.wait_for_function(
        "!document.querySelector('#removal-text').textContent.includes('Nothing')"
    )


def compare(page: Page, address: str, _: Any) -> None:
    page.goto(f"{address}/compare")
    page.wait_for_selector('body[data-ready="yes"]')


TAKES = {"table": table, "feature": feature, "image": image, "compare": compare}


def save(page: Page, name: str) -> None:
    path = OUT / f"explorer-{name}.webp"
    page.wait_for_timeout(300)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture.save(path, quality=QUALITY, method=6)
    print(f"{path}  {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
