"""Retention records which entries it removes, and removes nothing that is not sealed."""

import asyncio
import itertools
import random
from collections.abc import AsyncIterator, Iterator
from typing import Any

import asyncpg
import pytest

from tests.sql.test_retention_steps import INSERT_LATE, DisturbedConnection, KilledError, hot_path
from tests.support.daemons import until
from tests.support.harness import OPERATOR, Harness, connected, open_harness
from tests.support.histories import KEEP_MONTHS, SPAN_MONTHS, HistoryBuilder, make_months, month_start, part_of
from tests.support.postgres import Database, Server, cloned_database
from tests.support.removals import assert_provable, entry_ids, recorded, sealed_rows
from tests.support.retention import (
    CUTOFF,
    LEFTOVERS,
    LONG_AGO,
    PURGE,
    next_step,
    read_contents,
    retention_over,
    run_retention,
)
from tests.support.sealed_audit import verified
from tests.support.sealing import TestSealer, insert_attempts, open_sealer

PART = part_of(LONG_AGO)
LATE = INSERT_LATE.replace("'verdict', 'late'", "'verdict', 'late', 'written_in', pg_current_xact_id()::text::bigint")
NOT_SEALED = f"part {PART} stays: it has rows that are not sealed in the audit log yet"


@pytest.fixture
async def histories(harness: Harness) -> HistoryBuilder:
    await make_months(harness.owner)
    return HistoryBuilder(harness)


@pytest.fixture
async def sealer(database: Database) -> AsyncIterator[TestSealer]:
    async with open_sealer(database.dispatcher) as sealer:
        yield sealer


@pytest.mark.parametrize("seed", range(3))
async def test_exactly_the_places_of_the_removed_rows_are_recorded_and_sealed(
    harness: Harness, database: Database, histories: HistoryBuilder, sealer: TestSealer, *, seed: int
) -> None:
    await sealer.seal_all()
    rng = random.Random(seed)
    # Two are in the default partition.
    for path in ("won", "open"):
        await histories.make(path, month_start(SPAN_MONTHS + 3))
    for count in (15, 15, 15):
        await histories.draw(rng, count)
        # Younger rows and another log's come between.
        await insert_attempts(harness.owner, rng.randrange(200))
        await insert_attempts(harness.owner, 5, "op_off")
        await sealer.seal_all()
    before = await sealed_rows(harness.owner)
    result = await run_retention(database)
    assert result.is_complete, result
    gone = before.of(await sealed_rows(harness.owner))
    assert len(gone) > 10
    assert await recorded(harness.owner) == gone
    rows = await harness.owner.fetch("select * from predictu_dispatch.audit_removal")
    assert {row["cutoff"] for row in rows} == {CUTOFF}
    assert {row["part"] for row in rows} <= {part_of(month_start(ago)) for ago in range(10)} | {"default"}
    assert not {row["removal_id"] for row in rows} & await entry_ids(harness.owner)
    await sealer.seal_all()
    assert {row["removal_id"] for row in rows} <= await entry_ids(harness.owner)
    # A removed row's entry can still be proved, and nothing looks like tampering.
    await assert_provable(harness.owner, before.leaves)
    assert (await verified(database))[1] == []
    again = await run_retention(database)
    assert again.is_complete
    assert await recorded(harness.owner) == gone
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.audit_removal_draft") == 0


