"""The section on attention instability: every shift, reading and rule, with intervals."""

import re

from tests.report.page_reader import read_page
from tests.report.synthetic_report import group, make_data, reading

from vitscope.report.data import ReportData
from vitscope.report.numbers import with_interval
from vitscope.report.page import render_report
from vitscope.scope.outliers import OutlierSettings
from vitscope.scope.settings import ScopeSettings


def test_an_interval_is_written_where_there_is_one() -> None:
    nan = float("nan")
    assert with_interval(5.178, 4.966, 5.4, 2) == "5.18 [4.97, 5.40]"
    assert with_interval(5.178, nan, nan, 2) == "5.18"
    assert with_interval(nan, 1.0, 2.0) == "–"


def shifts_and_rules() -> ReportData:
    """Return a run of three shifts under three memberships; every figure tells where it is from."""
    rows = tuple(
        reading(name, group(10.0 * s + m + r / 10), group(s / 10), shift=s, membership=membership)
        for s in (1, 2, 4)
        for m, membership in enumerate(("either", "first", "both"))
        for r, name in enumerate(("query", "received", "key"))
    )
    outliers = OutlierSettings(membership="first", attention="key")
    return make_data(instability=rows, outliers=outliers, scope=ScopeSettings(shift=2))


def rows_of(table: str) -> list[list[str]]:
    """The words of every cell of a table's body, by row."""
    body = re.findall(r"<tr[^>]*>(.*?)</tr>", table.split("<tbody>")[1], re.DOTALL)
    cells = (re.findall(r"<td[^>]*>(.*?)</td>", row, re.DOTALL) for row in body)
    return [[re.sub(r"<[^>]+>", "", cell).strip() for cell in row] for row in cells]


def table_of(html: str, caption: str) -> str:
    return html[html.index(f'aria-describedby="{caption}"') :].split("</table>", maxsplit=1)[0]


def test_every_shift_has_its_rows_under_the_chosen_membership() -> None:
    html = render_report(shifts_and_rules())
    rows = rows_of(table_of(html, "caption-tokens-1"))
    assert [row[0] for row in rows] == ["1", "", "", "2", "", "", "4", "", ""]
    assert [row[2] for row in rows] == ["key", "query", "received"] * 3, "the chosen one first"
    means = [float(row[3].split(" [")[0]) for row in rows]
    assert means == [11.2, 11.0, 11.1, 21.2, 21.0, 21.1, 41.2, 41.0, 41.1]
    assert rows[0][3] == "11.20 [10.08, 12.32]"
    assert rows[0][4] == "0.10 [0.09, 0.11]"
    assert rows[0][5] == "112.0 [89.6, 134.4]"


def test_the_rules_for_an_outlier_stand_side_by_side() -> None:
    html = render_report(shifts_and_rules())
    table = html[html.index('aria-describedby="caption-tokens-2"') :].split("</table>", maxsplit=1)[
        0
    ]
    text = re.sub(r"<[^>]+>", " ", table)
    for value in ("20.00", "21.00", "22.00", "20.20", "21.20", "22.20"):
        assert f"{value} [" in text
    assert text.count("either view") == text.count("both views") == 2
    assert "received" not in text, "the rule makes no difference to it"
    assert re.search(
        r'class="chosen"><td class="name"><code>key</code></td><td[^>]*>the first', table
    )


def test_the_headline_is_the_studys_own_shift_and_rule() -> None:
    text = read_page(render_report(shifts_and_rules())).text
    head = text[: text.index("Scope of the features")]
    assert re.search(r"21\.20\s*\|\s*0\.20", head)
    assert "shift 2, 106.0 times" in head


def test_one_shift_has_no_curve_over_shifts() -> None:
    assert "Table 9" not in read_page(render_report(make_data())).text
    assert "shifts of 1, 2, 4 patches" in read_page(render_report(shifts_and_rules())).text
