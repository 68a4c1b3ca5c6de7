"""What a person does in a browser: sort, filter, move γ, look at features and pictures, compare."""

import re
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from playwright.sync_api import Browser, expect
from tests.explorer.explored_run import HANDLER, SCRIPT, TITLE
from tests.explorer.in_browser import Visit, served, visiting

from vitscope.explorer.live import LiveRun
from vitscope.images.sources import SceneSet, open_image
from vitscope.store.run_directory import RunDirectory
from vitscope.store.tables import read_table

ROWS = "#features tbody tr[data-place]"


def column(visit: Visit, number: int) -> list[str]:
    """Text of one column of the rows in sight."""
    return visit.page.locator(f"{ROWS} td:nth-child({number})").all_inner_texts()


def features_in_sight(visit: Visit) -> list[int]:
    return [int(text) for text in column(visit, 1)]


def test_the_table_has_every_feature_but_only_rows_in_sight(visit: Visit) -> None:
    visit.go("/a/")
    visit.ready()
    assert visit.page.locator("#features").get_attribute("aria-rowcount") == "4097"
    assert 10 < visit.page.locator(ROWS).count() < 80
    assert features_in_sight(visit)[:3] == [0, 1, 2]
    visit.page.evaluate("document.querySelector('#scroller').scrollTop = 1e9")
    expect(visit.page.locator(ROWS).last).to_have_attribute("aria-rowindex", "4097")
    assert features_in_sight(visit)[-1] == 4095


def test_columns_sort_both_ways_with_undefined_scores_last(visit: Visit, reading: LiveRun) -> None:
    cds = reading.run.features["cds"]
    scored = np.flatnonzero(np.isfinite(cds))
    visit.go("/a/")
    visit.ready()
    heading = visit.page.get_by_role("columnheader", name=re.compile("^CDS"))
    for sign, told in ((1, "ascending"), (-1, "descending")):
        heading.get_by_role("button").click()
        expect(heading).to_have_attribute("aria-sort", told)
        expected = scored[np.lexsort((scored, sign * cds[scored]))]
        shown = features_in_sight(visit)
        assert shown == expected[: len(shown)].tolist()
    visit.page.evaluate("document.querySelector('#scroller').scrollTop = 1e9")
    expect(visit.page.locator(ROWS).last).to_have_attribute("aria-rowindex", "4097")
    assert column(visit, 3)[-1] == "–"
    assert "sort=-cds" in visit.page.url


def test_filters_keep_what_they_say_and_stand_in_the_address(
    visit: Visit, reading: LiveRun
) -> None:
    features = reading.run.features
    visit.go("/a/")
    visit.ready()
    page = visit.page
    page.get_by_label("low", exact=False).first.uncheck()
    page.get_by_label("Density from").fill("0.01")
    page.get_by_label("CDS to").fill("0.6")
    wanted = (features["cds"] <= 0.6) & (features["density"].astype(np.float32) >= 0.01)
    wanted &= features["group"] != "low"
    expect(page.locator("#n-shown")).to_have_text(f"{wanted.sum():,} of 4,096 features")
    shown = features_in_sight(visit)
    assert shown == np.flatnonzero(wanted)[: len(shown)].tolist()
    again = urlsplit(page.url)
    visit.go(f"{again.path}?{again.query}")
    visit.ready()
    assert features_in_sight(visit) == shown
    page.get_by_role("button", name="Clear filters").click()
    expect(page.locator("#n-shown")).to_have_text("4,096 features")


def test_search_finds_numbers_and_classes(visit: Visit) -> None:
    visit.go("/a/")
    visit.ready()
    visit.page.keyboard.press("/")
    visit.page.keyboard.type("409")
    expect(visit.page.locator("#n-shown")).to_have_text("7 of 4,096 features")  # 409, 4090–4095
    assert features_in_sight(visit) == [409, *range(4090, 4096)]
    visit.page.locator("#search").fill("BOLD&")
    expect(visit.page.locator("#n-shown")).not_to_have_text("7 of 4,096 features")
    assert {text.split(" ")[0] for text in column(visit, 4)} == {"<b>bold&amp;"}


