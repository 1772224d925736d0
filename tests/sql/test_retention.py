"""Retention removes all that is old and nothing that is needed, is felt by nobody, and may be killed at any moment."""

import asyncio
import itertools
import json
import random
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from predictu_dispatch.core.database_errors import Refused
from predictu_dispatch.core.retention import RetentionResult
from predictu_dispatch.edge.postgres.retention_store import RetentionStore
from predictu_dispatch.edge.postgres.sql_files import query
from predictu_dispatch.flow import retention as flow
from predictu_dispatch.flow.retention import Retention
from tests.support.command_line import CommandLine, command_line_for
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
    placement_params,
    settle,
    terminal_params,
    until_blocked,
)
from tests.support.histories import (
    KEEP_MONTHS,
    SPAN_MONTHS,
    History,
    HistoryBuilder,
    make_months,
    month_start,
    part_of,
    requests_of,
)
from tests.support.postgres import Database, Server, cloned_database

CUTOFF = month_start(KEEP_MONTHS)
LONG_AGO = month_start(SPAN_MONTHS) + timedelta(days=3)
RECENTLY = CUTOFF + timedelta(days=1)
AUDIT = "select a::text from predictu_dispatch.attempt a where request_id = any($1::uuid[]) order by 1"
PARTITIONS = (
    "select substring(inhrelid::regclass::text from 'attempt_(.*)') from pg_inherits"
    " where inhparent = 'predictu_dispatch.attempt'::regclass order by 1"
)
LEFTOVERS = (
    "select relname from pg_class where relnamespace = 'predictu_dispatch'::regnamespace and relkind = 'r'"
    " and (relname ~ '^(kept|retired)_' or (relname ~ '^attempt_' and not relispartition))"
)
ADOPT = "select predictu_dispatch.adopt_bet($1, $2, 'p1', 'EUR', 500, $3)"
REMOVE = "select predictu_dispatch.purge_finished($1, 1000)"
LATE = (
    "insert into predictu_dispatch.attempt"
    " select (jsonb_populate_record(a, jsonb_build_object('report_id', gen_random_uuid(), 'verdict', 'late'))).*"
    "   from predictu_dispatch.attempt a where request_id = $1"
)


async def at_once(_: float) -> None:
    """Retention's pauses, without the time they take."""
    await asyncio.sleep(0)


def retention_over(connection: Connection, *, blocks: int = 1, keep_months: int = KEEP_MONTHS) -> Retention:
    return Retention(RetentionStore(connection, keep_months=keep_months, blocks=blocks), sleep=at_once)


async def retained(database: Database, *, blocks: int = 1) -> RetentionResult:
    """One whole run with the rights of its role."""
    async with connected(database.retention, 1) as [connection]:
        return await retention_over(connection, blocks=blocks).run()


async def step(connection: Connection, part: str, blocks: int = 1000) -> asyncpg.Record:
    """The next step of the part's end."""
    [row] = await connection.fetch(query("purge_audit"), KEEP_MONTHS, part, blocks)
    return row


@dataclass(frozen=True, slots=True, kw_only=True)
class Books:
    """What the database holds of some histories."""

    bets: set[str]
    requests: set[uuid.UUID]
    audit: list[str]
    audit_of_others: int


async def books(owner: Connection, kept: list[History]) -> Books:
    requests = list(requests_of(kept))
    return Books(
        bets={row[0] for row in await owner.fetch("select bet_id from predictu_dispatch.bet")},
        requests={row[0] for row in await owner.fetch("select request_id from predictu_dispatch.callback")},
        audit=[row[0] for row in await owner.fetch(AUDIT, requests)],
        audit_of_others=await owner.fetchval(
            "select count(*) from predictu_dispatch.attempt where request_id <> all($1) and started_at < $2",
            *(requests, CUTOFF),
        ),
    )


def split(histories: list[History]) -> tuple[list[History], list[History]]:
    """What has to stay, and what has to go."""
    return [history for history in histories if not history.is_removed(CUTOFF)], [
        history for history in histories if history.is_removed(CUTOFF)
    ]


