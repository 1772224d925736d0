"""Random books of one operator for Hypothesis: bets on every path, and lines of all kinds."""

from __future__ import annotations

import json
import uuid
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from typing import Any

import asyncpg
from hypothesis import strategies as st

from tests.reconciliation.naive_audit import METHODS
from tests.reconciliation.naive_lines import Dialect, Line
from tests.reconciliation.naive_matching import Books, Period

Draw = st.DrawFn
Values = dict[str, Any]
SCENES = (
    *(("Europe/Malta", date(2025, 3, 29)), ("Europe/Malta", date(2025, 10, 25))),
    *(("Australia/Lord_Howe", date(2025, 4, 5)), ("Asia/Kolkata", date(2025, 8, 1))),
)
PLACEMENTS = (
    *("delivered", "delivered", "delivered", "rejected none", "rejected unknown", "exhausted none"),
    *("exhausted unknown", "cancelled", "ready", "adopted"),
)
TERMINALS = ("delivered", "delivered", "nothing_to_reverse", "rejected none", "exhausted unknown", "abandoned", "ready")
FLAWS = (
    "no callback",
    "no attempt",
    "verdict",
    "attempts",
    "bet state",
    "terminal id",
    "player",
    "body",
    "delivered before",
)
_COLUMNS = {
    "bet": (
        *("operator_id", "bet_id", "state", "player_id", "currency", "amount", "placement_request_id"),
        *("terminal_request_id", "created_at"),
    ),
    "callback": (
        *("operator_id", "request_id", "method", "bet_id", "lane", "state", "reason", "effect", "attempts"),
        *("budget_from", "params", "amount_format", "created_at", "finished_at", "operator_transaction_id"),
    ),
    "attempt_record": (
        *("operator_id", "request_id", "method", "attempt", "evidence", "verdict", "instance", "started_at"),
        *("finished_at", "request_body", "report_id"),
    ),
}


@dataclass(kw_only=True)
class RandomBooks:
    """Rows and lines of one example."""

    operator_id: str
    period: Period
    bets: list[Values] = field(default_factory=list)
    callbacks: list[Values] = field(default_factory=list)
    attempts: list[Values] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    @property
    def books(self) -> Books:
        return Books(callbacks=self.callbacks, bets=self.bets, attempts=self.attempts)

    async def insert(self, owner: asyncpg.Connection[asyncpg.Record]) -> None:
        """Insert the rows; the tables' triggers are off."""
        for table, rows in (("bet", self.bets), ("callback", self.callbacks), ("attempt_record", self.attempts)):
            written = [row | {"params": json.dumps(row["params"])} if "params" in row else row for row in rows]
            await owner.copy_records_to_table(
                table,
                schema_name="predictu_dispatch",
                columns=_COLUMNS[table],
                records=[tuple(row[name] for name in _COLUMNS[table]) for row in written],
            )


