"""Every change of the audit or its logs by a superuser is found and named.

Each test changes a copy of a database whose audit is sealed, as a superuser with triggers and
constraints switched off, and lets `audit verify` run as an auditor.
"""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from predictu_dispatch.evidence.faults import Fault, FaultKind
from predictu_dispatch.evidence.trusted_keys import TrustedKeys
from tests.support.audit_rows import OPERATORS
from tests.support.harness import Connection
from tests.support.postgres import Server, cloned_database
from tests.support.sealed_audit import SealedAudit, sealed_audit, tampered, verified
from tests.support.sealing import open_sealer

SEALED_TABLES = ("attempt_record", "intervention", "signing_key", "audit_log", "audit_removal")
ID_OF = {
    "attempt_record": "report_id",
    "intervention": "intervention_id",
    "signing_key": "first_seen_id",
    "audit_log": "start_id",
    "audit_removal": "removal_id",
}
FLIPPED = {
    "boolean": "not {0}",
    "integer": "{0} # 1",
    "bigint": "{0} # 1",
    # A thousandth of a millisecond.
    "double precision": "{0} + 0.001",
    "timestamp with time zone": "{0} + interval '1 microsecond'",
    "bytea": "set_bit({0}, 0, 1 - get_bit({0}, 0))",
    "uuid": "encode(set_bit(uuid_send({0}), 0, 1 - get_bit(uuid_send({0}), 0)), 'hex')::uuid",
    # The bit that makes a small letter a capital one, or a digit another sign.
    "text": "overlay({0} placing chr(ascii(right({0}, 1)) # 1) from length({0}) for 1)",
    "jsonb": "overlay({0}::text placing upper(substr({0}::text, regexp_instr({0}::text, '[a-z]'), 1))"
    " from regexp_instr({0}::text, '[a-z]') for 1)::jsonb",
    "inet": "{0} + 1",
    "int8multirange": "{0} + '{{[7,8)}}'",
}
"""By type: the smallest change of a value."""


@pytest.fixture(scope="module")
def audit(postgres: Server, template: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SealedAudit]:
    with sealed_audit(postgres, template, tmp_path_factory.mktemp("export")) as audit:
        yield audit


async def columns_of(owner: Connection) -> list[tuple[str, str, str]]:
    rows = await owner.fetch(
        "select table_name, column_name, case data_type when 'USER-DEFINED' then udt_name else data_type end as type"
        "  from information_schema.columns where table_schema = 'predictu_dispatch' and table_name = any($1)"
        " order by table_name, ordinal_position",
        list(SEALED_TABLES),
    )
    return [(row["table_name"], row["column_name"], row["type"]) for row in rows]


async def change_of(owner: Connection, table: str, column: str, kind: str) -> tuple[str, str]:
    """A statement that changes one value by one bit, and the row's id."""
    place = f"{ID_OF[table]}::text as id, ctid::text as place, tableoid::regclass::text as part"
    where = f"{column} is not null and operator_id = 'op_a'"
    row = await owner.fetchrow(f"select {place} from predictu_dispatch.{table} where {where} limit 1")  # noqa: S608
    assert row is not None, f"no row of {table} has a {column}"
    changed = FLIPPED[kind].format(column)
    return f"update {row['part']} set {column} = {changed} where ctid = '{row['place']}'", row["id"]  # noqa: S608


async def test_untouched_everything_is_clean_also_against_what_was_kept_outside(audit: SealedAudit) -> None:
    async with tampered(audit) as (database, _):
        result, faults = await verified(database, outside=[audit.kept(one) for one in OPERATORS], export=audit.export)
    assert faults == []
    assert result.is_clean
    assert result.warnings != []  # The triggers are off.
    assert {log.operator_id: (log.removed, log.pending) for log in result.logs.values()} == {
        "op_a": (21, 0),
        "op_b": (0, 0),
    }
    assert result.rows == sum(log.size - log.removed for log in result.logs.values())
    assert all(log.checkpoints >= 1 for log in result.logs.values())


