"""pgbouncer in transaction mode, configured to change sessions as often as possible.

`PooledFleet` puts it between daemons and their database. With TEST_POOLER=pgbouncer conftest.py
uses it in every environment, so any test of real daemons can run through it:
TEST_POOLER=pgbouncer make test ARGS="tests/system/test_crash.py".
"""

import os
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from typing_extensions import override

from predictu_dispatch.embedded_postgres.binaries import NOBODY, free_port, fresh_folder
from predictu_dispatch.embedded_postgres.watcher import Watcher
from tests.support.daemons import Daemon, Fleet
from tests.support.postgres import LOGINS

_START_TIMEOUT_S = 10.0
_POLL_S = 0.005
_PORT_TRIALS = 5
IGNORED = ""
"""Settings that clients ask for and do not get, instead of being refused."""
_SETTINGS = """
[databases]
* = host={host} port={server_port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {users}
pool_mode = transaction
max_client_conn = 300
default_pool_size = {sessions}
; Another session for each transaction, so that nothing may depend on session state.
min_pool_size = {sessions}
server_round_robin = 1
; Connect again soon after an outage.
server_login_retry = 0.2
server_tls_sslmode = disable
ignore_startup_parameters = {ignored}
log_connections = 0
log_disconnections = 0
"""


def find_pgbouncer() -> str:
    """Returns the program's path; skips the test if it is not installed.

    Debian puts it in /usr/sbin.
    """
    found = shutil.which("pgbouncer", path=os.pathsep.join((os.environ.get("PATH", os.defpath), "/usr/sbin")))
    if found is None:
        pytest.skip("pgbouncer is neither on PATH nor in /usr/sbin; on Debian: apt install pgbouncer")
    return found


class PgBouncer:
    """One pgbouncer in front of the server of `dsn`, for the tests' login roles.

    It has at most `sessions` sessions for each role and database.
    """

    def __init__(self, dsn: str, *, sessions: int = 6) -> None:
        self._sessions = sessions
        self._program = find_pgbouncer()
        self._server = urlsplit(dsn)
        self._folder = Path()
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: Watcher | None = None
        self.port = 0

    def through(self, dsn: str) -> str:
        """Returns the DSN of the same database and login through the pooler."""
        parts = urlsplit(dsn)
        return f"postgresql://{parts.netloc.rpartition('@')[0]}@127.0.0.1:{self.port}{parts.path}?sslmode=disable"

    def start(self) -> None:
        """Starts it and waits until it accepts connections."""
        self._folder = fresh_folder(in_memory=False)
        self._watcher = Watcher(self._folder)
        try:
            for trial in range(_PORT_TRIALS):
                self.port = free_port()
                self._write_settings()
                # Another process may have taken the port.
                if self._starts() or trial == _PORT_TRIALS - 1:
                    break
            assert self._process is not None, f"pgbouncer did not start:\n{self.log}"
        except BaseException:
            self.stop()
            raise

    @property
    def log(self) -> str:
        return (self._folder / "log").read_text(encoding="utf-8", errors="replace")

    def kill(self) -> None:
        """Kills it with SIGKILL, which cuts every connection through it."""
        if self._process is not None:
            if self._watcher is not None:
                self._watcher.forget()
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Starts it again on the same port."""
        assert self._starts(), f"pgbouncer did not start again:\n{self.log}"

    def stop(self) -> None:
        """Kills it and removes its folder."""
        self.kill()
        if self._watcher is not None:
            # Closing the watcher removes the folder.
            self._watcher.close()
            self._watcher = None

    def _write_settings(self) -> None:
        # A server that is reached by a Unix socket also listens on TCP.
        query = parse_qs(self._server.query)
        port = query["port"][0] if "port" in query else self._server.port or 5432
        host = self._server.hostname or "127.0.0.1"
        users = self._folder / "users.txt"
        password = unquote(self._server.password or "")
        self._write(users, "".join(f'"{login}" "{password}"\n' for login in LOGINS))
        settings = _SETTINGS.format(
            host=host, server_port=port, port=self.port, users=users, sessions=self._sessions, ignored=IGNORED
        )
        self._write(self._folder / "pgbouncer.ini", settings)

    def _write(self, file: Path, text: str) -> None:
        file.write_text(text, encoding="utf-8")
        file.chmod(0o600)
        if self._user is not None:
            os.chown(file, self._user, self._user)

    @property
    def _user(self) -> int | None:
        """The user to run as: like Postgres, pgbouncer refuses to run as root."""
        return NOBODY if os.geteuid() == 0 else None

    def _starts(self) -> bool:
        with (self._folder / "log").open("ab") as log:
            process = subprocess.Popen(
                [self._program, str(self._folder / "pgbouncer.ini")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder,
                user=self._user,
                group=self._user,
                extra_groups=None if self._user is None else [],
                start_new_session=True,
            )
        assert self._watcher is not None
        self._watcher.watch(process.pid)
        give_up_at_s = time.monotonic() + _START_TIMEOUT_S
        while process.poll() is None and time.monotonic() < give_up_at_s:
            with socket.socket() as trial:
                if trial.connect_ex(("127.0.0.1", self.port)) == 0:
                    self._process = process
                    return True
            time.sleep(_POLL_S)
        self._watcher.forget()
        process.kill()
        process.wait()
        return False


@dataclass(kw_only=True)
class PooledFleet(Fleet):
    """Daemons that reach the database through a pooler and listen for notifications directly."""

    direct_dsn: str = field(init=False)
    pooler: PgBouncer = field(init=False)

    def __post_init__(self) -> None:
        self.direct_dsn = self.dsn
        self.pooler = PgBouncer(self.direct_dsn)
        self.pooler.start()
        self.dsn = self.pooler.through(self.direct_dsn)

    @override
    def spawn(self, instance: str, **sections: Any) -> Daemon:
        database = {"listen_dsn": self.direct_dsn, **sections.pop("database", {})}
        if database["listen_dsn"] == self.dsn:
            # A test that passes its own DSN means the database, not the pooler.
            database["listen_dsn"] = self.direct_dsn
        return super().spawn(instance, database=database, **sections)

    @override
    def end(self) -> None:
        super().end()
        self.pooler.stop()
