"""The code in our documents, so that tests run the very lines a reader copies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One fenced block, the heading it stands under, and its language as the fence names it."""

    heading: str
    language: str
    code: str


def examples(document: str) -> list[Example]:
    """Every fenced block of a document that names a language, in order."""
    found: list[Example] = []
    heading = ""
    parts = re.finditer(
        r"^#+ (?P<heading>[^\n]+)$|^```(?P<language>\w+)\n(?P<code>.*?)^```$",
        (ROOT / document).read_text(encoding="utf-8"),
        flags=re.DOTALL | re.MULTILINE,
    )
    for part in parts:
        if part["language"]:
            found.append(Example(heading=heading, language=part["language"], code=part["code"]))
        else:
            heading = part["heading"]
    return found


def code_under(document: str, heading: str, language: str) -> list[str]:
    """The blocks of this language under this very heading; fails where there is none."""
    found = [
        example.code for example in examples(document) if (example.heading, example.language) == (heading, language)
    ]
    assert found, f"{document} has no {language} under the heading {heading!r}"
    return found