async def test_each_value_of_each_sealed_row_is_protected_to_the_bit(audit: SealedAudit) -> None:
    """The list of columns is that of the database: a new column needs a place in the entry."""
    permits = asyncio.Semaphore(2)
    async with tampered(audit) as (_, owner):
        columns = await columns_of(owner)
    assert len(columns) > 60

    async def unnoticed(table: str, column: str, kind: str) -> str | None:
        async with permits, tampered(audit) as (database, owner):
            statement, entry_id = await change_of(owner, table, column, kind)
            await owner.execute(statement)
            result, faults = await verified(database)
            is_named = any(
                fault.index is not None or entry_id in fault.text or fault.kind is FaultKind.LOG_MISSING
                for fault in faults
            )
            return None if not result.is_clean and is_named else f"{table}.{column}: {texts(faults)}"

    found = await asyncio.gather(*(unnoticed(*column) for column in columns))
    assert [one for one in found if one] == []


PLACES = {
    ":one": "(select report_id from attempt_record where operator_id = 'op_a' order by report_id limit 1)",
    ":newest_one": "(select report_id from attempt_record where operator_id = 'op_a' order by written_in desc limit 1)",
    ":other": "(select report_id from attempt_record where operator_id = 'op_a' order by report_id offset 1 limit 1)",
    ":newest": "(select max(tile) from audit_tile where operator_id = 'op_a' and level = 0)",
}
HEAD = re.compile(r"-- (?P<title>.*)\n--> (?P<kind>\w+): (?P<subject>.*)\n(?P<statements>(?:.+\n)+)")


def sql(text: str) -> str:
    for place, expression in PLACES.items():
        text = text.replace(place, expression)
    return f"set search_path = predictu_dispatch, pg_temp; {text}"


KINDS = {found["title"]: found for found in HEAD.finditer(Path(__file__).with_name("tampering.sql").read_text("utf-8"))}


@pytest.mark.parametrize("kind", KINDS)
async def test_it_is_found_and_named(audit: SealedAudit, kind: str) -> None:
    expected = KINDS[kind]
    async with tampered(audit, sql(expected["statements"])) as (database, _):
        result, faults = await verified(database)
    assert not result.is_clean
    named = [f for f in faults if f.kind.value == expected["kind"] and f.subject.startswith(expected["subject"])]
    assert named, texts(faults)


async def test_at_least_a_hundred_kinds_are_tried(audit: SealedAudit) -> None:
    async with tampered(audit) as (_, owner):
        assert len(KINDS) >= 38
        assert len(KINDS) + len(await columns_of(owner)) >= 100


async def test_a_changed_stored_function_hides_nothing(audit: SealedAudit) -> None:
    """An attacker who changes a row can change the function that builds its entry too."""
    async with tampered(audit) as (database, owner):
        entry = await owner.fetchval("select predictu_dispatch.audit_entry(a) from predictu_dispatch.attempt a limit 1")
        await owner.execute(sql("update attempt_record set verdict = 'rejected' where report_id = :one"))
        await owner.execute(
            "create or replace function predictu_dispatch.audit_entry(a predictu_dispatch.attempt) returns bytea"
            f" language sql stable return decode('{entry.hex()}', 'hex')"
        )
        _, faults = await verified(database)
    assert [fault.kind for fault in faults] == [FaultKind.CHANGED]