async def assert_removed_and_kept(owner: Connection, histories: list[History], before: Books) -> None:
    kept, removed = split(histories)
    after = await books(owner, kept)
    assert after.bets == {history.bet_id for history in kept if history.bet_id}
    assert after.requests == requests_of(kept)
    assert after.audit == before.audit, "a kept callback has every row of its audit, byte by byte"
    assert after.audit_of_others == 0
    known = await owner.fetch("select request_id from predictu_dispatch.request_tombstone where state is not null")
    assert {row[0] for row in known} == requests_of(history for history in removed if history.path != "ping")
    names = {row[0] for row in await owner.fetch("select bet_id from predictu_dispatch.bet_tombstone")}
    assert names == {history.bet_id for history in removed if history.bet_id}
    assert await owner.fetch(LEFTOVERS) == []


@pytest.fixture
async def histories(harness: Harness) -> HistoryBuilder:
    await make_months(harness.owner)
    return HistoryBuilder(harness)


@pytest.mark.parametrize("seed", range(6))
async def test_of_any_history_exactly_what_is_old_and_over_goes(
    harness: Harness, database: Database, histories: HistoryBuilder, seed: int
) -> None:
    await histories.draw(random.Random(seed), 45)
    kept, removed = split(histories.made)
    assert kept
    assert removed
    before = await books(harness.owner, kept)
    removal = await retained(database)
    assert removal.is_complete, removal
    assert (removal.bets, removal.callbacks) == (
        sum(history.bet_id is not None for history in removed),
        len(requests_of(removed)),
    )
    await assert_removed_and_kept(harness.owner, histories.made, before)
    again = await retained(database)
    assert (again.bets, again.callbacks, again.is_complete) == (0, 0, True)
    await assert_removed_and_kept(harness.owner, histories.made, before)
    # What was kept goes on to live: a bet that was open all the while is won now.
    for history in (history for history in kept if history.path == "open"):
        win = await harness.end("BET_WIN", history.bet_id or "")
        await harness.attempt(win, delivered)
        assert (await harness.bet(history.bet_id or ""))["state"] == "closed"


@pytest.mark.parametrize("path", ["open", "placing", "waiting", "closing", "in review", "stake missing"])
async def test_what_is_not_over_keeps_everything_however_old(
    harness: Harness, database: Database, histories: HistoryBuilder, path: str
) -> None:
    history = await histories.make(path, LONG_AGO)
    await histories.make("won", LONG_AGO)
    before = await books(harness.owner, [history])
    assert len(before.audit) > 0
    assert (await retained(database)).is_complete
    await assert_removed_and_kept(harness.owner, histories.made, before)


@pytest.mark.parametrize("path", ["won", "rolled back", "adopted and won", "resolved"])
async def test_a_bet_stays_whole_until_its_last_event_is_old(
    harness: Harness, database: Database, histories: HistoryBuilder, path: str
) -> None:
    history = await histories.make(path, LONG_AGO, RECENTLY) if path != "adopted and won" else None
    history = history or await histories.make(path, RECENTLY)
    before = await books(harness.owner, [history])
    removal = await retained(database)
    assert (removal.bets, removal.callbacks) == (0, 0)
    await assert_removed_and_kept(harness.owner, histories.made, before)


