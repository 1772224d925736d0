"""Commits with a lost answer: the statement is repeated and counts once.

A repeated settle is also in test_crash.py.
"""

import asyncio
import contextlib
import uuid
from typing import Any

import asyncpg
import pytest

from tests.support.circuits import failing
from tests.support.daemons import Daemon, until
from tests.support.environment import Environment
from tests.support.harness import Connection, connected, enqueue, placement_params, retried, rollback, terminal_params
from tests.support.postgres import Database
from tests.support.postgres_proxy import PostgresProxy, Trick, proxied

CLAIM, SETTLE = "predictu_dispatch.claim(", "predictu_dispatch.settle("
EXPIRE = "predictu_dispatch.expire("
INTERRUPTED = (1, "retry", "unanswered", "interrupted", "host-1")
BET: dict[str, Any] = {"bet_id": "b-1", "player_id": "p1", "currency": "EUR", "amount": 500}


def cut_what_is_kept(proxy: PostgresProxy) -> None:
    """Break the connection whose answer the proxy keeps; the daemon's other connections stay."""
    for line in proxy._lines:
        if line.kept is not None:
            line.cut()


async def counts_right(environment: Environment, *daemons: Daemon) -> None:
    """Check that the daemons' counters equal the audit's rows, without late or refused reports."""
    [row] = await environment.harness.owner.fetch(
        "select count(*) as attempts,"
        "       count(*) filter (where a.verdict = 'retry' or a.reason = 'unknown_status') as failed,"
        "       coalesce(sum((c.params ->> 'amount')::bigint)"
        "           filter (where a.verdict = 'delivered' and a.reason is null), 0) as confirmed"
        "  from predictu_dispatch.attempt a join predictu_dispatch.callback c using (operator_id, request_id)"
        " where a.instance = any ($1)",
        [one.instance for one in daemons],
    )
    figures = [await daemon.metrics() for daemon in daemons]

    def total(name: str) -> float:
        return sum(sum(one.get(f"{name}_total", {}).values()) for one in figures)

    assert total("attempts") == row["attempts"]
    assert total("attempts_failed") == row["failed"]
    assert total("confirmed_amount_subunits") == row["confirmed"]
    assert [one["leases_lost_total"][()] for one in figures] == [0.0] * len(daemons)
    assert [line for one in daemons for line in one.lines("lease.lost") + one.lines("report.refused")] == []


async def test_leases_of_a_lost_claim_are_reaped_with_unknown_effect(environment: Environment) -> None:
    """The database has five attempts that were never made. Debits are retried or rolled back."""
    harness = environment.harness
    async with proxied(environment.fleet.dsn) as proxy:
        plain, withdrawn, too_late = [await harness.place(f"b-{name}") for name in ("plain", "taken-back", "too-late")]
        balance = await enqueue(harness.producer, "BALANCE", {"player_id": "p1", "currency": "EUR"})
        await environment.adopt("b-won")
        win = await harness.end("BET_WIN", "b-won")
        # One claim for each lane.
        proxy.on_next(CLAIM, Trick.KEEP_ANSWER, times=2)
        daemon = environment.fleet.spawn("host-1", database={"dsn": proxy.dsn()})

        async def all_are_claimed() -> bool:
            return await environment.states() == {"in_flight": 5}

        await until("both claims are committed", all_are_claimed)
        proxy.cut()
        await daemon.ready()
        assert await harness.rollback("b-taken-back") is not None
        await harness.let_deadline_pass(too_late)
        assert environment.operator.requests == []
        await environment.expire_leases("host-1")
        await environment.until_all_final()

        for request_id in (plain, balance, win):
            delivered = (2, "delivered", "answered", None, "host-1")
            assert await environment.audit(request_id) == [INTERRUPTED, delivered]
            assert len(environment.operator.sent(request_id)) == 1
        for request_id, reason in ((withdrawn, "rolled_back"), (too_late, "deadline")):
            callback = await harness.callback(request_id)
            assert (callback["state"], callback["reason"], callback["effect"]) == ("exhausted", reason, "unknown")
            assert await environment.audit(request_id) == [INTERRUPTED]
            assert environment.operator.sent(request_id) == []
        # The operator never saw those two debits and answers nothing_to_reverse.
        for bet_id in ("b-taken-back", "b-too-late"):
            [given_back] = await harness.rollbacks(bet_id)
            assert (given_back["state"], given_back["reason"]) == ("delivered", "nothing_to_reverse")
            assert len(environment.operator.sent(given_back["request_id"])) == 1
        assert await environment.bets() == {"open": 1, "closed": 3}
        assert environment.operator.balance["p1"] == -500 + (-500 + 500)
        assert environment.operator.faults == await environment.audit_faults() == []
        await counts_right(environment, daemon)


