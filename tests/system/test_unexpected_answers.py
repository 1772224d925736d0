"""Whatever the database answers after the start, the daemon waits, reports it and keeps answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path

import asyncpg
import pytest

from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.support.daemons import Daemon, until
from tests.support.environment import Environment, open_environment
from tests.support.harness import open_harness
from tests.support.postgres import Database, Server, cloned_database, create_template

DELIVERED_AT_ONCE = [(1, "delivered", "answered", None, "host-1")]
FAULT_S = 2.0
SOON_S = 5.0
"""From the end of a fault to the delivery of what waited for it."""

LOGIN_FAULTS = {
    "role without login": ("alter role test_dispatcher nologin", "alter role test_dispatcher login"),
    "changed password": (
        "alter role test_dispatcher password 'changed'",
        "alter role test_dispatcher password '{password}'",
    ),
    "expired password": (
        "alter role test_dispatcher valid until '2020-01-01'",
        "alter role test_dispatcher valid until 'infinity'",
    ),
    "connection limit of the role": (
        "alter role test_dispatcher connection limit 0",
        "alter role test_dispatcher connection limit -1",
    ),
    "database without connections": (
        "alter database {database} allow_connections false",
        "alter database {database} allow_connections true",
    ),
    "connect revoked": (
        "revoke connect on database {database} from public",
        "grant connect on database {database} to public",
    ),
    "database renamed": (
        "alter database {database} allow_connections false; {end_sessions}; alter database {database} rename to moved",
        "alter database moved rename to {database}; alter database {database} allow_connections true",
    ),
    "login renamed": (
        "alter role test_dispatcher rename to moved",
        # A renamed role has no password.
        "alter role moved rename to test_dispatcher; alter role test_dispatcher password '{password}'",
    ),
    "reject line in pg_hba.conf": ("reject", "accept"),
}
"""Refused at the login: the begin and the end of each, run in the database `postgres`."""


END_SESSIONS = "select pg_terminate_backend(pid, 5000) from pg_stat_activity where {of} and pid <> pg_backend_pid()"


@dataclass(frozen=True, kw_only=True)
class World:
    """A server of the test's own, whose daemon logs in with its password."""

    embedded: EmbeddedPostgres
    database: Database
    environment: Environment

    async def sabotage(self, statements: str) -> None:
        """Runs the statements as superuser in the database `postgres`; ends daemons' sessions."""
        connection = await asyncpg.connect(self.embedded.dsn())
        try:
            if statements in {"reject", "accept"}:
                await self._change_hba(connection, rejects=statements == "reject")
            else:
                values = {
                    "password": Server(maintenance_dsn=self.embedded.dsn(tcp=True)).password,
                    "database": self.database.name,
                    "end_sessions": END_SESSIONS.format(of="datname like 'predictu_test%'"),
                }
                for statement in statements.format_map(values).split("; "):
                    await connection.execute(statement)
            await connection.execute(END_SESSIONS.format(of="usename in ('test_dispatcher', 'moved')"))
        finally:
            await connection.close()

    async def _change_hba(self, connection: asyncpg.Connection[asyncpg.Record], *, rejects: bool) -> None:
        file = self.embedded.folder / "data" / "pg_hba.conf"
        lines = [line for line in file.read_text().splitlines() if not line.endswith("reject")]
        if rejects:
            lines.insert(0, "host all test_dispatcher all reject")
        file.write_text("\n".join(lines) + "\n")
        await connection.execute("select pg_reload_conf()")

    async def answer(self) -> None:
        """The operator answers what it holds, and the daemon has every answer."""
        self.environment.operator.release()
        await until("every answer is on its way", lambda: self.environment.operator.live.total() == 0)

    async def nothing_is_lost(self, daemon: Daemon, placement: object) -> None:
        """The answer decided its attempt; the daemon goes on with bets and settlements."""
        async with open_harness(self.database) as harness:
            environment = replace(self.environment, harness=harness)
            await environment.until_all_final(within_s=SOON_S)
            assert await environment.audit(placement) == DELIVERED_AT_ONCE
            await harness.place("b-2")
            await harness.end("BET_WIN", "b-1")
            await environment.until_all_final(within_s=SOON_S)
        assert len(self.environment.operator.requests) == 3
        assert self.environment.operator.faults == []
        assert daemon.process.poll() is None


@pytest.fixture
async def world(tmp_path: Path, embedded: EmbeddedPostgres) -> AsyncIterator[World]:
    server = Server(maintenance_dsn=embedded.dsn(tcp=True))
    async with (
        cloned_database(server, await create_template(server)) as database,
        open_environment(tmp_path, database) as environment,
    ):
        yield World(embedded=embedded, database=database, environment=environment)


