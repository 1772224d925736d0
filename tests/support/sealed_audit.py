"""A database whose audit is sealed, to be copied and changed by a superuser."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from predictu_dispatch.core.merkle.note import VerifierKey
from predictu_dispatch.edge.postgres.audit_reader import open_audit_reader
from predictu_dispatch.evidence.export import EarlierExport, export_log
from predictu_dispatch.evidence.faults import Fault
from predictu_dispatch.evidence.log_check import KeptCheckpoint
from predictu_dispatch.evidence.trusted_keys import TrustedKeys
from predictu_dispatch.evidence.verification import verify
from predictu_dispatch.evidence.verification_result import Request, Verification
from tests.support.audit_rows import OPERATORS, add_attempts, fill, know
from tests.support.harness import Connection
from tests.support.postgres import Database, Server, cloned_database
from tests.support.sealing import ORIGIN, SEED, open_sealer

ATTEMPTS: Final = 600
"""More than two tiles, so that there is a tile of level 1."""
KEYS: Final = TrustedKeys(public_keys=(VerifierKey.of_seed(ORIGIN, SEED).public_key,))
TABLES: Final = (
    "attempt_record",
    "intervention",
    "signing_key",
    "audit_log",
    "audit_position",
    "audit_head",
    "audit_tile",
    "audit_checkpoint",
    "audit_cosignature",
    "audit_removal",
    "audit_verification",
)
_REMOVED = """
with gone as (
    delete from predictu_dispatch.attempt_record a using predictu_dispatch.audit_tile t,
           generate_series(0, octet_length(t.report_ids) / 16 - 1) n
     where a.operator_id = 'op_a' and t.operator_id = 'op_a' and t.level = 0 and t.tile = 0
       and substr(t.report_ids, n * 16 + 1, 16) = uuid_send(a.report_id) and n between 20 and 40
    returning n
), ranges as (
    select range_agg(int8range(n, n + 1)) as indices, count(*) as attempts,
           (select string_agg(lower(r) || '-' || upper(r) - 1, ',' order by r)
              from (select unnest(range_agg(int8range(n, n + 1))) from gone) r (r)) as text
      from gone
)
insert into predictu_dispatch.audit_removal (operator_id, part, cutoff, attempts, leaf_indices, leaf_indices_sha256)
select 'op_a', '2024_01', now() - interval '2 years', attempts, indices, sha256(text::bytea) from ranges
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedAudit:
    """Databases of one server, and what was kept outside of them."""

    server: Server
    template: str
    """Everything is sealed."""
    hour_before: str
    """The same database an hour before: 300 attempts of op_a are missing."""
    export: Path
    """An export of all logs."""

    def kept(self, operator_id: str = "op_a") -> KeptCheckpoint:
        """The newest checkpoint, kept outside."""
        return next(
            each for each in EarlierExport(self.export).checkpoints() if each.origin == f"{ORIGIN}/{operator_id}"
        )


@contextmanager
def sealed_audit(server: Server, template: str, folder: Path) -> Iterator[SealedAudit]:
    """Seal the audit of two operators in two copies of a migrated database."""
    sealing = _sealed(server, template, folder)
    loop = asyncio.new_event_loop()
    try:
        yield loop.run_until_complete(anext(sealing))
        loop.run_until_complete(anext(sealing, None))
    finally:
        loop.close()


async def _sealed(server: Server, template: str, folder: Path) -> AsyncIterator[SealedAudit]:
    async with cloned_database(server, template) as first:
        owner = await asyncpg.connect(first.owner)
        await know(owner)
        for operator_id in OPERATORS:
            await fill(owner, operator_id, ATTEMPTS)
        async with open_sealer(first.dispatcher) as sealer:
            await sealer.seal_all()
        await allow_everything(owner)
        await owner.execute(_REMOVED)
        # As if the removed ones had been old.
        await owner.execute(
            "update predictu_dispatch.audit_tile set started_from = now() - interval '3 years'"
            " where operator_id = 'op_a' and level = 0 and tile = 0"
        )
        async with open_sealer(first.dispatcher) as sealer:
            await sealer.seal_all()
        # Checkpoints are stored once in a minute.
        await owner.execute("update predictu_dispatch.audit_checkpoint set signed_at = signed_at - interval '1 minute'")
        await owner.close()
        async with cloned_database(server, first.name) as second:
            owner = await asyncpg.connect(second.owner)
            await add_attempts(owner, "op_a", ATTEMPTS // 2)
            async with open_sealer(second.dispatcher) as sealer:
                await sealer.seal_all()
            await owner.close()
            async with open_audit_reader(second.auditor, application_name="export") as reader:
                for operator_id in OPERATORS:
                    await export_log(reader, operator_id, folder, since=None)
            yield SealedAudit(server=server, template=second.name, hour_before=first.name, export=folder)


async def allow_everything(owner: Connection) -> None:
    """Switch off triggers, constraints and rules, as a superuser can."""
    for table in TABLES:
        await owner.execute(f"alter table predictu_dispatch.{table} disable trigger all")
    checks = await owner.fetch(
        "select conrelid::regclass::text as of_table, conname from pg_constraint"
        " where contype = 'c' and conislocal and coninhcount = 0 and conrelid::regclass::text = any($1)",
        [f"predictu_dispatch.{table}" for table in TABLES],
    )
    for check in checks:
        await owner.execute(f"alter table {check['of_table']} drop constraint {check['conname']}")


async def verified(
    database: Database,
    *,
    keys: TrustedKeys = KEYS,
    outside: Sequence[KeptCheckpoint] = (),
    export: Path | None = None,
) -> tuple[Verification, list[Fault]]:
    """The result of `audit verify` as an auditor, and all faults that it names."""
    request = Request(operator_id=None, keys=keys, outside=outside)
    if export is not None:
        earlier = EarlierExport(export)
        kept = [*outside, *earlier.checkpoints()]
        request = Request(operator_id=None, keys=keys, outside=kept, earlier_hashes=earlier.leaf_hashes)
    async with open_audit_reader(database.auditor, application_name="verify") as reader:
        result = await verify(reader, request)
    return result, [fault for faults in result.faults.first.values() for fault in faults]


@asynccontextmanager
async def tampered(audit: SealedAudit, *statements: str) -> AsyncIterator[tuple[Database, Connection]]:
    """A copy of the database, after these statements of a superuser."""
    async with cloned_database(audit.server, audit.template) as database:
        owner = await asyncpg.connect(database.owner)
        try:
            for statement in statements:
                await owner.execute(statement)
            yield database, owner
        finally:
            await owner.close()
