"""What single sections say: thresholds, awCDS, attention instability, and the groups."""

import re

import numpy as np
import pytest
from tests.report.made_up_run import (
    NAN,
    PageOf,
    make_evidence,
    make_outliers,
    make_partition,
    make_spectrum,
    two_modes,
    with_silent_tokens,
)

from vitscope.report.headlines import (
    awcds_of_highest,
    awcds_of_median,
    describe_coverage,
    group_rows,
    run_row,
)
from vitscope.report.thresholds import describe_tests, gamma_view, tau_view
from vitscope.scope.awcds import NormSpectrum
from vitscope.scope.outliers import OutlierThreshold
from vitscope.scope.thresholds import Alternative


@pytest.mark.parametrize(
    ("dip", "silverman", "said"),
    [
        (0.001, 0.005, "a single mode is unlikely"),
        (0.5, 0.3, "the cut is then a convention"),
        (0.5, 0.005, "the dip test weighs a mode by its mass"),
        (0.001, 0.3, "Silverman's is the more cautious"),
        (NAN, 0.005, "dip test says p = –"),
    ],
)
def test_both_tests_are_named_and_weighed(dip: float, silverman: float, said: str) -> None:
    evidence = make_evidence(dip_p=dip, silverman_p=silverman)
    text = describe_tests(evidence)
    assert said in text
    assert ("unlikely" in text) == (max(dip, silverman) < 0.05)
    assert text.endswith(".")
    assert gamma_view(make_partition(evidence=evidence)).tests == text


def test_the_runs_own_threshold_comes_first_and_alternatives_follow_once() -> None:
    partition = make_partition()
    own, *others = gamma_view(partition).rows
    assert own.used
    assert own.method == "valley of the density"
    assert (own.below, own.above) == (str(partition.low.size), str(partition.high.size))
    assert [row.method.split(":")[0] for row in others] == [
        "Otsu",
        "two normal components, equally likely",
    ]
    assert (others[0].threshold, others[0].below, others[0].above) == ("0.25", "203", "67")
    assert (others[1].threshold, others[1].below, others[1].above) == ("–", "–", "–")


def test_a_threshold_of_the_paper_is_not_listed_twice() -> None:
    cuts = (Alternative("valley", 70.0, 8900, 100), Alternative("paper", 60.0, 8820, 180))
    tau = OutlierThreshold(60.0, "zoo", 0.02, (20.0,), "τ = 60 is the paper's (Table 5)")
    evidence = make_evidence(alternatives=cuts)
    rows = tau_view(make_outliers(threshold=tau, evidence=evidence)).rows
    assert [(row.method, row.used) for row in rows] == [
        ("the paper's, for this model and block", True),
        ("valley of the density", False),
    ]
    assert (rows[0].below, rows[0].above) == ("8,820", "180")


def test_dependent_tokens_are_said_to_count_as_fewer() -> None:
    assert "take the 9,000 tokens for 260" in tau_view(make_outliers()).tests
    alone = make_outliers(evidence=make_evidence(n_effective=9000.0))
    assert "depend on one another" not in tau_view(alone).tests


def test_tests_intervals_and_sizes_are_on_the_page(page_of: PageOf) -> None:
    text = page_of("much").text
    assert "no evidence of a second mode, and the cut is then a convention" in text
    assert "between 0.11 and 0.39" in text
    assert "The interval is wide" in text
    assert "number of high-CDS features changes by 37 %" in text
    assert "between 50 and 70" in text
    assert "Otsu: most variance between the sides" in text


def test_tokens_without_awcds_are_counted_on_the_page(page_of: PageOf) -> None:
    assert "Each of the 5,000 tokens has an awCDS" in describe_coverage(make_spectrum())
    text = describe_coverage(with_silent_tokens())
    assert "45 (0.9 %) have active features of which none has a score" in text
    assert "30 (0.6 %) have no active feature" in text
    assert "bin of highest norms they are 25 %" in text
    assert "Between 40 % and 90 % of a bin's activation" in text
    assert text in page_of("much").text