def test_the_keyboard_walks_the_table_and_opens_a_feature(visit: Visit) -> None:
    visit.go("/a/")
    visit.ready()
    page = visit.page
    page.locator(ROWS).first.focus()
    for key, row in (("ArrowDown", 1), ("End", 4095), ("PageUp", None), ("Home", 0)):
        page.keyboard.press(key)
        focused = int(page.evaluate("document.activeElement.dataset.place"))
        assert focused == row if row is not None else focused < 4095
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.wait_for_url("**/a/feature/1*")


def test_a_range_brushed_in_the_histogram_filters(visit: Visit, reading: LiveRun) -> None:
    visit.go("/a/")
    visit.ready()
    page = visit.page
    box = page.locator("#histogram .u-over").bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + 0.6 * box["width"], middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.8 * box["width"], middle, steps=4)
    page.mouse.up()
    low, high = (float(page.get_by_label(f"CDS {end}").input_value()) for end in ("from", "to"))
    assert (low, high) == (pytest.approx(0.6, abs=0.01), pytest.approx(0.8, abs=0.01))
    cds = reading.run.features["cds"]
    n = int(((cds >= low) & (cds <= high)).sum())
    expect(page.locator("#n-shown")).to_have_text(f"{n:,} of 4,096 features")


def test_gamma_recolours_everything_and_stays_over_pages(visit: Visit, reading: LiveRun) -> None:
    cds = reading.run.features["cds"]
    visit.go("/a/")
    visit.ready()
    page = visit.page
    for gamma in (0.1, 0.5):
        page.get_by_label("γ as a number").fill(str(gamma))
        expect(page.locator("#n-low")).to_have_text(f"{(cds <= gamma).sum():,}")
        expect(page.locator("#n-high")).to_have_text(f"{(cds > gamma).sum():,}")
    feature = int(np.flatnonzero((cds > 0.2) & (cds < 0.45))[0])
    for path in (f"/a/feature/{feature}", f"/a/feature/{feature}?gamma=0.2"):
        visit.go(path)
        expected = "high-CDS" if "0.2" in path else "low-CDS"
        expect(page.locator("h1 .group")).to_have_text(expected)


def test_the_line_in_the_histogram_moves_gamma(visit: Visit) -> None:
    visit.go("/a/")
    visit.ready()
    page = visit.page
    box = page.locator("#histogram .u-over").bounding_box()
    line = page.locator(".gammaline").bounding_box()
    assert box is not None and line is not None
    page.mouse.move(line["x"] + line["width"] / 2, line["y"] + 40)
    page.mouse.down()
    page.mouse.move(box["x"] + 0.75 * box["width"], line["y"] + 40, steps=5)
    page.mouse.up()
    moved = float(page.get_by_label("γ as a number").input_value())
    assert moved == pytest.approx(0.75, abs=0.01)
    expect(page.locator("#n-shown")).to_have_text("4,096 features")  # the brush did not move
    assert float(parse_qs(urlsplit(page.url).query)["gamma"][0]) == pytest.approx(moved)


def test_gamma_is_saved_and_proposed_again(writing: Visit, copied_run: RunDirectory) -> None:
    writing.go("/a/")
    writing.ready()
    page = writing.page
    save = page.get_by_role("button", name="Save as the partition")
    expect(save).to_be_disabled()
    page.get_by_label("γ as a number").fill("0.25")
    save.click()
    expect(page.locator("#saved")).to_contain_text("[scope] gamma = 0.25")
    expect(save).to_be_disabled()
    found = read_table(copied_run.features)
    assert ((found["group"] == "low") == (found["cds"] <= 0.25)).all()
    writing.go("/a/")
    writing.ready()
    assert float(page.get_by_label("γ as a number").input_value()) == 0.25
    page.get_by_role("button", name="Let the histogram propose γ").click()
    expect(page.locator("#saved")).to_contain_text("Saved")
    assert "gamma" not in copied_run.study.read_text().split("[scope]")[1].split("[")[0]


