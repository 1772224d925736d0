"""The review list on a screen: the callbacks of one cause together, with money and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from predictu_dispatch.commands import advice
from predictu_dispatch.commands.output import Row, count, money, styled, timestamp, wrapped
from predictu_dispatch.commands.overview import Overview

_LINES_PER_CAUSE: Final = 4
"""About; causes come before single callbacks."""
_KEY: Final = ("operator_id", "method", "state", "effect", "reason_code", "reason")


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewGroup:
    """The callbacks of one operator, method and cause; `rows` has one row for each currency."""

    rows: tuple[Row, ...]

    @property
    def row(self) -> Row:
        """The columns that do not depend on the currency."""
        return min(self.rows, key=lambda row: row["since"])

    @property
    def callbacks(self) -> int:
        return sum(row["callbacks"] for row in self.rows)

    @property
    def sums(self) -> str:
        """The sum in each currency: `12.50 EUR, 3 JPY`; empty if no money moves."""
        return ", ".join(
            money(int(row["amount"]), row["currency"], row["minor_digits"])
            for row in self.rows
            if row["amount"] is not None
        )

    def as_json(self) -> dict[str, Any]:
        row = self.row
        return {
            **{name: row[name] for name in (*_KEY, "since", "oldest_request_id")},
            "callbacks": self.callbacks,
            "amounts": [
                {"currency": one["currency"], "amount": int(one["amount"]), "minor_digits": one["minor_digits"]}
                for one in self.rows
                if one["amount"] is not None
            ],
        }


def review_groups(rows: Iterable[Row]) -> list[ReviewGroup]:
    """The groups over all currencies, the largest first."""
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in _KEY), []).append(row)
    found = [ReviewGroup(rows=tuple(own)) for own in groups.values()]
    return sorted(found, key=lambda group: (-group.callbacks, group.row["since"]))


def review_lines(overview: Overview, *, columns: int, lines_max: int | None) -> Iterator[str]:
    """The review list by cause, within about `lines_max` lines; None lists every callback."""
    groups = review_groups(overview.review_groups)
    if not groups:
        yield "nothing needs review"
        return
    yield styled(_title(groups), colour="red", bold=True)
    shown, listed = 0, 0
    room = lines_max
    for group in groups:
        head = list(_group_lines(group, columns=columns))
        if room is not None and len(head) > room:
            head = _brief_lines(group, columns=columns)
        if room is not None and shown and len(head) + 1 > room:
            break
        yield from head
        shown += 1
        room = None if room is None else room - len(head)
        left = len(groups) - shown
        share = None if room is None else max(0, (room - left * _LINES_PER_CAUSE) // (left + 1))
        rows = _of_group(group, overview.review)[:share]
        for row in rows:
            lines = wrapped(_callback_text(row), indent="    ", hanging="      ", columns=columns)
            yield from lines
            room = None if room is None else room - len(lines)
        # The only callback of a cause is named by its command.
        listed += 1 if group.callbacks == 1 else len(rows)
    yield from wrapped(_rest(groups[shown:], overview.in_review - listed), hanging="  ", columns=columns)


def cause_lines(groups: Sequence[ReviewGroup], *, columns: int, groups_max: int) -> Iterator[str]:
    """The causes only, for a screen with little room."""
    if not groups:
        return
    yield styled(_title(groups), colour="red", bold=True)
    for group in groups[:groups_max]:
        yield from _brief_lines(group, columns=columns)
    rest = groups[groups_max:]
    yield from wrapped(_rest(rest, 0), hanging="  ", columns=columns)


def _title(groups: Sequence[ReviewGroup]) -> str:
    callbacks = sum(group.callbacks for group in groups)
    verb = "needs" if callbacks == 1 else "need"
    return f"{count(callbacks, 'callback')} {verb} review, of {count(len(groups), 'cause')}:"


def _group_lines(group: ReviewGroup, *, columns: int) -> Iterator[str]:
    row = group.row
    yield from wrapped(f"{_name(group)}, since {timestamp(row['since'])}", indent="  ", hanging="    ", columns=columns)
    yield from wrapped(f"{row['reason']} → {_advice(row)}", indent="    ", columns=columns)


def _brief_lines(group: ReviewGroup, *, columns: int) -> list[str]:
    """The same without the time, and with the beginning of the reason only."""
    cause = group.row["reason"].partition(";")[0]
    return wrapped(f"{_name(group)}: {cause} → {_advice(group.row)}", indent="  ", hanging="    ", columns=columns)


def _name(group: ReviewGroup) -> str:
    sums = f", {group.sums}" if group.sums else ""
    return f"{group.row['operator_id']} {group.row['method']}: {count(group.callbacks, 'callback')}{sums}"


def _advice(row: Row) -> str:
    helps = advice.on_review(row["state"], row["reason_code"], row["effect"])
    return helps.format(request_id=row["oldest_request_id"])


def _of_group(group: ReviewGroup, review: Sequence[Row]) -> list[Row]:
    key = tuple(group.row[name] for name in _KEY)
    return [row for row in review if tuple(row[name] for name in _KEY) == key]


def _callback_text(row: Row) -> str:
    amount = "" if row["amount"] is None else f", {money(row['amount'], row['currency'], row['minor_digits'])}"
    return f"{row['request_id']}{amount}, player {row['player_id']}, bet {row['bet_id']}"


def _rest(groups: Sequence[ReviewGroup], callbacks: int) -> str:
    """How many causes and callbacks are not on the screen, and how to list them."""
    parts = [count(len(groups), "more cause")] if groups else []
    if callbacks:
        parts.append(f"{count(callbacks, 'callback')} not listed by id")
    return f"… and {', '.join(parts)}; to list all: predictu-dispatch status --all" if parts else ""
