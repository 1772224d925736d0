"""Retention delays no other work, and may be killed or disturbed between any two steps."""

import asyncio
import itertools
import random
import uuid
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import asyncpg
import pytest

from predictu_dispatch.edge.postgres.sql_files import query
from predictu_dispatch.flow import retention as flow
from tests.support.daemons import until
from tests.support.harness import (
    OPERATOR,
    Connection,
    Harness,
    claim,
    connected,
    delivered,
    enqueue,
    open_harness,
    settle,
    terminal_params,
)
from tests.support.histories import (
    KEEP_MONTHS,
    SPAN_MONTHS,
    HistoryBuilder,
    make_months,
    month_start,
    part_of,
    requests_of,
)
from tests.support.postgres import Database, Server, cloned_database
from tests.support.retention import (
    ADOPT,
    AUDIT,
    LEFTOVERS,
    LONG_AGO,
    PURGE,
    RECENTLY,
    assert_removed_and_kept,
    kept_and_removed,
    next_step,
    read_contents,
    retention_over,
    run_retention,
)


@pytest.fixture
async def histories(harness: Harness) -> HistoryBuilder:
    await make_months(harness.owner)
    return HistoryBuilder(harness)


INSERT_LATE = (
    "insert into predictu_dispatch.attempt_record"
    " select (jsonb_populate_record(a, jsonb_build_object('report_id', gen_random_uuid(), 'verdict', 'late'))).*"
    "   from predictu_dispatch.attempt_record a where request_id = $1"
)


@pytest.mark.parametrize("path", ["won", "balance"])
async def test_a_producer_that_repeats_an_old_request_delays_only_that_one(
    harness: Harness, database: Database, histories: HistoryBuilder, path: str
) -> None:
    """Its open transaction has locked the callback, and not the bet."""
    locked = await histories.make(path, LONG_AGO)
    await histories.make("won", LONG_AGO)
    repeated = await harness.callback(locked.requests[0])
    async with harness.producer.transaction():
        await enqueue(harness.producer, repeated["method"], repeated["params"], request_id=locked.requests[0])
        result = await run_retention(database, blocks=100)
        assert (result.bets, result.callbacks, result.locked, result.is_complete) == (1, 2, 1, False)
        assert all(part.is_done for part in result.parts)
        for request_id in locked.requests:
            assert await harness.attempts(request_id) == [(1, "delivered")]
    result = await run_retention(database)
    assert (result.callbacks, result.locked, result.is_complete) == (len(locked.requests), 0, True)


@pytest.mark.parametrize("method", ["BALANCE", "BET_WIN"])
async def test_an_id_shared_by_a_callback_and_an_adopted_debit_stops_nothing(
    harness: Harness, database: Database, method: str
) -> None:
    """Two uncommitted transactions crossed: the operator's debit has the id of a callback."""
    await harness.attempt(await harness.place("b-2"), delivered)
    debit = uuid.uuid4()
    params = {"player_id": "p1", "currency": "EUR"} if method == "BALANCE" else None
    params = params or terminal_params(method, await harness.bet("b-2"))
    async with connected(database.producer, 1) as [other], other.transaction():
        await other.execute(ADOPT, OPERATOR, "adopted", debit)
        await enqueue(harness.producer, method, params, request_id=debit)
    await harness.attempt(debit, delivered)
    await harness.attempt(await harness.end("BET_WIN", "adopted"), delivered)
    age = "update predictu_dispatch.{0} set {1} = $1 where bet_id = 'adopted' or $2"
    gone = []
    for everything in (False, True):
        await harness.owner.execute("delete from predictu_dispatch.purge_cursor")
        await harness.owner.execute(age.format("callback", "finished_at"), LONG_AGO, everything)
        await harness.owner.execute(age.format("bet", "updated_at"), LONG_AGO, everything)
        result = await run_retention(database)
        assert result.is_complete
        gone.append((result.bets, result.callbacks))
    assert gone == ([(1, 1), (0, 1)] if method == "BALANCE" else [(1, 1), (1, 2)])


