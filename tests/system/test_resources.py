"""A full disk of Postgres, and a daemon without file descriptors: nothing is lost."""

import asyncio
import dataclasses
import tempfile
from collections.abc import Iterator
from pathlib import Path
from uuid import UUID

import aiohttp
import asyncpg
import pytest

from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.support.circuits import operator_row, until_heartbeats_sent
from tests.support.daemons import Daemon, until
from tests.support.environment import Environment, open_environment
from tests.support.harness import Harness, connected, open_harness
from tests.support.postgres import Database, cloned_database, create_template, server_of
from tests.support.resources import SmallDisk, few_descriptors, small_disk, why_no_small_disk

STAKE = 500
DELIVERED_AT_ONCE = [(1, "delivered", "answered", None, "host-1")]
_GONE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    if reason := why_no_small_disk():
        pytest.skip(reason)
    # Three databases and their WAL take half of it.
    with small_disk(size_mb=256) as disk:
        yield disk


@pytest.fixture
def cramped(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedPostgres]:
    """A server with data and WAL on the small disk."""
    settings = {"min_wal_size": "32MB", "max_wal_size": "64MB", "max_connections": "50"}
    server = EmbeddedPostgres(fsync=True, settings=settings)
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "tempdir", str(disk.path))
        server.start()
    try:
        assert server.folder.is_relative_to(disk.path)
        yield server
    finally:
        server.stop()


async def place_until_refused(harness: Harness) -> list[UUID]:
    """Enqueue bets until the disk is full; returns the accepted ones."""
    taken: list[UUID] = []
    for n in range(10_000):
        try:
            taken.append(await harness.place(f"squeezed-{n}"))
        except asyncpg.DiskFullError as refused:
            assert "No space left on device" in str(refused)  # noqa: PT017 - the number of accepted bets varies
            return taken
    raise AssertionError("Postgres accepted everything on a full disk")


async def lives_without_settling(environment: Environment, daemon: Daemon) -> None:
    """Check that it reports the failing database, waits, and still serves its endpoints."""
    await until("every answer is on its way", lambda: environment.operator.live.total() == 0)
    await daemon.until_logged("database.lost")
    assert daemon.process.poll() is None
    assert (await daemon.get("/healthz"))[0] == 200


async def test_a_full_disk_loses_no_answer_and_leaves_no_partial_transaction(
    tmp_path: Path, cramped: EmbeddedPostgres, disk: SmallDisk
) -> None:
    """First the tables' disk is full and statements fail; then the WAL's, and Postgres stops."""
    server = server_of(cramped)
    async with (
        cloned_database(server, await create_template(server)) as database,
        open_environment(tmp_path, database) as environment,
    ):
        daemon = await environment.fleet.start("host-1")
        environment.operator.hold()
        placements = [await environment.harness.place(f"b-{n}") for n in range(40)]
        await environment.until_in_flight(len(placements))
        disk.fill()
        placements += await place_until_refused(environment.harness)
        environment.operator.release()
        await lives_without_settling(environment, daemon)
        assert any("No space left on device" in line["error"] for line in daemon.lines("database.lost"))
        assert await environment.harness.owner.fetchval("select count(*) from predictu_dispatch.attempt") < 40
        disk.empty()
        await environment.until_all_final()
        await assert_each_is_delivered_once(environment, placements)

        environment.operator.hold()
        wins = [await environment.harness.end("BET_WIN", f"b-{n}") for n in range(40)]
        await environment.until_in_flight(len(wins))
        disk.fill()
        await write_log_until_it_breaks(database)
        environment.operator.release()
        await lives_without_settling(environment, daemon)
        disk.empty()
        await asyncio.to_thread(cramped.restart)
        await until("the daemon is ready again", daemon.is_ready)
        # The producer's connections are lost with the server.
        async with open_harness(database) as harness:
            restored = dataclasses.replace(environment, harness=harness)
            await restored.until_all_final()
            await assert_each_is_delivered_once(restored, placements + wins)
            # The disk may have been full for the first bet already.
            bets = {"open": 0} | await restored.bets()
            assert bets == {"closed": 40, "open": len(placements) - 40}
            assert environment.operator.balance["p1"] == -STAKE * (len(placements) - 40)


