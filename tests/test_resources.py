"""Postgres has no disk left, or the daemon no descriptors: it waits, loses nothing, and goes on by itself."""

import asyncio
import dataclasses
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from uuid import UUID

import aiohttp
import asyncpg
import pytest

from predictu_dispatch.edge.embedded_postgres import EmbeddedPostgres
from tests.support.circuits import looks_on, row
from tests.support.daemons import Daemon, until
from tests.support.ledger import Ledger, connected, open_ledger
from tests.support.postgres import Database, cloned_database, create_template, server_of
from tests.support.resources import SmallDisk, few_descriptors, small_disk, why_no_disk
from tests.support.stage import Stage, open_stage

STAKE = 500
DELIVERED_AT_ONCE = [(1, "delivered", "answered", None, "host-1")]
_GONE = (OSError, asyncpg.PostgresError, asyncpg.InterfaceError)


@pytest.fixture
async def stage(tmp_path: Path, database: Database) -> AsyncIterator[Stage]:
    async with open_stage(tmp_path, database) as stage:
        yield stage


@pytest.fixture
def disk() -> Iterator[SmallDisk]:
    if reason := why_no_disk():
        pytest.skip(reason)
    # Three databases and their log take half of it.
    with small_disk(size_mb=256) as disk:
        yield disk


@pytest.fixture
def cramped(disk: SmallDisk, monkeypatch: pytest.MonkeyPatch) -> Iterator[EmbeddedPostgres]:
    """A server that keeps all it has, data and log, on the small disk."""
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


async def place_until_refused(ledger: Ledger) -> list[UUID]:
    """Bets are enqueued until Postgres has no room for one more; those that it took."""
    taken: list[UUID] = []
    for n in range(10_000):
        try:
            taken.append(await ledger.place(f"squeezed-{n}"))
        except asyncpg.DiskFullError as refused:
            assert "No space left on device" in str(refused)  # noqa: PT017 - how many are taken before is Postgres's own
            return taken
    raise AssertionError("Postgres took everything on a full disk")


async def lives_without_settling(stage: Stage, daemon: Daemon) -> None:
    """It says that the database fails it, waits, and answers whoever asks how it is."""
    await until("every answer is on its way", lambda: stage.operator.live.total() == 0)
    await daemon.has_said("database.lost")
    assert daemon.process.poll() is None
    assert (await daemon.get("/healthz"))[0] == 200


async def test_a_full_disk_costs_no_answer_and_leaves_nothing_half_done(
    tmp_path: Path, cramped: EmbeddedPostgres, disk: SmallDisk
) -> None:
    """First for the tables alone: each statement that needs room fails. Then for the log: Postgres itself goes down."""
    server = server_of(cramped)
    async with (
        cloned_database(server, await create_template(server)) as database,
        open_stage(tmp_path, database) as stage,
    ):
        daemon = await stage.fleet.start("host-1")
        stage.operator.hold()
        placements = [await stage.ledger.place(f"b-{n}") for n in range(40)]
        await stage.held(len(placements))
        disk.fill()
        placements += await place_until_refused(stage.ledger)
        stage.operator.release()
        await lives_without_settling(stage, daemon)
        assert any("No space left on device" in line["error"] for line in daemon.lines("database.lost"))
        assert await stage.ledger.owner.fetchval("select count(*) from predictu_dispatch.attempt") < 40
        disk.empty()
        await stage.all_final()
        await assert_each_is_delivered_once(stage, placements)

        stage.operator.hold()
        wins = [await stage.ledger.end("BET_WIN", f"b-{n}") for n in range(40)]
        await stage.held(len(wins))
        disk.fill()
        await write_log_until_it_breaks(database)
        stage.operator.release()
        await lives_without_settling(stage, daemon)
        disk.empty()
        await asyncio.to_thread(cramped.restart)
        await until("the daemon is ready again", daemon.is_ready)
        # The producer's connections died with the server.
        async with open_ledger(database) as ledger:
            restored = dataclasses.replace(stage, ledger=ledger)
            await restored.all_final()
            await assert_each_is_delivered_once(restored, placements + wins)
            assert await restored.bets() == {"closed": 40, "open": len(placements) - 40}
            assert stage.operator.balance["p1"] == -STAKE * (len(placements) - 40)


