"""What `audit verify` must not report as tampering, and what it reports about the schema."""

import asyncio
from collections.abc import Iterator

import asyncpg
import pytest

from predictu_dispatch.core.merkle.checkpoint import Checkpoint
from predictu_dispatch.core.merkle.note import Algorithm, VerifierKey, cosign, parse
from predictu_dispatch.core.merkle.tree import append
from predictu_dispatch.edge.postgres.audit_reader import open_audit_reader
from predictu_dispatch.edge.postgres.sql_files import query
from predictu_dispatch.evidence.faults import FaultKind
from predictu_dispatch.evidence.multiset import Multisets
from predictu_dispatch.evidence.ranges import Range, Ranges
from predictu_dispatch.evidence.schema_check import expected_triggers, hiding, schema_differences
from predictu_dispatch.evidence.tree_check import TreeCheck
from predictu_dispatch.evidence.trusted_keys import TrustedKeys
from predictu_dispatch.evidence.verification_result import NotVerifiableError
from tests.support.audit_rows import fill, know
from tests.support.postgres import Database, Server
from tests.support.retention import run_retention
from tests.support.sealed_audit import KEYS, SealedAudit, sealed_audit, tampered, verified
from tests.support.sealing import ORIGIN, insert_attempts, open_sealer

WITNESS_SEED = bytes([7]) * 32
WITNESS = VerifierKey.of_seed("witness.example/w1", WITNESS_SEED, Algorithm.COSIGNATURE_V1)


@pytest.fixture(scope="module")
def audit(postgres: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SealedAudit]:
    with sealed_audit(postgres, template, tmp_path_factory.mktemp("export")) as audit:
        yield audit


async def test_while_old_rows_are_sealed_the_others_are_compared_already(database: Database) -> None:
    owner = await asyncpg.connect(database.owner)
    await know(owner)
    for _ in range(6):
        await insert_attempts(owner, 2_000, "op_a")
    await fill(owner, "op_b", 50)
    async with open_sealer(database.dispatcher) as sealer:
        await sealer._turn()
        size = "select size from predictu_dispatch.audit_head where operator_id = 'op_a'"
        while await owner.fetchval(size) < 100:
            turn = await sealer.store.backlog(blocks=16)
            assert turn is not None
            await sealer._append(turn)
        await insert_attempts(owner, 20, "op_a")
        await sealer._turn()
        result, faults = await verified(database)
        assert faults == []
        assert result.has_backlog
        assert 20 < result.rows < 12_000
        await owner.execute("alter table predictu_dispatch.attempt_record disable trigger all")
        await owner.execute(
            "update predictu_dispatch.attempt_record set total_ms = 1 where report_id = (select"
            " encode(substr(report_ids, 801, 16), 'hex')::uuid from predictu_dispatch.audit_tile"
            " where operator_id = 'op_a' and tile = 0 and level = 0)"
        )
        _, faults = await verified(database)
        assert [(fault.kind, fault.index) for fault in faults] == [(FaultKind.CHANGED, 50)]
        await sealer.seal_all()
        result, faults = await verified(database)
        assert not result.has_backlog
        # The changed row was moved to a block that was sealed later, so it is in the log again.
        assert [fault.index for fault in faults] == [50]
        assert result.rows == 12_020 + 50 + 2 * 1 + 5 + 3
    await owner.close()


async def test_a_log_that_has_just_begun_with_old_rows_is_clean(database: Database) -> None:
    """Its start was written after the last sealing, and is in the log with the first old rows."""
    owner = await asyncpg.connect(database.owner)
    await insert_attempts(owner, 20, "op_without_file")
    async with open_sealer(database.dispatcher) as sealer:
        await sealer.seal_all()
        result, faults = await verified(database)
    assert (result.logs["op_without_file"].size, faults) == (21, [])
    await owner.close()


async def test_a_verification_beside_deliveries_and_sealing_finds_nothing(database: Database) -> None:
    """Heads, tiles and rows are read at different moments, while all of them grow."""
    owner = await asyncpg.connect(database.owner)
    await know(owner)
    await fill(owner, "op_a", 300)
    async with open_sealer(database.dispatcher) as sealer:
        await sealer.seal_all()

        async def deliver() -> None:
            while True:
                await insert_attempts(owner, 7, "op_a")
                await insert_attempts(owner, 5, "op_b")

        async def seal() -> None:
            while True:
                await sealer._turn()

        sizes = set()
        async with asyncio.TaskGroup() as group:
            beside = [group.create_task(deliver()), group.create_task(seal())]
            for _ in range(12):
                result, faults = await verified(database)
                assert faults == []
                sizes.add(result.logs["op_a"].size)
            for task in beside:
                task.cancel()
    assert len(sizes) > 3
    await owner.close()


