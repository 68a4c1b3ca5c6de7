"""What pages are made of: vendored files as told, the report's colours, nothing from elsewhere."""

import hashlib
import re
from pathlib import Path

import vitscope

PACKAGE = Path(vitscope.__file__).parent
STATIC = PACKAGE / "explorer" / "static"


def test_vendored_files_are_those_that_the_page_about_them_names() -> None:
    told = (STATIC / "vendor" / "README.md").read_text(encoding="utf-8")
    sums = dict(re.findall(r"`([\w.]+)` \| `([0-9a-f]{64})`", told))
    files = {path.name: path for path in (STATIC / "vendor").iterdir()}
    assert set(files) == {"README.md", "uPlot-LICENSE.txt", *sums} - {"uplot-1.6.32.tgz"}
    for name, path in files.items():
        if name in sums:
            assert hashlib.sha256(path.read_bytes()).hexdigest() == sums[name]


def colours(text: str) -> list[dict[str, str]]:
    """Variables of the light and of the dark scheme."""
    blocks = re.findall(r":root \{(.*?)\}", text, re.DOTALL)
    return [dict(re.findall(r"--([\w-]+): (#\w+)", block)) for block in blocks[:2]]


def test_a_feature_has_the_colour_that_it_has_in_the_report() -> None:
    report = colours((PACKAGE / "report" / "templates" / "report.css").read_text())
    explorer = colours((STATIC / "explorer.css").read_text())
    assert len(report) == len(explorer) == 2
    for theirs, ours in zip(report, explorer, strict=True):
        common = set(theirs) & set(ours)
        assert {"low", "high", "ink", "paper"} <= common
        assert {name: ours[name] for name in common} == {name: theirs[name] for name in common}
        assert (ours["low-bar"], ours["high-bar"]) == (theirs["fig-low"], theirs["fig-high"])


def test_our_own_scripts_and_styles_ask_for_nothing_elsewhere_and_write_no_markup() -> None:
    for path in [*STATIC.glob("*.js"), *STATIC.glob("*.css")]:
        text = path.read_text(encoding="utf-8")
        assert set(re.findall(r"https?://[^\s\"')]+", text)) <= {"http://www.w3.org/2000/svg"}
        for harm in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval("):
            assert harm not in text, path.name
        assert len(text.splitlines()) <= 300, path.name