async def test_a_resolution_of_today_keeps_what_ended_long_ago(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    history = await histories.make("in review", LONG_AGO)
    await harness.daemon.execute(
        "select predictu_dispatch.resolve_callback($1, $2, 'paid by hand', 'alice@desk')",
        OPERATOR,
        history.requests[-1],
    )
    removal = await retained(database)
    assert (removal.bets, removal.callbacks, removal.is_complete) == (0, 0, True)
    assert await harness.attempts(history.requests[-1])


async def test_months_go_as_a_whole_where_nothing_in_them_is_needed(
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
    removal = await retained(database)
    assert {part.part: part.kept for part in removal.parts} == {month: int(month == needed) for month in old}
    assert [row[0] for row in await harness.owner.fetch(PARTITIONS)] == sorted({*months} - {*old} | {needed})
    # The successor is as closed to everybody as what it replaced, also to a session that skips
    # common triggers.
    for role in ("origin", "replica"):
        await harness.owner.execute(f"set session_replication_role = {role}")
        for statement in ("truncate {0}", "delete from {0}", "update {0} set verdict = 'late'"):
            with pytest.raises(asyncpg.PostgresError, match="the audit is append-only"):
                await harness.owner.execute(statement.format(f"predictu_dispatch.attempt_{needed}"))


async def test_what_no_month_took_goes_once_all_of_it_is_old(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    """An audit row lands in the default partition where no daemon made its month in time."""
    ancient = month_start(SPAN_MONTHS + 3)
    kept = [await histories.make("open", ancient)]
    await histories.make("won", ancient)
    count = "select count(*) from predictu_dispatch.attempt_default"
    assert await harness.owner.fetchval(count) == 3
    before = await books(harness.owner, kept)
    assert (await retained(database)).is_complete
    assert await harness.owner.fetchval(count) == 1
    await assert_removed_and_kept(harness.owner, histories.made, before)
    # A younger row beside them keeps all of it where it is, and what comes in goes on to find its
    # place.
    await histories.make("won", ancient)
    lease = await harness.lease(await harness.place("young"))
    await harness.settle(delivered(lease, started_at=month_start(-6)))
    removal = await retained(database)
    assert "default" not in {part.part for part in removal.parts}
    assert await harness.owner.fetchval(count) == 4
    await harness.daemon.execute("select predictu_dispatch.prepare_partitions(4)")


async def test_an_old_request_said_again_is_no_second_debit(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    """A producer that replays its own past, and one that takes an old name for something new."""
    won = await histories.make("won", LONG_AGO)
    balance = await histories.make("balance", LONG_AGO)
    adopted = await histories.make("adopted and won", LONG_AGO)
    assert won.bet_id
    assert adopted.bet_id
    placement = placement_params(won.bet_id)
    bets = {bet_id: dict(await harness.bet(bet_id)) for bet_id in (won.bet_id, adopted.bet_id)}
    assert (await retained(database)).callbacks == 4
    nothing = await harness.everything()
    assert nothing == []

    async def refused(sqlstate: str, method: str, params: Any, request_id: uuid.UUID | None = None) -> None:
        with pytest.raises(asyncpg.PostgresError) as raised:
            await enqueue(harness.producer, method, params, request_id=request_id)
        assert raised.value.sqlstate == sqlstate, raised.value

    # The same again: quietly taken for what it is.
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
        # The same id for something else.
        await refused("PD004", method, params | {"currency": "USD"}, request_id)
        await refused("PD004", "BET_MAKE", placement_params("new"), request_id)
        await refused("PD004", "BALANCE", {"player_id": "p9", "currency": "EUR"}, request_id)
    # The same bet under another id: nothing of it starts anew, is paid again, or is adopted.
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
async def test_a_placement_that_meets_the_removal_of_its_bet_is_no_second_one(
    harness: Harness, database: Database, histories: HistoryBuilder, isolation: Any, *, own_id: bool
) -> None:
    """Its snapshot is older than the removal, and it is waiting for the very row when that is committed."""
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
async def test_a_removed_debit_is_not_adopted_under_another_name(
    harness: Harness, database: Database, histories: HistoryBuilder, isolation: Any, *, is_waiting: bool
) -> None:
    """Its snapshot is older than the removal.

    Else the bet would be open again, and won a second time.
    """
    adopted = await histories.make("adopted and won", LONG_AGO)
    debit = (await harness.bet(adopted.bet_id or ""))["placement_request_id"]
    async with connected(database.retention, 1) as [remover]:
        removing = remover.transaction()
        await removing.start()
        producing = harness.producer.transaction(isolation=isolation)
        await producing.start()
        await harness.producer.execute("select 1")
        await remover.execute(REMOVE, KEEP_MONTHS)
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


async def test_a_new_placement_is_none_of_its_business_in_any_isolation(harness: Harness) -> None:
    isolations: tuple[Any, ...] = ("read_committed", "repeatable_read", "serializable")
    for isolation in isolations:
        async with harness.producer.transaction(isolation=isolation):
            await harness.place(f"b-{isolation}")
            await harness.producer.execute(ADOPT, OPERATOR, f"adopted-{isolation}", uuid.uuid4())
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.bet") == 6
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.bet_tombstone") == 0
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.request_tombstone") == 0


async def test_bets_that_somebody_holds_are_passed_by_and_go_the_next_time(
    database: Database, histories: HistoryBuilder
) -> None:
    held = await histories.make("won", LONG_AGO)
    await histories.make("won", LONG_AGO)
    async with connected(database.owner, 1) as [person]:
        async with person.transaction():
            await person.execute("select from predictu_dispatch.bet where bet_id = $1 for update", held.bet_id)
            removal = await retained(database)
            assert (removal.bets, removal.locked, removal.is_complete) == (1, 1, False)
        removal = await retained(database)
    assert (removal.bets, removal.locked, removal.is_complete) == (1, 0, True)


@pytest.mark.parametrize("path", ["won", "balance"])
async def test_a_producer_that_says_an_old_request_again_holds_up_that_one_alone(
    harness: Harness, database: Database, histories: HistoryBuilder, path: str
) -> None:
    """Its transaction stays open; it has the callback, and not the bet."""
    held = await histories.make(path, LONG_AGO)
    await histories.make("won", LONG_AGO)
    said = await harness.callback(held.requests[0])
    async with harness.producer.transaction():
        await enqueue(harness.producer, said["method"], said["params"], request_id=held.requests[0])
        removal = await retained(database, blocks=100)
        assert (removal.bets, removal.callbacks, removal.locked, removal.is_complete) == (1, 2, 1, False)
        assert all(part.is_done for part in removal.parts)
        for request_id in held.requests:
            assert await harness.attempts(request_id) == [(1, "delivered")]
    removal = await retained(database)
    assert (removal.callbacks, removal.locked, removal.is_complete) == (len(held.requests), 0, True)


@pytest.mark.parametrize("method", ["BALANCE", "BET_WIN"])
async def test_an_id_that_stands_for_two_things_stops_nothing(
    harness: Harness, database: Database, method: str
) -> None:
    """An adoption and a callback crossed, uncommitted both: the operator's debit has the id of a callback of ours."""
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
        removal = await retained(database)
        assert removal.is_complete
        gone.append((removal.bets, removal.callbacks))
    assert gone == ([(1, 1), (0, 1)] if method == "BALANCE" else [(1, 1), (1, 2)])


class KilledError(Exception):
    pass


class Mortal:
    """A connection that dies with the statement after its n-th."""

    def __init__(self, connection: Connection, statements: int) -> None:
        self._connection = connection
        self.left = statements

    async def fetch(self, *arguments: Any) -> list[asyncpg.Record]:
        if self.left == 0:
            raise KilledError
        self.left -= 1
        return await self._connection.fetch(*arguments)

    async def fetchrow(self, *arguments: Any) -> asyncpg.Record | None:
        [row] = await self.fetch(*arguments)
        return row


async def test_killed_after_any_step_nothing_is_lost_and_the_next_run_finishes(postgres: Server, template: str) -> None:
    """Every step is a transaction, so to be killed means to be killed between two."""
    async with cloned_database(postgres, template) as world:
        async with open_harness(world) as harness:
            await make_months(harness.owner)
            histories = HistoryBuilder(harness)
            for path in ("won", "open", "in review", "balance", "rolled back"):
                await histories.make(path, LONG_AGO)
            await histories.make("won", LONG_AGO, RECENTLY)
            await histories.make("open", month_start(SPAN_MONTHS + 3))
            kept, _ = split(histories.made)
            before = await books(harness.owner, kept)
        steps, is_through = 0, False
        while not is_through:
            async with cloned_database(postgres, world.name) as database, connected(database.owner, 1) as [owner]:
                async with connected(database.retention, 1) as [connection]:
                    mortal: Any = Mortal(connection, steps)
                    try:
                        await retention_over(mortal, blocks=100).run()
                        is_through = True
                    except KilledError:
                        pass
                now = await books(owner, kept)
                assert requests_of(kept) <= now.requests
                assert now.audit == before.audit, f"killed after {steps} statements"
                removal = await retained(database, blocks=100)
                assert removal.is_complete
                await assert_removed_and_kept(owner, histories.made, before)
            steps += 1
    assert steps > 20, "every part of it was killed once"


async def test_what_comes_in_between_copying_and_replacing_is_not_lost(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    """A daemon that stood still for a month reports late, at the worst moment.

    Its bet is still open.
    """
    history = await histories.make("open", LONG_AGO)
    await histories.make("won", LONG_AGO)
    part = part_of(LONG_AGO)
    async with connected(database.retention, 1) as [connection]:
        await connection.execute(REMOVE, KEEP_MONTHS)
        await step(connection, part)
        await harness.owner.execute(LATE, history.requests[0])
        await step(connection, part)
        count = f"select count(*) from predictu_dispatch.retired_{part}"  # noqa: S608 - a month
        assert await harness.owner.fetchval(count) == 4
    assert (await retained(database)).is_complete
    assert await harness.attempts(history.requests[0]) == [(1, "delivered"), (1, "late")]
    assert await harness.owner.fetch(LEFTOVERS) == []


async def test_what_a_run_has_seen_that_was_killed_long_ago_is_not_built_upon(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    """What came in since would be missing until the month was gone through again."""
    history = await histories.make("open", LONG_AGO)
    await histories.make("won", LONG_AGO)
    part = part_of(LONG_AGO)
    async with connected(database.retention, 1) as [connection]:
        await connection.execute(REMOVE, KEEP_MONTHS)
        assert (await step(connection, part))["needed"] == 1
        await harness.owner.execute(LATE, history.requests[0])
        await harness.owner.execute(
            "update predictu_dispatch.audit_purge_cursor set moved_at = moved_at - interval '2 hours'"
        )
        assert (await step(connection, part))["needed"] == 2
        await step(connection, part)
        assert await harness.attempts(history.requests[0]) == [(1, "delivered"), (1, "late")]
    assert (await retained(database)).is_complete
    assert await harness.attempts(history.requests[0]) == [(1, "delivered"), (1, "late")]


async def test_what_was_seen_of_one_table_is_not_believed_of_another_of_its_name(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    """A person put another table in place of what was replaced, as after a restore."""
    history = await histories.make("open", LONG_AGO)
    await histories.make("won", LONG_AGO)
    part = part_of(LONG_AGO)
    retired = f"predictu_dispatch.retired_{part}"
    async with connected(database.retention, 1) as [connection]:
        await connection.execute(REMOVE, KEEP_MONTHS)
        for _ in range(3):
            assert not (await step(connection, part))["is_done"]
        await harness.owner.execute(f"alter table {retired} rename to seen")
        await harness.owner.execute(f"create table {retired} (like predictu_dispatch.attempt)")
        late = LATE.replace("insert into predictu_dispatch.attempt", f"insert into {retired}")
        await harness.owner.execute(late, history.requests[0])
        assert not (await step(connection, part))["is_done"]
        assert (await step(connection, part))["is_done"]
    assert await harness.attempts(history.requests[0]) == [(1, "delivered"), (1, "late")]


async def test_the_row_that_decided_stays_where_its_report_was_said_again_meanwhile(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    """The report came in between copying and replacing, and once more when its row stood in the old month only."""
    await histories.make("open", LONG_AGO)
    await histories.make("won", LONG_AGO)
    lease = await harness.lease(await harness.place("slow"))
    said = delivered(lease, started_at=LONG_AGO, finished_at=LONG_AGO)
    part = part_of(LONG_AGO)
    async with connected(database.retention, 1) as [connection]:
        await connection.execute(REMOVE, KEEP_MONTHS)
        await step(connection, part)
        assert [change["cause"] for change in await harness.settle(said)] == ["settled"]
        await step(connection, part)
        assert [change["cause"] for change in await harness.settle(said)] == ["late"]
    assert (await retained(database)).is_complete
    assert await harness.attempts(lease["request_id"]) == [(1, "delivered"), (1, "late")]


async def test_a_month_is_attached_without_being_read(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    """All who settle wait for that moment, so it must not grow with what is kept."""
    await histories.make("open", LONG_AGO)
    await histories.make("won", LONG_AGO)
    part = part_of(LONG_AGO)
    said: list[str] = []
    async with connected(database.retention, 1) as [connection]:
        await connection.execute(REMOVE, KEEP_MONTHS)
        await step(connection, part)
        connection.add_log_listener(lambda _, message: said.append(str(message.message)))
        await connection.execute("set client_min_messages = debug1")
        await step(connection, part)
    assert any(f'"attempt_{part}" is implied by existing constraints' in line for line in said), said
    assert await harness.owner.fetchval("select count(*) from pg_constraint where conname = 'kept_month'") == 0


class Disturbed:
    """A connection beside which something happens, right before a statement of the test's choosing."""

    def __init__(self, connection: Connection, before: Callable[..., Awaitable[None]]) -> None:
        self._connection = connection
        self._before = before

    async def fetch(self, *arguments: Any) -> list[asyncpg.Record]:
        await self._before(*arguments)
        return await self._connection.fetch(*arguments)

    async def fetchrow(self, *arguments: Any) -> asyncpg.Record | None:
        [row] = await self.fetch(*arguments)
        return row


async def test_a_young_row_that_comes_in_meanwhile_keeps_the_default_partition(
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
                lease = await harness.lease(await harness.place("young"))
                await harness.settle(delivered(lease, started_at=month_start(-6)))

    async with connected(database.retention, 1) as [connection]:
        disturbed: Any = Disturbed(connection, before)
        removal = await retention_over(disturbed, blocks=100).run()
    undone = [(part.part, part.why_not) for part in removal.parts if not part.is_done]
    assert undone == [("default", "bad params for retention: part 'default' is not old")]
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.attempt_default") == 4


async def hot_path(database: Database, stop: asyncio.Event, *, bets: list[int], lock_timeout: str) -> None:
    """Bets are placed, won and settled one after another.

    Whoever waits for a lock longer than this raises.
    """
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


async def test_bets_flow_on_while_retention_runs(
    harness: Harness, database: Database, histories: HistoryBuilder
) -> None:
    """No statement of the hot path waits for a lock as long as a tenth of a second, although the audit is rebuilt."""
    await histories.draw(random.Random(7), 60)
    kept, _ = split(histories.made)
    before = await books(harness.owner, kept)
    stop = asyncio.Event()
    bets: list[list[int]] = [[], []]
    async with asyncio.TaskGroup() as tasks:
        for lane in bets:
            tasks.create_task(hot_path(database, stop, bets=lane, lock_timeout="100ms"))
        await until("bets flow", lambda: all(bets))
        removal = await retained(database)
        far = [len(lane) + 3 for lane in bets]
        await until("they still do", lambda: all(len(lane) > most for lane, most in zip(bets, far, strict=True)))
        stop.set()
    assert removal.is_complete, removal
    assert [row[0] for row in await harness.owner.fetch(AUDIT, list(requests_of(kept)))] == before.audit


async def test_who_reads_the_audit_for_hours_keeps_its_months_but_stops_nobody(
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
            removal = await retained(database)
            await until("bets flow", lambda: bool(bets))
            stop.set()
        assert removal.bets == 1
        assert not removal.is_complete
        assert all("lock timeout" in part.why_not for part in removal.parts if not part.is_done)
    assert (await retained(database)).is_complete
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.bet_tombstone") == 1
    assert await harness.owner.fetch(LEFTOVERS) == []


async def test_two_retentions_at_once_do_not_meet(database: Database, histories: HistoryBuilder) -> None:
    await histories.make("won", LONG_AGO)
    async with connected(database.retention, 2) as [one, other]:
        async with one.transaction():
            await one.execute("select predictu_dispatch.purge_finished($1, 10)", KEEP_MONTHS)
            with pytest.raises(Refused) as raised:
                await retention_over(other).run()
            assert raised.value.sqlstate == "PD006"
        assert (await retention_over(other).run()).is_complete


@pytest.mark.parametrize("seed", range(3))
async def test_two_that_take_turns_do_the_same_work_together(
    harness: Harness, database: Database, histories: HistoryBuilder, seed: int
) -> None:
    """Each transaction runs alone, in any order of parts: no needed row is ever out of sight."""
    rng = random.Random(seed)
    await histories.draw(rng, 45)
    kept, _ = split(histories.made)
    before = await books(harness.owner, kept)
    done = 0
    async with connected(database.retention, 2) as both:
        await both[0].execute(REMOVE, KEEP_MONTHS)
        for _ in range(120):
            one = rng.choice(both)
            old = await one.fetch(query("expired_audit"), KEEP_MONTHS)
            done += (await step(one, rng.choice(old)["part"], rng.choice((1, 3, 1000))))["is_done"] if old else 0
            assert (await books(harness.owner, kept)).audit == before.audit
    assert done > 5
    assert (await retained(database)).is_complete
    await assert_removed_and_kept(harness.owner, histories.made, before)


async def test_its_role_removes_what_is_old_and_can_do_nothing_else(
    database: Database, histories: HistoryBuilder
) -> None:
    await histories.make("open", RECENTLY)
    young = part_of(RECENTLY)
    async with connected(database.retention, 1) as [connection]:
        for statement, sqlstate in (
            ("delete from predictu_dispatch.attempt", "42501"),
            (f"drop table predictu_dispatch.attempt_{young}", "42501"),
            ("delete from predictu_dispatch.callback", "42501"),
            ("select count(*) from predictu_dispatch.callback", "42501"),
            ("select predictu_dispatch.purge_finished(0, 10)", "PD003"),
            ("select predictu_dispatch.purge_finished(null, 10)", "PD003"),
            *(
                (f"select predictu_dispatch.{name}", "PD003")
                for blocks in ("0", "-5", "10001", "null")
                for name in (f"purge_finished(3, {blocks})", f"purge_audit(3, '{part_of(LONG_AGO)}', {blocks})")
            ),
            (f"select predictu_dispatch.purge_audit({KEEP_MONTHS}, '{young}', 10)", "PD003"),
            (f"select predictu_dispatch.purge_audit({KEEP_MONTHS}, 'default', 10)", "PD003"),
            (f"select predictu_dispatch.purge_audit({KEEP_MONTHS}, null, 10)", "PD003"),
            (f"select predictu_dispatch.purge_audit({KEEP_MONTHS}, 'x; drop table bet', 10)", "PD003"),
            # What makes a step of it is not for anybody to call alone.
            (f"select predictu_dispatch.create_kept_partition('{part_of(LONG_AGO)}')", "42501"),
            (f"select predictu_dispatch.swap_audit_partition('{part_of(LONG_AGO)}', false)", "42501"),
            ("update predictu_dispatch.audit_purge_cursor set next_block = null", "42501"),
        ):
            with pytest.raises(asyncpg.PostgresError) as raised:
                await connection.execute(statement)
            assert raised.value.sqlstate == sqlstate, statement
        await connection.execute("set default_transaction_isolation = 'repeatable read'")
        for call in (REMOVE, f"select predictu_dispatch.purge_audit($1, '{part_of(LONG_AGO)}', 10)"):
            with pytest.raises(asyncpg.PostgresError, match="the transaction is repeatable read"):
                await connection.execute(call, KEEP_MONTHS)


async def test_even_the_owner_removes_nothing_that_is_not_over(harness: Harness, histories: HistoryBuilder) -> None:
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


@pytest.fixture
def desk(tmp_path: Path, database: Database) -> CommandLine:
    """Where the timer runs the command, with the rights of its role."""
    return command_line_for(tmp_path, database.retention)


async def test_the_command_says_what_is_old_and_then_what_it_removed(
    harness: Harness, database: Database, histories: HistoryBuilder, desk: CommandLine, tmp_path: Path
) -> None:
    (tmp_path / "support").mkdir()
    with desk.config.open("a", encoding="utf-8") as file:
        file.write(f"[daemon]\naudit_retention_months = {KEEP_MONTHS}\n")
    await histories.make("won", LONG_AGO)
    await histories.make("open", LONG_AGO)
    everything = await harness.everything()
    code, said, _ = await desk.run("retain", "--dry-run")
    assert code == 0
    assert f"Old is what ended before {CUTOFF:%Y-%m-%d}T00:00:00" in said
    assert f"Old audit: {part_of(LONG_AGO)}" in said
    assert said.endswith("Nothing was removed.\n")
    assert await harness.everything() == everything
    code, said, _ = await desk.run("retain")
    assert code == 0
    assert "Removed bets: 1, callbacks: 2" in said
    assert f"Audit {part_of(LONG_AGO)}: 1 rows kept, because their callbacks are kept" in said
    [won] = [history for history in histories.made if history.path == "won"]
    support = command_line_for(tmp_path / "support", database.support)
    for verb in ("show", "why", "retry"):
        code, _, said = await support.run(verb, str(won.requests[1]))
        assert code == 1
        removed = f"BET_WIN {won.requests[1]} of operator {OPERATOR} ended delivered; retention removed it"
        assert said.startswith(removed), verb
    code, _, said = await support.run("show", "--bet", OPERATOR, won.bet_id or "")
    assert code == 1
    assert said.startswith(f"bet {won.bet_id} of operator {OPERATOR} ended closed; retention removed it at 2")
    code, said, _ = await desk.run("retain", "--json")
    told = json.loads(said)
    assert (code, told["is_complete"], told["bets"], told["callbacks"]) == (0, True, 0, 0)


async def test_the_command_fails_in_words(
    harness: Harness, histories: HistoryBuilder, desk: CommandLine, database: Database, tmp_path: Path
) -> None:
    months = f"[daemon]\naudit_retention_months = {KEEP_MONTHS}\n"
    text = desk.config.read_text(encoding="utf-8")
    desk.config.write_text(text + months, encoding="utf-8")
    held = await histories.make("won", LONG_AGO)
    async with harness.owner.transaction():
        await harness.owner.execute("select from predictu_dispatch.bet where bet_id = $1 for update", held.bet_id)
        code, said, _ = await desk.run("retain")
    assert code == 1
    assert "Locked by other transactions: 1 bets and callbacks; the next run removes them." in said
    async with connected(database.retention, 1) as [other], other.transaction():
        await other.execute("select predictu_dispatch.purge_finished($1, 1)", KEEP_MONTHS)
        code, _, said = await desk.run("retain")
    assert code == 1
    assert "another retention run is active" in said
    # The daemon's own login may not.
    (tmp_path / "daemons").mkdir()
    code, _, said = await command_line_for(tmp_path / "daemons", database.dispatcher).run("retain")
    assert code == 1
    assert "see sql/README.md for the roles" in said
    desk.config.write_text(text + "[daemon]\naudit_retention_months = 0\n", encoding="utf-8")
    code, said, _ = await desk.run("retain")
    assert (code, said) == (0, "everything is kept: [daemon] audit_retention_months is 0\n")


async def test_a_lock_that_cannot_be_had_is_no_absent_database(
    harness: Harness, histories: HistoryBuilder, desk: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flow, "_LOCK_TRIALS", 2)
    with desk.config.open("a", encoding="utf-8") as file:
        file.write(f"[daemon]\naudit_retention_months = {KEEP_MONTHS}\n")
    await histories.make("won", LONG_AGO)
    async with harness.owner.transaction():
        await harness.owner.execute("lock table predictu_dispatch.request_tombstone in access exclusive mode")
        code, said, _ = await desk.run("retain")
    assert code == 1
    assert "The search stopped early, the next run continues it: canceling statement due to" in said
    assert f"Audit {part_of(LONG_AGO)}: 2 rows kept, because their callbacks are kept" in said
    name = await harness.owner.fetchval("select current_database()")
    await harness.owner.execute(f"alter database {name} set lock_timeout = '50ms'")
    async with harness.owner.transaction():
        await harness.owner.execute("lock table predictu_dispatch.purge_cursor in access exclusive mode")
        code, _, said = await desk.run("retain")
    assert code == 1
    assert said.startswith("canceling statement due to lock timeout: another transaction has locked a table;")
    code, said, _ = await desk.run("retain")
    assert (code, "Removed bets: 1, callbacks: 2" in said) == (0, True)