class _Drawn:
    """Draws one example."""

    def __init__(self, draw: Draw, operator_id: str) -> None:
        self.draw = draw
        zone, first_day = draw(st.sampled_from(SCENES))
        dialect = Dialect(time_zone=zone, day_starts=draw(st.sampled_from(("00:00", "02:30", "23:15"))))
        last_day = first_day + timedelta(days=draw(st.integers(0, 2)))
        self.at = dialect.start_of(first_day)
        self.made = RandomBooks(
            operator_id=operator_id,
            period=Period(
                first_day=first_day,
                last_day=last_day,
                dialect=dialect,
                cut_at=dialect.start_of(last_day + timedelta(days=1)),
                settle_s=draw(st.sampled_from((0.0, 900.0, 30_000.0))),
                no_end_days=1,
            ),
        )
        self.is_given_all = draw(st.booleans())
        for number in range(draw(st.integers(4, 14))):
            self._bet(f"bet-{number}")

    def _moment(self, after: datetime | None = None) -> datetime:
        """A moment from half a day before the period until days after, or one after another."""
        minutes = self.draw(st.integers(-800, 4500) if after is None else st.integers(0, 2000))
        microseconds = len(self.made.lines) + 1000 * (len(self.made.callbacks) + 1)
        return (after or self.at) + timedelta(minutes=minutes, microseconds=microseconds)

    def _duration(self) -> timedelta:
        """Minutes, or days of retries."""
        is_long = self.draw(st.integers(0, 4)) == 0
        return timedelta(seconds=self.draw(st.integers(0, 250_000 if is_long else 900)))

    def _bet(self, bet_id: str) -> None:
        kind = self.draw(st.sampled_from(PLACEMENTS))
        bet: Values = {
            "operator_id": self.made.operator_id,
            "bet_id": bet_id,
            "player_id": self.draw(st.sampled_from(("p1", "p2"))),
            "currency": self.draw(st.sampled_from(("EUR", "JPY"))),
            "amount": self.draw(st.integers(1, 3)) * 100,
            "placement_request_id": uuid.uuid4(),
            "terminal_request_id": None,
            "created_at": self._moment(),
            "state": {"delivered": "open", "adopted": "open", "ready": "placing"}.get(kind, "void"),
        }
        self.made.bets.append(bet)
        at = bet["created_at"]
        if kind != "adopted":
            at = self._callback(bet, "BET_MAKE", kind, bet["placement_request_id"], at)
        if kind.endswith(("none", "cancelled", "ready")):
            terminal = self.draw(st.sampled_from((None, "cancelled")))
        elif kind.endswith("unknown"):
            terminal = self.draw(st.sampled_from(("delivered", "nothing_to_reverse", "ready")))
        else:
            terminal = self.draw(st.sampled_from((None, *TERMINALS)))
        if terminal is not None:
            self._terminal(bet, kind, terminal, at)
        for _ in range(self.draw(st.sampled_from((0, 1, 1, 2, 3)))):
            self._line(bet)
        if self.draw(st.integers(0, 5)) == 0:
            self._flaw(bet)

    def _terminal(self, bet: Values, kind: str, terminal: str, at: datetime) -> None:
        is_rollback = kind.endswith("unknown") or terminal == "nothing_to_reverse"
        methods = ("BET_ROLLBACK",) if is_rollback else METHODS[1:]
        method = self.draw(st.sampled_from(methods))
        bet["terminal_request_id"] = uuid.uuid4()
        if terminal != "cancelled":
            bet["state"] = "closed" if terminal in ("delivered", "nothing_to_reverse") else "closing"
        self._callback(bet, method, terminal, bet["terminal_request_id"], self._moment(at))
        if self.draw(st.integers(0, 4)) == 0:
            self._callback(bet, "BET_WIN", "cancelled", uuid.uuid4(), at)

    def _callback(self, bet: Values, method: str, kind: str, request_id: uuid.UUID, at: datetime) -> datetime:
        state, _, effect = kind.partition(" ")
        is_done = state in ("delivered", "nothing_to_reverse")
        attempts = 0 if state == "cancelled" or kind == "exhausted none" else self.draw(st.integers(1, 3))
        if state == "ready":
            attempts = self.draw(st.integers(0, 2))
        params: Values = {"player_id": bet["player_id"], "bet_id": bet["bet_id"]}
        if method != "BET_LOSE":
            is_stake = method in ("BET_MAKE", "BET_REFUND", "BET_ROLLBACK")
            amount = bet["amount"] if is_stake else self.draw(st.integers(0, 3)) * 100
            params |= {"currency": bet["currency"], "amount": amount}
        finished_at = None if state == "ready" else at + self._duration()
        row: Values = {
            "operator_id": self.made.operator_id,
            "request_id": request_id,
            "method": method,
            "bet_id": bet["bet_id"],
            "lane": "interactive" if method in ("BET_MAKE", "BET_ROLLBACK") else "settlement",
            "state": {"nothing_to_reverse": "delivered", "abandoned": "exhausted"}.get(state, state),
            "reason": state if state in ("nothing_to_reverse", "abandoned") else None,
            "effect": effect or ("applied" if state == "delivered" else "none"),
            "attempts": attempts,
            "budget_from": attempts if state == "abandoned" else 0,
            "params": params,
            "amount_format": self.draw(st.sampled_from(("subunits", "decimal"))),
            "created_at": at,
            "finished_at": finished_at,
            "operator_transaction_id": f"tx-{len(self.made.callbacks) // 2}"
            if is_done and method != "BET_LOSE"
            else None,
        }
        if state == "nothing_to_reverse":
            row["effect"] = self.draw(st.sampled_from(("none", "unknown")))
        self.made.callbacks.append(row)
        for number in range(1, attempts + 1):
            verdict = {"delivered": "delivered", "nothing_to_reverse": "delivered", "rejected": "rejected"}.get(state)
            if state == "abandoned":
                verdict = "rejected"
            self._attempt(row, number, verdict if verdict and number == attempts else "retry")
        if attempts and self.draw(st.integers(0, 9)) == 0:
            self._attempt(row, attempts, "late")
        return finished_at or at

    def _attempt(self, row: Values, number: int, verdict: str) -> None:
        params = dict(row["params"])
        if row["amount_format"] == "decimal" and "amount" in params:
            digits = {"EUR": 2, "JPY": 0}[params["currency"]]
            params["amount"] = params["amount"] / 10**digits if digits else params["amount"]
        ends = row["finished_at"] or row["created_at"]
        begins = row["created_at"] + (ends - row["created_at"]) * ((number - 1) / row["attempts"])
        has_body = verdict != "retry" or self.draw(st.booleans())
        self.made.attempts.append(
            {
                "operator_id": self.made.operator_id,
                "request_id": row["request_id"],
                "method": row["method"],
                "attempt": number,
                "evidence": "answered",
                "verdict": verdict,
                "instance": "host-1",
                "started_at": begins,
                "finished_at": begins + (ends - begins) / (row["attempts"] + 1 - number),
                "request_body": _body(row, params) if has_body else None,
                "report_id": uuid.uuid4(),
            }
        )

    def _line(self, bet: Values) -> None:
        own = [row for row in self.made.callbacks if row["bet_id"] == bet["bet_id"]]
        row = self.draw(st.sampled_from([None, *own]))
        method = row["method"] if row else self.draw(st.sampled_from(METHODS))
        amount = row["params"].get("amount", 0) if row else bet["amount"]
        is_like_ours = self.draw(st.integers(0, 2)) > 0
        if not is_like_ours:
            amount += self.draw(st.sampled_from((0, 0, 1, 100)))
        near = row["finished_at"] or row["created_at"] if row else None
        booked_at = self._moment() if near is None or not self.draw(st.integers(0, 3)) else self._moment(near)
        if is_like_ours and near is not None:
            booked_at = near - timedelta(microseconds=len(self.made.lines) + 1)
        if not self.is_given_all and not self.made.period.has(booked_at):
            return
        is_debit = method == "BET_MAKE"
        ids = self.draw(st.sampled_from(("request", "request", "transaction", "bet", "unknown", "nothing")))
        request_id = {"request": row["request_id"] if row else bet["placement_request_id"], "unknown": uuid.uuid4()}
        # Two callbacks may have one transaction, and a line that of another bet.
        known = [one["operator_transaction_id"] for one in self.made.callbacks if one["operator_transaction_id"]]
        transaction_id = row["operator_transaction_id"] if row else None
        if ids == "transaction" and known and self.draw(st.integers(0, 3)) == 0:
            transaction_id = self.draw(st.sampled_from(known))
        self.made.lines.append(
            Line(
                source=self.draw(st.integers(0, 1)),
                number=len(self.made.lines) + 2,
                booked_at=booked_at,
                day=self.made.period.dialect.day_of(booked_at),
                request_id=request_id.get(ids),
                transaction_id=transaction_id or f"there-{len(self.made.lines)}" if ids != "bet" else None,
                method=self.draw(st.sampled_from((method, method, None))),
                bet_id=None if ids == "nothing" else bet["bet_id"],
                player_id=self.draw(st.sampled_from((bet["player_id"], bet["player_id"], None, "p3"))),
                currency=bet["currency"] if is_like_ours else self.draw(st.sampled_from(("EUR", "JPY"))),
                amount=-amount if is_debit else amount,
                is_debit=is_debit,
            )
        )

    def _flaw(self, bet: Values) -> None:
        """Let our own rows of this bet contradict each other."""
        own = [row for row in self.made.callbacks if row["bet_id"] == bet["bet_id"] and row["attempts"] > 0]
        if not own:
            return
        row, flaw = self.draw(st.sampled_from(own)), self.draw(st.sampled_from(FLAWS))
        attempts = [
            one for one in self.made.attempts if one["request_id"] == row["request_id"] and one["verdict"] != "late"
        ]
        match flaw:
            case "no callback" if row["method"] != "BET_MAKE":
                self.made.callbacks.remove(row)
            case "no attempt":
                self.made.attempts.remove(attempts[-1])
            case "verdict":
                attempts[-1]["verdict"] = "retry" if attempts[-1]["verdict"] != "retry" else "rejected"
            case "delivered before":
                attempts[0]["verdict"] = "delivered"
            case "attempts":
                row["attempts"] += 1
            case "player":
                row["params"] = row["params"] | {"player_id": "p9"}
            case "body":
                attempts[-1]["request_body"] = _body(row, row["params"] | {"player_id": "p9"})
            case "bet state":
                bet["state"] = "open" if bet["state"] != "open" else "void"
            case _:
                bet["terminal_request_id"] = uuid.uuid4()


def _body(row: Values, params: Values) -> str:
    sent = {"method": row["method"], "request_id": str(row["request_id"]), "operator_id": row["operator_id"]}
    return json.dumps(sent | {"params": params})


@st.composite
def random_books(draw: Draw) -> RandomBooks:
    """One operator's rows and lines; the operator's name is new in each example."""
    return _Drawn(draw, f"op_{uuid.uuid4().hex[:12]}").made
