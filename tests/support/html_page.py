"""Reads an HTML page strictly: what it says and links to, and every fault of its markup."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

from typing_extensions import override

_VOID = frozenset({"meta"})


@dataclass(kw_only=True)
class Page:
    text: str = ""
    style: str = ""
    policy: str = ""
    links: set[str] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)
    elements: set[str] = field(default_factory=set)
    faults: list[str] = field(default_factory=list)
    """Elements that are not closed, ids used twice, attributes that run, load or do not exist."""


class _Reader(HTMLParser):
    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.page = Page()
        self._open: list[str] = []

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        page = self.page
        page.elements.add(tag)
        for name, value in attrs:
            if (
                name.startswith("on")
                or "_" in name
                or name in {"src", "srcset", "style", "data", "action", "background"}
            ):
                page.faults.append(f"<{tag} {name}>")
            if name == "href":
                page.links.add(value or "")
            if name == "id":
                if value in page.ids:
                    page.faults.append(f"id {value} twice")
                page.ids.add(value or "")
        given = dict(attrs)
        if given.get("http-equiv") == "Content-Security-Policy":
            page.policy = given["content"] or ""
        if tag not in _VOID:
            self._open.append(tag)

    @override
    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.page.faults.append(f"</{tag}> closes nothing")

    @override
    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            self.page.style += data
        else:
            self.page.text += data

    def finished(self) -> Page:
        self.close()
        self.page.faults += [f"<{tag}> is not closed" for tag in self._open]
        return self.page


def read_page(text: str) -> Page:
    reader = _Reader()
    reader.feed(text)
    return reader.finished()
