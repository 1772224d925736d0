"""The audit is append-only and complete, and its partitions block nothing."""

import asyncio
import json
import uuid
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.claim import ClaimRequest
from predictu_dispatch.core.lifecycle import Attempt, CallbackState, Cause, outcome_of
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.core.operator_settings import INTERACTIVE
from predictu_dispatch.core.verdict import Statuses, judge
from predictu_dispatch.edge.postgres.database import Database as Pool
from predictu_dispatch.edge.postgres.outbox import Outbox
from tests.support.harness import OPERATOR, Connection, Harness, connected, delivered, retried
from tests.support.postgres import Database

PARTITIONS = (
    "select inhrelid::regclass::text from pg_inherits where inhparent = 'predictu_dispatch.attempt_record'::regclass"
)
BODIES = (b"", b"\x00\xff\xfe{", '{"status":"ÖK"}'.encode("latin-1"), b"\x00" * 70_000)


async def is_refused(connection: Connection, statement: str, sqlstate: str = "PD900") -> bool:
    try:
        async with connection.transaction():
            await connection.execute(statement)
    except asyncpg.PostgresError as error:
        if error.sqlstate != sqlstate:
            raise
        return True
    return False


def months() -> list[str]:
    """Names of the partitions of this month and the next two."""
    this = datetime.now(UTC).replace(day=1)
    following = (this + timedelta(days=32)).replace(day=1)
    return [f"{month:%Y_%m}" for month in (this, following, (following + timedelta(days=32)).replace(day=1))]


async def put_rows_into_every_partition(harness: Harness) -> list[str]:
    """Insert a row into this month's and into the default partition; returns all audit tables."""
    for bet_id, leased_at in (("b-now", None), ("b-before", datetime(2001, 2, 3, tzinfo=UTC))):
        await harness.settle(delivered(await harness.lease(await harness.place(bet_id), leased_at=leased_at)))
    partitions = [row[0] for row in await harness.owner.fetch(PARTITIONS)]
    filled = [name for name in partitions if await harness.owner.fetchval(f"select count(*) from {name}")]  # noqa: S608
    assert len(filled) == 2
    assert "predictu_dispatch.attempt_default" in filled
    return ["predictu_dispatch.attempt_record", *partitions]


@pytest.mark.parametrize("replication_role", ["origin", "replica"])
async def test_no_role_can_update_or_delete_an_audit_row(
    harness: Harness, database: Database, replication_role: str
) -> None:
    """Neither the owner (a superuser here) nor a replica session, which skips triggers."""
    tables = await put_rows_into_every_partition(harness)
    before = await harness.owner.fetch("select * from predictu_dispatch.attempt order by started_at")
    await harness.owner.execute(f"set session_replication_role = {replication_role}")
    for table in tables:
        if await harness.owner.fetchval(f"select count(*) from {table}"):  # noqa: S608 - names out of the catalogue
            assert await is_refused(harness.owner, f"update {table} set verdict = 'retry'"), table  # noqa: S608
            assert await is_refused(harness.owner, f"update {table} set started_at = now() + interval '40 days'"), table  # noqa: S608
            assert await is_refused(harness.owner, f"delete from {table}"), table  # noqa: S608
        assert await is_refused(harness.owner, f"truncate {table}"), table
    for statement in (
        "update predictu_dispatch.attempt set verdict = 'retry'",
        "delete from predictu_dispatch.attempt",
    ):
        assert await is_refused(harness.owner, statement), statement
        assert await is_refused(harness.daemon, statement, "42501"), statement
    async with connected(database.support, 1) as [support], connected(database.producer, 1) as [producer]:
        for connection in (harness.daemon, support, producer):
            for table in tables:
                for statement in (f"update {table} set verdict = 'retry'", f"delete from {table}", f"truncate {table}"):  # noqa: S608
                    assert await is_refused(connection, statement, "42501"), statement
    assert await harness.owner.fetch("select * from predictu_dispatch.attempt order by started_at") == before


async def test_prepare_partitions_creates_the_next_months_and_may_run_concurrently(
    harness: Harness, database: Database
) -> None:
    assert {name.rpartition("attempt_")[2] for [name] in await harness.owner.fetch(PARTITIONS)} == {
        "default",
        *months(),
    }
    for name in months():
        await harness.owner.execute(
            f"alter table predictu_dispatch.attempt_record detach partition predictu_dispatch.attempt_{name};"
            f"drop table predictu_dispatch.attempt_{name}"
        )
    async with connected(database.dispatcher, 6) as daemons:
        await asyncio.gather(*(daemon.execute("select predictu_dispatch.prepare_partitions(2)") for daemon in daemons))
    assert {name.rpartition("attempt_")[2] for [name] in await harness.owner.fetch(PARTITIONS)} == {
        "default",
        *months(),
    }
    await put_rows_into_every_partition(harness)
    for name in months():
        assert await is_refused(harness.owner, f"truncate predictu_dispatch.attempt_{name}"), (
            "a new partition is guarded too"
        )


