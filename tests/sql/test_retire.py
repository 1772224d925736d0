"""retire_operator(): what it refuses, and that a retired operator is never used again."""

import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from predictu_dispatch.edge.postgres.sql_files import query
from tests.sql.test_races import outcome, overtake
from tests.sql.test_sync_operators import sync
from tests.support.harness import (
    DISABLED,
    OPERATOR,
    Connection,
    Harness,
    claim,
    connected,
    delivered,
    enqueue,
    exhausted,
    retried,
    terminal_params,
)
from tests.support.interventions import (
    ALICE,
    BOB,
    abandon,
    operator_row,
    pause,
    ping,
    recorded_interventions,
    refusal,
    resolve,
    resume,
    retire,
    terminal_in_review,
)
from tests.support.postgres import Database

BALANCE = {"player_id": "p1", "currency": "EUR"}
ADOPT = "select predictu_dispatch.adopt_bet($1, $2, 'p1', 'EUR', 500, gen_random_uuid())"


@pytest.fixture
async def person(database: Database) -> AsyncIterator[Connection]:
    """The connection of a command."""
    async with connected(database.operations, 1) as [connection]:
        yield connection


async def test_a_retired_operator_keeps_its_history_and_gets_nothing_new(harness: Harness) -> None:
    placement = await harness.place()
    await harness.attempt(placement, delivered)
    win = await harness.end("BET_WIN")
    await harness.attempt(win, delivered)
    first = await retire(harness.person)
    assert (first["retired_by"], first["retire_reason"]) == (ALICE, "contract ended")
    retired_at = f"{first['retired_at']:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + "Z"
    for action in (
        enqueue(harness.producer, "BALANCE", BALANCE),
        harness.place("b2"),
        harness.producer.execute(ADOPT, OPERATOR, "b3"),
        ping(harness.person),
        pause(harness.person),
        resume(harness.person),
    ):
        sqlstate, message = await refusal(action)
        assert (sqlstate, message.splitlines()[0]) == ("PD002", f"operator '{OPERATOR}' was retired at {retired_at}")
    # A repeated request is answered as before, and the id is never used for another one.
    bet = await harness.bet()
    assert await enqueue(harness.producer, "BET_WIN", terminal_params("BET_WIN", bet), request_id=win) == win
    assert (await outcome(enqueue(harness.producer, "BALANCE", BALANCE, request_id=win))) == "PD004"
    assert await outcome(harness.rollback()) == "PD005"
    known = await harness.producer.fetchrow("select * from predictu_dispatch.outcome($1, $2)", OPERATOR, win)
    assert known is not None
    assert known["state"] == "delivered"
    assert await harness.attempts(win) == [(1, "delivered")]
    shown = {row["operator_id"] for row in await harness.person.fetch(query("operators"))}
    assert shown == {DISABLED}, "status and top do not list it"

    again = await retire(harness.person, reason="another", by=BOB)
    assert [again[name] for name in ("retired_at", "retired_by")] == [first["retired_at"], ALICE]
    assert await recorded_interventions(harness) == [("retire", None, "contract ended", ALICE, "test_operations")]
    record = json.loads(await harness.owner.fetchval("select after from predictu_dispatch.intervention"))
    assert (record["retired_by"], record["retire_reason"]) == (ALICE, "contract ended")


async def test_no_daemon_and_no_statement_uses_a_retired_operator_again(harness: Harness) -> None:
    """Also a daemon of an older release that has its file."""
    await retire(harness.person)
    before = await operator_row(harness)
    assert await sync(harness.daemon, OPERATOR) == [], "an older daemon does not try again for ever"
    assert await operator_row(harness) == before
    written = await harness.daemon.fetch(
        "select predictu_dispatch.write_circuits(array[$1], array[$2::bigint], array['closed'], array['unknown'],"
        " array[0], array[null::float8], array[null::float8], array[30::float8], array[true], array[null::float8],"
        " array[null::float8])",
        *(OPERATOR, before["revision"]),
    )
    assert [row[0] for row in written] == [OPERATOR]
    assert (await operator_row(harness))["ping_request_id"] is None, "no PING is enqueued"
    assert await claim(harness.daemon) == []
    for statement in (
        "update predictu_dispatch.operator set retired_at = null, retired_by = null, retire_reason = null",
        "update predictu_dispatch.operator set enabled = not enabled",
        "delete from predictu_dispatch.operator",
    ):
        with pytest.raises(asyncpg.PostgresError, match="must not be used again") as refused:
            await harness.owner.execute(f"{statement} where operator_id = $1", OPERATOR)
        assert refused.value.sqlstate == "PD900"


