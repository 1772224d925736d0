"""Places bets on every path a bet can take, and checks what must hold once everything is final."""

import json
import re
from collections import Counter
from datetime import UTC, datetime, timedelta

from tests.support.environment import Environment
from tests.support.harness import OPERATOR, enqueue, placement_params, terminal_params

NOT_SENT = {"claimed", "signed"}
"""Fault points at which a daemon has not sent its request."""
INTERRUPTED = (
    "select request_id::text, started_at, finished_at from predictu_dispatch.attempt"
    " where instance = any ($1) and reason = 'interrupted' and verdict <> 'late'"
)
_UNEXPECTED = {"report.refused", "chore.failed", "drain.timed_out", "library.logged"}
"""No daemon logs these for any of the faults: each is a short outage."""
_TOKEN_SLOW_S, _TOKEN_OLD_S = 3.0, 5.0
"""A request may leave up to 3 s after its claim and is signed within the second before."""


class Bets:
    """Bets of every path, each with its own player and stake, so that every cent can be traced."""

    PATHS = (
        ("BET_WIN", "at once"),
        ("BET_LOSE", "at once"),
        ("BET_ROLLBACK", "with the next bet"),
        ("BET_WIN", "never, its deadline passes"),
        ("BET_SELL", "at the end"),
        ("BET_ROLLBACK", "at the end"),
        ("BET_REFUND", "at the end"),
    )

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.count = 0
        self._next: list[tuple[str, str]] = []
        self._last: list[tuple[str, str]] = []

    async def place(self) -> None:
        """Places one more bet, on the next path, and asks for the player's balance."""
        number, bet_id, player_id = self.count, f"b-{self.count}", f"p-{self.count}"
        (method, when), self.count = self.PATHS[number % len(self.PATHS)], self.count + 1
        producer = self.environment.harness.producer
        # The operator's own deadline could pass on a loaded machine; an expired bet is a path of
        # its own.
        later = datetime.now(UTC) + timedelta(minutes=2)
        placement = placement_params(bet_id, amount=500 + number, player_id=player_id)
        for early_method, early_bet_id in self._next:
            await self._end(early_method, early_bet_id)
        self._next.clear()
        if when.startswith("never"):
            # A slow transaction: the bet becomes visible after its deadline.
            async with producer.transaction():
                await producer.execute(
                    "select predictu_dispatch.enqueue_callback($1, 'BET_MAKE', $2::text::jsonb, null,"
                    "       clock_timestamp() + interval '30 milliseconds'), pg_sleep(0.04)",
                    *(OPERATOR, json.dumps(placement)),
                )
                await enqueue(producer, method, terminal_params(method, placement))
            return
        await enqueue(producer, "BET_MAKE", placement, expires_at=later)
        await enqueue(producer, "BALANCE", {"player_id": player_id, "currency": "EUR"}, expires_at=later)
        if when == "at once":
            await self._end(method, bet_id)
        else:
            (self._next if when == "with the next bet" else self._last).append((method, bet_id))

    async def roll_back_some_in_flight(self) -> None:
        """Rolls back every other bet whose debit is in flight, while every daemon is stopped."""
        in_flight = await self.environment.harness.owner.fetch(
            "select bet_id from predictu_dispatch.callback"
            " where method = 'BET_MAKE' and state = 'in_flight' order by bet_id"
        )
        for row in in_flight[::2]:
            await self._end("BET_ROLLBACK", row["bet_id"])
            self._last = [(method, bet_id) for method, bet_id in self._last if bet_id != row["bet_id"]]

    async def end_the_rest(self) -> None:
        """Enqueues the terminal of every bet that has none yet."""
        for method, bet_id in (*self._next, *self._last):
            await self._end(method, bet_id)
        self._next, self._last = [], []

    async def _end(self, method: str, bet_id: str) -> None:
        if method == "BET_ROLLBACK":
            await self.environment.harness.rollback(bet_id)
        else:
            await self.environment.harness.end(method, bet_id)

    async def violations(self) -> list[str]:
        """Returns what is wrong once everything is final, in wallets, bets, callbacks and audit."""
        operator, owner = self.environment.operator, self.environment.harness.owner
        wrong = [*(fault for fault in operator.faults if not _is_slow(fault)), *await self.environment.audit_faults()]
        bets = await owner.fetch(
            "select b.*, t.method from predictu_dispatch.bet b left join predictu_dispatch.callback t"
            "    on t.operator_id = b.operator_id and t.request_id = b.terminal_request_id"
        )
        for bet in bets:
            has, due = operator.balance[bet["player_id"]], -bet["amount"] if bet["method"] == "BET_LOSE" else 0
            due = 0 if bet["state"] == "void" else due
            what = f"{bet['bet_id']} is {bet['state']} ({bet['method']}), its player has {has:+} of {bet['amount']}"
            if bet["state"] not in ("closed", "void") or has != due:
                wrong.append(what)
            elif bet["state"] == "void" and operator.sent(bet["placement_request_id"]):
                wrong.append(f"{what}, and its debit was sent")
        if len(bets) != self.count:
            wrong.append(f"{self.count} bets were placed, {len(bets)} are there")
        callbacks = {str(row["request_id"]): row for row in await owner.fetch("table predictu_dispatch.callback")}
        unsent = Counter(row["request_id"] for row in await owner.fetch(INTERRUPTED, list(NOT_SENT)))
        for request_id, callback in callbacks.items():
            sent, what = len(operator.sent(request_id)), f"{callback['method']} {request_id} is {callback['state']}"
            if callback["state"] not in ("delivered", "exhausted", "cancelled"):
                wrong.append(what)
            if sent > callback["attempts"] - unsent[request_id]:
                wrong.append(f"{what} and was sent {sent} times: {await self.environment.audit(request_id)}")
            if callback["state"] == "delivered" and not sent:
                wrong.append(f"{what} and was never sent")
        wrong += [f"{one.request_id} is unknown" for one in operator.requests if one.request_id not in callbacks]
        review = await owner.fetch("select method, reason from predictu_dispatch.needs_review")
        wrong += [f"{row['method']} needs review: {row['reason']}" for row in review]
        lines = [line for daemon in self.environment.fleet.daemons for line in daemon.lines()]
        return [*wrong, *(str(line) for line in lines if line["event"] in _UNEXPECTED)]


def _is_slow(fault: str) -> bool:
    """True for a token older than on an idle machine, but signed after the freeze."""
    found = re.search(r"^token .*, (\S+) s old", fault)
    return found is not None and _TOKEN_SLOW_S <= float(found[1]) < _TOKEN_OLD_S
