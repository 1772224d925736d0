"""Reads the code blocks of our documents, so that tests run exactly what a reader copies."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One fenced block with its heading and its language."""

    heading: str
    language: str
    code: str


def examples(document: str) -> list[Example]:
    """Returns every fenced block that names a language, in order."""
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
    """Returns the blocks of this language under exactly this heading; fails if there is none."""
    found = [
        example.code for example in examples(document) if (example.heading, example.language) == (heading, language)
    ]
    assert found, f"{document} has no {language} under the heading {heading!r}"
    return found
