"""A finished run on a few scenes whose names are out to do harm, and the explorer of it."""

import shutil
from pathlib import Path

import pytest
from filelock import FileLock
from starlette.testclient import TestClient

from vitscope.embedded.files import shipped_sae
from vitscope.explorer.live import LiveRun
from vitscope.explorer.server import TOKEN_HEADER, Access, build_app
from vitscope.images.sources import SceneSet, open_image
from vitscope.pipeline import run_study
from vitscope.store.run_directory import RunDirectory
from vitscope.study import Study

SCRIPT = "<script>document.title='broken'<"  # what a file's name can hold of it: no slash
HANDLER = "<img src=x onerror=document.title='broken'>"
NAMES = (
    SCRIPT + ".png",
    HANDLER + ".png",
    "\"quoted' & `ticked`.png",
    "grüße 猫 🙂 \u202egnp.png",
    "%2e%2e%2f..%2fetc%2fpasswd.png",
    "up..and..png",
    "{{ 7 * 7 }} ${7*7} {% raw %}.png",
)
CLASSES = ("<b>bold&amp;", "plain", "'; drop")
N_IMAGES = 21
TITLE = "run </title><script>document.title='broken'</script>"

TOKEN = "a token of the tests"


def explored_study(pictures: Path) -> Study:
    values = {
        "name": TITLE,
        "note": HANDLER,
        "images": {"train": pictures, "workers": 1},
        "backbone": {"name": "scenes-vit"},
        "sae": {"path": shipped_sae("scenes-vit")},
        "scope": {"top_images": 4, "null_draws": 0, "cross_null": False},
        "outliers": {"images": 12},
        "awcds": {"images": 12, "bins": 10},
    }
    return Study.parse(values, source="explored_study")


def write_pictures(folder: Path) -> None:
    """Write scenes under hostile names, in hostile classes."""
    for index, ref in enumerate(SceneSet(N_IMAGES, seed=1, side=88)):
        place = folder / CLASSES[index % len(CLASSES)]
        place.mkdir(parents=True, exist_ok=True)
        name = NAMES[index] if index < len(NAMES) else f"{index}.png"
        open_image(ref, max_pixels=10**6).save(place / name, "PNG")


@pytest.fixture(scope="session")
def explored(tmp_path_factory: pytest.TempPathFactory) -> RunDirectory:
    """The finished run; not to be changed. Made once, however many processes test."""
    base = tmp_path_factory.getbasetemp()
    shared = base.parent if base.name.startswith("popen-") else base
    with FileLock(shared / "explored.lock"):
        run, done = RunDirectory(shared / "explored" / "run"), shared / "explored" / "done"
        if not done.exists():
            write_pictures(shared / "explored" / "pictures")
            stages = ["images", "train", "outliers", "evaluate", "score", "partition", "awcds"]
            run_study(explored_study(shared / "explored" / "pictures"), run.root, only=stages)
            done.touch()
    return run


@pytest.fixture
def copied_run(explored: RunDirectory, tmp_path: Path) -> RunDirectory:
    """A copy of the run, to be worked on; its images stay where they are."""
    return RunDirectory(Path(shutil.copytree(explored.root, tmp_path / "run")))


def client_of(*runs: LiveRun) -> TestClient:
    """A client that asks as the pages' own scripts do."""
    app = build_app(list(runs), Access(token=TOKEN))
    return TestClient(app, base_url="http://127.0.0.1:8765", headers={TOKEN_HEADER: TOKEN})


@pytest.fixture(scope="session")
def reading(explored: RunDirectory) -> LiveRun:
    """The run with its models, for all tests that only read."""
    return LiveRun(explored.root, read_only=True)


@pytest.fixture
def client(reading: LiveRun) -> TestClient:
    return client_of(reading)
