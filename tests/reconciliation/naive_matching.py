"""What the naive classifier knows of our rows, and which line it matches to which of them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

from tests.reconciliation.naive_audit import Row, contradictions
from tests.reconciliation.naive_lines import Dialect, Line

FINAL = ("delivered", "rejected", "exhausted", "cancelled")
_SHARED_MAX = 10
Key = tuple[object, ...]
"""What an item is about: a callback, an adopted bet, an unknown request_id, or one line."""


@dataclass(frozen=True, kw_only=True)
class Books:
    """Our rows of one operator, as they are in the tables."""

    callbacks: Sequence[Row]
    bets: Sequence[Row]
    attempts: Sequence[Row]


@dataclass(frozen=True, kw_only=True)
class Period:
    """What is reconciled; `cut_at` is the period's end, or the start of an earlier run."""

    first_day: date
    last_day: date
    dialect: Dialect
    cut_at: datetime
    settle_s: float
    run_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    open_for_days: int = 1
    """So long before the cut, a debit is old."""

    @property
    def no_end_days(self) -> int:
        """The setting for it: debits are old by the time of the run."""
        return (self.run_at - self.cut_at).days + self.open_for_days

    @property
    def start(self) -> datetime:
        return self.dialect.start_of(self.first_day)

    @property
    def end(self) -> datetime:
        return self.dialect.start_of(self.last_day + timedelta(days=1))

    def has(self, at: datetime | None) -> bool:
        return at is not None and self.start <= at < self.end


@dataclass(kw_only=True)
class Item:
    """One callback with its lines, or lines without a callback."""

    key: Key
    callback: Row | None = None
    adopted: Row | None = None
    lines: list[Line] = field(default_factory=list)
    debit: Item | None = None
    """The item of the debit that stands; it is part of this one."""
    name: str = ""
    currency: str = ""
    """The callback's or the adopted bet's, else the first line's."""
    rows_ours: int = 0
    """Callbacks in it: our rows, and those that a line matched or that contradict."""
    amounts: dict[tuple[str, date], list[int]] = field(default_factory=dict)
    """[ours, theirs] for each currency and accounting day."""
    disputed: Counter[str] = field(default_factory=Counter)
    owed: Counter[str] = field(default_factory=Counter)
    """The part of it that players have too little there."""

    @property
    def all_lines(self) -> list[Line]:
        return self.lines + (self.debit.lines if self.debit else [])

    @property
    def identity(self) -> tuple[object, ...]:
        """Names the item by what is in it: the callback and the places of the lines."""
        callback = self.callback["request_id"] if self.callback else None
        return callback, tuple(sorted(line.place for line in self.all_lines))


