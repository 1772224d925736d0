"""Every row of the audit is in its operator's log, once, whatever happens meanwhile."""

import asyncio
import random

import asyncpg
import pytest

from predictu_dispatch.core.merkle import checkpoint
from predictu_dispatch.core.merkle.note import VerifierKey
from predictu_dispatch.core.sealing import LogDamagedError
from predictu_dispatch.flow import sealer as sealer_module
from tests.support.audit_rows import know
from tests.support.harness import OPERATOR, Harness, connected, delivered
from tests.support.postgres import Database
from tests.support.sealing import (
    ORIGIN,
    SEED,
    TestSealer,
    check_logs,
    insert_attempts,
    insert_others,
    open_sealer,
    terminate_sealers,
)


async def test_every_row_is_sealed_once(harness: Harness, database: Database) -> None:
    async with open_sealer(database.dispatcher) as sealer:
        await sealer.seal_all()
        assert await check_logs(harness.owner) == {OPERATOR: 1, "op_off": 1}
        for count in (1, 254, 1, 300, 700):
            await insert_attempts(harness.owner, count)
            await insert_attempts(harness.owner, 3, "op_off")
            await insert_others(harness.owner)
            await sealer.seal_all()
            await sealer.seal_all()
        assert await check_logs(harness.owner) == {OPERATOR: 1257 + 5 * 3, "op_off": 16}
        notes = [stored.checkpoint for stored in sealer.observer.stored]
        key = VerifierKey.of_seed(f"{ORIGIN}/{OPERATOR}", SEED)
        opened = [checkpoint.open_checkpoint(note, [key]).checkpoint for note in notes if f"/{OPERATOR}\n" in note]
        assert [one.origin for one in opened] == [f"{ORIGIN}/{OPERATOR}"]


async def test_a_transaction_that_commits_late_is_sealed_and_delays_no_other(
    harness: Harness, database: Database
) -> None:
    async with connected(database.owner, 2) as [late, producer], open_sealer(database.dispatcher) as sealer:
        await sealer.seal_all()
        transaction, savepoint = late.transaction(), late.transaction()
        await transaction.start()
        await insert_attempts(late, 2)
        await savepoint.start()
        await insert_attempts(late, 2)
        await savepoint.rollback()
        await insert_attempts(late, 1)
        # A producer's transaction that has written and stays open.
        await producer.execute("begin; create temporary table t (n integer); insert into t values (1)")
        for _ in range(12):
            await insert_attempts(harness.owner, 1000)
        await sealer.seal_all()
        assert await check_logs(harness.owner) == {OPERATOR: 12_001, "op_off": 1}
        await transaction.commit()
        await insert_attempts(harness.owner, 1)
        await sealer.seal_all()
        assert await check_logs(harness.owner) == {OPERATOR: 12_005, "op_off": 1}


