"""Rows of the audit without deliveries, sealers in this process, and a check of all logs.

The check reads the tables and computes every root itself: it calls no function of ours but those
that build entries.
"""

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Final

from predictu_dispatch.core.sealing import LogHeads, StoredCheckpoint, Turn
from predictu_dispatch.edge.postgres.audit_store import AuditStore
from predictu_dispatch.edge.postgres.database import Database as Pool
from predictu_dispatch.flow.sealer import Sealer
from tests.support.harness import Connection

ORIGIN: Final = "audit.predictu.example"
SEED: Final = bytes(range(32))

_INSERT = """
insert into predictu_dispatch.attempt_record
    (operator_id, request_id, method, attempt, evidence, verdict, instance, started_at, finished_at, url, key_id,
     request_headers, request_body, response_status, response_headers, response_body, total_ms, report_id,
     token_signature)
select $1, gen_random_uuid(), 'BET_MAKE', 1, 'answered', 'delivered', 'host-1', clock_timestamp(), clock_timestamp(),
       'https://wallet.example.com/predictu', 'kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k',
       jsonb_build_object('Authorization', 'Bearer ' || repeat('abcdefgh', 40) || '.[signature withheld]'),
       repeat('{"method":"BET_MAKE"}', 10), 200, '[["content-type", "application/json"]]'::jsonb,
       convert_to(repeat('{"status":"OK"}', 4), 'UTF8'), n * 1.5, gen_random_uuid(),
       sha256(n::text::bytea) || sha256('')
  from generate_series(1, $2::integer) n
"""
ENTRIES = """
select operator_id, report_id as id, predictu_dispatch.audit_entry(a) as entry from predictu_dispatch.attempt a
union all
select operator_id, intervention_id, predictu_dispatch.audit_intervention_entry(i)
  from predictu_dispatch.intervention i
union all
select operator_id, first_seen_id, predictu_dispatch.audit_key_entry(k, 'first_seen')
  from predictu_dispatch.signing_key k
union all
select operator_id, retired_id, predictu_dispatch.audit_key_entry(k, 'retired')
  from predictu_dispatch.signing_key k where retired_id is not null
union all
select operator_id, removal_id, predictu_dispatch.audit_removal_entry(r) from predictu_dispatch.audit_removal r
union all
select operator_id, start_id, predictu_dispatch.audit_start_entry(l) from predictu_dispatch.audit_log l
"""
"""Every row that belongs in a log, as its entry."""


async def insert_attempts(connection: Connection, count: int, operator_id: str = "op_abc123") -> None:
    """Writes attempts as one transaction does, unless the caller has begun one."""
    await connection.execute(_INSERT, operator_id, count)


async def insert_others(connection: Connection) -> None:
    """Writes an intervention, and a key that is retired at once: three entries."""
    await connection.execute(
        "insert into predictu_dispatch.intervention (operator_id, action, reason, done_by)"
        " values ('op_abc123', 'pause', 'maintenance', 'ada');"
        "insert into predictu_dispatch.signing_key"
        " (operator_id, kid, algorithm, public_jwk, retired_at, retired_id, retired_in)"
        " values ('op_abc123', gen_random_uuid()::text, 'EdDSA', '{}', 'infinity', gen_random_uuid(),"
        " pg_current_xact_id()::text::bigint"
        " + coalesce((select xid_offset from predictu_dispatch.audit_position), 0))"
    )


class Seen:
    """An observer that keeps every event, and raises the error of a failed chore."""

    def __init__(self) -> None:
        self.stored: list[StoredCheckpoint] = []
        self.failures: list[Exception] = []
        self.heads: LogHeads | None = None

    def checkpoint_stored(self, stored: StoredCheckpoint) -> None:
        self.stored.append(stored)

    def heads_read(self, heads: LogHeads) -> None:
        self.heads = heads

    def chore_failed(self, chore: str, error: Exception) -> None:  # noqa: ARG002
        self.failures.append(error)

    def chore_succeeded(self, chore: str) -> None: ...


