"""Escapes text from outside, so that it controls no terminal, log line or page.

Commands, the log and the HTTP server show such text.
"""

from __future__ import annotations

import re
from typing import Final

# Printable for Python, but invisible on a terminal: fillers, joiners, variation selectors.
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)


def printable(text: str) -> str:
    r"""Escape what would not be seen: controls, newlines, bidi, zero width, surrogates (\x1b)."""
    if text.isprintable() and not _INVISIBLE.search(text):
        return text
    return "".join(
        c if c.isprintable() and not _INVISIBLE.match(c) else c.encode("unicode_escape").decode() for c in text
    )


def printable_lines(text: str, *, indent: str = "") -> str:
    """As `printable`, for text of several lines, such as a traceback."""
    return "\n".join(indent + printable(line) if line else line for line in text.split("\n"))
