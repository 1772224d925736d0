"""Writes an operator's ledger from its own SQLite database, in many ways of writing it."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from tests.reconciliation.history import TimeMap
from tests.reconciliation.naive_audit import METHODS
from tests.reconciliation.naive_lines import IGNORED, OUR_COLUMNS, Dialect

_WORDS = {method: method.removeprefix("BET_").title() for method in METHODS}
_NAMES = {
    "booked_at": "Booking, time",
    "amount": "value",
    "currency": "ccy",
    "request_id": "external_ref",
    "transaction_id": "id",
    "method": "type",
    "direction": "direction",
    "bet_id": "round",
    "player_id": "account",
}
DIGITS = 2


@dataclass(kw_only=True, eq=False)
class Entry:
    """One booking there; `texts` replaces what is written in a column."""

    booked_at: datetime
    transaction_id: str
    request_id: str
    method: str
    bet_id: str
    player_id: str
    currency: str
    amount: int
    texts: dict[str, str] = field(default_factory=dict)
    copy_of: Entry | None = None

    @property
    def is_debit(self) -> bool:
        return self.method == "BET_MAKE"


def read_wallet(wallet: Path, times: TimeMap) -> list[Entry]:
    """Return all bookings of the reference operator except deposits, in order of time."""
    with closing(sqlite3.connect(f"{wallet.absolute().as_uri()}?mode=ro", uri=True)) as sql:
        rows = sql.execute(
            "select created_at, transaction_id, request_id, method, bet_id, player_id, currency, amount"
            "  from transactions where method <> 'DEPOSIT' order by created_at"
        ).fetchall()
    return [
        Entry(
            booked_at=times(datetime.fromisoformat(row[0])),
            transaction_id=row[1],
            request_id=row[2],
            method=row[3],
            bet_id=row[4],
            player_id=row[5],
            currency=row[6],
            amount=row[7],
        )
        for row in rows
    ]


def new_dialect(rng: random.Random, *, time_zone: str, day_starts: str) -> Dialect:
    has_own_words = rng.random() < 0.5
    return Dialect(
        time_zone=time_zone,
        day_starts=day_starts,
        amount_format=rng.choice(("subunits", "decimal")),
        amount_sign=rng.choice(("player", "operator", "none")),
        columns=_NAMES if has_own_words else {name: name for name in OUR_COLUMNS},
        methods={"DEPOSIT": IGNORED} | ({word: method for method, word in _WORDS.items()} if has_own_words else {}),
    )


def settings_of(dialect: Dialect, *, settle_s: float, no_end_days: int) -> dict[str, Any]:
    """Return the section [reconcile] for this dialect, with its two tables."""
    return {
        "format": "csv",
        "time_zone": dialect.time_zone,
        "day_starts": dialect.day_starts,
        "amount_format": dialect.amount_format,
        "amount_sign": dialect.amount_sign,
        "settle_s": settle_s,
        "no_end_days": no_end_days,
        "columns": dict(dialect.columns),
        "values": {"method": dict(dialect.methods)},
    }


class LedgerWriter:
    """Writes entries as CSV; `places` has the source and line of each after write()."""

    def __init__(self, dialect: Dialect, rng: random.Random) -> None:
        self.dialect = dialect
        self.rng = rng
        self.places: dict[int, tuple[int, int]] = {}
        self._words = {ours: theirs for theirs, ours in dialect.methods.items() if ours != IGNORED}

    def write(self, entries: Sequence[Entry], folder: Path, name: str, *, files: int) -> list[Path]:
        """Write the entries in random order into this number of files; returns them."""
        shuffled = self.rng.sample(entries, len(entries))
        # Several copies of one program write the ledger: each writes a header.
        paths = []
        for source in range(files):
            line, texts = 2, [self._record({name: self.dialect.columns[name] for name in self.dialect.columns})]
            for entry in shuffled[source::files]:
                self.places[id(entry)] = source, line
                texts.append(self._record(self._texts(entry)))
                line += 1 + texts[-1].count("\n")
                if self.rng.random() < 0.02:
                    texts.append(self._record(self._deposit(entry)))
                    line += 1 + texts[-1].count("\n")
            paths.append(folder / f"{name}-{source}.csv")
            end = self.rng.choice(("\n", "\r\n"))
            paths[-1].write_text("".join(text + end for text in texts), encoding="utf-8", newline="")
        return paths

    def _texts(self, entry: Entry) -> dict[str, str]:
        original = entry.copy_of or entry
        texts = {
            "booked_at": self._time(original.booked_at),
            "amount": self._amount(original),
            "currency": original.currency,
            "request_id": original.request_id,
            "transaction_id": original.transaction_id,
            "method": self._words.get(original.method, original.method),
            "direction": "debit" if original.is_debit else "credit",
            "bet_id": original.bet_id,
            "player_id": original.player_id,
        }
        return texts | original.texts | entry.texts

    def _deposit(self, entry: Entry) -> dict[str, str]:
        return self._texts(entry) | {"method": "DEPOSIT", "direction": "credit", "bet_id": "", "request_id": ""}

    def _record(self, texts: Mapping[str, str]) -> str:
        return ",".join(self._quoted(text) for text in texts.values())

    def _quoted(self, text: str) -> str:
        if any(sign in text for sign in ',"\n\r') or self.rng.random() < 0.1:
            return '"' + text.replace('"', '""') + '"'
        return text

    def _amount(self, entry: Entry) -> str:
        amount = {"player": entry.amount, "operator": -entry.amount, "none": abs(entry.amount)}[
            self.dialect.amount_sign
        ]
        if self.dialect.amount_format == "subunits":
            return str(amount)
        return f"{Decimal(amount).scaleb(-DIGITS):.{DIGITS}f}"

    def _time(self, at: datetime) -> str:
        """The moment in UTC, with the zone's offset, or as a local time that is unambiguous."""
        local = at.astimezone(ZoneInfo(self.dialect.time_zone))
        wall = local.replace(tzinfo=None)
        offsets = {(wall + timedelta(hours=hours)).replace(tzinfo=local.tzinfo).utcoffset() for hours in (-3, 0, 3)}
        kind = int(at.timestamp() * 1e6) % 3
        if kind == 0 and len(offsets) == 1:
            return wall.isoformat(sep=" ")
        return local.isoformat() if kind == 1 else at.isoformat().replace("+00:00", "Z")
