"""The page as a whole: self-contained, safe, complete, and whole where a run had little to show."""

import re

import pytest
from tests.report.made_up_run import CASES, CREATED, HOSTILE, PageOf, render
from tests.report.page_reader import read_page

from vitscope.report.page import render_report


@pytest.mark.parametrize("case", CASES)
def test_page_asks_nothing_of_the_network(page_of: PageOf, case: str) -> None:
    html = page_of(case).html
    page = read_page(html)
    for name in ("src", "href", "srcset", "data", "action", "poster"):
        for value in page.attributes(name):
            assert value.startswith(("data:image/", "#")), value
    assert not page.tags("script")
    assert not page.tags("link")
    assert "@import" not in html
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", html))
    assert "default-src 'none'" in html


@pytest.mark.parametrize("case", CASES)
def test_ids_are_unique_and_inner_links_lead_somewhere(page_of: PageOf, case: str) -> None:
    page = read_page(page_of(case).html)
    ids = page.attributes("id")
    assert len(ids) == len(set(ids))
    wanted = [to[1:] for to in page.attributes("href") if not to.startswith("data:")]
    wanted += page.attributes("aria-labelledby") + page.attributes("aria-describedby")
    assert set(wanted) <= set(ids)


@pytest.mark.parametrize("case", CASES)
def test_what_is_not_defined_is_a_dash(page_of: PageOf, case: str) -> None:
    page = read_page(page_of(case).html)
    assert not re.search(r"\b(nan|inf|None|NaN)\b", page.text)
    assert not re.search(r"\bnan\b", " ".join(page.attributes("style")))
    assert case != "undefined" or page.text.count("–") > 20


def test_equal_runs_give_equal_pages(page_of: PageOf) -> None:
    shown = page_of("little")
    assert render(shown.run) == shown.html


def test_a_strangers_text_stays_text(page_of: PageOf) -> None:
    page = read_page(page_of("much").html)
    assert not page.tags("script")
    alts = [alt for alt in page.attributes("alt") if alt]
    assert {alt.rsplit(",", 1)[0] for alt in alts} == {HOSTILE}
    assert HOSTILE in page.attributes("title")
    before, _, after = page.text.partition("Chosen by rule")
    # title element, heading, note; row and two legends beside the other run
    assert before.count(HOSTILE) >= 6
    assert after.count(HOSTILE) > 20  # under the pictures, and as a skipped image


def test_notes_stand_on_top(page_of: PageOf) -> None:
    text = page_of("much").text
    order = [text.index(words) for words in (f"first {HOSTILE}", "The SAE was trained and eval")]
    assert order == sorted(order) and order[-1] < text.index("Scope of")
    assert 'role="note"' not in page_of("little").html


def test_headlines_follow_the_run_and_name_their_choices(page_of: PageOf) -> None:
    shown = page_of("much")
    head = shown.text[: shown.text.index("Scope of the features")]
    assert f"{shown.run.partition.high.size}" in head
    assert "missing = drop" in head
    assert "attention = key" in head
    assert re.search(r"21\.20\s*\|\s*0\.20", head), "of the study's own shift and rule"
    assert "shift 2, 106.0 times as far (84.8 to 127.2)" in head
    assert "98th percentile, no second mode" in head


def test_what_an_sae_does_on_tokens_held_out_leads_where_it_has_seen_the_others(
    page_of: PageOf,
) -> None:
    seen = page_of("much")
    training, of_all = seen.run.training.training, seen.run.reconstruction.all
    assert training is not None and seen.run.study.images.eval is None
    head = seen.text[: seen.text.index("Scope of the features")]
    both = f"{training.held_out_fvu:.3f} | {of_all.fvu:.3f}"
    assert re.search(re.escape(both).replace(r"\ \|\ ", r"\s*\|\s*"), head)
    assert "variance unexplained: held-out tokens | all of these images" in head
    assert f"on {training.held_out_tokens:,} tokens held out of it" in head
    assert "variance unexplained: all | outlier tokens" in page_of("little").text


def test_every_rule_and_every_setting_is_on_the_page(page_of: PageOf) -> None:
    shown = page_of("much")
    for size in shown.run.partition.by_missing.values():
        for value in (size.low, size.high, size.unscored):
            assert f"{value:,}" in shown.text
    study = shown.text[shown.text.index("[scope]") :].split("Site and images")[0]
    assert 'missing = "drop"' in study and "gamma" not in study  # which is unset
    assert "photos" in page_of("usual").text
    assert "class/broken.jpg" in page_of("usual").text


def test_stages_stand_in_their_order_with_their_rates(page_of: PageOf) -> None:
    run = page_of("little").run
    html = render_report(run, ("images", "backbone", "score"), CREATED)
    timings = html[html.index("Stages and versions") :]
    assert re.findall(r"<tr><td>(\w+)</td><td>12\.5 s</td>", timings) == [
        "images", "backbone", "score",
    ]  # fmt: skip
    assert "212 images/s decoded" in timings
    assert "What each kind of feature does" not in html, "no stage of it is to be shown"


def test_a_percentile_for_tau_is_not_sold_as_a_mode(page_of: PageOf) -> None:
    assert "says nothing of outliers" in page_of("much").text
    assert "says nothing of outliers" not in page_of("usual").text


def test_a_gallery_with_too_few_features_says_so(page_of: PageOf) -> None:
    text = page_of("little").text
    assert "4 of the 4 features with enough pairs" in text
    assert "fewer than 9 are available" in text
    assert "No feature is in this group" in text
    assert text.count("feature ") >= 4
    assert "9 of the" in page_of("usual").text


def test_figures_stand_where_they_are_explained(page_of: PageOf) -> None:
    html = page_of("usual").html
    names = ("cds", "norms", "norm-maps", "awcds", "awcds-maps", "instability", "reliability")
    order = [html.index(f"{name}-title") for name in (*names, "training")]
    assert order == sorted(order)
    bare = page_of("undefined").html
    assert "training-title" not in bare and "shifts-title" not in bare


def test_other_runs_stand_beside_this_one(page_of: PageOf) -> None:
    html = page_of("much").html
    assert "cds-runs-title" in html and "awcds-runs-title" in html
    table = html[html.index('aria-describedby="caption-beside"') :].split("</table>", maxsplit=1)[0]
    rows = re.findall(r"<tr[^>]*><td class=\"name\">(.*?)</tr>", table, re.DOTALL)
    assert len(rows) == 2 and "A study" in rows[1]
    own, other = (re.sub(r"<[^>]+>", " ", row) for row in rows)
    assert "106.0 [84.8, 127.2]" in own and "8.3 [6.7, 10.0]" in other
    assert "Beside other runs" not in page_of("usual").text
