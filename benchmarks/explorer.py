"""How soon the explorer's pages are there, with 24,576 features and 10,000 images.

python benchmarks/explorer.py [--features N] [--images N] [--folder FOLDER]. Makes a run of that
size with random tables and a random SAE on scenes-vit (nothing in it means anything), serves it,
and measures in headless Chromium: from navigation until the page's script is done, and how long
sorting, filtering and moving γ block the page. The rival is the same table written out as HTML.
"""

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from urllib.request import urlopen

import numpy as np
import torch
from playwright.sync_api import Page, sync_playwright

from vitscope.embedded.files import shipped_sae
from vitscope.images.sources import ImageSettings, SceneSet
from vitscope.images.verify import verify_images, write_image_table
from vitscope.pipeline import run_study
from vitscope.run import Run
from vitscope.sae.model import SparseAutoencoder
from vitscope.sae.storage import load_saved_sae, save_sae
from vitscope.store.atomic import write_text
from vitscope.store.run_directory import RunDirectory
from vitscope.store.tables import read_metadata, read_table, write_table
from vitscope.study import Study, dump_study, load_study

TOP_IMAGES = 16
REPEATS = 5
STAGES = ["images", "train", "outliers", "evaluate", "score", "partition", "awcds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--features", type=int, default=24_576)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--folder", type=Path, default=None, help="keep the run there")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary) / "run"
        if not folder.exists():
            make_run(folder, given.features, given.images)
        command = [sys.executable, "-m", "vitscope", "explore", str(folder), "--port", "0"]
        started = time.perf_counter()
        with subprocess.Popen(
            [*command, "--no-browser"], stdout=subprocess.PIPE, text=True
        ) as server:
            assert server.stdout is not None
            address = next(word for word in server.stdout.readline().split() if "://" in word)
            say("command to address", time.perf_counter() - started)
            try:
                measure(address.rstrip("/"), Path(temporary), given.features)
            finally:
                server.terminate()


def make_run(folder: Path, n_features: int, n_images: int) -> None:
    """Run a small study, and put tables and an SAE of the size asked for in its place."""
    values = {
        "name": f"{n_features:,} features, {n_images:,} images, all random",
        "images": {"train": "scenes:40?seed=1&side=88"},
        "backbone": {"name": "scenes-vit"},
        "sae": {"path": shipped_sae("scenes-vit")},
        "scope": {"top_images": 4, "null_draws": 0, "cross_null": False},
        "outliers": {"images": 12},
        "awcds": {"images": 12, "bins": 10},
    }
    run_study(Study.parse(values, source="benchmark"), folder, only=STAGES)
    run, rng = RunDirectory(folder), np.random.default_rng(0)
    small, metadata = read_table(run.features), read_metadata(run.features)
    cds = np.where(rng.random(n_features) < 0.6, rng.beta(1.2, 18, n_features), 0)
    cds = np.where(cds > 0, cds, rng.beta(5, 9, n_features))
    rows = rng.integers(0, len(small["cds"]), n_features)
    columns = {name: column[rows] for name, column in small.items()}
    group = np.where(cds <= Run(folder).partition.gamma, "low", "high").astype(object)
    columns |= {"feature": np.arange(n_features), "cds": cds}
    columns["group"] = list(group)
    write_table(run.features, columns, metadata)
    images = SceneSet(n_images, seed=1, side=88)
    write_image_table(run.images("train"), verify_images(images.refs, workers=1, max_pixels=10**6))
    feature = np.repeat(np.arange(n_features), TOP_IMAGES)
    rank = np.tile(np.arange(TOP_IMAGES), n_features)
    image = rng.integers(0, n_images, feature.size)
    places = {"feature": feature, "rank": rank, "image": image}
    activation = np.sort(rng.gamma(2.0, 1.0, (n_features, TOP_IMAGES)))[:, ::-1].ravel()
    write_table(run.exemplars, places | {"activation": activation}, {})
    emd = rng.gamma(1.0, 1.0, feature.size)
    cells = {name: rng.integers(1, 9, feature.size) for name in ("cells_first", "cells_second")}
    write_table(run.pairs, places | {"emd": emd} | cells, {})
    old = load_saved_sae(run.sae)
    directions = torch.randn(n_features, old.width)
    directions /= directions.norm(dim=1, keepdim=True)
    sae = SparseAutoencoder(
        directions.T.contiguous(), torch.zeros(n_features), directions, old.b_dec, 8.0, 30, old.site
    )
    save_sae(run.sae, sae)
    study = load_study(run.study)
    train = ImageSettings(train=Path(f"scenes:{n_images}?seed=1&side=88"))
    write_text(run.study, dump_study(study.model_copy(update={"images": train})))