async def _ready(harness: Harness) -> None:
    await enqueue(harness.producer, "BALANCE", BALANCE)


async def _in_flight(harness: Harness) -> None:
    await harness.lease(await enqueue(harness.producer, "BALANCE", BALANCE))


async def _placing_with_a_waiting_terminal(harness: Harness) -> None:
    await harness.place()
    await harness.end("BET_LOSE")


async def _open(harness: Harness) -> None:
    await harness.attempt(await harness.place(), delivered)


async def _in_review(harness: Harness) -> None:
    await terminal_in_review(harness)


async def _being_rolled_back(harness: Harness) -> None:
    await harness.attempt(await harness.place(), exhausted)


async def _served(harness: Harness) -> None:
    await harness.owner.execute(
        "insert into predictu_dispatch.daemon (instance, session_id, host, pid, version, schema_version)"
        " values ('host-1', gen_random_uuid(), 'a.example', 1, '1', 12)"
    )
    await harness.owner.execute(
        "insert into predictu_dispatch.share (operator_id, instance, interactive_max, settlement_max,"
        " requests_per_s_max) values ($1, 'host-1', 1, 1, 0)",
        OPERATOR,
    )


@pytest.mark.parametrize(
    ("come_to", "faults"),
    [
        (_ready, ["callbacks that are not final: 1 ready"]),
        (_in_flight, ["callbacks that are not final: 1 in_flight"]),
        (_placing_with_a_waiting_terminal, ["callbacks that are not final: 1 ready, 1 waiting", "example b1"]),
        (_open, ["bets that have not ended: 1, for example b1"]),
        (_in_review, ["callbacks that need review: 1"]),
        (_being_rolled_back, ["callbacks that are not final: 1 ready"]),
        (_served, ["its file is used by daemon host-1 on host a.example"]),
    ],
)
async def test_an_operator_with_anything_unfinished_is_not_retired(
    harness: Harness, come_to: Callable[[Harness], Awaitable[None]], faults: list[str]
) -> None:
    await come_to(harness)
    before = (await harness.everything(), await operator_row(harness))
    sqlstate, message = await refusal(retire(harness.person))
    assert (sqlstate, [fault for fault in faults if fault not in message]) == ("PD005", []), message
    assert (await harness.everything(), await operator_row(harness)) == before
    assert await recorded_interventions(harness) == []
    await retire(harness.person, DISABLED)


async def test_every_unfinished_callback_and_bet_has_a_way_out_to_retirement(harness: Harness) -> None:
    """A gone operator that never answers: producers and people end everything without a daemon."""
    for bet_id in ("unknown", "none", "won", "lost", "open"):
        await harness.place(bet_id)
    leases = {lease["bet_id"]: lease for lease in await claim(harness.daemon)}
    await harness.settle(
        *(delivered(leases[bet_id]) for bet_id in ("won", "lost", "open")),
        *(retried(leases[bet_id], due_in_s=3600.0, effect=bet_id) for bet_id in ("unknown", "none")),
    )
    waiting = await harness.end("BET_WIN", "unknown")
    won, lost = await harness.end("BET_WIN", "won"), await harness.end("BET_LOSE", "lost")
    await harness.attempt(won, retried, due_in_s=3600.0)
    assert (await refusal(retire(harness.person)))[0] == "PD005"

    for bet_id in ("unknown", "none"):
        await abandon(harness.person, (await harness.bet(bet_id))["placement_request_id"])
    await abandon(harness.person, won)
    # It was claimed with the other and never settled, so its lease ends.
    await harness.owner.execute("update predictu_dispatch.callback set lease_until = now() where request_id = $1", lost)
    lease = {"operator_id": OPERATOR, "request_id": lost, "attempt": 1, "bet_id": "lost", "method": "BET_LOSE"}
    row = await harness.callback(lost)
    await harness.settle(retried({**lease, "effect": "none", "leased_at": row["leased_at"]}, due_in_s=3600.0))
    await abandon(harness.person, lost)
    await harness.rollback("open")
    for rollback in [*await harness.rollbacks("open"), *await harness.rollbacks("unknown")]:
        await abandon(harness.person, rollback["request_id"])
    for row in await harness.owner.fetch("select request_id from predictu_dispatch.needs_review"):
        await resolve(harness.person, row["request_id"])
    assert (await harness.callback(waiting))["state"] == "cancelled"
    states = await harness.owner.fetch("select bet_id, state from predictu_dispatch.bet order by 1")
    closing = dict.fromkeys(("lost", "open", "unknown", "won"), "closing")
    assert {row["bet_id"]: row["state"] for row in states} == closing | {"none": "void"}
    assert (await retire(harness.person))["retired_at"] is not None