class NaiveMatcher:
    """Holds our rows and the lines; `matched` has the items, not yet classified."""

    def __init__(self, books: Books, lines: Sequence[Line], period: Period) -> None:
        self.period = period
        self.lines = sorted(lines, key=lambda line: (line.booked_at, line.place))
        self.callbacks = {row["request_id"]: row for row in books.callbacks if row["bet_id"] is not None}
        self.bets = {row["bet_id"]: row for row in books.bets}
        self.of_bet: dict[str, list[Row]] = defaultdict(list)
        for row in self.callbacks.values():
            self.of_bet[row["bet_id"]].append(row)
        self.attempts: dict[UUID, list[Row]] = defaultdict(list)
        for row in books.attempts:
            self.attempts[row["request_id"]].append(row)
        self.adopted = {
            row["placement_request_id"]: row for row in books.bets if row["placement_request_id"] not in self.callbacks
        }
        self.by_transaction: dict[str, list[Row]] = defaultdict(list)
        for row in self.callbacks.values():
            if row["operator_transaction_id"] is not None:
                self.by_transaction[row["operator_transaction_id"]].append(row)
        times = [line.booked_at for line in lines]
        self.given_from = min([period.start, *times])
        self.given_until = max([period.cut_at, *times])
        self.ours = contradictions(self.callbacks, self.bets, self.attempts, period)
        self.matched: dict[Key, Item] = {}
        for line in self.lines:
            self._item(self._match(line)).lines.append(line)
        for row in self.callbacks.values():
            if self.is_our_row(row):
                self._item(("callback", row["request_id"]))
        for request_id in self.ours:
            self._item(("callback" if request_id in self.callbacks else "request", request_id))
        self.ends = self._ends()

    # What we know of a callback.

    def confirmed_debit(self, bet: Row) -> bool:
        placement = self.callbacks.get(bet["placement_request_id"])
        return placement is None or placement["effect"] == "applied"

    def knowledge(self, row: Row) -> str:
        if row["state"] not in FINAL:
            return "pending"
        if row["state"] == "delivered":
            if row["reason"] == "nothing_to_reverse":
                return "rejected"
            if row["method"] == "BET_ROLLBACK" and not self.confirmed_debit(self.bets[row["bet_id"]]):
                return "unknown"
            return "confirmed"
        if row["effect"] == "unknown":
            return "unknown"
        return "rejected" if row["state"] == "rejected" else "never_sent"

    def in_ledger(self, row: Row) -> bool:
        return self.knowledge(row) == "confirmed" and signed(row) != 0

    def is_our_row(self, row: Row) -> bool:
        if row["state"] not in FINAL:
            return self.period.has(row["created_at"]) and row["attempts"] > 0
        if not self.period.has(row["finished_at"]):
            return False
        is_rollback = row["state"] == "delivered" and row["method"] == "BET_ROLLBACK"
        return self.in_ledger(row) or row["effect"] == "unknown" or is_rollback

    def our_amount(self, row: Row) -> int:
        return signed(row) if self.in_ledger(row) and self.period.has(row["finished_at"]) else 0

    # Which line belongs to what.

    def _item(self, key: Key) -> Item:
        if key not in self.matched:
            item = Item(key=key)
            if key[0] == "callback":
                item.callback = self.callbacks[key[1]]
            if key[0] == "adopted":
                item.adopted = self.bets[str(key[1])]
            self.matched[key] = item
        return self.matched[key]

    def _match(self, line: Line) -> Key:
        if line.request_id is not None:
            if line.request_id in self.callbacks:
                return "callback", line.request_id
            if line.request_id in self.adopted:
                return "adopted", self.adopted[line.request_id]["bet_id"]
            return "request", line.request_id
        if line.transaction_id is not None:
            found = [
                row
                for row in self.by_transaction[line.transaction_id]
                if _is_named(row, line) and (line.bet_id not in self.bets or line.bet_id == row["bet_id"])
            ]
            if len(found) == 1 and len(self.by_transaction[line.transaction_id]) <= _SHARED_MAX:
                return "callback", found[0]["request_id"]
        bet = self.bets.get(line.bet_id or "")
        if bet is not None and line.is_debit:
            if bet["placement_request_id"] in self.callbacks:
                return "callback", bet["placement_request_id"]
            return "adopted", bet["bet_id"]
        if bet is not None and bet["terminal_request_id"] in self.callbacks:
            terminal = self.callbacks[bet["terminal_request_id"]]
            if line.method in (None, terminal["method"]):
                return "callback", terminal["request_id"]
        return "line", *line.place

    def _ends(self) -> dict[str, list[tuple[str, Line | None]]]:
        """Each bet's ends by method; those of lines without a callback come last, in order."""
        ends: dict[str, list[tuple[str, Line | None]]] = defaultdict(list)
        for item in self.matched.values():
            row = item.callback
            if row is not None and row["method"] != "BET_MAKE" and item.lines:
                ends[row["bet_id"]].append((row["method"], None))
        for row in self.callbacks.values():
            if row["method"] != "BET_MAKE" and row["state"] == "delivered":
                ends[row["bet_id"]].append((row["method"], None))
        for line in self.lines:
            if (
                line.bet_id is not None
                and line.bet_id in self.bets
                and not line.is_debit
                and self._match(line)[0] in ("request", "line")
            ):
                ends[line.bet_id].append((line.method or "", line))
        return ends


def signed(row: Row) -> int:
    """Return the callback's amount as the player's wallet sees it."""
    amount: Any = row["params"].get("amount", 0)
    if row["method"] == "BET_LOSE":
        return 0
    return -int(amount) if row["method"] == "BET_MAKE" else int(amount)


def _is_named(row: Row, line: Line) -> bool:
    if line.method is not None:
        return bool(row["method"] == line.method)
    return bool((row["method"] == "BET_MAKE") == line.is_debit)