def test_awcds_of_the_highest_norms_takes_the_last_bin_however_wide() -> None:
    def spectrum(n: int) -> NormSpectrum:
        values, counts = np.arange(n, dtype=np.float64), np.ones(n, np.int64)
        place = 100 * (values + 0.5) / n
        return NormSpectrum(place, values, values, values, values, counts, counts, counts, values)

    assert awcds_of_highest(spectrum(10)) == 9
    assert awcds_of_highest(spectrum(100)) == 98.5
    assert awcds_of_median(spectrum(10)) == 4.5


def test_group_rows_are_medians_and_sums_over_their_own_features() -> None:
    partition = make_partition()
    features = partition.features
    for row, members in zip(group_rows(partition), (partition.low, partition.high), strict=True):
        assert row["n"] == members.size > 0
        assert row["cds"] == pytest.approx(np.median(features["cds"][members]))
        for name in ("mean_on_outlier", "mean_on_other"):
            assert row[name] == pytest.approx(features[name][members].sum())
        for name in ("moved", "flicker", "border", "departure"):
            assert row[name] == pytest.approx(features[name][members].mean())


def test_group_rows_of_an_empty_group_are_undefined() -> None:
    high = group_rows(make_partition(gamma=0.99))[1]
    assert high["n"] == 0
    names = ("cds", "support", "density", "mean_on_outlier")
    assert np.isnan([high[name] for name in names]).all()


def test_figures_beside_other_runs_are_those_of_the_run(page_of: PageOf) -> None:
    run = page_of("usual").run
    row, cds = run_row(run), two_modes()
    np.testing.assert_array_equal(row["cds"], cds)
    assert row["median_cds"] == pytest.approx(float(np.nanmedian(cds)))
    assert (row["n_low"], row["n_high"]) == (run.partition.low.size, run.partition.high.size)
    assert row["name"] == "A study" and row["site"].model.startswith("planted")
    assert row["all"].fvu == 0.1 and row["instability"].reading == "query"


def rows_of(table: str) -> list[list[str]]:
    """The words of every cell of a table's body, by row."""
    body = re.findall(r"<tr[^>]*>(.*?)</tr>", table.split("<tbody>")[1], re.DOTALL)
    cells = (re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in body)
    return [[re.sub(r"<[^>]+>", "", cell).strip() for cell in row] for row in cells]


def table_of(html: str, caption: str) -> str:
    return html[html.index(f'aria-describedby="{caption}"') :].split("</table>", maxsplit=1)[0]


def test_every_shift_has_its_rows_under_the_chosen_membership(page_of: PageOf) -> None:
    rows = rows_of(table_of(page_of("much").html, "caption-tokens-1"))
    assert [row[0] for row in rows] == ["1", "", "", "2", "", "", "4", "", ""]
    assert [row[2] for row in rows] == ["key", "query", "received"] * 3, "the chosen one first"
    means = [float(row[3].split(" [")[0]) for row in rows]
    assert means == [11.2, 11.0, 11.1, 21.2, 21.0, 21.1, 41.2, 41.0, 41.1]
    assert rows[0][3] == "11.20 [10.08, 12.32]"
    assert rows[0][4] == "0.10 [0.09, 0.11]"
    assert rows[0][5] == "112.0 [89.6, 134.4]"


def test_the_rules_for_an_outlier_stand_side_by_side(page_of: PageOf) -> None:
    table = table_of(page_of("much").html, "caption-tokens-2")
    text = re.sub(r"<[^>]+>", " ", table)
    for value in ("20.00", "21.00", "22.00", "20.20", "21.20", "22.20"):
        assert f"{value} [" in text
    assert text.count("either view") == text.count("both views") == 2
    assert "received" not in text, "the rule makes no difference to it"
    assert re.search(
        r'class="chosen"><td class="name"><code>key</code></td><td[^>]*>the first', table
    )


def test_one_shift_has_no_curve_over_shifts(page_of: PageOf) -> None:
    assert "Table 9" not in page_of("usual").text
    assert "shifts of 1, 2, 4 patches" in page_of("much").text
    assert "shifts-title" in page_of("much").html