async def test_what_was_removed_stays_known_if_less_is_removed_later(harness: Harness, database: Database) -> None:
    """Statements refuse the period, also if the months are raised or a legal hold is lifted."""
    known = "select array_agg(removed_before) from predictu_dispatch.removed_history"
    assert await harness.owner.fetchval(known) is None
    await run_retention(database)
    [removed_before] = await harness.owner.fetchval(known)
    async with connected(database.retention, 1) as [retention]:
        await retention.execute("select predictu_dispatch.purge_finished(240, 1)")
    assert await harness.owner.fetchval(known) == [removed_before]
    await harness.owner.execute("insert into predictu_dispatch.legal_hold values ($1, null, 'a case')", OPERATOR)
    await harness.owner.execute("update predictu_dispatch.legal_hold set lifted_at = now()")
    assert not await harness.owner.fetchval("select exists (select from predictu_dispatch.purge_cursor)")
    assert await harness.owner.fetchval(known) == [removed_before]


class KilledError(Exception):
    pass


class DisturbedConnection:
    """A connection that calls `before` ahead of each statement."""

    def __init__(self, connection: Connection, before: Callable[..., Awaitable[None]]) -> None:
        self._connection = connection
        self._before = before

    async def fetch(self, *arguments: Any) -> list[asyncpg.Record]:
        await self._before(*arguments)
        return await self._connection.fetch(*arguments)

    async def fetchrow(self, *arguments: Any) -> asyncpg.Record | None:
        [row] = await self.fetch(*arguments)
        return row


async def test_killed_after_any_step_nothing_is_lost_and_the_next_run_finishes(postgres: Server, template: str) -> None:
    """Every step is one transaction, so a kill always happens between two."""
    async with cloned_database(postgres, template) as aged:
        async with open_harness(aged) as harness:
            await make_months(harness.owner)
            histories = HistoryBuilder(harness)
            for path in ("won", "open", "in review", "balance", "rolled back"):
                await histories.make(path, LONG_AGO)
            await histories.make("won", LONG_AGO, RECENTLY)
            await histories.make("open", month_start(SPAN_MONTHS + 3))
            kept, _ = kept_and_removed(histories.made)
            before = await read_contents(harness.owner, kept)
        steps, is_through = 0, False
        while not is_through:
            async with cloned_database(postgres, aged.name) as database, connected(database.owner, 1) as [owner]:
                async with connected(database.retention, 1) as [connection]:
                    left = itertools.count(-steps)

                    async def kill_after(*_: Any, left: Iterator[int] = left) -> None:
                        if next(left) == 0:
                            raise KilledError

                    killed: Any = DisturbedConnection(connection, kill_after)
                    try:
                        await retention_over(killed, blocks=100).run()
                        is_through = True
                    except KilledError:
                        pass
                now = await read_contents(owner, kept)
                assert requests_of(kept) <= now.requests
                assert now.audit == before.audit, f"killed after {steps} statements"
                result = await run_retention(database, blocks=100)
                assert result.is_complete
                await assert_removed_and_kept(owner, histories.made, before)
            steps += 1
    assert steps > 20, "every step was killed once"


