"""A ledger that faults are planted into, and what a fault needs of the bets in it."""

from __future__ import annotations

import random
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from tests.reconciliation.ledger_files import Entry
from tests.reconciliation.naive_audit import Row
from tests.reconciliation.naive_matching import FINAL, Books, Period


@dataclass(kw_only=True)
class Fault:
    """What was planted; its subject is one of our callbacks, or a line without one."""

    kind: str
    name: str
    """The expected class."""
    callback: uuid.UUID | None = None
    entry: Entry | None = None
    money: dict[str, int] = field(default_factory=dict)
    """What is disputed, in each currency."""
    statements: list[tuple[str, tuple[object, ...]]] = field(default_factory=list)
    """What corrupts our own rows."""


@dataclass(kw_only=True)
class PlacedBet:
    """A bet, its debit's callback unless it was adopted, and its other callbacks."""

    row: Row
    placement: Row | None = None
    terminal: Row | None = None
    others: list[Row] = field(default_factory=list)

    @property
    def callbacks(self) -> list[Row]:
        return [one for one in (self.placement, self.terminal, *self.others) if one is not None]


class PlantedLedger:
    """The ledger that faults are planted into. `is_whole`: it has more than the period."""

    def __init__(
        self, books: Books, entries: Sequence[Entry], period: Period, rng: random.Random, *, is_whole: bool
    ) -> None:
        self.period = period
        self.rng = rng
        self.is_whole = is_whole
        self.entries = [one for one in entries if is_whole or period.has(one.booked_at)]
        self.by_request = {one.request_id: one for one in self.entries}
        self.bets = _bets(books)
        self.attempts: dict[uuid.UUID, list[Row]] = defaultdict(list)
        for row in books.attempts:
            self.attempts[row["request_id"]].append(row)
        self.removed: list[Entry] = []

    def strip_ids(self, rows: Sequence[Row], share: float) -> None:
        """Remove some request ids of lines that transaction, or bet and direction, also name."""
        known = {str(row["request_id"]): row for row in rows}
        for bet in self.bets:
            for row in (bet.placement, bet.terminal):
                if row is None or self.rng.random() >= share or row["request_id"] not in self._named_by_bet(bet):
                    continue
                for entry in self.entries:
                    if entry.request_id != str(row["request_id"]) or entry.texts or entry.copy_of:
                        continue
                    if known[entry.request_id]["operator_transaction_id"] == entry.transaction_id:
                        entry.texts["request_id"] = ""
                        if self.rng.random() < 0.5:
                            continue
                    entry.texts |= {"request_id": "", "transaction_id": ""}
                    if self.rng.random() < 0.5:
                        entry.texts["method"] = ""

    def _named_by_bet(self, bet: PlacedBet) -> set[object]:
        return {bet.row["placement_request_id"], bet.row["terminal_request_id"]}

    def unplanted(self) -> list[Fault]:
        """What the history itself has of classes that are no difference, away from the edges."""
        found: list[Fault] = []
        for bet in self.bets:
            if bet.placement is None:
                line = self.by_request.get(str(bet.row["placement_request_id"]))
                if line is not None:
                    is_in_it = self.period.has(line.booked_at)
                    found.append(_natural("agreed_resolves_unknown" if is_in_it else "out_of_window", line=line))
            for row in bet.callbacks:
                name = self._unplanted_class(bet, row)
                if name:
                    found.append(_natural(name, row=row))
        return found

    def _unplanted_class(self, bet: PlacedBet, row: Row) -> str:
        line = self.by_request.get(str(row["request_id"]))
        is_ours = self.period.has(row["finished_at"] or row["created_at"])
        if line is not None and not is_ours and not self.period.has(line.booked_at):
            return "out_of_window"
        if row["state"] not in FINAL:
            return "in_flight" if is_ours and row["attempts"] else ""
        if row["state"] != "delivered":
            return "agreed_resolves_unknown" if row["effect"] == "unknown" and self.is_settled(row) else ""
        is_rollback_of_unknown = row["method"] == "BET_ROLLBACK" and bet.placement is not None
        if is_rollback_of_unknown and bet.placement is not None and bet.placement["effect"] != "applied":
            is_reversed = row["reason"] is None and (self.is_settled(row) or line is not None)
            return "agreed_resolves_unknown" if is_reversed else ""
        if line is None:
            return ""
        if bet.row["state"] == "open":
            is_old = row["created_at"] < self.period.run_at - timedelta(days=self.period.no_end_days)
            return "no_end" if is_old else ""
        day_of = self.period.dialect.day_of
        return "day_differs" if line.amount and day_of(line.booked_at) != day_of(row["finished_at"]) else ""

    # What a fault needs.

    def is_settled(self, row: Row | None) -> bool:
        """Whether the callback, and its booking wherever it is, are well within the period."""
        if row is None or row["state"] not in FINAL:
            return False
        margin = timedelta(seconds=self.period.settle_s + 1)
        begins = min([one["started_at"] for one in self.attempts[row["request_id"]]], default=row["finished_at"])
        return bool(begins - margin >= self.period.start and row["finished_at"] + margin < self.period.cut_at)

    def _line_of(self, row: Row | None) -> Entry | None:
        found = self.by_request.get(str(row["request_id"])) if row else None
        return found if found and self.period.has(found.booked_at) else None

    def _confirmed(self, bet: PlacedBet) -> Iterator[tuple[Row, Entry]]:
        """Callbacks that moved money, with their lines; a rollback only of a confirmed debit."""
        for row in self.rng.sample(bet.callbacks, len(bet.callbacks)):
            line = self._line_of(row)
            is_sure = row["method"] != "BET_ROLLBACK" or bet.placement is None or bet.placement["effect"] == "applied"
            if line and line.amount and row["state"] == "delivered" and is_sure and self.is_settled(row):
                yield row, line

    def _a_time(self) -> datetime:
        span = self.period.cut_at - self.period.start
        return self.period.start + span * self.rng.uniform(0.05, 0.95)

    def _add(self, bet: PlacedBet, method: str, **values: Any) -> Entry:
        amount = {"BET_MAKE": -bet.row["amount"], "BET_LOSE": 0}.get(method, bet.row["amount"])
        given: dict[str, Any] = {
            "booked_at": self._a_time(),
            "transaction_id": f"tx-{uuid.UUID(int=self.rng.getrandbits(128), version=4)}",
            "request_id": str(uuid.UUID(int=self.rng.getrandbits(128), version=4)),
            "method": method,
            "bet_id": bet.row["bet_id"],
            "player_id": bet.row["player_id"],
            "currency": bet.row["currency"],
            "amount": amount,
        }
        entry = Entry(**(given | values))
        self.entries.append(entry)
        return entry

    def _remove(self, entry: Entry) -> None:
        self.entries.remove(entry)
        self.removed.append(entry)


def _natural(name: str, *, row: Row | None = None, line: Entry | None = None) -> Fault:
    return Fault(kind="in the history", name=name, callback=row["request_id"] if row else None, entry=line)


def new_fault(
    name: str,
    row: Row | None,
    money: dict[str, int],
    *,
    entry: Entry | None = None,
    statements: list[tuple[str, tuple[object, ...]]] | None = None,
) -> Fault:
    return Fault(
        kind="",
        name=name,
        callback=row["request_id"] if row else None,
        entry=entry,
        money={currency: amount for currency, amount in Counter(money).items() if amount},
        statements=statements or [],
    )


def _bets(books: Books) -> list[PlacedBet]:
    found = {row["bet_id"]: PlacedBet(row=row) for row in books.bets}
    for row in books.callbacks:
        bet = found.get(row["bet_id"])
        if bet is None:
            continue
        if row["request_id"] == bet.row["placement_request_id"]:
            bet.placement = row
        elif row["request_id"] == bet.row["terminal_request_id"] and row["state"] != "cancelled":
            bet.terminal = row
        else:
            bet.others.append(row)
    return list(found.values())
