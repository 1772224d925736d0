"""A primary Postgres and its streaming standby, for failover tests."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import pytest
from typing_extensions import override

from predictu_dispatch.embedded_postgres.binaries import PostgresUnavailableError, find_binaries
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.support.daemons import until
from tests.support.postgres import Server

NAME = "standby"
"""The standby's application_name."""
_COPYING = "pg_basebackup"
_COPY_TIMEOUT_S = 60.0
"""A fresh server of 40 MB is copied in less than a second."""


class Standby(EmbeddedPostgres):
    """A copy of the running `primary` that follows it until promoted."""

    def __init__(self, primary: EmbeddedPostgres) -> None:
        super().__init__(fsync=False)
        self._primary = primary
        # The roles are copied too, with the primary's passwords.
        self.password = primary.password

    @override
    def _initialise(self) -> None:
        primary = f"host={self._primary.folder / 'run'} port={self._primary.port} user=postgres"
        copying = self._spawn(
            _COPYING,
            *("--pgdata", str(self._folder / "data"), "--dbname", f"{primary} application_name={NAME}"),
            *("--write-recovery-conf", "--checkpoint=fast", "--no-sync", "--no-password"),
        )
        try:
            status = copying.wait(_COPY_TIMEOUT_S)
        except BaseException:
            copying.kill()
            raise
        finally:
            self._forget()
            copying.wait()
        if status != 0:
            raise PostgresUnavailableError(f"{_COPYING} of {self._primary.folder} failed:\n{self._log_tail()}")

    async def promote(self) -> None:
        """Promotes it: it accepts writes and waits for no standby."""
        connection = await asyncpg.connect(self.dsn())
        try:
            assert await connection.fetchval("select pg_promote(wait => true)")
        finally:
            await connection.close()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """The two servers.

    `server` has DSNs that name both, so clients find the one that accepts writes.
    """

    primary: EmbeddedPostgres
    standby: Standby

    @property
    def server(self) -> Server:
        hosts = ",".join(f"127.0.0.1:{one.port}" for one in (self.primary, self.standby))
        more = "sslmode=disable&target_session_attrs=read-write"
        return Server(maintenance_dsn=f"postgresql://postgres:{self.primary.password}@{hosts}/postgres?{more}")

    async def make_synchronous(self) -> None:
        """Acknowledges commits only once the standby has them."""
        # Set after the copy was made, so that the promoted standby does not wait for a standby of
        # its own.
        connection = await asyncpg.connect(self.primary.dsn())
        try:
            await connection.execute(f"alter system set synchronous_standby_names = '{NAME}'")
            await connection.execute("select pg_reload_conf()")

            async def it_is() -> bool:
                return bool(await connection.fetchval("select sync_state = 'sync' from pg_stat_replication"))

            await until("the standby is synchronous", it_is)
        finally:
            await connection.close()

    async def stop_sending(self) -> None:
        """Stops replication: the standby receives no further commit."""
        connection = await asyncpg.connect(self.primary.dsn())
        try:
            os.kill(await connection.fetchval("select pid from pg_stat_replication"), signal.SIGSTOP)
        finally:
            await connection.close()

    async def commits_waiting(self) -> int:
        """Returns how many commits on the primary wait for the standby's acknowledgement."""
        connection = await asyncpg.connect(self.primary.dsn())
        try:
            return int(await connection.fetchval("select count(*) from pg_stat_activity where wait_event = 'SyncRep'"))
        finally:
            await connection.close()

    def silence_primary(self) -> None:
        """Freezes the primary, like a machine that loses its network: connections stay open.

        The kernel still accepts connections. End it with `primary.kill()`.
        """
        postmaster = self.primary.pid
        assert postmaster is not None
        # The postmaster first, so that it starts no more children.
        os.kill(postmaster, signal.SIGSTOP)
        for child in Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split():
            os.kill(int(child), signal.SIGSTOP)


@contextmanager
def running_pair() -> Iterator[Pair]:
    """Starts both; the standby follows asynchronously until `make_synchronous`."""
    if not os.access(find_binaries(os.environ) / _COPYING, os.X_OK):
        pytest.skip(f"{_COPYING} is not among Postgres's programs in {find_binaries(os.environ)}")
    with EmbeddedPostgres(fsync=False) as primary:
        try:
            with Standby(primary) as standby:
                yield Pair(primary=primary, standby=standby)
        finally:
            # A frozen primary would never stop on request.
            primary.kill()