class TestSealer(Sealer):
    """A sealer that needs no turn of the fleet."""

    __test__ = False
    observer: Seen
    store: AuditStore

    async def turn(self) -> Turn | None:
        return await self._turn()

    async def backlog_step(self) -> Turn | None:
        return await self._backlog()

    async def seal_all(self) -> None:
        """Seal all that is visible, and the whole backlog."""
        turn = await self._turn()
        while turn is not None and turn.is_behind:
            turn = await self._turn()
        while turn is not None and turn.has_backlog:
            turn = await self._backlog()


@asynccontextmanager
async def open_sealer(dsn: str, *, seeds: Sequence[bytes] = (SEED,), seal_s: float = 0.2) -> AsyncIterator[TestSealer]:
    """A sealer with a pool of its own."""
    pool = Pool(dsn, pool_size=3, application_name=f"sealer {secrets.token_hex(4)}")
    await pool.open()
    try:
        observer, store = Seen(), AuditStore(pool, instance="host-1")
        sealer = TestSealer(store, observer, origin=ORIGIN, seal_s=seal_s, seeds=lambda: seeds)
        sealer.observer, sealer.store = observer, store
        yield sealer
    finally:
        await pool.close()


async def check_logs(owner: Connection) -> dict[str, int]:
    """Asserts that each row is in its log once and all heads are right; returns the logs' sizes."""
    expected: dict[str, list[tuple[bytes, bytes]]] = {}
    starts = {
        row["operator_id"]: row["start_id"].bytes
        for row in await owner.fetch("select * from predictu_dispatch.audit_log")
    }
    for row in await owner.fetch(ENTRIES):
        expected.setdefault(row["operator_id"], []).append((row["id"].bytes, sha256(b"\x00" + row["entry"]).digest()))
    sizes = {}
    for head in await owner.fetch("select * from predictu_dispatch.audit_head"):
        operator_id, size = head["operator_id"], head["size"]
        tiles = await owner.fetch(
            "select level, tile, hashes, report_ids from predictu_dispatch.audit_tile"
            " where operator_id = $1 order by level, tile",
            operator_id,
        )
        hashes = {(tile["level"], tile["tile"]): tile["hashes"] for tile in tiles}
        leaves = _split(b"".join(tile["hashes"] for tile in tiles if tile["level"] == 0), 32)
        ids = _split(b"".join(tile["report_ids"] for tile in tiles if tile["level"] == 0), 16)
        assert len(leaves) == len(ids) == size
        ours, theirs = sorted(zip(ids, leaves, strict=True)), sorted(expected.pop(operator_id))
        missing, extra = set(theirs) - set(ours), set(ours) - set(theirs)
        found = (missing, extra, len(ours))
        assert found == (set(), set(), len(theirs)), f"{operator_id!r}: {found}, {len(theirs)}"
        assert ids[0] == starts[operator_id]
        assert _root(leaves) == head["root"]
        assert hashes == _tiles(leaves)
        assert head["checkpoint"].split("\n")[1] == str(size)
        sizes[operator_id] = size
    assert not expected, f"rows of operators without a log: {expected.keys()}"
    return sizes


def _split(value: bytes, width: int) -> list[bytes]:
    return [value[begin : begin + width] for begin in range(0, len(value), width)]


def _root(leaves: list[bytes]) -> bytes:
    """RFC 6962 section 2.1, as it is written there."""
    if len(leaves) == 1:
        return leaves[0]
    half = 1 << ((len(leaves) - 1).bit_length() - 1)
    return sha256(b"\x01" + _root(leaves[:half]) + _root(leaves[half:])).digest()


def _tiles(leaves: list[bytes]) -> dict[tuple[int, int], bytes]:
    tiles: dict[tuple[int, int], bytes] = {}
    level, hashes = 0, leaves
    while hashes:
        groups = [hashes[begin : begin + 256] for begin in range(0, len(hashes), 256)]
        tiles |= {(level, number): b"".join(group) for number, group in enumerate(groups)}
        level, hashes = level + 1, [_root(group) for group in groups if len(group) == 256]
    return tiles


async def terminate_sealers(owner: Connection, *, waiting: bool = False) -> int:
    """Ends the sessions of sealers, or those that wait for a lock; returns how many."""
    rows = await owner.fetch(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = current_database() and application_name like 'sealer %'"
        "   and (not $1 or wait_event_type = 'Lock')",
        waiting,
    )
    return len(rows)
