"""A private Postgres server: started in a second, killed like a power cut, removed without a trace.

    with EmbeddedPostgres() as postgres:
        asyncio.run(migrate(postgres.dsn()))

One fresh folder has everything: `data`, `run` (the Unix socket), `server.log`, and `programs` if
`choose_launch` needs a copy of them. A watcher ends the server and removes the folder if we are
killed. All calls block; inside an event loop make them from a thread.
"""

import os
import secrets
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import quote

from predictu_dispatch.embedded_postgres.binaries import (
    Launch,
    PostgresUnavailableError,
    choose_launch,
    find_binaries,
    free_port,
    fresh_folder,
    version_of,
)
from predictu_dispatch.embedded_postgres.watcher import Watcher, ended_within

_START_TIMEOUT_S = 60.0
"""A start takes 0.03 s, recovery after a kill a few seconds."""
_STOP_TIMEOUT_S = 30.0
_POLL_S = 0.005

_PORT_TRIALS = 5

_FAST = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "256MB"}
"""Data survives kill -9 but no crash of the machine; the WAL is small as it may be in memory."""


class EmbeddedPostgres:
    """One server with one data folder. Logins need `password` by TCP, and none by the Unix socket.

    `binaries` replaces the search of `find_binaries`; `fsync=False` is for tests, and keeps the
    data in memory if there is room; `settings` are Postgres's own. The superuser is `postgres`.
    """

    def __init__(
        self, *, binaries: Path | None = None, fsync: bool = True, settings: Mapping[str, str] | None = None
    ) -> None:
        self._binaries = binaries or find_binaries(os.environ)
        self._fsync = fsync
        self._settings = {"timezone": "UTC", "log_timezone": "UTC", **({} if fsync else _FAST), **(settings or {})}
        self._folder = Path()
        self._launch = Launch(binaries=self._binaries)
        self._watcher: Watcher | None = None
        self._postmaster: subprocess.Popen[bytes] | None = None
        self.port = 0
        # Every user of this machine can connect by TCP, and a superuser can run programs as us.
        self.password = secrets.token_hex(16)

    @property
    def version(self) -> str:
        """Such as `18.6`."""
        return version_of(self._binaries)

    @property
    def folder(self) -> Path:
        return self._folder

    @property
    def pid(self) -> int | None:
        return self._postmaster.pid if self._postmaster else None

    def dsn(self, database: str = "postgres", user: str = "postgres", *, tcp: bool = False) -> str:
        """The DSN for asyncpg and libpq: by the Unix socket, or by 127.0.0.1 with the password."""
        if tcp:
            # With sslmode=disable asyncpg does not search a home folder for certificates.
            return f"postgresql://{quote(user)}:{self.password}@127.0.0.1:{self.port}/{quote(database)}?sslmode=disable"
        host = quote(str(self._folder / "run"), safe="")
        return f"postgresql://{quote(user)}@/{quote(database)}?host={host}&port={self.port}"

    def start(self) -> None:
        """Create the data folder and start the server. Raises PostgresUnavailableError."""
        if self._watcher:
            raise RuntimeError(f"this server already runs in {self._folder}; call stop() first, or restart()")
        self._folder = fresh_folder(in_memory=not self._fsync)
        try:
            self._watcher = Watcher(self._folder)
            copies = self._folder / "programs"
            copies.mkdir()
            copies.chmod(0o755)
            self._launch = choose_launch(self._binaries, os.environ, copies=copies)
            for name in ("data", "run"):
                self._own(self._folder / name).chmod(0o700)
            self._initialise()
            self._start_on_some_port()
        except BaseException:
            self.stop()
            raise

    def kill(self) -> None:
        """Kill every process of the server, as in a power cut; the data stays for restart()."""
        if self._postmaster is None:
            return
        backends = _stop_and_list_children(self._postmaster)
        for backend in backends:
            signal.pidfd_send_signal(backend, signal.SIGKILL)
        self._postmaster.kill()
        self._forget()
        self._postmaster.wait()
        self._postmaster = None
        # Postgres refuses to start on this data while one of them uses the shared memory.
        for backend in backends:
            ended_within(backend, timeout_s=_STOP_TIMEOUT_S)
            os.close(backend)

    def halt(self) -> None:
        """Shut the server down without waiting for its clients; the data stays for restart()."""
        self._shut_down(signal.SIGINT, signal.SIGQUIT, signal.SIGKILL)

    def _shut_down(self, *signals: signal.Signals) -> None:
        if self._postmaster is None:
            return
        self._forget()
        for number in signals:
            self._postmaster.send_signal(number)
            try:
                self._postmaster.wait(_STOP_TIMEOUT_S)
                break
            except subprocess.TimeoutExpired:
                continue
        self._postmaster = None

    def restart(self) -> None:
        self.halt()
        self._start_postmaster()

    def stop(self) -> None:
        """Stop the server and remove its files; a second call does nothing."""
        # Without a checkpoint: the folder is removed anyway.
        self._shut_down(signal.SIGQUIT, signal.SIGKILL)
        if self._folder != Path():
            shutil.rmtree(self._folder)
            self._folder = Path()
        if self._watcher:
            self._watcher.close()
            self._watcher = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _own(self, path: Path) -> Path:
        path.mkdir(exist_ok=True)
        if self._launch.user is not None:
            os.chown(path, self._launch.user, self._launch.user)
        return path

    def _initialise(self) -> None:
        password_file = self._folder / "run" / "password"
        password_file.write_text(self.password)
        if self._launch.user is not None:
            os.chown(password_file, self._launch.user, self._launch.user)
        initdb = self._spawn(
            "initdb",
            *("--pgdata", str(self._folder / "data"), "--username=postgres", f"--pwfile={password_file}"),
            *("--auth-local=trust", "--auth-host=scram-sha-256"),
            *("--locale=C", "--encoding=UTF8", "--no-sync", "--no-instructions"),
        )
        try:
            status = initdb.wait(_START_TIMEOUT_S)
        except BaseException:
            initdb.kill()
            raise
        finally:
            self._forget()
            initdb.wait()
        password_file.unlink()
        if status != 0:
            raise PostgresUnavailableError(f"initdb in {self._binaries} failed:\n{self._log_tail()}")

    def _start_on_some_port(self) -> None:
        """Start on a free port; try another one if a process takes it before Postgres does."""
        for trial in range(_PORT_TRIALS):
            self.port = free_port()
            try:
                self._start_postmaster()
            except PostgresUnavailableError:
                if trial == _PORT_TRIALS - 1 or "could not bind" not in self._log_tail():
                    raise
            else:
                return

    def _start_postmaster(self) -> None:
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": str(self._folder / "run"),
            # Shared memory in files of the data folder is removed with it, also after a kill.
            "dynamic_shared_memory_type": "mmap",
            **self._settings,
        }
        options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
        self._postmaster = self._spawn("postgres", "-D", str(self._folder / "data"), *options)
        give_up_at = time.monotonic() + _START_TIMEOUT_S
        while not self._is_ready(self._postmaster.pid):
            if self._postmaster.poll() is not None or time.monotonic() > give_up_at:
                self.halt()
                raise PostgresUnavailableError(f"Postgres from {self._binaries} did not start:\n{self._log_tail()}")
            time.sleep(_POLL_S)

    def _is_ready(self, pid: int) -> bool:
        """Whether postmaster.pid is this server's, and its eighth line is `ready`."""
        try:
            lines = (self._folder / "data" / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) >= 8 and lines[0] == str(pid) and lines[7].strip() == "ready"  # noqa: PLR2004 -- see above.

    def _spawn(self, program: str, *arguments: str) -> subprocess.Popen[bytes]:
        """Start a program, watched, in a session of its own, so that Ctrl-C does not reach it."""
        user = self._launch.user
        with (self._folder / "server.log").open("ab") as log:
            child = subprocess.Popen(  # noqa: S603 -- the command is made of our own parts.
                self._launch.command(program, *arguments),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._folder / "run",
                # The caller's PGDATA, PGPORT and locale must not reach this server.
                env={name: value for name, value in os.environ.items() if not name.startswith(("PG", "LC_"))}
                | {"LC_ALL": "C"},
                user=user,
                group=user,
                extra_groups=None if user is None else [],
                umask=0o077,
                start_new_session=True,
            )
        try:
            if self._watcher:
                self._watcher.watch(child.pid)
        except BrokenPipeError:
            child.kill()
            child.wait()
            raise
        return child

    def _forget(self) -> None:
        if self._watcher:
            self._watcher.forget()

    def _log_tail(self) -> str:
        return "\n".join((self._folder / "server.log").read_text(errors="replace").splitlines()[-12:])


def _stop_and_list_children(process: subprocess.Popen[bytes]) -> list[int]:
    """Freeze the process, and open a pidfd for each child; empty if not Linux.

    Elsewhere the children end by themselves after the postmaster.
    """
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if process.poll() is not None or not children.exists():
        return []
    process.send_signal(signal.SIGSTOP)
    os.waitpid(process.pid, os.WUNTRACED)
    return [os.pidfd_open(int(child)) for child in children.read_text().split()]
