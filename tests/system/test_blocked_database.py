"""Another login's lock stops every statement: the daemon names it, and goes on after its end."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg

from tests.support.command_line import command_line_for
from tests.support.daemons import until
from tests.support.environment import Environment
from tests.support.postgres import Database

NAMED_WITHIN_S = 6.0
RECOVERED_WITHIN_S = 10.0
COMMAND_ENDS_WITHIN_S = 20.0
CATALOGS = ("pg_class", "pg_attribute", "pg_index", "pg_proc", "pg_type", "pg_operator", "pg_trigger", "pg_namespace")


@contextlib.asynccontextmanager
async def lock_queue(dsn: str) -> AsyncIterator[tuple[int, int]]:
    """Two sessions of this login stop all statements on callbacks; yields both pids.

    The first one holds a lock, and the second one waits for a stronger one in front of all others.
    """
    holder = await asyncpg.connect(dsn, server_settings={"application_name": "a\x1b[31mb"})
    asking = await asyncpg.connect(dsn)
    ddl: asyncio.Task[str] | None = None
    try:
        await holder.execute("begin")
        await holder.execute("prepare s as update predictu_dispatch.callback set state = state")
        ddl = asyncio.create_task(
            asking.execute("create rule r as on insert to predictu_dispatch.callback do nothing"), name="ddl"
        )
        yield holder.get_server_pid(), asking.get_server_pid()
    finally:
        holder.terminate()
        with contextlib.suppress(asyncpg.InsufficientPrivilegeError):
            if ddl is not None:
                await ddl
        await asking.close()


async def test_sessions_that_stop_all_statements_are_named_at_once_and_deliveries_go_on_after_their_end(
    environment: Environment, database: Database, tmp_path: Path
) -> None:
    daemon = await environment.fleet.start("host-1")
    daemon.freeze()
    await environment.harness.place("b-1")
    (tmp_path / "desk").mkdir()
    desk = command_line_for(tmp_path / "desk", database.support)
    async with lock_queue(database.producer) as (holder, asking):
        daemon.thaw()
        status = asyncio.create_task(desk.run("status"), name="status")
        await until("both are named", lambda: bool(daemon.lines("database.blocked")), within_s=NAMED_WITHIN_S)
        [line] = daemon.lines("database.blocked")
        code, reason = await daemon.get("/readyz")
        assert code == 503
        for text in (line["reason"], reason):
            assert f"process {holder} (login test_producer, application a\\x1b[31mb) holds it" in text
            assert f"process {asking} (login test_producer) waits for it since 20" in text
        assert line["pids"] == f"{holder}, {asking}"
        assert (await daemon.metric("database_blocked_seconds") or 0) >= 3
        # A statement that times out and is repeated waits for the same sessions.
        exit_code, stdout, stderr = await asyncio.wait_for(status, COMMAND_ENDS_WITHIN_S)
        assert (exit_code, stdout) == (3, "")
        assert f"process {holder} (login test_producer" in stderr

        async def has_lasted() -> bool:
            return (await daemon.metric("database_blocked_seconds") or 0) > 12

        await until("the claim has timed out and was repeated", has_lasted)
        assert not await daemon.is_ready()
        assert len(daemon.lines("database.blocked")) == 1
    await environment.until_all_final(within_s=RECOVERED_WITHIN_S)
    await until("it is ready again", daemon.is_ready, within_s=RECOVERED_WITHIN_S)
    await daemon.until_logged("database.unblocked")
    assert await daemon.metric("database_blocked_seconds") == 0
    assert await environment.states() == {"delivered": 1}


async def test_sessions_that_lock_the_catalogs_are_named_although_logins_to_the_database_hang(
    environment: Environment, database: Database
) -> None:
    """No grant is needed; many temporary tables make all sessions read the catalogs again."""
    daemon = await environment.fleet.start("host-1")
    # Prepared, because it must not need the catalogs later.
    is_blocked = await environment.harness.owner.prepare("select cardinality(pg_blocking_pids($1)) > 0")
    assert not await is_blocked.fetchval(0)
    sessions = [await asyncpg.connect(database.stranger) for _ in range(2 + len(CATALOGS))]
    holder, bursting, *asking = sessions
    try:
        await holder.execute("begin")
        for catalog in CATALOGS:
            await holder.execute(f"prepare s_{catalog} as select from pg_catalog.{catalog}")
        await bursting.execute("begin")
        await bursting.execute(
            "do $$begin for i in 1..900 loop execute format('create temp table t%s (a int)', i); end loop; end$$"
        )
        async with asyncio.TaskGroup() as tasks:
            for session, catalog in zip(asking, CATALOGS, strict=True):
                tasks.create_task(refused(session, f"create rule r as on insert to pg_catalog.{catalog} do nothing"))

            async def all_wait() -> bool:
                return all([await is_blocked.fetchval(session.get_server_pid()) for session in asking])

            await until("all wait", all_wait)
            tasks.create_task(refused(bursting, "commit"))
            await daemon.until_logged("database.blocked")
            assert not await daemon.is_ready()
            assert (
                f"process {holder.get_server_pid()} (login test_stranger) holds it"
                in daemon.lines("database.blocked")[0]["reason"]
            )
            for session in sessions:
                session.terminate()
        await until("it is ready again", daemon.is_ready)
    finally:
        for session in sessions:
            session.terminate()


async def refused(session: asyncpg.Connection, statement: str) -> None:
    with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
        await session.execute(statement)