async def test_without_a_log_nothing_is_recorded(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    await histories.make("won", LONG_AGO)
    assert (await run_retention(database)).is_complete
    assert await recorded(harness.owner) == set()


async def test_a_month_with_rows_that_are_not_sealed_stays_until_they_are(
    harness: Harness, database: Database, histories: HistoryBuilder, sealer: TestSealer
) -> None:
    await sealer.seal_all()
    await histories.make("won", LONG_AGO)
    await histories.make("won", month_start(KEEP_MONTHS + 2))
    result = await run_retention(database)
    undone = {part.part: part.why_not for part in result.parts if not part.is_done}
    assert not result.is_complete
    assert undone[PART] == NOT_SEALED
    assert len(undone) == 2
    count = "select count(*) from predictu_dispatch.attempt"
    assert await harness.owner.fetchval(count) == 4
    assert await recorded(harness.owner) == set()
    await sealer.seal_all()
    before = await sealed_rows(harness.owner)
    assert (await run_retention(database)).is_complete
    assert await harness.owner.fetchval(count) == 0
    assert len(await recorded(harness.owner)) == len(before.leaves) == 4


async def test_rows_from_before_the_log_stay_until_it_has_them(
    harness: Harness, database: Database, histories: HistoryBuilder, sealer: TestSealer
) -> None:
    await histories.make("won", LONG_AGO)
    await histories.make("open", LONG_AGO)
    await sealer.store.begin("audit.predictu.example", ())
    result = await run_retention(database)
    assert [part.why_not for part in result.parts if not part.is_done] == [NOT_SEALED]
    await sealer.seal_all()
    before = await sealed_rows(harness.owner)
    assert len(before.leaves) == 3
    assert (await run_retention(database)).is_complete
    assert await recorded(harness.owner) == before.of(await sealed_rows(harness.owner))
    assert len(await recorded(harness.owner)) == 2


async def test_in_another_cluster_nothing_is_removed_before_the_logs_go_on(
    harness: Harness, database: Database, histories: HistoryBuilder, sealer: TestSealer
) -> None:
    """After a restore, the ids of transactions say nothing about which rows are sealed."""
    await histories.make("won", LONG_AGO)
    await sealer.seal_all()
    await harness.owner.execute("update predictu_dispatch.audit_position set system_identifier = 1")
    result = await run_retention(database)
    assert [part.why_not for part in result.parts if not part.is_done] == [NOT_SEALED]
    await sealer.seal_all()
    assert (await run_retention(database)).is_complete
    assert len(await recorded(harness.owner)) == 2


async def test_the_two_rows_of_a_repeated_report_have_two_places(
    harness: Harness, database: Database, histories: HistoryBuilder, sealer: TestSealer
) -> None:
    await sealer.seal_all()
    kept, gone = [await histories.make(path, LONG_AGO) for path in ("open", "won")]
    # Between the two rows are some blocks, and so steps of retention.
    for _ in range(7):
        await harness.owner.execute(LATE, gone.requests[1])
    await sealer.seal_all()
    for history in (kept, gone):
        # The deciding row's own report, once more as late.
        again = LATE.replace("'report_id', gen_random_uuid(), ", "")
        await harness.owner.execute(again, history.requests[0])
    await sealer.seal_all()
    before = await sealed_rows(harness.owner)
    assert len(before.leaves) == 132
    assert (await run_retention(database, blocks=1)).is_complete
    assert await recorded(harness.owner) == before.of(await sealed_rows(harness.owner))
    assert len(await recorded(harness.owner)) == 130


async def test_killed_after_any_step_every_place_is_recorded_once(postgres: Server, template: str) -> None:
    async with cloned_database(postgres, template) as aged:
        async with open_harness(aged) as harness, open_sealer(aged.dispatcher) as sealer:
            await make_months(harness.owner)
            histories = HistoryBuilder(harness)
            for path in ("won", "open", "balance", "rolled back"):
                await histories.make(path, LONG_AGO)
            await sealer.seal_all()
            before = await sealed_rows(harness.owner)
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
                        await retention_over(killed, blocks=1).run()
                        is_through = True
                    except KilledError:
                        pass
                # Until a month is dropped its rows are somewhere, and afterwards they are recorded.
                gone = before.of(await sealed_rows(owner))
                assert await recorded(owner) <= gone, f"killed after {steps} statements"
                assert (await run_retention(database, blocks=1)).is_complete
                gone = before.of(await sealed_rows(owner))
                assert await recorded(owner) == gone
                assert len(gone) == 5
                assert await owner.fetch(LEFTOVERS) == []
            steps += 1
    assert steps > 10, "every step was killed once"


@pytest.mark.parametrize("is_needed", [True, False])
@pytest.mark.parametrize("sealing", ["not yet", "read before, appended after", "appended before"])
async def test_a_late_row_of_a_detached_month_returns_and_is_sealed_once(
    harness: Harness,
    database: Database,
    histories: HistoryBuilder,
    sealer: TestSealer,
    *,
    sealing: str,
    is_needed: bool,
) -> None:
    """It arrives between copying and replacing, when the sealer may have read it already."""
    history = await histories.make("open" if is_needed else "balance", LONG_AGO)
    await histories.make("won", LONG_AGO)
    await sealer.seal_all()
    async with connected(database.retention, 1) as [connection]:
        await connection.execute(PURGE, KEEP_MONTHS)
        await next_step(connection, PART)
        # A late report of an attempt whose row is copied, or will be gone.
        await harness.owner.execute(LATE, history.requests[0])
        if sealing == "appended before":
            await sealer.seal_all()
        turn = await sealer.store.unsealed(most=1000, span=100_000)
        assert turn is not None
        before = await sealed_rows(harness.owner)
        while not (await next_step(connection, PART))["is_done"]:
            pass
        if sealing == "read before, appended after":
            assert not await sealer._append(turn), "it must read again: the row has moved"
    await sealer.seal_all()
    after = await sealed_rows(harness.owner)
    late = await harness.owner.fetchval("select count(*) from predictu_dispatch.attempt where verdict = 'late'")
    was_sealed = sealing == "appended before"
    assert late == (is_needed or not was_sealed)
    rows = await harness.owner.fetchval("select count(*) from predictu_dispatch.attempt")
    assert len(after.leaves) == rows, "every row that is left is sealed as it is"
    assert await recorded(harness.owner) == before.of(after)
    # What returned is removed by a later run, unless it is needed.
    assert (await run_retention(database)).is_complete
    assert (await verified(database))[1] == []
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.attempt") == (2 if is_needed else 0)
    assert len(await recorded(harness.owner)) == (2 if is_needed else 4)
    await assert_provable(harness.owner, after.leaves)


async def test_retention_sealers_late_reports_and_bets_at_once_leave_one_clean_history(
    harness: Harness, database: Database, histories: HistoryBuilder, sealer: TestSealer
) -> None:
    await histories.draw(random.Random(11), 30)
    await sealer.seal_all()
    attempted = [
        row[0] for row in await harness.owner.fetch("select distinct request_id from predictu_dispatch.attempt")
    ]
    stop, bets, late = asyncio.Event(), list[int](), 0

    async def seal() -> None:
        async with open_sealer(database.dispatcher) as other:
            while not stop.is_set():
                await other.seal_all()
                await sealer.seal_all()

    async def report_late() -> None:
        nonlocal late
        async with connected(database.owner, 1) as [owner]:
            while not stop.is_set():
                await owner.execute(LATE.replace("$1", "$1 and verdict <> 'late'"), attempted[late % len(attempted)])
                late += 1

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(seal())
        tasks.create_task(report_late())
        tasks.create_task(hot_path(database, stop, bets=bets, lock_timeout="100ms"))
        await until("all work", lambda: bool(bets) and late > 5)
        for _ in range(3):
            await run_retention(database, blocks=2)
        stop.set()
    await sealer.seal_all()
    result = await run_retention(database)
    assert result.is_complete, result
    await sealer.seal_all()
    assert (await verified(database))[1] == []
    left = await harness.owner.fetchval("select count(*) from predictu_dispatch.attempt")
    assert len((await sealed_rows(harness.owner)).leaves) == left
    assert len(await recorded(harness.owner)) > 20
    assert await harness.owner.fetch(LEFTOVERS) == []


async def test_the_whole_of_a_held_operator_or_bet_stays_until_the_hold_is_lifted(
    harness: Harness, database: Database, histories: HistoryBuilder, sealer: TestSealer
) -> None:
    held = await histories.make("lost after retries", LONG_AGO)
    await histories.make("won", LONG_AGO)
    await histories.make("balance", LONG_AGO)
    await sealer.seal_all()
    owner = harness.owner
    place = "insert into predictu_dispatch.legal_hold (operator_id, bet_id, reason) values ($1, $2, 'case 17')"
    lift = "update predictu_dispatch.legal_hold set lifted_at = now() where lifted_at is null"
    await owner.execute(place, OPERATOR, None)
    before = await read_contents(owner, histories.made)
    result = await run_retention(database)
    assert (result.bets, result.callbacks, result.held, result.is_complete) == (0, 0, 5, True)
    assert await read_contents(owner, histories.made) == before
    assert (await run_retention(database)).held == 0, "the callbacks are read once for each cutoff"
    await owner.execute(lift)
    await owner.execute(place, OPERATOR, held.bet_id)
    result = await run_retention(database)
    assert (result.bets, result.callbacks, result.held, result.is_complete) == (1, 3, 2, True)
    assert {row[0] for row in await owner.fetch("select distinct request_id from predictu_dispatch.attempt")} == {
        *held.requests
    }
    assert await owner.fetchval("select count(*) from predictu_dispatch.attempt") == 4
    await owner.execute(lift)
    result = await run_retention(database)
    assert (result.bets, result.callbacks, result.held) == (1, 2, 0)
    assert await owner.fetchval("select count(*) from predictu_dispatch.attempt") == 0


@pytest.mark.parametrize("steps", range(4))
async def test_a_hold_counts_at_every_moment_before_its_rows_are_dropped(
    harness: Harness, database: Database, histories: HistoryBuilder, *, steps: int
) -> None:
    """The callbacks are removed already: the hold keeps the audit."""
    history = await histories.make("won", LONG_AGO)
    await histories.make("open", LONG_AGO)
    before = await read_contents(harness.owner, [history])
    async with connected(database.retention, 1) as [connection]:
        await connection.execute(PURGE, KEEP_MONTHS)
        for _ in range(steps):
            if (await next_step(connection, PART))["is_done"]:
                pytest.fail("the month was dropped before the hold was placed")
    await harness.owner.execute(
        "insert into predictu_dispatch.legal_hold (operator_id, bet_id, reason) values ($1, $2, 'case 17')",
        *(OPERATOR, history.bet_id),
    )
    assert (await run_retention(database)).is_complete
    assert (await read_contents(harness.owner, [history])).audit == before.audit


async def test_a_hold_is_placed_by_the_owner_on_what_exists_and_only_lifted(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    history = await histories.make("won", LONG_AGO)
    place = "insert into predictu_dispatch.legal_hold (operator_id, bet_id, reason) values ($1, $2, 'case 17')"
    for arguments in ((OPERATOR, "b-unknown"), ("op_unknown", None), ("op_off", history.bet_id)):
        with pytest.raises(asyncpg.PostgresError, match=r"unknown (bet|operator)"):
            await harness.owner.execute(place, *arguments)
    await harness.owner.execute(place, OPERATOR, history.bet_id)
    for role in ("origin", "replica"):
        await harness.owner.execute(f"set session_replication_role = {role}")
        for statement in (
            "delete from predictu_dispatch.legal_hold",
            "truncate predictu_dispatch.legal_hold",
            "update predictu_dispatch.legal_hold set reason = 'x'",
            "update predictu_dispatch.legal_hold set bet_id = 'x', lifted_at = now()",
            "update predictu_dispatch.legal_hold set placed_at = now(), lifted_at = now()",
        ):
            with pytest.raises(asyncpg.PostgresError, match="a legal hold is never changed"):
                await harness.owner.execute(statement)
    await harness.owner.execute("set session_replication_role = origin")
    lift = "update predictu_dispatch.legal_hold set lifted_at = now()"
    for login in (database.retention, database.dispatcher, database.operations, database.producer):
        async with connected(login, 1) as [connection]:
            for statement in (lift, place.replace("$1, $2", f"'{OPERATOR}', null")):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)
    await harness.owner.execute(lift)
    for statement in (lift, "update predictu_dispatch.legal_hold set lifted_at = null"):
        with pytest.raises(asyncpg.PostgresError, match="a legal hold is never changed"):
            await harness.owner.execute(statement)
    # It may be held again.
    await harness.owner.execute(place, OPERATOR, history.bet_id)
