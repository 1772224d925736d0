"""Cuts what a search has read into pages, and names the place where the next page begins."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, NamedTuple
from urllib.parse import quote, unquote

from typing_extensions import override

SCANNED_MAX: Final = 1_000
"""Bets that a page reads at most for a filter that no index serves."""


class Cursor(NamedTuple):
    """The last bet or callback of a page; the next page begins after it."""

    at: datetime
    operator_id: str
    id: str

    @override
    def __str__(self) -> str:
        return (
            f"{self.at.astimezone(UTC).replace(tzinfo=None).isoformat()}Z/{self.operator_id}/{quote(self.id, safe='')}"
        )


def parse_cursor(text: str) -> Cursor:
    """The cursor of a page's last line; raises ValueError."""
    at, operator_id, identifier = text.split("/")
    cursor = Cursor(datetime.fromisoformat(at), operator_id, unquote(identifier))
    if cursor.at.tzinfo is None:
        raise ValueError("a cursor has a time zone")
    return cursor


class Found(NamedTuple):
    """A bet or a callback that an index led to; `source` is the index range that it came from."""

    source: str
    cursor: Cursor


def per_source(rows_max: int, sources: int, *, is_filtered: bool) -> int:
    """How many entries to read of each index range for a page of `rows_max`."""
    return max(rows_max, SCANNED_MAX // max(sources, 1)) if is_filtered else rows_max


def complete(found: Sequence[Found], limit: int) -> tuple[Sequence[Found], bool]:
    """The entries after which nothing is missing, newest first, and whether there may be more.

    A range that gave `limit` entries may have more; what is older than its last is not complete.
    """
    given = Counter(one.source for one in found)
    seen: Counter[str] = Counter()
    for number, one in enumerate(found, start=1):
        seen[one.source] += 1
        if seen[one.source] == given[one.source] == limit:
            return found[:number], True
    return found, False


def page_of(numbers: Sequence[int], rows_max: int, read_max: int) -> int:
    """How many rows belong to the page: whole entries, at least one.

    `numbers` are the rows' entries, in order; if there are `read_max` rows, the last entry may have
    more.
    """
    end = len(numbers)
    if end == read_max and numbers[0] != numbers[-1]:
        end = numbers.index(numbers[-1])
    while end > rows_max and numbers[end - 1] != numbers[0]:
        end = numbers.index(numbers[end - 1])
    return end
