"""Retention removes exactly what is old and finished, and its ids stay taken."""

import asyncio
import itertools
import random
import uuid
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from tests.support.corruption import large, lose_chunks
from tests.support.harness import (
    OPERATOR,
    Harness,
    claim,
    connected,
    delivered,
    enqueue,
    placement_params,
    terminal_params,
    until_blocked,
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
from tests.support.postgres import Database
from tests.support.retention import (
    ADOPT,
    CUTOFF,
    LONG_AGO,
    PURGE,
    RECENTLY,
    assert_removed_and_kept,
    kept_and_removed,
    read_contents,
    run_retention,
)


@pytest.fixture
async def histories(harness: Harness) -> HistoryBuilder:
    await make_months(harness.owner)
    return HistoryBuilder(harness)


PARTITIONS = (
    "select substring(inhrelid::regclass::text from 'attempt_(.*)') from pg_inherits"
    " where inhparent = 'predictu_dispatch.attempt_record'::regclass order by 1"
)


@pytest.mark.parametrize("seed", range(6))
async def test_exactly_the_old_and_finished_part_of_any_history_is_removed(
    harness: Harness, database: Database, histories: HistoryBuilder, seed: int
) -> None:
    await histories.draw(random.Random(seed), 45)
    kept, removed = kept_and_removed(histories.made)
    assert kept
    assert removed
    before = await read_contents(harness.owner, kept)
    result = await run_retention(database)
    assert result.is_complete, result
    assert (result.bets, result.callbacks) == (
        sum(history.bet_id is not None for history in removed),
        len(requests_of(removed)),
    )
    await assert_removed_and_kept(harness.owner, histories.made, before)
    again = await run_retention(database)
    assert (again.bets, again.callbacks, again.is_complete) == (0, 0, True)
    await assert_removed_and_kept(harness.owner, histories.made, before)
    # A bet that stayed open can still be won.
    for history in (history for history in kept if history.path == "open"):
        win = await harness.end("BET_WIN", history.bet_id or "")
        await harness.attempt(win, delivered)
        assert (await harness.bet(history.bet_id or ""))["state"] == "closed"


async def test_a_resolution_of_today_keeps_what_ended_long_ago(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    history = await histories.make("in review", LONG_AGO)
    await harness.person.execute(
        "select predictu_dispatch.resolve_callback($1, $2, 'paid by hand', 'alice@desk')",
        OPERATOR,
        history.requests[-1],
    )
    result = await run_retention(database)
    assert (result.bets, result.callbacks, result.is_complete) == (0, 0, True)
    assert await harness.attempts(history.requests[-1])


async def test_a_month_is_dropped_whole_if_nothing_in_it_is_needed(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    months = [row[0] for row in await harness.owner.fetch(PARTITIONS)]
    old = [month for month in months if month < part_of(CUTOFF)]
    assert len(old) == SPAN_MONTHS - KEEP_MONTHS
    await histories.make("won", LONG_AGO)
    await histories.make("open", LONG_AGO + timedelta(days=40))
    await histories.make("won", LONG_AGO + timedelta(days=40))
    await histories.make("won", RECENTLY)
    needed = part_of(LONG_AGO + timedelta(days=40))
    result = await run_retention(database)
    assert {part.part: part.kept for part in result.parts} == {month: int(month == needed) for month in old}
    assert [row[0] for row in await harness.owner.fetch(PARTITIONS)] == sorted({*months} - {*old} | {needed})
    # The successor is append-only too, also for a session that skips common triggers.
    for role in ("origin", "replica"):
        await harness.owner.execute(f"set session_replication_role = {role}")
        for statement in ("truncate {0}", "delete from {0}", "update {0} set verdict = 'late'"):
            with pytest.raises(asyncpg.PostgresError, match="the audit is append-only"):
                await harness.owner.execute(statement.format(f"predictu_dispatch.attempt_{needed}"))


async def test_the_default_partition_is_replaced_once_all_of_its_rows_are_old(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    """An audit row is in the default partition if no daemon created its month in time."""
    ancient = month_start(SPAN_MONTHS + 3)
    kept = [await histories.make("open", ancient)]
    await histories.make("won", ancient)
    count = "select count(*) from predictu_dispatch.attempt_default"
    assert await harness.owner.fetchval(count) == 3
    before = await read_contents(harness.owner, kept)
    assert (await run_retention(database)).is_complete
    assert await harness.owner.fetchval(count) == 1
    await assert_removed_and_kept(harness.owner, histories.made, before)
    # A younger row keeps all of them there; new rows are still accepted.
    await histories.make("won", ancient)
    lease = await harness.lease(await harness.place("young"), leased_at=month_start(-6))
    await harness.settle(delivered(lease))
    result = await run_retention(database)
    assert "default" not in {part.part for part in result.parts}
    assert await harness.owner.fetchval(count) == 4
    await harness.daemon.execute("select predictu_dispatch.prepare_partitions(4)")


async def test_a_repeated_old_request_is_no_second_debit(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    """One producer replays its past, another uses an old id for something new."""
    won = await histories.make("won", LONG_AGO)
    balance = await histories.make("balance", LONG_AGO)
    adopted = await histories.make("adopted and won", LONG_AGO)
    assert won.bet_id
    assert adopted.bet_id
    placement = placement_params(won.bet_id)
    bets = {bet_id: dict(await harness.bet(bet_id)) for bet_id in (won.bet_id, adopted.bet_id)}
    assert (await run_retention(database)).callbacks == 4
    nothing = await harness.everything()
    assert nothing == []

    async def refused(sqlstate: str, method: str, params: Any, request_id: uuid.UUID | None = None) -> None:
        with pytest.raises(asyncpg.PostgresError) as raised:
            await enqueue(harness.producer, method, params, request_id=request_id)
        assert raised.value.sqlstate == sqlstate, raised.value

    # The same content is accepted and sends nothing.
    win = terminal_params("BET_WIN", bets[won.bet_id])
    for request_id, method, params in (
        (won.requests[0], "BET_MAKE", placement),
        (won.requests[1], "BET_WIN", win),
        (balance.requests[0], "BALANCE", {"player_id": "p1", "currency": "EUR"}),
    ):
        assert await enqueue(harness.producer, method, params, request_id=request_id) == request_id
        outcome = await harness.producer.fetchrow(
            "select * from predictu_dispatch.outcome($1, $2)", OPERATOR, request_id
        )
        assert outcome
        assert (outcome["state"], outcome["effect"]) == ("delivered", "applied")
        # Other content under the same id is refused.
        await refused("PD004", method, params | {"currency": "USD"}, request_id)
        await refused("PD004", "BET_MAKE", placement_params("new"), request_id)
        await refused("PD004", "BALANCE", {"player_id": "p9", "currency": "EUR"}, request_id)
    # The same bet under another id is not placed, paid or adopted again.
    await refused("PD005", "BET_MAKE", placement)
    await refused("PD005", "BET_MAKE", placement, uuid.uuid4())
    await refused("PD005", "BET_WIN", win)
    await refused("PD005", "BET_MAKE", placement_params(adopted.bet_id))
    old_debits = (won.requests[0], bets[adopted.bet_id]["placement_request_id"])
    for bet_id, request_id, sqlstate in (
        (adopted.bet_id, old_debits[1], "PD005"),
        (won.bet_id, uuid.uuid4(), "PD005"),
        ("new", old_debits[0], "PD004"),
        ("new", old_debits[1], "PD004"),
    ):
        with pytest.raises(asyncpg.PostgresError) as raised:
            await harness.producer.execute(ADOPT, OPERATOR, bet_id, request_id)
        assert raised.value.sqlstate == sqlstate
    await refused("PD004", "BET_MAKE", placement_params("new"), old_debits[1])
    await refused("PD004", "BET_MAKE", None, old_debits[1])
    with pytest.raises(asyncpg.PostgresError, match="it was closed when retention removed it") as raised:
        await harness.rollback(won.bet_id)
    assert raised.value.sqlstate == "PD005"
    assert await harness.everything() == nothing


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
@pytest.mark.parametrize("own_id", [True, False])
async def test_a_placement_concurrent_with_the_removal_of_its_bet_is_no_second_one(
    harness: Harness, database: Database, histories: HistoryBuilder, isolation: Any, *, own_id: bool
) -> None:
    """Its snapshot is older than the removal, and it waits for the removed row."""
    won = await histories.make("won", LONG_AGO)
    request_id = won.requests[0] if own_id else uuid.uuid4()
    async with connected(database.retention, 1) as [remover]:
        removing = remover.transaction()
        await removing.start()
        producing = harness.producer.transaction(isolation=isolation)
        await producing.start()
        await harness.producer.execute("select 1")
        await remover.execute("select predictu_dispatch.purge_finished($1, 1000)", KEEP_MONTHS)
        placing = asyncio.create_task(
            enqueue(harness.producer, "BET_MAKE", placement_params(won.bet_id or ""), request_id=request_id)
        )
        await until_blocked(harness.owner, harness.producer)
        await removing.commit()
        if own_id and isolation == "read_committed":
            assert await placing == request_id
        else:
            with pytest.raises(asyncpg.PostgresError) as raised:
                await placing
            assert raised.value.sqlstate == ("PD005" if isolation == "read_committed" else "40001")
        await producing.rollback()
    assert await harness.everything() == []


@pytest.mark.parametrize("isolation", ["read_committed", "repeatable_read", "serializable"])
@pytest.mark.parametrize("is_waiting", [True, False])
async def test_a_removed_debit_is_not_adopted_under_another_bet_id(
    harness: Harness, database: Database, histories: HistoryBuilder, isolation: Any, *, is_waiting: bool
) -> None:
    """Otherwise the bet would be open again and could be won a second time."""
    adopted = await histories.make("adopted and won", LONG_AGO)
    debit = (await harness.bet(adopted.bet_id or ""))["placement_request_id"]
    async with connected(database.retention, 1) as [remover]:
        removing = remover.transaction()
        await removing.start()
        producing = harness.producer.transaction(isolation=isolation)
        await producing.start()
        await harness.producer.execute("select 1")
        await remover.execute(PURGE, KEEP_MONTHS)
        if not is_waiting:
            await removing.commit()
        adopting = asyncio.create_task(harness.producer.execute(ADOPT, OPERATOR, "another-name", debit))
        if is_waiting:
            await until_blocked(harness.owner, harness.producer)
            await removing.commit()
        with pytest.raises(asyncpg.PostgresError) as raised:
            await adopting
        assert raised.value.sqlstate == ("PD004" if isolation == "read_committed" else "40001")
        await producing.rollback()
    assert await harness.everything() == []


async def test_a_new_placement_is_accepted_in_any_isolation_and_leaves_no_tombstone(harness: Harness) -> None:
    isolations: tuple[Any, ...] = ("read_committed", "repeatable_read", "serializable")
    for isolation in isolations:
        async with harness.producer.transaction(isolation=isolation):
            await harness.place(f"b-{isolation}")
            await harness.producer.execute(ADOPT, OPERATOR, f"adopted-{isolation}", uuid.uuid4())
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.bet") == 6
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.bet_tombstone") == 0
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.request_tombstone") == 0


async def test_the_retention_role_removes_old_rows_and_can_do_nothing_else(
    database: Database, histories: HistoryBuilder
) -> None:
    await histories.make("open", RECENTLY)
    young = part_of(RECENTLY)
    async with connected(database.retention, 1) as [connection]:
        for statement, sqlstate in (
            ("delete from predictu_dispatch.attempt_record", "42501"),
            (f"drop table predictu_dispatch.attempt_{young}", "42501"),
            ("delete from predictu_dispatch.callback", "42501"),
            ("select count(*) from predictu_dispatch.callback", "42501"),
            ("select predictu_dispatch.purge_finished(0, 10)", "PD003"),
            ("select predictu_dispatch.purge_finished(null, 10)", "PD003"),
            *(
                (f"select predictu_dispatch.{name}", "PD003")
                for blocks in ("0", "-5", "10001", "null")
                for name in (
                    f"purge_finished(3, {blocks})",
                    f"purge_runs(3, {blocks})",
                    f"purge_audit(3, '{part_of(LONG_AGO)}', {blocks})",
                )
            ),
            (f"select predictu_dispatch.purge_audit({KEEP_MONTHS}, '{young}', 10)", "PD003"),
            (f"select predictu_dispatch.purge_audit({KEEP_MONTHS}, 'default', 10)", "PD003"),
            (f"select predictu_dispatch.purge_audit({KEEP_MONTHS}, null, 10)", "PD003"),
            (f"select predictu_dispatch.purge_audit({KEEP_MONTHS}, 'x; drop table bet', 10)", "PD003"),
            # The parts of a step cannot be called alone.
            (f"select predictu_dispatch.create_kept_partition('{part_of(LONG_AGO)}')", "42501"),
            (f"select predictu_dispatch.swap_audit_partition('{part_of(LONG_AGO)}', false)", "42501"),
            ("update predictu_dispatch.audit_purge_cursor set next_block = null", "42501"),
        ):
            with pytest.raises(asyncpg.PostgresError) as raised:
                await connection.execute(statement)
            assert raised.value.sqlstate == sqlstate, statement
        await connection.execute("set default_transaction_isolation = 'repeatable read'")
        for call in (PURGE, f"select predictu_dispatch.purge_audit($1, '{part_of(LONG_AGO)}', 10)"):
            with pytest.raises(asyncpg.PostgresError, match="the transaction is repeatable read"):
                await connection.execute(call, KEEP_MONTHS)


async def test_even_the_owner_cannot_remove_unfinished_rows_or_tombstones(
    harness: Harness, histories: HistoryBuilder
) -> None:
    for path in ("open", "placing", "closing", "in review"):
        await histories.make(path, LONG_AGO)
    await histories.make("won", LONG_AGO)
    statements = (
        "delete from predictu_dispatch.callback where finished_at is null",
        "delete from predictu_dispatch.callback where review_since is not null",
        "with gone as (delete from predictu_dispatch.callback) delete from predictu_dispatch.bet",
        "delete from predictu_dispatch.bet where state = 'open'",
        "delete from predictu_dispatch.request_tombstone",
        "truncate predictu_dispatch.bet_tombstone",
    )
    for role, statement in itertools.product(("origin", "replica"), statements):
        await harness.owner.execute(f"set session_replication_role = {role}")
        if "tombstone" in statement:
            await harness.owner.execute("select predictu_dispatch.purge_finished($1, 1000)", KEEP_MONTHS)
        with pytest.raises(asyncpg.PostgresError) as raised:
            await harness.owner.execute(statement)
        assert raised.value.sqlstate == "PD900", statement


async def test_a_callback_with_unreadable_params_is_removed_with_the_others(harness: Harness) -> None:
    """Its id stays taken, whatever the content."""
    params = large({"player_id": "p1", "currency": "EUR"})
    unreadable, other = [await enqueue(harness.producer, "BALANCE", params) for _ in range(2)]
    await harness.settle(*map(delivered, await claim(harness.daemon)))
    await lose_chunks(harness.owner, unreadable)
    await harness.owner.execute("alter table predictu_dispatch.callback disable trigger user")
    await harness.owner.execute("update predictu_dispatch.callback set finished_at = $1", LONG_AGO)
    await harness.owner.execute("alter table predictu_dispatch.callback enable trigger user")
    await harness.owner.execute(PURGE, KEEP_MONTHS)
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.callback") == 0
    assert await enqueue(harness.producer, "BALANCE", params, request_id=other) == other
    with pytest.raises(asyncpg.PostgresError, match="is already used by another BALANCE"):
        await enqueue(harness.producer, "BALANCE", params, request_id=unreadable)
