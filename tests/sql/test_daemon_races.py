"""Concurrent daemons never send the same callback; attempts count once, and commits are durable."""

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Callable

import asyncpg
import pytest

from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.harness import (
    OPERATOR,
    Connection,
    Harness,
    Report,
    claim,
    connected,
    delivered,
    enqueue,
    reaped,
    retried,
    rollback,
    settle,
    terminal_params,
    until_blocked,
)
from tests.support.postgres import Database

BALANCE = {"player_id": "p1", "currency": "EUR"}
CALLBACKS = 4000
CLAIMERS = 8


@pytest.fixture
async def daemons(database: Database) -> AsyncIterator[list[Connection]]:
    """Connections of further daemons."""
    async with connected(database.dispatcher, CLAIMERS) as connections:
        yield connections


async def settle_behind(
    first: Connection, reports: list[Report], second: Connection, late: list[Report]
) -> tuple[list[asyncpg.Record], list[asyncpg.Record]]:
    """Commit the first settle after the second one found its rows locked.

    Then repeat the second.
    """
    async with first.transaction():
        changed = await settle(first, *reports)
        held = await settle(second, *late)
        assert [(change["request_id"], change["cause"]) for change in held] == [
            (r["request_id"], "locked") for r in late
        ]
    return changed, await settle(second, *late)


# Claims


async def test_eight_claimers_never_lease_the_same_callback(harness: Harness, daemons: list[Connection]) -> None:
    """Uses both lanes, so that a claim that waited or read twice would change the count."""
    await harness.owner.execute(
        'select predictu_dispatch.enqueue_callback($1, \'BALANCE\', \'{"player_id": "p1", "currency": "EUR"}\')'
        "  from generate_series(1, $2)",
        *(OPERATOR, CALLBACKS),
    )

    async def claim_all(daemon: Connection, number: int) -> list[tuple[uuid.UUID, int]]:
        leased = []
        while leases := await claim(daemon, slots=97, instance=f"host-{number}"):
            leased += [(lease["request_id"], lease["attempt"]) for lease in leases]
        return leased

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(claim_all(daemon, number)) for number, daemon in enumerate(daemons)]
    leased = Counter(lease for task in tasks for lease in task.result())
    assert len(leased) == CALLBACKS
    assert set(leased.values()) == {1}
    assert {attempt for _, attempt in leased} == {1}


async def test_a_claim_takes_the_oldest_due_callbacks_up_to_the_free_slots(harness: Harness) -> None:
    await harness.attempt(await harness.place("settled"), delivered)
    await harness.attempt(await harness.place("later"), retried, due_in_s=60.0)
    await harness.end("BET_WIN", "settled")
    await harness.let_deadline_pass(await harness.place("too late"))
    for bet_id in ("b1", "b2", "b3"):
        await harness.place(bet_id)
    leased = [[lease["bet_id"] for lease in await claim(harness.daemon, slots=2)] for _ in range(3)]
    assert [sorted(leased[0]), *leased[1:]] == [["b1", "b2", "settled"], ["b3"], []]


async def test_a_claim_skips_locked_rows(harness: Harness, daemons: list[Connection]) -> None:
    """Rows locked by another claim or by any session; it takes the next ones."""
    for bet_id in ("b1", "b2", "b3"):
        await harness.place(bet_id)
    async with daemons[0].transaction(), harness.owner.transaction():
        [first] = await claim(daemons[0], slots=1)
        await harness.owner.execute("select from predictu_dispatch.bet for update")
        await harness.owner.execute("select from predictu_dispatch.callback where bet_id = 'b2' for no key update")
        assert [lease["bet_id"] for lease in await asyncio.wait_for(claim(daemons[1]), 10)] == ["b3"]
    assert first["bet_id"] == "b1"
    assert [lease["bet_id"] for lease in await claim(daemons[1])] == ["b2"]


async def test_a_callback_is_never_both_expired_and_claimed(harness: Harness, daemons: list[Connection]) -> None:
    """Neither statement waits for the other."""
    claimed, expired = await harness.place("b1"), await harness.place("b2")
    async with daemons[0].transaction():
        await claim(daemons[0], slots=1)
        await harness.let_deadline_pass(expired)
        await harness.owner.execute("set lock_timeout = '10s'")
        async with daemons[1].transaction():
            changes = await asyncio.wait_for(daemons[1].fetch(query("expire"), 500), 10)
            assert [change["request_id"] for change in changes] == [expired]
            assert await claim(daemons[2]) == []
    assert (await harness.state(claimed), await harness.state(expired)) == ("in_flight", "exhausted")


# Settling


@pytest.mark.parametrize("method", ["BALANCE", "BET_MAKE"])
async def test_a_report_that_is_settled_twice_concurrently_counts_once(
    harness: Harness, daemons: list[Connection], method: str
) -> None:
    """After a lost connection a daemon settles again, while the first statement may still run."""
    request_id = await (harness.place() if method == "BET_MAKE" else enqueue(harness.producer, "BALANCE", BALANCE))
    report = delivered(await harness.lease(request_id))
    first, second = await settle_behind(daemons[0], [report], daemons[1], [report])
    assert [change["cause"] for change in (*first, *second)] == ["settled", "repeated"]
    before = await harness.everything()
    assert [change["cause"] for change in await settle(daemons[2], report)] == ["repeated"]
    assert await harness.attempts(request_id) == [(1, "delivered")]
    assert await harness.everything() == before