async def test_a_repeated_settle_is_recognised_during_the_next_attempt(environment: Environment) -> None:
    """The report is repeated while another daemon makes the next attempt: neither late nor new."""
    # The retry is late enough to stop the first daemon before it claims it.
    environment.fleet.write_operator(environment.operator.url, interactive={"initial_delay_s": 1.0, "max_delay_s": 1.0})
    async with proxied(environment.fleet.dsn) as proxy:
        first = await environment.fleet.start("host-1", database={"dsn": proxy.dsn()})
        environment.operator.answer = failing()
        proxy.on_next(SETTLE, Trick.KEEP_ANSWER)
        placement = await environment.harness.place()

        async def it_is_committed() -> bool:
            return await environment.harness.attempts(placement) == [(1, "retry")]

        await until("the settle is committed", it_is_committed)
        first.freeze()
        environment.operator.answer = lambda _: None
        environment.operator.hold()
        second = await environment.fleet.start("host-2")
        await environment.until_in_flight(1)
        before = await environment.harness.everything()
        failed = (1, "retry", "answered", "http_500", "host-1")
        assert await environment.audit(placement) == [failed]

        proxy.cut()
        first.thaw()
        await first.until_logged("callback.retried")
        assert proxy.runs(SETTLE) == 2
        assert await environment.audit(placement) == [failed]
        assert await environment.harness.everything() == before
        environment.operator.release()
        await environment.until_all_final()
        assert await environment.audit(placement) == [failed, (2, "delivered", "answered", None, "host-2")]
        assert len(environment.operator.requests) == 2
        assert environment.operator.balance["p1"] == -500
        assert environment.operator.faults == await environment.audit_faults() == []
        await counts_right(environment, first, second)


async def test_a_lost_answer_of_expire_ends_callbacks_once_and_sends_the_rollback(environment: Environment) -> None:
    """The daemon does not know which bets it ended; the next poll finds the due rollback."""
    harness = environment.harness
    attempted = await harness.place("b-attempted")
    await harness.attempt(attempted, retried, due_in_s=3600.0)
    never_tried = await harness.place("b-never-tried")
    win = await harness.end("BET_WIN", "b-never-tried")
    for request_id in (attempted, never_tried):
        await harness.let_deadline_pass(request_id)
    async with proxied(environment.fleet.dsn) as proxy:
        proxy.on_next(EXPIRE, Trick.KEEP_ANSWER)
        daemon = environment.fleet.spawn("host-2", database={"dsn": proxy.dsn()})

        async def it_is_committed() -> bool:
            return [await harness.state(one) for one in (attempted, never_tried)] == ["exhausted"] * 2

        await until("the expiry is committed", it_is_committed)
        cut_what_is_kept(proxy)
        await daemon.ready()
        await environment.until_all_final()
        asked = proxy.runs(EXPIRE)
        await until("it has polled again", lambda: proxy.runs(EXPIRE) > asked + 1)
        assert await environment.bets() == {"void": 1, "closed": 1}
        assert await harness.state(win) == "cancelled"
        [given_back] = await harness.rollbacks("b-attempted")
        assert [request.request_id for request in environment.operator.requests] == [str(given_back["request_id"])]
        assert [(await harness.callback(one))["attempts"] for one in (attempted, never_tried)] == [1, 0]
        assert environment.operator.balance["p1"] == 0
        assert environment.operator.faults == await environment.audit_faults() == []


async def enqueue_all(connection: Connection, ids: list[uuid.UUID]) -> list[uuid.UUID | None]:
    """A producer's transaction: a bet with its win, a balance, and the rollback of an older bet."""
    # As prepared statements, so that the proxy knows the COMMIT.
    await connection.fetch("begin")
    results = [
        await enqueue(connection, "BET_MAKE", placement_params("b-1"), request_id=ids[0]),
        await enqueue(connection, "BET_WIN", terminal_params("BET_WIN", BET), request_id=ids[1]),
        await enqueue(connection, "BALANCE", {"player_id": "p1", "currency": "EUR"}, request_id=ids[2]),
        await rollback(connection, "b-before"),
    ]
    await connection.fetch("commit")
    return results


@pytest.mark.parametrize("trick", Trick)
async def test_a_repeated_producer_transaction_counts_once(
    environment: Environment, database: Database, trick: Trick
) -> None:
    """Whether its COMMIT succeeded or not, and also after everything is delivered."""
    ids = [uuid.uuid4() for _ in range(3)]
    await environment.adopt("b-before")
    nothing = await environment.harness.everything()
    async with proxied(database.producer) as proxy, connected(proxy.dsn(), 1) as [breaking]:
        proxy.on_next("commit", trick)
        saying = asyncio.create_task(enqueue_all(breaking, ids))
        await proxy.caught.wait()

        async def it_is_committed() -> bool:
            return len(await environment.harness.everything()) > len(nothing)

        if trick is Trick.KEEP_ANSWER:
            await until("the transaction is committed", it_is_committed)
        proxy.cut()
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError):
            pytest.fail(f"the commit was acknowledged: {await saying}")
    committed = await environment.harness.everything()
    assert (committed == nothing) is (trick is Trick.LOSE_REQUEST)

    async with connected(database.producer, 1) as [producer]:
        results = await enqueue_all(producer, ids)
        assert results[:3] == ids
        after = await environment.harness.everything()
        assert len(after) == len(nothing) + 5
        assert trick is Trick.LOSE_REQUEST or after == committed
        await environment.fleet.start("host-1")
        await environment.until_all_final()
        ended = await environment.harness.everything()
        assert await enqueue_all(producer, ids) == results
        assert await environment.harness.everything() == ended
        # The same id with other content is no repetition.
        with pytest.raises(asyncpg.PostgresError, match="is already used by another BET_MAKE") as refused:
            await enqueue(producer, "BET_MAKE", placement_params("b-1", amount=501), request_id=ids[0])
        assert refused.value.sqlstate == "PD004"
    assert await environment.states() == {"delivered": 4}
    assert await environment.bets() == {"closed": 2}
    assert len(environment.operator.requests) == 4
    assert environment.operator.balance["p1"] == 0
    assert environment.operator.faults == await environment.audit_faults() == []