def test_a_feature_shows_its_images_arrows_and_what_it_is_found_with(
    visit: Visit, reading: LiveRun
) -> None:
    exemplars = reading.exemplars
    moved = np.unique(exemplars.feature[exemplars.emd > 0.5])
    pairs = reading.run.features["n_pairs"][moved]
    feature = int(moved[pairs.argmax()])
    rows = exemplars.of(feature)
    visit.go(f"/a/feature/{feature}")
    page = visit.page
    articles = page.locator("article.pair")
    assert articles.count() == rows.stop - rows.start
    rank = int(np.nanargmax(exemplars.emd[rows]))
    shown = articles.nth(rank)
    shown.scroll_into_view_if_needed()
    expect(shown).to_have_attribute("data-shown", "yes")
    assert shown.locator("svg.arrows line.stream").count() > 0
    expect(shown).to_contain_text(f"EMD {exemplars.emd[rows][rank]:.2f}")
    for picture in shown.locator("img").all():
        picture.scroll_into_view_if_needed()
        page.wait_for_function("image => image.complete", arg=picture.element_handle())
        assert picture.evaluate("image => image.naturalWidth") > 0
    expect(page.locator("#cooccurrence")).to_have_attribute("aria-busy", "false")
    assert page.locator("#nearest li").count() == 10
    assert page.locator("#words li").count() > 0
    expect(page.locator("#norms-text")).to_contain_text(f"{rows.stop - rows.start} top images")


def test_arrow_keys_follow_the_order_of_the_table(visit: Visit) -> None:
    visit.go("/a/?sort=-density")
    visit.ready()
    first, second = features_in_sight(visit)[:2]
    visit.page.locator(ROWS).first.get_by_role("link").click()
    visit.page.wait_for_url(f"**/feature/{first}*")
    visit.page.keyboard.press("ArrowRight")
    visit.page.wait_for_url(f"**/feature/{second}*")
    expect(visit.page.locator("#place")).to_contain_text("2 of 4,096")
    visit.page.keyboard.press("ArrowLeft")
    visit.page.wait_for_url(f"**/feature/{first}*")
    visit.page.keyboard.press("t")
    visit.page.wait_for_url("**/a/*")


def test_hostile_names_are_text(visit: Visit, reading: LiveRun) -> None:
    visit.go("/a/")
    visit.ready()
    assert visit.page.locator("h1").inner_text() == TITLE
    visit.go("/a/images")
    listed = visit.page.locator(".thumbnails span").all_inner_texts()
    names = [ref.id for ref in reading.run.image_refs]
    assert listed == names
    for harm in (SCRIPT, HANDLER):
        position = next(i for i, name in enumerate(names) if harm in name)
        visit.go(f"/a/image/{position}")
        visit.ready()
        assert visit.page.locator("h1").inner_text() == names[position]
    visit.page.get_by_label("choose a file").wait_for(state="attached")


def test_a_dropped_in_photograph_and_removal_that_changes_its_prediction(
    visit: Visit, tmp_path: Path
) -> None:
    ref = SceneSet(40, seed=1, side=160)[30]
    file = tmp_path / "a <b>&'\"ü.jpg"
    open_image(ref, max_pixels=10**6).save(file)
    visit.go("/a/images")
    page = visit.page
    page.locator("#file").set_input_files(file)
    page.wait_for_url("**/a/upload/*")
    visit.ready()
    assert page.locator("h1").inner_text() == file.name
    probabilities = page.locator("#prediction b").all_inner_texts()
    assert probabilities[:5] == probabilities[5:]
    expect(page.locator("#removal-text")).to_have_text("Nothing is switched off.")
    page.get_by_label("Group").select_option("all")
    expect(page.locator("#removal-text")).to_contain_text("4,096 features off")
    changed = page.locator("#prediction b").all_inner_texts()
    assert changed[:5] == probabilities[:5] != changed[5:]
    page.get_by_label("change by removal").check()
    expect(page.locator("#legend")).to_contain_text("share of the token's length")
    page.get_by_role("button", name="Nothing off").click()
    expect(page.locator("#removal-text")).to_have_text("Nothing is switched off.")
    file.write_bytes(b"no picture")
    page.locator("#file").set_input_files(file)
    expect(page.locator("#drop-text")).to_contain_text("not an image")
    visit.complaints = [one for one in visit.complaints if "422" not in one]  # as it should be


