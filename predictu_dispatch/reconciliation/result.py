"""The result of a run: what it read and found, and what follows from it. Nothing here does I/O."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Final, NamedTuple
from uuid import UUID

from predictu_dispatch.core.difference_classes import RULES, DifferenceClass, Kind

ITEMS_MAX: Final = 10_000
"""How many items of each class a run lists, as in classify(); the totals count all."""
_COUNTED_APART: Final = DifferenceClass.IN_FLIGHT


class SourceRead(NamedTuple):
    """A file or URL, and how many of its records were read."""

    name: str
    sha256: str
    bytes: int
    lines: int
    read: int
    ignored: int
    unreadable: int
    without_player: int = 0
    """Those read that name no player."""


class UnreadableLine(NamedTuple):
    """A record that could not be read, and why."""

    source: int
    line: int
    column: str
    why: str


class Total(NamedTuple):
    """The items of one class in one currency on one day, or on all days. Amounts in subunits."""

    name: DifferenceClass
    currency: str
    day: date | None
    items: int
    rows_ours: int
    rows_theirs: int
    ours: int
    theirs: int
    disputed: int
    owed: int
    """The part of `disputed` that players have too little in the operator's ledger."""

    @property
    def difference(self) -> int:
        return self.theirs - self.ours

    @property
    def kind(self) -> Kind:
        return RULES[self.name].kind

    @property
    def over(self) -> int:
        """What players have too much in the operator's ledger."""
        return self.disputed - self.owed if self.kind is Kind.DIFFERENCE else 0

    @property
    def resolved(self) -> int:
        """The part of the difference that bookings of unknown outcomes explain."""
        if self.kind is not Kind.DIFFERENCE or self.name is DifferenceClass.DEBIT_STANDING:
            return 0
        return self.difference - (self.over - self.owed)


class DaySum(NamedTuple):
    """What `ledger` and the lines add up to, read independently of the items."""

    currency: str
    day: date
    ours: int
    theirs: int


class Identity(NamedTuple):
    """Σ ours + Σ differences = Σ theirs, in one currency."""

    currency: str
    ours: int
    differences: int
    in_flight: int
    theirs: int
    broken_days: tuple[date, ...]
    """Where it does not hold. On the others it holds."""


class Changes(NamedTuple):
    """What this run changed about the operator's open differences."""

    new: int
    closed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A finished run."""

    operator_id: str
    run_id: UUID
    first_day: date
    last_day: date
    time_zone: str
    day_starts: time
    starts_at: datetime
    ends_at: datetime
    cut_at: datetime
    """The period's end, or the start of the run if that is earlier."""
    given_from: datetime
    given_until: datetime
    sources: tuple[SourceRead, ...]
    unreadable: tuple[UnreadableLine, ...]
    """The first ones; `sources` counts all."""
    rows_ours: int
    totals: tuple[Total, ...]
    sums: tuple[DaySum, ...]
    is_complete: bool
    accepted: int
    """Differences of this run that two people have explained and accepted."""
    accepted_contradictions: int
    changes: Changes | None
    """None if no earlier run covers any of these days."""
    digits: Mapping[str, int]
    first_sent_at: datetime | None = None
    """The first attempt of what is in flight because it was sent before the given ledger."""
    format_fault: str = ""
    """One sentence, if all that is wrong is how amounts are written."""

    @property
    def lines_read(self) -> int:
        return sum(source.read for source in self.sources)

    @property
    def lines_unreadable(self) -> int:
        return sum(source.unreadable for source in self.sources)

    @property
    def is_unread(self) -> bool:
        """Whether no line of the ledger could be read, so that nothing was compared."""
        return bool(self.lines_unreadable and not self.lines_read)

    @property
    def is_empty(self) -> bool:
        """Whether the ledger has no line, although we have bookings."""
        return bool(self.rows_ours and not any(source.lines for source in self.sources))

    @property
    def without_player(self) -> int:
        """Lines that name no player, so that players were not compared."""
        return sum(source.without_player for source in self.sources)

    @property
    def rows_theirs_in_items(self) -> int:
        return sum(total.rows_theirs for total in self.totals)

    @property
    def rows_ours_in_items(self) -> int:
        return sum(total.rows_ours for total in self.totals)

    @property
    def are_rows_complete(self) -> bool:
        """Whether each row of each side is in an item."""
        return (self.rows_ours_in_items, self.rows_theirs_in_items) == (self.rows_ours, self.lines_read)

    @property
    def unlisted(self) -> dict[DifferenceClass, int]:
        """How many items each class has beyond those that are listed."""
        left: Counter[DifferenceClass] = Counter(dict.fromkeys(RULES, -ITEMS_MAX))
        for total in self.totals:
            left[total.name] += total.items
        return {name: left[name] for name in RULES if name is not DifferenceClass.AGREED and left[name] > 0}

    @property
    def differences(self) -> int:
        return sum(total.items for total in self.totals if total.kind is Kind.DIFFERENCE)

    @property
    def open_count(self) -> int:
        """Differences that have not been accepted."""
        return self.differences - self.accepted

    @property
    def contradictions(self) -> int:
        return sum(total.items for total in self.totals if total.kind is Kind.CONTRADICTION)

    @property
    def open_contradictions(self) -> int:
        return self.contradictions - self.accepted_contradictions

    @property
    def is_settled(self) -> bool:
        """Whether nothing has to be followed up."""
        return self.is_complete and not self.open_count and not self.open_contradictions and not self.format_fault


def by_currency(totals: Iterable[Total]) -> dict[str, list[Total]]:
    """Return for each currency a total of each class over all days, in the table's order."""
    summed: dict[tuple[str, DifferenceClass], Total] = {}
    for total in totals:
        key = (total.currency, total.name)
        before = summed.get(key)
        numbers = total[3:] if before is None else tuple(map(sum, zip(before[3:], total[3:], strict=True)))
        summed[key] = Total(total.name, total.currency, None, *numbers)
    order = [DifferenceClass.AGREED, *(name for name in RULES if name is not DifferenceClass.AGREED)]
    found: dict[str, list[Total]] = {}
    for currency, name in sorted(summed, key=lambda key: (key[0], order.index(key[1]))):
        found.setdefault(currency, []).append(summed[currency, name])
    return found


def identities(totals: Sequence[Total], sums: Sequence[DaySum]) -> Iterator[Identity]:
    """Check for each currency and day that the items explain the whole difference."""
    expected = {(one.currency, one.day): one for one in sums}
    found: dict[tuple[str, date], int] = {}
    for total in totals:
        assert total.day is not None  # noqa: S101 - those of a run have days
        found[total.currency, total.day] = found.get((total.currency, total.day), 0) + total.difference
    for currency in sorted({key[0] for key in expected | found}):
        of_currency = [one for one in sums if one.currency == currency]
        ours, theirs = sum(one.ours for one in of_currency), sum(one.theirs for one in of_currency)
        apart = [one.difference for one in totals if one.currency == currency and one.name is _COUNTED_APART]
        rest = [one.difference for one in totals if one.currency == currency and one.name is not _COUNTED_APART]
        days = sorted({day for code, day in expected.keys() | found.keys() if code == currency})
        broken = tuple(day for day in days if found.get((currency, day), 0) != _of_day(expected.get((currency, day))))
        yield Identity(currency, ours, sum(rest), sum(apart), theirs, broken)


def _of_day(one: DaySum | None) -> int:
    return 0 if one is None else one.theirs - one.ours