async def test_a_late_answer_between_copying_and_replacing_is_not_lost(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    """A daemon reports a month late; its bet is still open."""
    history = await histories.make("open", LONG_AGO)
    await histories.make("won", LONG_AGO)
    part = part_of(LONG_AGO)
    async with connected(database.retention, 1) as [connection]:
        await connection.execute(PURGE, KEEP_MONTHS)
        await next_step(connection, part)
        await harness.owner.execute(INSERT_LATE, history.requests[0])
        await next_step(connection, part)
        count = f"select count(*) from predictu_dispatch.retired_{part}"  # noqa: S608 - a month
        assert await harness.owner.fetchval(count) == 4
    assert (await run_retention(database)).is_complete
    assert await harness.attempts(history.requests[0]) == [(1, "delivered"), (1, "late")]
    assert await harness.owner.fetch(LEFTOVERS) == []


async def test_the_cursor_of_a_run_killed_long_ago_is_not_continued(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    """Rows written since would be missing from the successor."""
    history = await histories.make("open", LONG_AGO)
    await histories.make("won", LONG_AGO)
    part = part_of(LONG_AGO)
    async with connected(database.retention, 1) as [connection]:
        await connection.execute(PURGE, KEEP_MONTHS)
        assert (await next_step(connection, part))["needed"] == 1
        await harness.owner.execute(INSERT_LATE, history.requests[0])
        await harness.owner.execute(
            "update predictu_dispatch.audit_purge_cursor set moved_at = moved_at - interval '2 hours'"
        )
        assert (await next_step(connection, part))["needed"] == 2
        await next_step(connection, part)
        assert await harness.attempts(history.requests[0]) == [(1, "delivered"), (1, "late")]
    assert (await run_retention(database)).is_complete
    assert await harness.attempts(history.requests[0]) == [(1, "delivered"), (1, "late")]


async def test_a_cursor_is_not_used_for_another_table_of_the_same_name(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    """A person replaced the retired table, as after a restore."""
    history = await histories.make("open", LONG_AGO)
    await histories.make("won", LONG_AGO)
    part = part_of(LONG_AGO)
    retired = f"predictu_dispatch.retired_{part}"
    async with connected(database.retention, 1) as [connection]:
        await connection.execute(PURGE, KEEP_MONTHS)
        for _ in range(3):
            assert not (await next_step(connection, part))["is_done"]
        await harness.owner.execute(f"alter table {retired} rename to seen")
        await harness.owner.execute(f"create table {retired} (like predictu_dispatch.attempt_record)")
        late = INSERT_LATE.replace("insert into predictu_dispatch.attempt_record", f"insert into {retired}")
        await harness.owner.execute(late, history.requests[0])
        assert not (await next_step(connection, part))["is_done"]
        assert (await next_step(connection, part))["is_done"]
    assert await harness.attempts(history.requests[0]) == [(1, "delivered"), (1, "late")]


async def test_the_deciding_row_stays_if_its_report_is_repeated_meanwhile(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    """It comes between copying and replacing, and again when only the old month has its row."""
    await histories.make("open", LONG_AGO)
    await histories.make("won", LONG_AGO)
    lease = await harness.lease(await harness.place("slow"), leased_at=LONG_AGO)
    repeated = delivered(lease)
    part = part_of(LONG_AGO)
    async with connected(database.retention, 1) as [connection]:
        await connection.execute(PURGE, KEEP_MONTHS)
        await next_step(connection, part)
        assert [change["cause"] for change in await harness.settle(repeated)] == ["settled"]
        await next_step(connection, part)
        assert [change["cause"] for change in await harness.settle(repeated)] == ["late"]
    assert (await run_retention(database)).is_complete
    assert await harness.attempts(lease["request_id"]) == [(1, "delivered"), (1, "late")]


async def test_a_month_is_attached_without_being_read(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    """Every settle waits for it, so its duration must not grow with the rows that are kept."""
    await histories.make("open", LONG_AGO)
    await histories.make("won", LONG_AGO)
    part = part_of(LONG_AGO)
    text: list[str] = []
    async with connected(database.retention, 1) as [connection]:
        await connection.execute(PURGE, KEEP_MONTHS)
        await next_step(connection, part)
        connection.add_log_listener(lambda _, message: text.append(str(message.message)))
        await connection.execute("set client_min_messages = debug1")
        await next_step(connection, part)
    assert any(f'"attempt_{part}" is implied by existing constraints' in line for line in text), text
    assert await harness.owner.fetchval("select count(*) from pg_constraint where conname = 'kept_month'") == 0


async def test_a_new_young_row_keeps_the_default_partition(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    ancient = month_start(SPAN_MONTHS + 3)
    await histories.make("open", ancient)
    await histories.make("won", ancient)
    steps: list[Any] = []

    async def before(*arguments: Any) -> None:
        if "default" in arguments:
            steps.append(arguments)
            if len(steps) == 2:
                lease = await harness.lease(await harness.place("young"), leased_at=month_start(-6))
                await harness.settle(delivered(lease))

    async with connected(database.retention, 1) as [connection]:
        disturbed: Any = DisturbedConnection(connection, before)
        result = await retention_over(disturbed, blocks=100).run()
    undone = [(part.part, part.why_not) for part in result.parts if not part.is_done]
    assert undone == [("default", "bad params for retention: part 'default' is not old")]
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.attempt_default") == 4


async def hot_path(database: Database, stop: asyncio.Event, *, bets: list[int], lock_timeout: str) -> None:
    """Places, wins and settles bets one after another; raises if a lock takes longer."""
    async with open_harness(database) as harness:
        for connection in (harness.producer, harness.daemon):
            await connection.execute(f"set lock_timeout = '{lock_timeout}'")
        while not stop.is_set():
            bet_id = f"hot-{id(bets)}-{len(bets)}"
            await harness.place(bet_id)
            await harness.settle(*map(delivered, await claim(harness.daemon, slots=1)))
            await harness.end("BET_WIN", bet_id)
            await settle(harness.daemon, *map(delivered, await claim(harness.daemon, slots=1)))
            bets.append(1)


async def test_bets_are_settled_while_retention_runs(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    """No statement waits 100 ms for a lock while the audit is rebuilt."""
    await histories.draw(random.Random(7), 60)
    kept, _ = kept_and_removed(histories.made)
    before = await read_contents(harness.owner, kept)
    stop = asyncio.Event()
    bets: list[list[int]] = [[], []]
    async with asyncio.TaskGroup() as tasks:
        for lane in bets:
            tasks.create_task(hot_path(database, stop, bets=lane, lock_timeout="100ms"))
        await until("bets are settled", lambda: all(bets))
        result = await run_retention(database)
        far = [len(lane) + 3 for lane in bets]
        await until("they still are", lambda: all(len(lane) > most for lane, most in zip(bets, far, strict=True)))
        stop.set()
    assert result.is_complete, result
    assert [row[0] for row in await harness.owner.fetch(AUDIT, list(requests_of(kept)))] == before.audit


async def test_a_long_read_of_the_audit_keeps_its_months_and_delays_nobody(
    harness: Harness, database: Database, histories: HistoryBuilder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "_LOCK_TRIALS", 5)
    await histories.make("won", LONG_AGO)
    stop = asyncio.Event()
    bets: list[int] = []
    async with connected(database.support, 1) as [dump]:
        async with dump.transaction(), asyncio.TaskGroup() as tasks:
            await dump.fetch("select count(*) from predictu_dispatch.attempt")
            tasks.create_task(hot_path(database, stop, bets=bets, lock_timeout="100ms"))
            result = await run_retention(database)
            await until("bets are settled", lambda: bool(bets))
            stop.set()
        assert result.bets == 1
        assert not result.is_complete
        assert all("lock timeout" in part.why_not for part in result.parts if not part.is_done)
    assert (await run_retention(database)).is_complete
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.bet_tombstone") == 1
    assert await harness.owner.fetch(LEFTOVERS) == []


@pytest.mark.parametrize("seed", range(3))
async def test_two_retentions_in_turns_do_the_same_work(
    harness: Harness, database: Database, histories: HistoryBuilder, seed: int
) -> None:
    """Each transaction runs alone, in any order of partitions; no needed row is ever missing."""
    rng = random.Random(seed)
    await histories.draw(rng, 45)
    kept, _ = kept_and_removed(histories.made)
    before = await read_contents(harness.owner, kept)
    done = 0
    async with connected(database.retention, 2) as both:
        await both[0].execute(PURGE, KEEP_MONTHS)
        for _ in range(120):
            one = rng.choice(both)
            old = await one.fetch(query("expired_audit"), KEEP_MONTHS)
            done += (await next_step(one, rng.choice(old)["part"], rng.choice((1, 3, 1000))))["is_done"] if old else 0
            assert (await read_contents(harness.owner, kept)).audit == before.audit
    assert done > 5
    assert (await run_retention(database)).is_complete
    await assert_removed_and_kept(harness.owner, histories.made, before)