@pytest.mark.parametrize("fault", LOGIN_FAULTS)
async def test_a_refused_login_is_an_outage_that_loses_no_answer(world: World, fault: str) -> None:
    begin, end = LOGIN_FAULTS[fault]
    daemon = await world.environment.fleet.start("host-1")
    world.environment.operator.hold()
    placement = await world.environment.harness.place("b-1")
    await world.environment.until_in_flight(1)

    await world.sabotage(begin)

    async def it_says_why() -> bool:
        status, text = await daemon.get("/readyz")
        return status == 503 and text.startswith("the database refuses the login (SQLSTATE ")

    await until("readyz names the refused login", it_says_why)
    assert await daemon.metric("database_up") == 0
    await world.answer()
    # Claims, heartbeats, chores and the settle are refused meanwhile, many times each.
    await asyncio.sleep(FAULT_S)
    assert daemon.process.poll() is None, daemon.log_text

    await world.sabotage(end)
    await world.nothing_is_lost(daemon, placement)
    causes = [line["sqlstate"] for line in daemon.lines("database.lost")]
    assert any(causes)
    assert len(causes) == len(set(causes)), "one line for each cause"
    assert [line["event"] for line in daemon.lines() if line["event"].startswith("database.")][
        -1
    ] == "database.recovered"
    assert daemon.lines("chore.failed") == []


STATEMENT_FAULTS = {
    "execute revoked": (
        "revoke execute on all functions in schema predictu_dispatch from predictu_dispatcher",
        "grant execute on all functions in schema predictu_dispatch to predictu_dispatcher",
    ),
    "schema usage revoked": (
        "revoke usage on schema predictu_dispatch from predictu_dispatcher",
        "grant usage on schema predictu_dispatch to predictu_dispatcher",
    ),
    "functions renamed": (
        (
            "alter function predictu_dispatch.settle(predictu_dispatch.attempt_report[]) rename to moved;"
            " alter function predictu_dispatch.settle_one rename to moved_one"
        ),
        (
            "alter function predictu_dispatch.moved rename to settle;"
            " alter function predictu_dispatch.moved_one rename to settle_one"
        ),
    ),
    "schema renamed": (
        "alter schema predictu_dispatch rename to moved",
        "alter schema moved rename to predictu_dispatch",
    ),
    "audit renamed": (
        "alter table predictu_dispatch.attempt_record rename to moved",
        "alter table predictu_dispatch.moved rename to attempt_record",
    ),
    **{
        f"settles raise {sqlstate}": (
            (
                "create function public.refuse() returns trigger language plpgsql as"
                f" $$begin raise exception 'broken' using errcode = '{sqlstate}'; end$$;"
                " create trigger refuse before insert on predictu_dispatch.attempt_record"
                " for each row execute function public.refuse()"
            ),
            "drop trigger refuse on predictu_dispatch.attempt_record; drop function public.refuse()",
        )
        for sqlstate in ("XX001", "22012", "23514", "54000", "58030", "40P01", "0A000", "PD900", "F0000")
    },
}
"""Refused in an open session: the begin and the end of each, run in the test's database."""


@pytest.mark.parametrize("fault", STATEMENT_FAULTS)
async def test_a_refused_statement_ends_no_daemon_and_loses_no_answer(environment: Environment, fault: str) -> None:
    begin, end = STATEMENT_FAULTS[fault]
    daemon = await environment.fleet.start("host-1")
    environment.operator.hold()
    placement = await environment.harness.place("b-1")
    await environment.until_in_flight(1)
    owner = environment.harness.owner
    try:
        await owner.execute(begin)
        environment.operator.release()
        await daemon.until_logged("report.refused")
        await asyncio.sleep(FAULT_S)
        assert daemon.process.poll() is None, daemon.log_text
        assert await daemon.metric("unsettled_failing", "interactive") == 1
        assert (await daemon.metric("unsettled_oldest_seconds", "interactive") or 0) > FAULT_S / 2
    finally:
        await owner.execute(end)
    async with asyncio.timeout(SOON_S):
        await environment.until_all_final()
        assert await environment.audit(placement) == DELIVERED_AT_ONCE
        await environment.harness.end("BET_WIN", "b-1")
        await environment.until_all_final()
    assert len(environment.operator.requests) == 2
    assert environment.operator.faults == []
    assert len(daemon.lines("report.refused")) == 1
    assert len(daemon.lines("chore.failed")) <= len({line["chore"] for line in daemon.lines("chore.failed")})
    await until("nothing is kept any more", lambda: _nothing_kept(daemon))


async def _nothing_kept(daemon: Daemon) -> bool:
    return await daemon.metric("unsettled_failing", "interactive") == 0
