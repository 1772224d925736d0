"""What a statement says of a moment never changes: random histories, observed while they happen."""

import random
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, NamedTuple

import asyncpg
import pytest

from predictu_dispatch.core.methods import Method
from predictu_dispatch.edge.postgres.statement_reader import open_statement_reader
from predictu_dispatch.reconciliation.statement import Scope, read_statement
from tests.support.harness import OPERATOR, Harness, Lease, Report, claim, enqueue, report, rollback
from tests.support.postgres import Database

STEPS = 600
_EFFECTS = ("none", "unknown", "applied")
# What the rows say at the moment itself. They have no history, so this is no copy of the query.
UNKNOWN_NOW = """
    select c.request_id, c.method, (c.params ->> 'amount')::bigint as amount, c.state
      from predictu_dispatch.callback c
     where c.operator_id = $1 and c.params ->> 'currency' = 'EUR' and c.method <> 'BET_LOSE'
       and (c.state = 'in_flight'
            or (c.state in ('ready', 'rejected', 'exhausted') and c.effect = 'unknown'))
       and not exists (select from predictu_dispatch.intervention i
                        where i.request_id = c.request_id and i.action = 'resolve')
       and not (c.method = 'BET_MAKE' and exists (
           select from predictu_dispatch.callback r
            where r.bet_id = c.bet_id and r.method = 'BET_ROLLBACK'
              and (r.state = 'delivered' or exists (
                  select from predictu_dispatch.intervention i
                   where i.request_id = r.request_id and i.action = 'resolve'))))
"""
MOVED_NOW = """
    select method, count(*) as rows, sum(amount)::bigint as amount
      from predictu_dispatch.ledger where operator_id = $1 and currency = 'EUR' group by method
"""


class Moment(NamedTuple):
    """What was true at a moment, read then."""

    at: datetime
    unknown: frozenset[Any]
    moved: dict[str, tuple[int, int]]


class History:
    """Plays random steps of producers, daemons and people, and observes moments between them."""

    def __init__(self, harness: Harness, seed: int) -> None:
        self._harness = harness
        self._rng = random.Random(seed)
        self._leases: list[Lease] = []
        self._settled: list[Lease] = []
        self._bets = 0
        self.moments: list[Moment] = []

    async def play(self) -> None:
        steps: list[tuple[int, Callable[[], Awaitable[None]]]] = [
            (4, self._place),
            (4, self._end),
            (3, self._roll_back),
            (6, self._claim),
            (9, self._settle),
            (1, self._report_late),
            (5, self._intervene),
            (2, self._expire),
            (2, self._observe),
        ]
        for step in self._rng.choices([step for _, step in steps], [weight for weight, _ in steps], k=STEPS):
            await step()
        await self._observe()

    async def _now(self) -> datetime:
        now: datetime = await self._harness.owner.fetchval("select clock_timestamp()")
        return now

    async def _observe(self) -> None:
        at = await self._now()
        unknown = await self._harness.owner.fetch(UNKNOWN_NOW, OPERATOR)
        moved = await self._harness.owner.fetch(MOVED_NOW, OPERATOR)
        self.moments.append(
            Moment(at, frozenset(map(tuple, unknown)), {row["method"]: (row["rows"], row["amount"]) for row in moved})
        )

    async def _place(self) -> None:
        self._bets += 1
        params = {
            "player_id": "p",
            "currency": self._rng.choice(("EUR", "EUR", "EUR", "USD")),
            "amount": self._rng.randrange(1, 10_000),
            "bet_id": f"b-{self._bets}",
            "bet": {"market_id": "m", "outcome": "yes", "odds": 2, "shares": 1, "price": 1},
        }
        await enqueue(self._harness.producer, "BET_MAKE", params)

    async def _end(self) -> None:
        for bet in await self._bet("open"):
            method = self._rng.choice(("BET_WIN", "BET_WIN", "BET_SELL", "BET_REFUND", "BET_LOSE"))
            params = {"player_id": "p", "bet_id": bet["bet_id"], "currency": bet["currency"], "amount": bet["amount"]}
            if method == "BET_WIN":
                params["amount"] = self._rng.randrange(0, 20_000)
            if method == "BET_LOSE":
                del params["amount"], params["currency"]
            await enqueue(self._harness.producer, method, params)

    async def _roll_back(self) -> None:
        for bet in await self._bet("placing", "open"):
            await rollback(self._harness.producer, bet["bet_id"])

    async def _bet(self, *states: str) -> list[asyncpg.Record]:
        """One bet in one of these states, if there is one."""
        found = await self._harness.owner.fetch(
            "select bet_id, currency, amount from predictu_dispatch.bet where state = any ($1) order by bet_id",
            list(states),
        )
        return [self._rng.choice(found)] if found else []

    async def _claim(self) -> None:
        # Due now, whatever the delays were.
        await self._harness.owner.execute("update predictu_dispatch.callback set due_at = now() where state = 'ready'")
        self._leases += await claim(self._harness.daemon, slots=2)

    async def _settle(self) -> None:
        if self._leases:
            lease = self._leases.pop(self._rng.randrange(len(self._leases)))
            self._settled.append(lease)
            made = await self._report(lease)
            if made["verdict"] != "retry" and self._rng.random() < 0.3:
                # It ended before the moment, and is recorded after it.
                await self._observe()
            await self._harness.settle(made)

    async def _report(self, lease: Lease) -> Report:
        """A report as the daemon makes it: the effect only moves on."""
        learnt, fields = self._rng.choice(self._outcomes(lease["method"]))
        effect = max(lease["effect"], learnt or "none", key=_EFFECTS.index)
        if fields.get("state", "ready") == "ready":
            ends = lease["method"] != "BET_ROLLBACK" and self._rng.random() < 0.3
            state = (
                {"state": "exhausted", "state_reason": "max_attempts"} if ends else {"state": "ready", "due_in_s": 0.0}
            )
            fields = {**fields, **state}
        return report(lease, effect=effect, finished_at=await self._now(), **fields)

    def _outcomes(self, method: str) -> list[tuple[str | None, dict[str, Any]]]:
        delivered = ("applied", {"state": "delivered", "verdict": "delivered", "operator_transaction_id": "tx"})
        found: list[tuple[str | None, dict[str, Any]]] = [
            *[delivered] * 4,
            (None, {"verdict": "retry", "evidence": "not_sent", "reason": "connect_refused"}),
            ("unknown", {"verdict": "retry", "evidence": "unanswered", "reason": "timeout"}),
            ("unknown", {"verdict": "retry", "reason": "http_503"}),
            ("unknown", {"verdict": "retry", "evidence": "unanswered", "reason": "interrupted", "reaped": True}),
        ]
        rejected = {"state": "rejected", "verdict": "rejected"}
        if method == "BET_ROLLBACK":
            nothing = {"verdict": "delivered", "state_reason": "nothing_to_reverse", "reason": "nothing_to_reverse"}
            found += [(None, {**nothing, "state": "delivered"}), *[(None, {**nothing, "verdict": "retry"})] * 3]
        else:
            found += [(None, {**rejected, "reason": "player_blocked", "state_reason": "player_blocked"})] * 2
            found += [("unknown", {**rejected, "reason": "unknown_status", "state_reason": "unknown_status"})] * 2
        if method == "BET_MAKE":
            found += [("unknown", {**rejected, "reason": "bet_not_found", "state_reason": "bet_not_found"})]
        return found

    async def _report_late(self) -> None:
        if self._settled:
            lease = self._rng.choice(self._settled)
            fields = {"state": "delivered", "verdict": "delivered", "effect": "applied"}
            await self._harness.settle(report(lease, finished_at=await self._now(), **fields))

    async def _intervene(self) -> None:
        found = await self._harness.owner.fetch(
            "select request_id, state, review_since is not null as is_in_review from predictu_dispatch.callback"
            " where review_since is not null or (state = 'ready' and attempts > 0) order by request_id"
        )
        if found:
            in_review = [row for row in found if row["is_in_review"]]
            row = self._rng.choice(in_review if in_review and self._rng.random() < 0.8 else found)
            action = self._rng.choice(("retry", "retry", "resolve")) if row["is_in_review"] else "abandon"
            reason = "" if action == "retry" else "'a reason', "
            try:
                await self._harness.person.fetch(
                    f"select predictu_dispatch.{action}_callback($1, $2, {reason}'me')", OPERATOR, row["request_id"]
                )
            except asyncpg.PostgresError as error:
                if error.sqlstate != "PD005":  # Not allowed for this callback.
                    raise
            await self._observe()

    async def _expire(self) -> None:
        await self._harness.owner.execute(
            "update predictu_dispatch.callback set expires_at = now() where request_id = ("
            " select request_id from predictu_dispatch.callback where state = 'ready' and expires_at is not null"
            " order by request_id limit 1)"
        )
        await self._harness.expire()