async def test_a_repeated_report_has_two_rows_and_two_entries_of_one_id(audit: SealedAudit) -> None:
    """Also if another fault makes their entries be compared one by one."""
    repeat = (
        "create temp table one as select * from predictu_dispatch.attempt_record where operator_id = 'op_a' limit 1;"
        "update one set verdict = 'late', written_in = pg_current_xact_id()::text::bigint;"
        "insert into predictu_dispatch.attempt_record select * from one"
    )
    async with tampered(audit, repeat) as (database, owner):
        async with open_sealer(database.dispatcher) as sealer:
            await sealer.seal_all()
        result, faults = await verified(database)
        assert (result.logs["op_a"].size, faults) == (911, [])
        # With a third row, all of this id are compared.
        await owner.execute("drop index predictu_dispatch.attempt_decided")
        await owner.execute("insert into predictu_dispatch.attempt_record select * from one")
        _, faults = await verified(database)
        assert [fault.kind for fault in faults] == [FaultKind.COPIED]


async def test_rows_from_before_are_compared_although_a_transaction_was_open_when_they_were_sealed(
    database: Database,
) -> None:
    """They have no written_in, and none of them is pending."""
    owner, busy = await asyncpg.connect(database.owner), await asyncpg.connect(database.owner)
    await know(owner)
    await fill(owner, "op_a", 50)
    await owner.execute("alter table predictu_dispatch.attempt_record disable trigger all")
    await owner.execute("update predictu_dispatch.attempt_record set written_in = null")
    transaction = busy.transaction()
    await transaction.start()
    await busy.execute("select pg_current_xact_id()")
    # A later transaction that ends, so that the open one is none of the future.
    await owner.execute("select pg_current_xact_id()")
    async with open_sealer(database.dispatcher) as sealer:
        await sealer.seal_all()
    assert await owner.fetchval("select pg_snapshot_xip(sealed_until) from predictu_dispatch.audit_position")
    result, faults = await verified(database)
    assert (faults, result.rows, result.logs["op_a"].pending) == ([], result.logs["op_a"].size + 1, 0)
    await transaction.rollback()
    for connection in (owner, busy):
        await connection.close()


async def test_what_retention_removed_is_not_missing_before_and_after_its_removal_is_sealed(database: Database) -> None:
    owner = await asyncpg.connect(database.owner)
    await know(owner)
    await owner.execute(
        "create table predictu_dispatch.attempt_2024_01 partition of predictu_dispatch.attempt_record"
        " for values from ('2024-01-01 00:00:00+00') to ('2024-02-01 00:00:00+00')"
    )
    await fill(owner, "op_a", 400)
    await owner.execute("create temp table old as select * from predictu_dispatch.attempt_record limit 300")
    await owner.execute(
        "update old set report_id = gen_random_uuid(), written_in = pg_current_xact_id()::text::bigint,"
        " started_at = '2024-01-05', finished_at = '2024-01-05'"
    )
    await owner.execute("insert into predictu_dispatch.attempt_record select * from old")
    async with open_sealer(database.dispatcher) as sealer:
        await sealer.seal_all()
        before, faults = await verified(database)
        assert faults == []
        await run_retention(database, blocks=1000)
        pending, faults = await verified(database)
        assert (faults, pending.rows, pending.logs["op_a"].removed) == ([], before.rows - 300, 300)
        assert pending.logs["op_a"].pending == 1
        await sealer.seal_all()
        sealed, faults = await verified(database)
        assert (faults, sealed.rows, sealed.logs["op_a"].pending) == ([], before.rows - 299, 0)
    await owner.execute("alter table predictu_dispatch.audit_removal disable trigger all")
    await owner.execute("update predictu_dispatch.audit_removal set cutoff = cutoff + interval '1 microsecond'")
    _, faults = await verified(database)
    assert [fault.kind for fault in faults] == [FaultKind.CHANGED]
    await owner.close()


async def test_after_a_restore_into_another_cluster_it_waits_for_the_first_sealing(audit: SealedAudit) -> None:
    other_cluster = "update predictu_dispatch.audit_position set system_identifier = 1"
    async with tampered(audit, other_cluster) as (database, owner):
        await insert_attempts(owner, 10, "op_a")
        with pytest.raises(NotVerifiableError, match="restored from a dump"):
            await verified(database)
        async with open_sealer(database.dispatcher) as sealer:
            await sealer.seal_all()
        result, faults = await verified(database)
        assert (result.logs["op_a"].size, faults) == (920, [])


async def test_while_retention_removes_a_month_nothing_is_verified(audit: SealedAudit) -> None:
    detached = "create table predictu_dispatch.retired_2024_01 (n integer)"
    async with tampered(audit, detached) as (database, _):
        with pytest.raises(NotVerifiableError, match="retention has detached 2024_01"):
            await verified(database)