@pytest.mark.parametrize(
    ("cutoff", "named"),
    [("now() - interval '2 years'", "began after its cutoff"), ("now()", "is younger than a month")],
)
async def test_a_new_attempt_that_was_deleted_and_recorded_as_removed_is_found(
    audit: SealedAudit, cutoff: str, named: str
) -> None:
    """The record itself is sealed, as that of retention is."""
    delete = sql(
        "with gone as (delete from attempt_record where report_id = :newest_one returning report_id), place as ("
        " select t.tile * 256 + n as i from gone, audit_tile t,"
        "        generate_series(0, octet_length(t.report_ids) / 16 - 1) n"
        "  where operator_id = 'op_a' and level = 0 and substr(report_ids, n * 16 + 1, 16) = uuid_send(gone.report_id))"
        " insert into audit_removal (operator_id, part, cutoff, attempts, leaf_indices, leaf_indices_sha256)"
        " select 'op_a', '2024_01', :cutoff, 1, int8multirange(int8range(i, i + 1)),"
        " sha256((i || '-' || i)::bytea) from place"
    ).replace(":cutoff", cutoff)
    async with tampered(audit, delete) as (database, _):
        async with open_sealer(database.dispatcher) as sealer:
            await sealer.seal_all()
        _, faults = await verified(database)
    assert [fault.kind for fault in faults] == [FaultKind.REMOVAL]
    assert named in faults[0].text


async def test_a_database_restored_from_an_hour_before_fits_itself_and_only_what_was_kept_outside_shows_it(
    audit: SealedAudit,
) -> None:
    async with cloned_database(audit.server, audit.hour_before) as database:
        result, faults = await verified(database)
        assert (result.is_clean, faults) == (True, [])
        _, faults = await verified(database, outside=[audit.kept()])
        assert [fault.kind for fault in faults] == [FaultKind.OUTSIDE]
        assert "and the log has" in faults[0].text
        _, faults = await verified(database, export=audit.export)
        assert FaultKind.OUTSIDE in {fault.kind for fault in faults}


async def test_a_tree_that_was_built_again_needs_the_key(audit: SealedAudit) -> None:
    """Its checkpoints are signed by nobody; with a stolen key, what was kept outside shows it."""
    rebuild = "truncate audit_head, audit_tile, audit_checkpoint, audit_position, audit_log, audit_removal;"
    change = "update attempt_record set verdict = 'rejected' where report_id = :one;"
    async with tampered(audit, sql(change + rebuild)) as (database, _):
        async with open_sealer(database.dispatcher, seeds=[bytes(32)]) as sealer:
            await sealer.seal_all()
        _, faults = await verified(database)
        assert {fault.kind for fault in faults} == {FaultKind.SIGNATURE}
        result, faults = await verified(database, keys=TrustedKeys())
        assert result.is_clean  # Without a trusted key nothing can be said.
        _, faults = await verified(database, keys=TrustedKeys(), export=audit.export)
        assert {fault.kind for fault in faults} == {FaultKind.OUTSIDE}
        assert any(fault.subject.startswith("the export's tile") and fault.index is not None for fault in faults)


async def test_what_is_not_sealed_yet_is_counted_and_a_fault_after_five_minutes(audit: SealedAudit) -> None:
    insert = sql(
        "insert into attempt_record (operator_id, request_id, method, attempt, evidence, verdict, instance, started_at,"
        " finished_at, report_id) select 'op_a', gen_random_uuid(), 'BET_MAKE', 1, 'answered', 'delivered', 'host-1',"
        " now() - interval '6 minutes', now() - interval '6 minutes', gen_random_uuid() from generate_series(1, 3)"
    )
    async with tampered(audit, insert) as (database, owner):
        result, faults = await verified(database)
        assert (result.logs["op_a"].pending, faults) == (3, [])
        await owner.execute("update audit_position set sealed_at = now() - interval '6 minutes'")
        _, faults = await verified(database)
        assert [fault.kind for fault in faults] == [FaultKind.UNSEALED]


async def test_a_log_that_was_longer_at_its_last_verification_is_found(audit: SealedAudit) -> None:
    async with cloned_database(audit.server, audit.hour_before) as database:
        owner = await asyncpg.connect(database.owner)
        await owner.execute("select predictu_dispatch.record_verification('op_a', 5000, 0, '[]')")
        await owner.close()
        _, faults = await verified(database)
    assert [(fault.kind, fault.operator_id) for fault in faults] == [(FaultKind.SHRUNK, "op_a")]


def texts(faults: list[Fault]) -> list[str]:
    return [f"{fault.kind} {fault.text}" for fault in faults]