async def write_log_until_it_breaks(database: Database) -> None:
    """Postgres begins one file of its log after the other until it finds no room for the next, and goes down."""
    async with connected(database.owner, 1) as [writer]:
        try:
            for _ in range(50):
                await writer.execute("select pg_logical_emit_message(false, 'test', 'x'), pg_switch_wal()")
        except _GONE:
            pass
        await until("the server has let go", writer.is_closed)


async def assert_each_is_delivered_once(stage: Stage, request_ids: list[UUID]) -> None:
    """And nobody has sent anything twice, although the database heard of it late."""
    assert await stage.states() == {"delivered": len(request_ids)}
    assert [await stage.audit(request_id) for request_id in request_ids] == [DELIVERED_AT_ONCE] * len(request_ids)
    assert len(stage.operator.requests) == len(request_ids)
    assert await stage.ledger.owner.fetchval(
        "select count(*) from predictu_dispatch.bet"
    ) == await stage.ledger.owner.fetchval(
        "select count(*) from predictu_dispatch.callback where method = 'BET_MAKE'"
    ), "no bet without its placement"
    assert stage.operator.faults == await stage.audit_faults() == []


@pytest.mark.parametrize(
    ("known_by", "delivered_before", "sockets"),
    [
        ("127.0.0.1", 1, 4),
        # Not even for a look-up, from the first callback on.
        ("localhost", 0, 0),
    ],
)
async def test_a_daemon_without_descriptors_left_sends_nothing_blames_nobody_and_goes_on(
    stage: Stage, known_by: str, delivered_before: int, sockets: int
) -> None:
    """What got no socket did not leave, and says nothing of the operator: so no circuit opens for it."""
    count = 40
    stage.fleet.write_operator(
        stage.operator.url.replace("127.0.0.1", known_by),
        interactive={"initial_delay_s": 0.3, "max_delay_s": 0.3, "max_attempts": 100},
        circuit={"failure_threshold": 5},
    )
    # One connection to Postgres, which it has already: what else runs short then is another test's.
    daemon = await stage.fleet.start("host-1", database={"pool_size": 1})
    for n in range(delivered_before):
        await stage.ledger.place(f"before-{n}")
        await stage.all_final()
    stage.operator.hold()
    with few_descriptors(daemon.process.pid, more=sockets):
        placements = [await stage.ledger.place(f"b-{n}") for n in range(count)]
        await until("the first sockets are in use", lambda: stage.operator.live.total() >= min(sockets, 1))

        async def others_got_none_twice() -> bool:
            return (await audit_by_reason(stage)).get(("not_sent", "no_socket"), 0) >= 2 * (count - sockets)

        await until("the others were tried again, and got none", others_got_none_twice, within_s=15.0)
        # Time enough to think ill of the operator.
        await looks_on(stage, 2)
        assert (await audit_by_reason(stage)).keys() <= {("not_sent", "no_socket"), ("answered", None)}
        # Whoever is connected is answered; a new connection may be turned away, and no more than that.
        assert (await daemon.get("/healthz"))[0] == 200
        assert await daemon.figure("database_up") is not None
        assert daemon.process.poll() is None
    stage.operator.release()
    await stage.all_final()
    async with aiohttp.ClientSession() as newcomer, newcomer.get(f"{daemon.url}/metrics") as answer:
        assert answer.status == 200
    assert await stage.bets() == {"open": count + delivered_before}
    sends = [len(stage.operator.sent(placement)) for placement in placements]
    assert sends == [1] * count, "none arrived that is said not to have been sent"
    operator = await row(stage)
    assert (operator["circuit"], operator["consecutive_failures"]) == ("closed", 0)
    assert daemon.lines("circuit.opened") == []
    assert stage.operator.faults == await stage.audit_faults() == []


async def audit_by_reason(stage: Stage) -> dict[tuple[str, str | None], int]:
    """How many audit rows have which evidence and reason."""
    found = await stage.ledger.owner.fetch(
        "select evidence, reason, count(*) from predictu_dispatch.attempt group by evidence, reason"
    )
    return {(found_row["evidence"], found_row["reason"]): found_row["count"] for found_row in found}