async def write_log_until_it_breaks(database: Database) -> None:
    """Switch WAL files until the disk is full and Postgres stops."""
    async with connected(database.owner, 1) as [writer]:
        try:
            for _ in range(50):
                await writer.execute("select pg_logical_emit_message(false, 'test', 'x'), pg_switch_wal()")
        except _GONE:
            pass
        await until("the server has stopped", writer.is_closed)


async def assert_each_is_delivered_once(environment: Environment, request_ids: list[UUID]) -> None:
    """Check that everything was sent once, although it was settled late."""
    assert await environment.states() == {"delivered": len(request_ids)}
    assert [await environment.audit(request_id) for request_id in request_ids] == [DELIVERED_AT_ONCE] * len(request_ids)
    assert len(environment.operator.requests) == len(request_ids)
    assert await environment.harness.owner.fetchval(
        "select count(*) from predictu_dispatch.bet"
    ) == await environment.harness.owner.fetchval(
        "select count(*) from predictu_dispatch.callback where method = 'BET_MAKE'"
    ), "no bet without its placement"
    assert environment.operator.faults == await environment.audit_faults() == []


@pytest.mark.parametrize(
    ("known_by", "delivered_before", "sockets"),
    [
        ("127.0.0.1", 1, 4),
        # Not enough for a name lookup either.
        ("localhost", 0, 0),
    ],
)
async def test_a_daemon_without_descriptors_sends_nothing_and_opens_no_circuit(
    environment: Environment, known_by: str, delivered_before: int, sockets: int
) -> None:
    """Attempts without a socket are not sent and do not count against the operator."""
    count = 40
    environment.fleet.write_operator(
        environment.operator.url.replace("127.0.0.1", known_by),
        interactive={"initial_delay_s": 0.3, "max_delay_s": 0.3, "max_attempts": 100},
        circuit={"failure_threshold": 5},
    )
    # One connection to Postgres, which is already open.
    daemon = await environment.fleet.start("host-1", database={"pool_size": 1})
    for n in range(delivered_before):
        await environment.harness.place(f"before-{n}")
        await environment.until_all_final()
    environment.operator.hold()
    with few_descriptors(daemon.process.pid, more=sockets):
        placements = [await environment.harness.place(f"b-{n}") for n in range(count)]
        await until("the first sockets are in use", lambda: environment.operator.live.total() >= min(sockets, 1))

        async def others_got_none_twice() -> bool:
            return (await audit_by_reason(environment)).get(("not_sent", "no_socket"), 0) >= 2 * (count - sockets)

        await until("the others were retried without a socket", others_got_none_twice, within_s=15.0)
        # Long enough for the circuit to open.
        await until_heartbeats_sent(environment, 2)
        assert (await audit_by_reason(environment)).keys() <= {("not_sent", "no_socket"), ("answered", None)}
        # Open connections are served; only new ones may be refused.
        assert (await daemon.get("/healthz"))[0] == 200
        assert await daemon.metric("database_up") is not None
        assert daemon.process.poll() is None
    environment.operator.release()
    await environment.until_all_final()
    async with aiohttp.ClientSession() as newcomer, newcomer.get(f"{daemon.url}/metrics") as answer:
        assert answer.status == 200
    assert await environment.bets() == {"open": count + delivered_before}
    sends = [len(environment.operator.sent(placement)) for placement in placements]
    assert sends == [1] * count, "no attempt that is not_sent arrived"
    operator = await operator_row(environment)
    assert (operator["circuit"], operator["consecutive_failures"]) == ("closed", 0)
    assert daemon.lines("circuit.opened") == []
    assert environment.operator.faults == await environment.audit_faults() == []


async def audit_by_reason(environment: Environment) -> dict[tuple[str, str | None], int]:
    """Number of audit rows by evidence and reason."""
    found = await environment.harness.owner.fetch(
        "select evidence, reason, count(*) from predictu_dispatch.attempt group by evidence, reason"
    )
    return {(found_row["evidence"], found_row["reason"]): found_row["count"] for found_row in found}