def measure(address: str, folder: Path, n_features: int) -> None:
    for path in ("/a/", "/a/columns"):
        fetched = [timed(lambda path=path: urlopen(address + path).read()) for _ in range(REPEATS)]
        say(f"server, {path}", fetched[0], f"then {1000 * statistics.median(fetched[1:]):.0f} ms")
    program = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        page = browser.new_context(viewport={"width": 1280, "height": 860}).new_page()
        page.goto("about:blank")
        say("table page, first visit", opened(page, f"{address}/a/"))
        say("table page, again", *median_of(lambda: opened(page, f"{address}/a/")))
        for name, action in ACTIONS.items():
            say(name, *median_of(lambda action=action: page.evaluate(action) / 1000))
        wait = "#cooccurrence[aria-busy='false']"
        for feature in (4711, 1234):
            say("feature page, numbers", opened(page, f"{address}/a/feature/{feature}", "h1"))
            started = time.perf_counter()
            page.wait_for_selector(wait)
            say("  … and what it is found with", time.perf_counter() - started)
        say("images page, 96 thumbnails", loaded(page, f"{address}/a/images?page=7"))
        say("images page, again", loaded(page, f"{address}/a/images?page=7"))
        say("picture page, maps drawn", opened(page, f"{address}/a/image/4321"))
        rival = folder / "table.html"
        rival.write_text(written_out(n_features))
        say("rival: every row written out", opened(page, rival.as_uri(), "tr:last-child"))
        browser.close()


def action(change: str) -> str:
    """Script that does something and says after how many milliseconds it has been painted."""
    return f"""() => new Promise(done => {{ const t = performance.now(); {change};
        requestAnimationFrame(() => setTimeout(() => done(performance.now() - t))); }})"""


ACTIONS = {
    "sort by CDS": action("document.querySelector('th[data-key=cds] button').click()"),
    "search": action(
        "const s = document.querySelector('#search'); s.value = String(Math.random()).slice(3, 5); "
        "s.dispatchEvent(new Event('input'))"
    ),
    "clear": action("document.querySelector('#filter').reset()"),
    "move γ": action(
        "const g = document.querySelector('#gamma'); g.value = Math.random(); "
        "g.dispatchEvent(new Event('input'))"
    ),
    "scroll": action("document.querySelector('#scroller').scrollTop = 5e5 * Math.random()"),
}


def opened(page: Page, address: str, ready: str = "body[data-ready='yes']") -> float:
    return timed(lambda: (page.goto(address, wait_until="commit"), page.wait_for_selector(ready)))


def loaded(page: Page, address: str) -> float:
    def open_all() -> None:
        page.goto(address)
        for picture in page.locator(".thumbnails img").all():
            picture.evaluate("i => { i.loading = 'eager'; }")
        page.wait_for_function("[...document.images].every(i => i.complete && i.naturalWidth > 0)")

    return timed(open_all)


def written_out(n_features: int) -> str:
    """Return a table of as many cells as plain HTML, a row a feature."""
    cells = "".join(f"<td>{0.001 * i:.3f}</td>" for i in range(11))
    rows = "".join(f"<tr><td>{i}</td>{cells}</tr>" for i in range(n_features))
    return f"<table>{rows}</table>"


def timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def median_of(work: Callable[[], float]) -> tuple[float, str]:
    found = [work() for _ in range(REPEATS)]
    return statistics.median(found), f"largest {1000 * max(found):.0f} ms"


def say(name: str, seconds: float, more: str = "") -> None:
    print(f"{name:<32}{1000 * seconds:8.0f} ms   {more}", flush=True)


if __name__ == "__main__":
    main()