# Concurrency


async def test_an_open_transaction_of_a_producer_delays_a_retirement_and_no_other_producer(
    harness: Harness, database: Database, person: Connection
) -> None:
    """It may have enqueued something that nobody sees yet."""
    async with connected(database.producer, 1) as [other], harness.producer.transaction():
        await enqueue(harness.producer, "BALANCE", BALANCE)
        sqlstate, message = await refusal(retire(person))
        assert (sqlstate, "a transaction of a producer is open" in message) == ("PD006", True)
        assert await outcome(enqueue(other, "BALANCE", BALANCE)) is not None
    assert (await refusal(retire(person)))[0] == "PD005"
    assert (await operator_row(harness))["retired_at"] is None


async def test_a_retirement_that_is_left_open_is_undone_after_two_seconds(harness: Harness, person: Connection) -> None:
    """In psql, for example: until then every producer waits."""
    await person.execute("begin")
    await retire(person)
    # It waits for the session's end, not for a time of ours.
    await enqueue(harness.producer, "BALANCE", BALANCE)
    assert (await operator_row(harness))["retired_at"] is None


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
@pytest.mark.parametrize("what", ["enqueue", "adopt"])
async def test_what_is_enqueued_during_a_retirement_is_refused(
    harness: Harness, person: Connection, what: str, isolation: str
) -> None:
    """Also by a transaction whose snapshot is older."""
    producer = harness.producer

    async def enqueue_something() -> Any:
        if what == "adopt":
            return await producer.execute(ADOPT, OPERATOR, "b1")
        return await producer.fetchval(
            "select predictu_dispatch.enqueue_callback($1, 'BALANCE', $2)", OPERATOR, json.dumps(BALANCE)
        )

    await producer.execute(f"begin isolation level {isolation}")
    await producer.fetchval("select 1")
    retired, refused = await overtake(harness, (person, retire(person)), (producer, enqueue_something()))
    await producer.execute("rollback")
    assert retired["retired_at"] is not None
    # The producer repeats the transaction after 40001, and is then refused.
    assert refused == ("PD002" if isolation == "read committed" else "40001")
    assert await outcome(enqueue_something()) == "PD002"
    assert await harness.everything() == []


async def test_a_daemon_that_registers_during_a_retirement_changes_nothing(
    harness: Harness, person: Connection
) -> None:
    before = await operator_row(harness)
    retired, locked = await overtake(
        harness, (person, retire(person)), (harness.daemon, sync(harness.daemon, OPERATOR))
    )
    assert (retired["operator_id"], locked) == (OPERATOR, [])
    assert (await operator_row(harness))["config_fingerprint"] == before["config_fingerprint"]


async def test_a_retirement_with_an_older_snapshot_is_refused(harness: Harness) -> None:
    async with harness.person.transaction(isolation="repeatable_read"):
        assert (await refusal(retire(harness.person)))[0] == "PD003"


async def test_a_retired_operator_is_no_obstacle_for_the_others(harness: Harness) -> None:
    """Deadlines and figures are still read for all operators."""
    await retire(harness.person, DISABLED)
    balance = await enqueue(harness.producer, "BALANCE", BALANCE, request_id=uuid.uuid4())
    await harness.let_deadline_pass(balance)
    assert [change["request_id"] for change in await harness.expire()] == [balance]
