"""Update tests/bench/README.md: replaces the sections of the parts that ran, keeps the others."""

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path

from tests.bench.findings import Findings

README = Path(__file__).with_name("README.md")
PICTURE = Path(__file__).with_name("bench.svg")
_FROM, _TO = "<!-- bench -->\n", "<!-- bench end -->\n"
_HEADING = "### "
_PARAGRAPH = "\n\n"
_COLUMNS = 100


def keep(found: Iterable[Findings], *, machine: str, order: Sequence[str]) -> None:
    """Replace the sections of these parts in README.md; all sections are in the given order."""
    before, _, rest = README.read_text(encoding="utf-8").partition(_FROM)
    kept, _, after = rest.partition(_TO)
    sections = {text.partition("\n")[0]: text for text in kept.split(_HEADING)[1:]}
    sections |= {one.part: f"{one.part}\n\n{_wrapped(f'{machine}{_PARAGRAPH}{one.section()}')}\n" for one in found}
    written = "".join(f"{_HEADING}{sections[part].rstrip()}\n\n" for part in order if part in sections)
    picture = f"![rates and latencies]({PICTURE.name})\n\n" if PICTURE.exists() else ""
    README.write_text(f"{before}{_FROM}{picture}{written.rstrip()}\n{_TO}{after}", encoding="utf-8")


def _wrapped(text: str) -> str:
    """The text with lines of at most 100 columns, but for tables."""
    return "\n".join(
        line if line.startswith("|") else textwrap.fill(line, _COLUMNS, break_long_words=False, break_on_hyphens=False)
        for line in text.splitlines()
    )