async def test_a_cosignature_counts_if_its_witness_is_known_and_is_a_fault_if_it_does_not_fit(
    audit: SealedAudit,
) -> None:
    keys = TrustedKeys(public_keys=KEYS.public_keys, witnesses=(WITNESS,))
    async with tampered(audit) as (database, owner):
        size, note = await owner.fetchrow(  # type: ignore[misc]
            "select size, checkpoint from predictu_dispatch.audit_checkpoint where operator_id = 'op_a' order by size"
        )
        line = cosign(parse(note).text, WITNESS.name, WITNESS_SEED, 1_800_000_000).line.rstrip("\n")
        insert = (
            "insert into predictu_dispatch.audit_cosignature (operator_id, size, witness, line) values ($1, $2, $3, $4)"
        )
        await owner.execute(insert, "op_a", size, "w1", line)
        result, faults = await verified(database, keys=keys)
        assert (result.logs["op_a"].cosignatures, faults) == (1, [])
        assert (await verified(database))[0].logs["op_a"].cosignatures == 0
        other = cosign(Checkpoint(f"{ORIGIN}/op_a", size, bytes(32)).text(), WITNESS.name, WITNESS_SEED, 1_800_000_000)
        await owner.execute("update predictu_dispatch.audit_cosignature set line = $1", other.line.rstrip("\n"))
        _, faults = await verified(database, keys=keys)
        assert [fault.kind for fault in faults] == [FaultKind.COSIGNATURE]


async def test_a_migrated_schema_differs_in_nothing_and_each_change_of_it_is_named(database: Database) -> None:
    owner = await asyncpg.connect(database.owner)
    async with open_audit_reader(database.auditor, application_name="schema") as reader:

        async def differences() -> list[str]:
            return schema_differences(await reader.fetch("audit_schema"))

        assert await differences() == []
        assert hiding(await reader.fetch("audit_schema")) == []
        rows = await owner.fetch(query("audit_schema"))
        ours = {(row["relation"], row["name"]) for row in rows if row["kind"] == "trigger"}
        inherited = {(table, name) for table, name in ours if table.startswith("attempt_2")}
        assert ours - inherited - {("attempt_default", "attempt_append_only")} == expected_triggers().keys()
        for statement, named in (
            ("alter table predictu_dispatch.intervention disable trigger all", "intervention_append_only"),
            ("alter table predictu_dispatch.audit_tile disable trigger all", "audit_tile_only_grows of audit_tile"),
            (
                (
                    "create function predictu_dispatch.spy() returns trigger language plpgsql"
                    " as 'begin return new; end';"
                    "create trigger spy before insert on predictu_dispatch.attempt_record for each row"
                    " execute function predictu_dispatch.spy()"
                ),
                "the trigger spy of attempt_record is none of ours",
            ),
            (
                (
                    "create or replace function predictu_dispatch.refuse_audit_change() returns trigger"
                    " language plpgsql as 'begin return new; end'"
                ),
                "the function refuse_audit_change is not the one of this release",
            ),
            (
                "create rule keep as on insert to predictu_dispatch.audit_head do instead nothing",
                "table audit_head has a rule, keep, which is none of ours",
            ),
        ):
            await owner.execute(statement)
            assert any(named in one for one in await differences()), await differences()
        await owner.execute(
            "create foreign data wrapper elsewhere; create server elsewhere foreign data wrapper elsewhere;"
            "create foreign table public.shown () inherits (predictu_dispatch.intervention) server elsewhere"
        )
        assert hiding(await reader.fetch("audit_schema")) == ["the relation shown"]
    await owner.close()


async def test_sums_find_what_a_row_too_many_and_one_too_few_would_hide() -> None:
    sums = Multisets(b"k" * 32)
    row, other = bytes(16) + b"a" * 32, bytes(16) + b"b" * 32
    assert sums.add_rows([("op_a", row, None), ("op_a", other, None), ("op_b", None, "later")]) == [("op_b", "later")]
    sums.subtract_leaves("op_a", bytes(32), b"b" * 32 + b"a" * 32)
    assert sums.unbalanced() == []
    sums.add_rows([("op_a", row, None)])
    sums.subtract_leaves("op_b", bytes(16), b"a" * 32)
    assert sums.unbalanced() == [0]


def test_ranges_are_merged_and_give_the_text_that_is_sealed() -> None:
    ranges = Ranges([(300, 302), (0, 200), (200, 256), (7, 7)])
    assert ranges.text == "0-255,300-301"
    assert ranges.outside_of(0, 400) == [Range(256, 300), Range(302, 400)]
    assert ranges.outside_of(255, 257) == [Range(256, 257)]
    assert ranges.outside_of(310, 312) == [Range(310, 312)]
    assert ranges.outside_of(10, 20) == []
    assert [index for index in (0, 255, 256, 299, 300, 301, 302) if index in ranges] == [0, 255, 300, 301]


def test_a_tree_that_is_built_in_pieces_has_the_root_of_each_size() -> None:
    leaves = b"".join(bytes([number % 251]) * 32 for number in range(700))
    tree = TreeCheck()
    roots = tree.append(leaves[: 300 * 32], [1, 256, 300]) | tree.append(leaves[300 * 32 :], [512, 699, 700])
    assert roots == {size: append(0, {}, leaves[: size * 32]).root for size in (1, 256, 300, 512, 699, 700)}
    assert tree.root == append(0, {}, leaves).root
    stored = {(1, 0): tree.upper_tile(1, 0)}
    assert tree.wrong_tiles(stored) == []
    assert [tile[:2] for tile in tree.wrong_tiles({(1, 0): bytes(64), (2, 0): bytes(32)})] == [(1, 0), (2, 0)]
