"""What a browser would make of a page: its elements, its visible text."""

from dataclasses import dataclass, field
from html.parser import HTMLParser


@dataclass
class Page:
    """Elements as (tag, attributes), and the text outside style sheets."""

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""

    def attributes(self, name: str) -> list[str]:
        return [attrs[name] for _, attrs in self.elements if name in attrs]

    def tags(self, name: str) -> list[dict[str, str]]:
        return [attrs for tag, attrs in self.elements if tag == name]


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.page = Page()
        self._in_style = False

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.page.elements.append((tag, {name: value or "" for name, value in attrs}))
        self._in_style |= tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._in_style &= tag != "style"

    def handle_data(self, data: str) -> None:
        if not self._in_style:
            self.page.text += data


def read_page(html: str) -> Page:
    reader = _Reader()
    reader.feed(html)
    return reader.page