async def test_a_long_read_of_the_audit_does_not_block_settling(harness: Harness, database: Database) -> None:
    """A dump holds locks for hours: creating a partition gives up, and settling does not wait."""
    last = months()[-1]
    await harness.owner.execute(
        f"alter table predictu_dispatch.attempt_record detach partition predictu_dispatch.attempt_{last};"
        f"drop table predictu_dispatch.attempt_{last}"
    )
    async with connected(database.support, 1) as [dump], connected(database.dispatcher, 1) as [reaper]:
        async with dump.transaction():
            await dump.fetch("select count(*) from predictu_dispatch.attempt")
            async with asyncio.timeout(10):
                await reaper.execute("select predictu_dispatch.prepare_partitions(2)")
                await harness.attempt(await harness.place(), delivered)
        await reaper.execute("select predictu_dispatch.prepare_partitions(2)")
    assert await harness.owner.fetchval("select to_regclass($1) is not null", f"predictu_dispatch.attempt_{last}")


async def test_the_operators_answer_is_stored_byte_by_byte(harness: Harness) -> None:
    lease = await harness.lease(await harness.place())
    for body in BODIES:
        await harness.settle(retried(lease, response_body=body, response_headers='[["X-A", "1"], ["X-A", "2"]]'))
    rows = await harness.owner.fetch("select response_body, response_headers::text from predictu_dispatch.attempt")
    assert {row["response_body"] for row in rows} == set(BODIES)
    assert {row["response_headers"] for row in rows} == {'[["X-A", "1"], ["X-A", "2"]]'}


@pytest.mark.parametrize("is_alone", [True, False], ids=["settle_one", "settle"])
async def test_every_field_of_an_attempt_reaches_its_audit_column(
    database: Database, harness: Harness, *, is_alone: bool
) -> None:
    """Fields are passed by position, so two of one type could be swapped."""
    placement = await harness.place()
    if not is_alone:
        await harness.end("BET_WIN")
    pool = Pool(database.dispatcher, pool_size=2, application_name="test")
    await pool.open()
    try:
        outbox = Outbox(pool, instance="host-7")
        want = ClaimRequest(
            operator_id=OPERATOR,
            lane=Lane.INTERACTIVE,
            free_slots=5,
            lease_s=10.0,
            rollback_lease_s=15.0,
            amount_format="subunits",
        )
        [callback] = await outbox.claim([want])
        exchange = Exchange(
            evidence=Evidence.ANSWERED,
            status=409,
            headers=(("Server", "x"), ("Set-Cookie", "a"), ("Set-Cookie", "b")),
            body=b'{"status":"DUPLICATE_TRANSACTION","balance":95000,"transaction_id":"tx\\u0000"}',
            truncated=False,
            connect_ms=1.5,
            first_byte_ms=2.5,
            total_ms=3.5,
            peer="192.0.2.1:443",
            peer_certificate_sha256=b"certificate",
        )
        finished_at = callback.leased_at + timedelta(milliseconds=4)
        judgement = judge(callback, exchange, Statuses.of(), now=finished_at)
        attempt = Attempt(
            callback=callback,
            instance="host-7",
            finished_at=finished_at,
            url="https://wallet.example.com/predictu",
            key_id="key-1",
            request_headers='{"Content-Type": "application/json"}',
            request_body="{}",
            token_signature=b"signature",
            exchange=exchange,
            judgement=judgement,
            outcome=outcome_of(callback, judgement, INTERACTIVE, recheck_s=60.0, elapsed_s=0.004, jitter=0.0),
            report_id=uuid.uuid4(),
        )
        change, *released = await outbox.settle([attempt])
        [again] = await outbox.settle([attempt])
    finally:
        await pool.close()
    assert (change.cause, change.state, again.cause) == (Cause.SETTLED, CallbackState.DELIVERED, Cause.REPEATED)
    assert [one.cause for one in released] == ([] if is_alone else [Cause.RELEASED])
    row = await harness.owner.fetchrow("select * from predictu_dispatch.attempt_record")
    assert row is not None
    assert dict(row) | dict.fromkeys(("request_headers", "response_headers", "written_in")) == {
        "operator_id": OPERATOR,
        "request_id": placement,
        "method": "BET_MAKE",
        "attempt": 1,
        "evidence": "answered",
        "verdict": "delivered",
        "reason": None,
        "instance": "host-7",
        "started_at": callback.leased_at,
        "finished_at": finished_at,
        "url": "https://wallet.example.com/predictu",
        "key_id": "key-1",
        "request_headers": None,
        "request_body": "{}",
        "response_status": 409,
        "response_headers": None,
        "response_body": exchange.body,
        "response_truncated": False,
        "connect_ms": 1.5,
        "first_byte_ms": 2.5,
        "total_ms": 3.5,
        "error": None,
        "report_id": attempt.report_id,
        "peer": "192.0.2.1:443",
        "peer_certificate_sha256": b"certificate",
        "token_signature": b"signature",
        "response_body_sha256": None,
        "response_body_repeats": None,
        "written_in": None,
    }
    assert await harness.owner.fetchval("select written_in = xmin::text::bigint from predictu_dispatch.attempt_record")
    assert json.loads(row["request_headers"]) == {"Content-Type": "application/json"}
    assert json.loads(row["response_headers"]) == [["Server", "x"], ["Set-Cookie", "a"], ["Set-Cookie", "b"]]
    settled = await harness.callback(placement)
    assert (settled["effect"], settled["operator_status"], settled["balance"]) == (
        "applied",
        "DUPLICATE_TRANSACTION",
        95000,
    )
    assert settled["operator_transaction_id"] == "tx\ufffd", (
        "Postgres stores no NUL, and the answer must still be settled"
    )
