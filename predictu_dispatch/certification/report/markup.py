"""Builds HTML. Every text is escaped unless it is markup: an operator's answer is hostile."""

from __future__ import annotations

import html

from predictu_dispatch.certification.report.contents import plain
from predictu_dispatch.core.printable import printable, printable_lines


class Html(str):
    """Markup that `tag` or `joined` made."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str) -> Html:
    """Return an element. `class_` is the attribute class; an attribute with "" has no value."""
    written = "".join(
        f' {key.rstrip("_")}="{html.escape(printable(value))}"' if value else f" {key.rstrip('_')}"
        for key, value in attributes.items()
    )
    return Html(f"<{name}{written}>{joined(*children)}</{name}>")


def joined(*children: str) -> Html:
    """Return the children one behind the other; those that are text are escaped."""
    return Html("".join(child if isinstance(child, Html) else _escaped(child) for child in children))


def lines(text: str) -> Html:
    """Return text whose line ends stay; every other control character is escaped."""
    return Html(html.escape(printable_lines(plain(text))))


def _escaped(text: str) -> str:
    return html.escape(printable(plain(text)))