@pytest.mark.parametrize("seed", range(6))
async def test_any_order_of_transactions_and_turns_seals_each_row_once(
    harness: Harness, database: Database, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Also if a turn ends within a transaction that committed late, or between two that have."""
    chance = random.Random(seed)
    async with connected(database.owner, 5) as writers, open_sealer(database.dispatcher) as sealer:
        await sealer.seal_all()
        for _ in range(150):
            writer = chance.choice(writers)
            match chance.randrange(8):
                case 0 | 1 | 2 if not writer.is_in_transaction():
                    await writer.execute("begin")
                case 0 | 1:
                    await writer.execute("commit")
                case 2:
                    await writer.execute(chance.choice(["rollback", "savepoint s", "commit"]))
                case 3 | 4 | 5:
                    await insert_attempts(
                        writer, chance.choice([1, 1, 2, 5]), chance.choice([OPERATOR, "op_off", "op_new"])
                    )
                case _:
                    monkeypatch.setattr(sealer_module, "_ROWS_MAX", chance.choice([1, 2, 5, 10_000]))
                    monkeypatch.setattr(sealer_module, "_SPAN", chance.choice([1, 2, 7, 50_000]))
                    await sealer.turn()
        for writer in writers:
            if writer.is_in_transaction():
                await writer.execute(chance.choice(["commit", "rollback"]))
        await sealer.seal_all()
        await sealer.seal_all()
        await check_logs(harness.owner)


@pytest.mark.parametrize(
    "table", ["attempt_record", "audit_position", "audit_tile", "audit_head", "audit_checkpoint", "audit_log"]
)
async def test_a_sealer_killed_at_any_statement_costs_nothing(harness: Harness, database: Database, table: str) -> None:
    """The table that it needs next is locked, so that it is killed right there."""
    async with connected(database.owner, 1) as [locker], open_sealer(database.dispatcher) as sealer:
        await sealer.seal_all()
        sizes = await check_logs(harness.owner)
        for number in range(3):
            await insert_attempts(harness.owner, 300 + number)
            transaction = locker.transaction()
            await transaction.start()
            await locker.execute(f"lock table predictu_dispatch.{table} in access exclusive mode")
            turn = asyncio.create_task(sealer.turn())
            while not await terminate_sealers(harness.owner, waiting=True):
                assert not turn.done()
            with pytest.raises(Exception, match=r"terminat|closed|connection"):
                await turn
            await transaction.rollback()
            heads = await harness.owner.fetch("select operator_id, size from predictu_dispatch.audit_head")
            assert {head["operator_id"]: head["size"] for head in heads} == sizes
            await sealer.seal_all()
            sizes = await check_logs(harness.owner)
            assert sizes[OPERATOR] == 1 + sum(300 + n for n in range(number + 1))


async def test_two_sealers_write_one_history(harness: Harness, database: Database) -> None:
    """At once, while rows are written and their sessions are terminated."""
    async with (
        connected(database.owner, 2) as writers,
        open_sealer(database.dispatcher) as one,
        open_sealer(database.dispatcher) as other,
    ):
        await one.seal_all()
        stop = asyncio.Event()
        lost = 0

        async def seal(sealer: TestSealer) -> None:
            nonlocal lost
            while not stop.is_set():
                try:
                    lost += await sealer.turn() is None
                except Exception:  # noqa: BLE001 - its session was terminated
                    await asyncio.sleep(0)

        async with asyncio.TaskGroup() as tasks:
            for sealer in (one, other, one, other):
                tasks.create_task(seal(sealer))
            for number in range(60):
                await insert_attempts(writers[number % 2], number * 7 % 120 + 1)
                if number % 3 == 0:
                    await terminate_sealers(harness.owner)
                await asyncio.sleep(random.uniform(0, 0.05))
            stop.set()
        await one.seal_all()
        await check_logs(harness.owner)
        assert lost > 0


async def test_one_checkpoint_is_stored_for_each_minute_and_the_last_one_too(
    harness: Harness, database: Database
) -> None:
    """Also if the log does not grow any more: its last checkpoint is stored a minute later."""

    async def stored() -> list[int]:
        rows = await harness.owner.fetch(
            "select size from predictu_dispatch.audit_checkpoint where operator_id = $1 order by size", OPERATOR
        )
        return [row["size"] for row in rows]

    async def let_a_minute_pass() -> None:
        await harness.owner.execute(
            "alter table predictu_dispatch.audit_checkpoint disable trigger audit_checkpoint_only_grows;"
            "update predictu_dispatch.audit_checkpoint set signed_at = signed_at - interval '1 minute';"
            "alter table predictu_dispatch.audit_checkpoint enable always trigger audit_checkpoint_only_grows"
        )

    async with open_sealer(database.dispatcher) as sealer:
        await sealer.seal_all()
        assert await stored() == [1]
        await let_a_minute_pass()
        for _ in range(3):
            await insert_attempts(harness.owner, 1)
            await sealer.seal_all()
        first, *later = (await stored())[1:]
        # The test may run across the end of a minute.
        assert len(later) <= 1
        assert first < 4 or later == [4]
        await let_a_minute_pass()
        await sealer.seal_all()
        assert (await stored())[-1] == 4
        count = len(await stored())
        await let_a_minute_pass()
        await sealer.seal_all()
        assert len(await stored()) == count
    assert [one.size for one in sealer.observer.stored if one.operator_id == OPERATOR] == await stored()


async def test_a_log_whose_tiles_were_changed_is_not_continued_and_the_others_are(
    harness: Harness, database: Database
) -> None:
    flip = (
        "set session_replication_role = replica;"
        "alter table predictu_dispatch.audit_tile disable trigger audit_tile_only_grows;"
        "update predictu_dispatch.audit_tile"
        " set hashes = overlay(hashes placing set_byte(substr(hashes, 33, 1), 0, get_byte(hashes, 32) # 1) from 33)"
        " where operator_id = 'op_abc123'"
    )
    async with open_sealer(database.dispatcher) as sealer:
        await insert_attempts(harness.owner, 5)
        await insert_attempts(harness.owner, 5, "op_other")
        await sealer.seal_all()
        await harness.owner.execute(flip)
        for _ in range(3):
            await insert_attempts(harness.owner, 2)
            await insert_attempts(harness.owner, 2, "op_other")
            await sealer.seal_all()
        sizes = "select operator_id, size from predictu_dispatch.audit_head"
        found = {row["operator_id"]: row["size"] for row in await harness.owner.fetch(sizes)}
        assert found.items() >= {"op_abc123": 6, "op_other": 12}.items()
        assert {type(one) for one in sealer.observer.failures} == {LogDamagedError}
        assert "audit.predictu.example/op_abc123" in str(sealer.observer.failures[0])
        sealed_at = await harness.owner.fetchval("select sealed_at from predictu_dispatch.audit_position")
        # Repaired: the rows that were left out are found.
        await harness.owner.execute(flip)
        await insert_attempts(harness.owner, 1)
        await sealer.seal_all()
        await sealer.seal_all()
        assert (await check_logs(harness.owner))["op_abc123"] == 6 + 6 + 1
        assert await harness.owner.fetchval("select sealed_at from predictu_dispatch.audit_position") > sealed_at


@pytest.mark.parametrize(
    "statement",
    [
        "delete from predictu_dispatch.{}",
        "truncate predictu_dispatch.{} cascade",
        "update predictu_dispatch.{} set operator_id = 'op_x'",
    ],
)
@pytest.mark.parametrize(
    "table",
    ["log", "head", "tile", "checkpoint", "cosignature", "removal", "verification"],
)
async def test_the_logs_only_grow_for_the_owner_too(
    harness: Harness, database: Database, table: str, statement: str
) -> None:
    async with open_sealer(database.dispatcher) as sealer:
        await insert_others(harness.owner)
        await sealer.seal_all()
        await harness.owner.execute(
            "insert into predictu_dispatch.audit_cosignature (operator_id, size, witness, line)"
            " values ('op_abc123', 1, 'w', 'l');"
            "insert into predictu_dispatch.audit_removal"
            " (operator_id, part, cutoff, attempts, leaf_indices, leaf_indices_sha256)"
            " values ('op_abc123', 'default', now(), 0, '{}', sha256(''));"
            "insert into predictu_dispatch.audit_verification (operator_id, size, faults, first_faults)"
            " values ('op_abc123', 1, 0, '[]')"
        )
        for role in ("origin", "replica"):
            await harness.owner.execute(f"set session_replication_role = {role}")
            with pytest.raises(asyncpg.PostgresError, match="only grows") as refused:
                await harness.owner.execute(statement.format(f"audit_{table}"))
            assert refused.value.sqlstate == "PD900"


@pytest.mark.parametrize(
    "change",
    [
        "update predictu_dispatch.audit_head set size = size - 1",
        "update predictu_dispatch.audit_head set root = sha256('')",
        "update predictu_dispatch.audit_tile set hashes = substr(hashes, 33)",
        "update predictu_dispatch.audit_tile set hashes = substr(hashes, 1, octet_length(hashes) - 32)",
        "update predictu_dispatch.audit_tile set report_ids = substr(report_ids, 17)",
        "update predictu_dispatch.audit_tile set report_ids = null",
        "update predictu_dispatch.audit_tile set started_from = started_from + interval '1 second'",
        "update predictu_dispatch.audit_tile set started_until = null",
    ],
)
async def test_a_head_and_a_tile_are_only_extended(harness: Harness, database: Database, change: str) -> None:
    async with open_sealer(database.dispatcher) as sealer:
        await insert_attempts(harness.owner, 5)
        await sealer.seal_all()
        with pytest.raises(asyncpg.PostgresError, match="only grows"):
            await harness.owner.execute(f"{change} where operator_id = 'op_abc123'")


async def test_a_position_in_the_future_is_refused(harness: Harness, database: Database) -> None:
    """A stolen login cannot stop the sealing in this way."""
    async with open_sealer(database.dispatcher) as sealer:
        await sealer.seal_all()
    call = (
        "select is_appended from predictu_dispatch.audit_append($1, $2, now(), null, null, null" + ", '{}'" * 11 + ")"
    )
    revision = await harness.owner.fetchval("select revision from predictu_dispatch.audit_position")
    assert not await harness.daemon.fetchval(call, revision, "9000000:9000000:")


async def test_settling_waits_for_no_lock_of_a_sealer(harness: Harness, database: Database) -> None:
    """Neither while it reads nor before it commits."""
    async with open_sealer(database.dispatcher) as sealer, connected(database.dispatcher, 2) as [reading, appending]:
        await sealer.seal_all()
        await insert_attempts(harness.owner, 100)
        await reading.execute("begin; select count(*) from predictu_dispatch.audit_unsealed(10000, 50000)")
        revision = await harness.owner.fetchval("select revision from predictu_dispatch.audit_position")
        await appending.execute("begin")
        await appending.execute(
            f"select predictu_dispatch.audit_append({revision}, null, null, null, null, null" + ", '{}'" * 11 + ")"
        )
        request_id = await harness.place()
        await harness.owner.execute("set lock_timeout = '1s'")
        await harness.daemon.execute("set lock_timeout = '1s'")
        await harness.attempt(request_id, delivered)
        assert await harness.state(request_id) == "delivered"


async def test_a_log_that_begins_later_does_not_read_the_whole_audit(database: Database) -> None:
    """Nothing is sealed meanwhile, and the audit may have hundreds of millions of rows."""
    async with connected(database.owner, 1) as [owner]:
        await know(owner, ("op_a",))
        await insert_attempts(owner, 2_000, "op_a")
        async with open_sealer(database.dispatcher) as sealer:
            await sealer.seal_all()
        await owner.execute("analyze predictu_dispatch.attempt_record")
        await know(owner, ("op_b",))
        await insert_attempts(owner, 3, "op_b")
        async with owner.transaction():
            assert await owner.fetchval("select predictu_dispatch.audit_begin('x', '{}')") == ["op_b"]
            read = "select sum(seq_tup_read) from pg_stat_xact_user_tables where relname like 'attempt_%'"
            assert await owner.fetchval(read) == 0
            begun = "select attempts_before from predictu_dispatch.audit_log where operator_id = 'op_b'"
            assert await owner.fetchval(begun) == 3
