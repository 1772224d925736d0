"""Builds HTML. Every text is escaped unless it is markup: an operator's answer is hostile."""

from __future__ import annotations

import html

from predictu_dispatch.certification.report.contents import plain
from predictu_dispatch.core.printable import printable, printable_lines


class Html(str):
    """Markup that `tag` or `joined` made."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str) -> Html:
    """Return an element. `class_` is class, `aria_hidden` aria-hidden; "" is no value."""
    names = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items()}
    written = "".join(f' {key}="{_escaped(value)}"' if value else f" {key}" for key, value in names.items())
    return Html(f"<{name}{written}>{joined(*children)}</{name}>")


def joined(*children: str) -> Html:
    """Return the children one behind the other; those that are text are escaped."""
    return Html("".join(child if isinstance(child, Html) else _escaped(child) for child in children))


def lines(text: str) -> Html:
    """Return text whose line ends stay; every other control character is escaped."""
    return Html(html.escape(printable_lines(plain(text))))


def _escaped(text: str) -> str:
    return html.escape(printable(plain(text)))
