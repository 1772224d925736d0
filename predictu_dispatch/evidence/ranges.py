"""Sets of leaf indices as sorted ranges: what retention removed."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from hashlib import sha256
from typing import NamedTuple


class Range(NamedTuple):
    """The indices from `first` to before `end`."""

    first: int
    end: int


class Ranges:
    """Ranges, sorted and merged."""

    def __init__(self, ranges: Iterable[tuple[int, int]] = ()) -> None:
        merged: list[Range] = []
        for first, end in sorted(ranges):
            if merged and first <= merged[-1].end:
                merged[-1] = Range(merged[-1].first, max(end, merged[-1].end))
            elif first < end:
                merged.append(Range(first, end))
        self._ranges: Sequence[Range] = merged
        self._firsts = [each.first for each in merged]

    def __bool__(self) -> bool:
        return bool(self._ranges)

    def __contains__(self, index: int) -> bool:
        at = bisect_right(self._firsts, index) - 1
        return at >= 0 and index < self._ranges[at].end

    def outside_of(self, first: int, end: int) -> list[Range]:
        """The parts of a range that are in none of ours."""
        parts = []
        at = max(0, bisect_right(self._firsts, first) - 1)
        while at < len(self._ranges) and self._ranges[at].first < end:
            if first < self._ranges[at].first:
                parts.append(Range(first, self._ranges[at].first))
            first = max(first, self._ranges[at].end)
            at += 1
        return [*parts, Range(first, end)] if first < end else parts

    @property
    def text(self) -> str:
        """As its SHA-256 is sealed: `0-255,300-301`, both ends included."""
        return ",".join(f"{each.first}-{each.end - 1}" for each in self._ranges)

    @property
    def sha256(self) -> bytes:
        return sha256(self.text.encode()).digest()