@pytest.mark.parametrize("method", ["BALANCE", "BET_MAKE"])
async def test_of_two_reports_on_one_attempt_the_first_counts_and_the_other_is_late(
    harness: Harness, daemons: list[Connection], method: str
) -> None:
    request_id = await (harness.place() if method == "BET_MAKE" else enqueue(harness.producer, "BALANCE", BALANCE))
    lease = await harness.lease(request_id)
    late = delivered(lease, operator_status="OK", balance=1)
    first, second = await settle_behind(daemons[0], [retried(lease)], daemons[1], [late])
    assert [change["cause"] for change in (*first, *second)] == ["settled", "late"]
    callback = await harness.callback(request_id)
    assert (callback["state"], callback["effect"], callback["balance"]) == ("ready", "unknown", None)
    assert [change["cause"] for change in await settle(daemons[2], late)] == ["repeated"]
    assert await harness.attempts(request_id) == [(1, "retry"), (1, "late")]


async def test_a_reaper_after_the_daemon_writes_nothing(harness: Harness, daemons: list[Connection]) -> None:
    placement, balance = await harness.place(), await enqueue(harness.producer, "BALANCE", BALANCE)
    leases = await claim(harness.daemon)
    first, second = await settle_behind(
        daemons[0], [delivered(lease) for lease in leases], daemons[1], [reaped(lease) for lease in leases]
    )
    assert [change["cause"] for change in first] == ["settled", "settled"]
    assert second == []
    for request_id in (placement, balance):
        assert await harness.attempts(request_id) == [(1, "delivered")]


@pytest.mark.parametrize("reaper_first", [True, False])
async def test_in_one_batch_the_daemons_report_wins_over_the_reapers(
    harness: Harness,
    reaper_first: bool,  # noqa: FBT001 - a case of the table
) -> None:
    """After a database outage a daemon may reap a lease whose answer is in its own queue."""
    leases = [
        await harness.lease(await harness.place()),
        await harness.lease(await enqueue(harness.producer, "BALANCE", BALANCE)),
    ]
    batch = [word for lease in leases for word in (delivered(lease), reaped(lease))]
    changes = await harness.settle(*(reversed(batch) if reaper_first else batch))
    assert [change["cause"] for change in changes] == ["settled", "settled"]
    for lease in leases:
        assert await harness.attempts(lease["request_id"]) == [(1, "delivered")]


# Durability


@pytest.mark.parametrize(("habit", "held"), [("off", "on"), ("local", "local"), ("on", "on")])
@pytest.mark.parametrize("asked", ["claim", "settle", "expire"])
async def test_a_daemons_commit_is_durable_even_if_the_default_is_asynchronous(
    harness: Harness, asked: str, habit: str, held: str
) -> None:
    """If a crash of Postgres lost a claim, a request would be missing in the audit.

    Stricter settings stay.
    """
    await harness.place()
    leases = await claim(harness.daemon) if asked == "settle" else []
    async with harness.daemon.transaction():
        await harness.daemon.execute("select set_config('synchronous_commit', $1, true)", habit)
        if asked == "claim":
            assert len(await claim(harness.daemon)) == 1
        elif asked == "settle":
            await settle(harness.daemon, *(delivered(lease) for lease in leases))
        else:
            await harness.daemon.fetch(query("expire"), 10)
        assert await harness.daemon.fetchval("select current_setting('synchronous_commit')") == held


# The lock order


@pytest.mark.parametrize("asked", ["rollback", "enqueue"])
async def test_a_statement_that_waits_for_a_bet_has_locked_none_of_its_callbacks(harness: Harness, asked: str) -> None:
    await harness.lease(await harness.place())
    win = terminal_params("BET_WIN", await harness.bet())
    action: Callable[[], object] = {
        "rollback": lambda: rollback(harness.producer, "b1"),
        "enqueue": lambda: enqueue(harness.producer, "BET_WIN", win),
    }[asked]
    async with asyncio.TaskGroup() as group, harness.owner.transaction():
        await harness.owner.execute("select from predictu_dispatch.bet for no key update")
        group.create_task(action())  # type: ignore[arg-type]
        await until_blocked(harness.owner, harness.producer)
        await harness.owner.execute("select from predictu_dispatch.callback for no key update nowait")


async def test_settling_the_same_callbacks_in_opposite_order_never_deadlocks(
    harness: Harness, daemons: list[Connection]
) -> None:
    for number in range(30):
        await harness.place(f"b{number}")
        await enqueue(harness.producer, "BALANCE", BALANCE)
    for _ in range(10):
        leases = await claim(harness.daemon)
        assert len(leases) == 60
        batches = [[retried(lease) for lease in leases] for _ in daemons]
        for batch in batches[::2]:
            batch.reverse()
        async with asyncio.TaskGroup() as group:
            for daemon, batch in zip(daemons, batches, strict=True):
                group.create_task(settle(daemon, *batch))
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.attempt where verdict <> 'late'") == 600


async def test_locks_on_many_overdue_bets_delay_no_other_deadline(harness: Harness) -> None:
    """The locked bets are the oldest, so expire() must skip them before it applies its limit."""
    held = [await harness.place(f"held {number}") for number in range(5)]
    free = await harness.place("free")
    balance = await enqueue(harness.producer, "BALANCE", BALANCE)
    for request_id in (*held, free, balance):
        await harness.let_deadline_pass(request_id)
    async with harness.owner.transaction():
        await harness.owner.execute("select from predictu_dispatch.bet where bet_id <> 'free' for no key update")
        changed = await harness.daemon.fetch(query("expire"), 3)
    ended = {change["request_id"] for change in changed}
    assert ended == {free, balance}
    assert (await harness.bet("free"))["state"] == "void"
    assert {change["request_id"] for change in await harness.expire()} == {*held}
