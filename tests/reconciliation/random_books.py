"""Random books of one operator for Hypothesis: bets on every path, and lines of all kinds."""

from __future__ import annotations

import json
import random
import uuid
from datetime import date, datetime, timedelta

from hypothesis import strategies as st

from tests.reconciliation.naive_audit import METHODS
from tests.reconciliation.naive_lines import Dialect
from tests.reconciliation.naive_matching import Period
from tests.reconciliation.random_lines import DrawnLines
from tests.reconciliation.random_rows import RandomBooks, Values

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


class _Drawn(DrawnLines):
    """Draws one example."""

    def __init__(self, seed: int, bets: int, operator_id: str) -> None:
        self.rng = random.Random(seed)
        zone, first_day = self.rng.choice(SCENES)
        dialect = Dialect(time_zone=zone, day_starts=self.rng.choice(("00:00", "02:30", "23:15")))
        last_day = first_day + timedelta(days=self.rng.randint(0, 2))
        self.at = dialect.start_of(first_day)
        self.made = RandomBooks(
            operator_id=operator_id,
            period=Period(
                first_day=first_day,
                last_day=last_day,
                dialect=dialect,
                cut_at=dialect.start_of(last_day + timedelta(days=1)),
                settle_s=self.rng.choice((0.0, 900.0, 30_000.0)),
            ),
        )
        self.is_given_all = self.rng.random() < 0.5
        for number in range(bets):
            # Each bet is the same, however many there are: so an example can shrink.
            self.rng = random.Random(f"{seed} {number}")
            self._bet(f"bet-{number}")

    def _duration(self) -> timedelta:
        """Minutes, or days of retries."""
        is_long = self.rng.randint(0, 4) == 0
        return timedelta(seconds=self.rng.randint(0, 250_000 if is_long else 900))

    def _bet(self, bet_id: str) -> None:
        kind = self.rng.choice(PLACEMENTS)
        bet: Values = {
            "operator_id": self.made.operator_id,
            "bet_id": bet_id,
            "player_id": self.rng.choice(("p1", "p2")),
            "currency": self.rng.choice(("EUR", "JPY")),
            "amount": self.rng.randint(1, 3) * 100,
            "placement_request_id": uuid.uuid4(),
            "terminal_request_id": None,
            "created_at": self.moment(),
            "state": {"delivered": "open", "adopted": "open", "ready": "placing"}.get(kind, "void"),
        }
        self.made.bets.append(bet)
        at = bet["created_at"]
        if kind != "adopted":
            at = self._callback(bet, "BET_MAKE", kind, bet["placement_request_id"], at)
        if kind.endswith(("none", "cancelled", "ready")):
            terminal = self.rng.choice((None, "cancelled"))
        elif kind.endswith("unknown"):
            terminal = self.rng.choice(("delivered", "nothing_to_reverse", "ready"))
        else:
            terminal = self.rng.choice((None, None, *TERMINALS))
        if terminal is not None:
            self._terminal(bet, kind, terminal, at)
        for row in self.made.callbacks:
            if row["bet_id"] == bet_id and row["state"] == "delivered" and self.rng.randint(0, 2):
                self.near_line(row)
        for _ in range(self.rng.choice((0, 0, 0, 1, 2, 3))):
            self.any_line(bet)
        if self.rng.randint(0, 4) == 0:
            self._flaw(bet)

    def _terminal(self, bet: Values, kind: str, terminal: str, at: datetime) -> None:
        is_rollback = kind.endswith("unknown") or terminal == "nothing_to_reverse"
        methods = ("BET_ROLLBACK",) if is_rollback else (*METHODS[1:], "BET_ROLLBACK", "BET_ROLLBACK")
        method = self.rng.choice(methods)
        bet["terminal_request_id"] = uuid.uuid4()
        if terminal != "cancelled":
            bet["state"] = "closed" if terminal in ("delivered", "nothing_to_reverse") else "closing"
        self._callback(bet, method, terminal, bet["terminal_request_id"], self.moment(at))
        if self.rng.randint(0, 4) == 0:
            self._callback(bet, "BET_WIN", "cancelled", uuid.uuid4(), at)

    def _callback(self, bet: Values, method: str, kind: str, request_id: uuid.UUID, at: datetime) -> datetime:
        state, _, effect = kind.partition(" ")
        is_done = state in ("delivered", "nothing_to_reverse")
        attempts = 0 if state == "cancelled" or kind == "exhausted none" else self.rng.randint(1, 3)
        if state == "ready":
            attempts = self.rng.randint(0, 2)
        params: Values = {"player_id": bet["player_id"], "bet_id": bet["bet_id"]}
        if method != "BET_LOSE":
            is_stake = method in ("BET_MAKE", "BET_REFUND", "BET_ROLLBACK")
            amount = bet["amount"] if is_stake else self.rng.randint(0, 3) * 100
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
            "amount_format": self.rng.choice(("subunits", "decimal")),
            "created_at": at,
            "finished_at": finished_at,
            "operator_transaction_id": f"tx-{len(self.made.callbacks) // 2}"
            if is_done and method != "BET_LOSE"
            else None,
        }
        if state == "nothing_to_reverse":
            row["effect"] = self.rng.choice(("none", "unknown"))
        self.made.callbacks.append(row)
        for number in range(1, attempts + 1):
            verdict = {"delivered": "delivered", "nothing_to_reverse": "delivered", "rejected": "rejected"}.get(state)
            if state == "abandoned":
                verdict = "rejected"
            self._attempt(row, number, verdict if verdict and number == attempts else "retry")
        if attempts and self.rng.randint(0, 9) == 0:
            self._attempt(row, attempts, "late")
        return finished_at or at

    def _attempt(self, row: Values, number: int, verdict: str) -> None:
        params = dict(row["params"])
        if row["amount_format"] == "decimal" and "amount" in params:
            digits = {"EUR": 2, "JPY": 0}[params["currency"]]
            params["amount"] = params["amount"] / 10**digits if digits else params["amount"]
        ends = row["finished_at"] or row["created_at"]
        begins = row["created_at"] + (ends - row["created_at"]) * ((number - 1) / row["attempts"])
        has_body = verdict != "retry" or self.rng.random() < 0.5
        self.made.attempts.append(
            {
                "operator_id": self.made.operator_id,
                "request_id": row["request_id"],
                "method": row["method"],
                "attempt": number,
                "evidence": self.rng.choice(("not_sent", "unanswered", "answered"))
                if verdict == "retry"
                else "answered",
                "verdict": verdict,
                "reason": self.rng.choice(("nothing_to_reverse", "unknown_status", None)),
                "instance": "host-1",
                "started_at": begins,
                "finished_at": begins + (ends - begins) / (row["attempts"] + 1 - number),
                "request_body": _body(row, params) if has_body else None,
                "report_id": uuid.uuid4(),
            }
        )

    def _flaw(self, bet: Values) -> None:
        """Let our own rows of this bet contradict each other."""
        own = [row for row in self.made.callbacks if row["bet_id"] == bet["bet_id"] and row["attempts"] > 0]
        if not own:
            return
        row, flaw = self.rng.choice(own), self.rng.choice(FLAWS)
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


def random_books() -> st.SearchStrategy[RandomBooks]:
    """One operator's rows and lines; the operator's name is new in each example."""
    return st.builds(
        lambda seed, bets: _Drawn(seed, bets, f"op_{uuid.uuid4().hex[:12]}").made,
        st.integers(0, 2**32),
        st.integers(1, 40),
    )