def test_the_patch_under_pointer_and_keys_and_a_feature_switched_off(visit: Visit) -> None:
    visit.go("/a/image/3")
    visit.ready()
    page = visit.page
    patches = page.locator("#patches")
    box = patches.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + 0.35 * box["width"], box["y"] + 0.55 * box["height"])
    expect(page.locator("#patch-text")).to_contain_text("Row 6, column 4:")
    patches.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator("#patch-text")).to_contain_text("Row 7, column 4 (held)")
    first = page.locator("#on-patch tbody tr").first
    feature = first.get_by_role("link").inner_text()
    first.get_by_role("checkbox").check()
    expect(page.locator("#removal-text")).to_contain_text("1 features off, 1 of the")
    page.get_by_role("button", name=f"switch feature {feature} on again").click()
    expect(page.locator("#removal-text")).to_have_text("Nothing is switched off.")
    for name in ("norm", "active features", "plain", "awCDS"):
        page.get_by_label(name, exact=True).check()


def test_two_runs_side_by_side(browser: Browser, reading: LiveRun, explored: RunDirectory) -> None:
    with served(reading, LiveRun(explored.root)) as found, visiting(browser, found) as visit:
        visit.go("/")
        visit.page.wait_for_url("**/compare")
        visit.ready()
        expect(visit.page.locator("#matched-text")).to_contain_text("r = 1.00")
        visit.go("/b/feature/0")
        expect(visit.page.locator("h1")).to_contain_text("Feature 0")


def test_a_page_of_another_site_gets_nothing(browser: Browser, address: str) -> None:
    port = urlsplit(address).port
    page = browser.new_context().new_page()
    page.route(
        "http://evil.example/",
        lambda route: route.fulfill(body="<p>hello", content_type="text/html"),
    )
    page.goto("http://evil.example/")
    for options in ("{}", "{mode: 'no-cors'}", "{method: 'POST', mode: 'no-cors', body: '{}'}"):
        asked = f"fetch('http://127.0.0.1:{port}/a/gamma', {options}).then(a => a.type + a.status)"
        answer = page.evaluate(f"{asked}.catch(e => 'refused')")
        assert answer in ("refused", "opaque0")
    image = f"""new Promise(done => {{ const i = new Image();
        i.onload = () => done('seen'); i.onerror = () => done('refused');
        i.src = 'http://127.0.0.1:{port}/a/image/0/thumbnail'; }})"""
    assert page.evaluate(image) == "refused"
    page.context.close()


@pytest.mark.parametrize(
    "path",
    ["/static/../app.py", "/static/../../../../etc/passwd", "/a/../../study.toml", "//etc/passwd"],
)
def test_dots_in_a_raw_request_lead_nowhere(address: str, path: str) -> None:
    asked = HTTPConnection("127.0.0.1", urlsplit(address).port or 0)
    asked.request("GET", path)
    answer = asked.getresponse()
    assert answer.status == 404
    assert b"root:" not in answer.read()
    asked.close()


def test_small_screens_show_the_whole_page(browser: Browser, address: str) -> None:
    context = browser.new_context(viewport={"width": 390, "height": 800})
    page = context.new_page()
    for path in ("/a/", "/a/feature/0", "/a/images", "/a/image/0"):
        page.goto(address + path)
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= 390, path
    context.close()


def test_every_control_has_a_name_and_every_picture_a_text(visit: Visit) -> None:
    for path in ("/a/", "/a/feature/0", "/a/images", "/a/image/0"):
        visit.go(path)
        visit.page.wait_for_load_state("networkidle")
        unnamed = visit.page.evaluate("""() => [
          ...[...document.querySelectorAll('input, select')].filter(
            e => !e.labels?.length && !e.getAttribute('aria-label')),
          ...[...document.querySelectorAll('button, a[href]')].filter(
            e => !e.textContent.trim() && !e.getAttribute('aria-label')),
          ...[...document.querySelectorAll('img:not([alt])')],
          ...[...document.querySelectorAll('[aria-labelledby]')].filter(
            e => !document.getElementById(e.getAttribute('aria-labelledby'))),
        ].map(e => e.outerHTML)""")
        assert unnamed == []
        assert visit.page.locator("h1").count() == 1
        visit.page.keyboard.press("Tab")
        assert visit.page.evaluate("document.activeElement.className") == "skip"