@pytest.mark.parametrize("seed", [1, 2])
async def test_the_lists_of_a_moment_are_what_was_true_then_and_statements_join(
    harness: Harness, database: Database, seed: int
) -> None:
    history = History(harness, seed)
    await history.play()
    moments, rng = history.moments, random.Random(seed)
    assert len(moments) > 20
    listed = {state for moment in moments for *_, state in moment.unknown}
    assert listed == {"in_flight", "ready", "rejected", "exhausted"}
    async with open_statement_reader(database.support, application_name="test") as reader:
        for moment in moments:
            found = [row async for rows in reader.rows("statement_unknown", OPERATOR, "EUR", moment.at) for row in rows]
            names = ("request_id", "method", "amount", "state")
            assert {tuple(row[name] for name in names) for row in found} == moment.unknown
            assert len(found) == len(moment.unknown)
            assert all(row["since"] < moment.at for row in found)
        for _ in range(10):
            first, middle, last = sorted(rng.sample(range(len(moments)), 3))
            one, other, both = [
                await read_statement(reader, _scope(moments[a].at, moments[b].at), shown_max=10_000)
                for a, b in ((first, middle), (middle, last), (first, last))
            ]
            assert one.closing == other.opening
            assert (one.opening, other.closing) == (both.opening, both.closing)
            for method in both.total.by_method:
                sums = [(each.total[method].rows, each.total[method].amount) for each in (one, other, both)]
                assert tuple(map(sum, zip(*sums[:2], strict=True))) == sums[2] == _moved(method, moments, first, last)
            for kind, whole in both.apart.items():
                assert one.apart[kind].shown + other.apart[kind].shown == whole.shown


def _moved(method: Method, moments: list[Moment], first: int, last: int) -> tuple[int, int]:
    """What `ledger` gained between two moments, from the two readings."""
    before, after = (moments[n].moved.get(method, (0, 0)) for n in (first, last))
    return after[0] - before[0], after[1] - before[1]


def _scope(starts_at: datetime, ends_at: datetime) -> Scope:
    """A period of one day that begins and ends at any moment."""
    day = starts_at.date()
    return Scope(
        operator_id=OPERATOR,
        currency="EUR",
        minor_digits=2,
        first=day,
        last=day,
        edges=[starts_at, ends_at],
        read_at=ends_at,
    )
