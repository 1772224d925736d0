"""The server's notification queue belongs to all its logins; whoever fills it costs only time."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import asyncpg
import pytest

from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.support.command_line import command_line_for
from tests.support.daemons import Daemon, until
from tests.support.environment import Environment, open_environment
from tests.support.harness import OPERATOR, Connection, connected, enqueue
from tests.support.postgres import Database, cloned_database, create_template, server_of

BALANCE = {"player_id": "p-1", "currency": "EUR"}
_PAGES = 64
"""The smallest queue that Postgres allows, half a megabyte."""
_PAYLOAD_BYTES = 7000
_SIZE_SETTING_SINCE = 17


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    """A database on a server of the test's own, with a small queue and prepared transactions."""
    server = EmbeddedPostgres(fsync=False)
    if int(server.version.split(".")[0]) < _SIZE_SETTING_SINCE:
        pytest.skip(f"needs Postgres {_SIZE_SETTING_SINCE}: before it the queue has 8 GB")
    settings = {"max_notify_queue_pages": str(_PAGES), "max_prepared_transactions": "4"}
    with EmbeddedPostgres(fsync=False, settings=settings) as embedded:
        own = server_of(embedded)
        async with cloned_database(own, await create_template(own)) as database:
            yield database


@asynccontextmanager
async def full_queue(database: Database) -> AsyncIterator[None]:
    """A login without any grant fills the queue, from another database."""
    elsewhere = database.stranger.replace(f"/{database.name}", "/postgres")
    async with connected(elsewhere, 2) as [listener, filler]:
        await listener.execute("listen x")
        await listener.execute("begin")
        await listener.execute("select 1")
        with suppress(asyncpg.ProgramLimitExceededError):
            for number in range(1000):
                await filler.execute("select pg_notify('y', $1)", f"{number} ".ljust(_PAYLOAD_BYTES, "x"))
        with pytest.raises(asyncpg.ProgramLimitExceededError, match="too many notifications"):
            await filler.execute("notify y")
        yield
        await listener.execute("rollback")
        await until("the queue is empty", lambda: is_empty(filler))


async def is_empty(connection: Connection) -> bool:
    usage: float = await connection.fetchval("select pg_notification_queue_usage()")
    return usage < 0.1


async def test_with_a_full_queue_nothing_fails_and_polling_does_the_work(tmp_path: Path, database: Database) -> None:
    async with open_environment(tmp_path, database) as environment:
        daemon = await environment.fleet.start("host-1")
        async with full_queue(database):
            late = await environment.fleet.start("host-2")
            await deliver_everything(environment)
            (tmp_path / "cli").mkdir()
            cli = command_line_for(tmp_path / "cli", database.operations)
            for verb in (["pause", OPERATOR, "--reason", "maintenance"], ["resume", OPERATOR], ["ping", OPERATOR]):
                code, _, stderr = await cli.run(*verb)
                assert (code, stderr) == (0, ""), verb
            await until("the metric shows it", lambda: shows_full_queue(daemon))
        for one in (daemon, late):
            assert await one.is_ready()
            for event in ("chore.failed", "report.refused", "database.lost", "heartbeat.failed"):
                assert one.lines(event) == []
    assert environment.operator.faults == []


async def shows_full_queue(daemon: Daemon) -> bool:
    return (await daemon.metric("notification_queue_usage_ratio") or 0.0) > 0.9


async def deliver_everything(environment: Environment) -> None:
    """Each kind of call and each kind of outcome."""
    harness = environment.harness
    asked = await enqueue(harness.producer, "BALANCE", BALANCE)
    placed = {bet_id: await harness.place(bet_id) for bet_id in ("won", "failed")}
    await harness.end("BET_WIN", "won")
    await environment.until_all_final()
    reversal = await harness.rollback("failed")
    await environment.until_all_final()
    assert await environment.bets() == {"closed": 2}
    for request_id in (asked, *placed.values(), reversal):
        [outcome] = await harness.producer.fetch(
            "select state, effect from predictu_dispatch.outcome($1, $2)", OPERATOR, request_id
        )
        assert tuple(outcome) == ("delivered", "applied")
        assert [row[:3] for row in await environment.audit(request_id)] == [(1, "delivered", "answered")]
    assert await environment.audit_faults() == []


async def test_a_commit_that_fails_because_others_filled_the_queue_meanwhile_is_an_outage(
    tmp_path: Path, database: Database
) -> None:
    """The check comes before the commit. Nothing may be lost in between."""
    async with open_environment(tmp_path, database) as environment:
        harness = environment.harness
        await harness.owner.execute(
            "create or replace function predictu_dispatch.notify(channel text, payload text) returns boolean"
            " language sql as 'select pg_notify(channel, payload) is not null'"
        )
        daemon = await environment.fleet.start("host-1")
        (tmp_path / "cli").mkdir()
        cli = command_line_for(tmp_path / "cli", database.operations)
        environment.operator.hold()
        placed = await harness.place("b1")
        await environment.until_in_flight(1)
        async with full_queue(database):
            with pytest.raises(asyncpg.ProgramLimitExceededError):
                await enqueue(harness.producer, "BALANCE", BALANCE)
            environment.operator.release()
            await daemon.until_logged("database.lost")
            code, _, stderr = await cli.run("pause", OPERATOR, "--reason", "maintenance")
            assert code == 3
            assert "notification queue is full" in stderr
            code, _, stderr = await cli.run("ping", OPERATOR)
            assert code == 3
            assert "notification queue is full" in stderr
            assert daemon.process.poll() is None
        await environment.until_all_final()
        assert [row[:3] for row in await environment.audit(placed)] == [(1, "delivered", "answered")]
        assert await environment.bets() == {"open": 1}
        assert daemon.lines("report.refused") == []
    assert len(environment.operator.requests) == 1


async def test_a_transaction_that_will_be_prepared_turns_notifications_off(tmp_path: Path, database: Database) -> None:
    async with open_environment(tmp_path, database) as environment:
        producer = environment.harness.producer
        await environment.fleet.start("host-1")
        await producer.execute("begin")
        await environment.harness.place("p1")
        with pytest.raises(asyncpg.FeatureNotSupportedError, match="executed LISTEN, UNLISTEN, or NOTIFY"):
            await producer.execute("prepare transaction 'p1'")
        for name in ("p2", "p3"):
            await producer.execute("begin; set local predictu_dispatch.notify = off")
            await environment.harness.place(name)
            if name == "p3":
                await environment.harness.rollback(name)
                await environment.harness.place("p4")
            await producer.execute(f"prepare transaction '{name}'")
        for name in ("p2", "p3"):
            await producer.execute(f"commit prepared '{name}'")
        await environment.until_all_final()
        assert await environment.bets() == {"open": 2, "void": 1}
