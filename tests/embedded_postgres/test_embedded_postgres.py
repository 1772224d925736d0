"""The embedded server: a kill ends it, commits survive, and stop() leaves nothing."""

import ast
import asyncio
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import asyncpg
import pytest

from predictu_dispatch.embedded_postgres.binaries import (
    NOBODY,
    PG_BIN_VARIABLE,
    PostgresUnavailableError,
    choose_launch,
    find_binaries,
)
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from predictu_dispatch.embedded_postgres.watcher import ended_within

PROJECT = Path(__file__).parents[2]
START_AND_PRINT = """
import os, sys
from pathlib import Path
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
with EmbeddedPostgres(binaries=Path(sys.argv[1]), fsync=False) as server:
    pids = [server.pid, server._watcher.pid]
    print({"uid": os.getuid(), "folder": str(server.folder), "pids": pids}, flush=True)
    sys.stdin.read()
"""
"""Starts a server, prints its parts, and stops it when the input ends."""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def public_folder() -> Iterator[Path]:
    """A folder that every user may read, unlike pytest's own."""
    with tempfile.TemporaryDirectory(prefix="predictu-public-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def hidden_binaries(tmp_path: Path) -> Path:
    """The programs below a folder that only root may enter."""
    tmp_path.chmod(0o700)
    return copy_of_installation(tmp_path)


def copy_of_installation(target: Path) -> Path:
    binaries = find_binaries(os.environ)
    if binaries.parent.name != "pginstall":
        pytest.skip(f"{binaries} belongs to the system and cannot be copied; this needs a wheel")
    package = binaries.parents[1]
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.is_dir():
            shutil.copytree(folder, target / folder.name, ignore=shutil.ignore_patterns("include"))
    return target / package.name / "pginstall" / "bin"


async def fetch(dsn: str, statement: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()


def ended_in(pids: Sequence[int | None], timeout_s: float) -> Callable[[], bool]:
    """Returns a function that tells whether all of these processes ended within the time."""
    pidfds = [os.pidfd_open(pid) for pid in pids if pid is not None]
    assert len(pidfds) == len(pids)
    return lambda: all(ended_within(pidfd, timeout_s=timeout_s) for pidfd in pidfds)


async def test_the_server_answers_by_socket_and_tcp_with_its_settings() -> None:
    with EmbeddedPostgres(fsync=False, settings={"max_connections": "17"}) as server:
        assert await fetch(server.dsn(), "select current_setting('max_connections')") == "17"
        assert await fetch(server.dsn(tcp=True), "select inet_server_port()") == server.port
        shown = await fetch(
            server.dsn(),
            "select concat_ws(' ', current_setting('server_version_num'), datcollate, "
            "current_setting('server_encoding')) from pg_database where datname = 'postgres'",
        )
        major, _, minor = server.version.partition(".")
        assert shown == f"{int(major) * 10_000 + int(minor)} C UTF8"


async def test_tcp_requires_the_password(embedded: EmbeddedPostgres) -> None:
    with pytest.raises(asyncpg.InvalidPasswordError):
        await fetch(embedded.dsn(tcp=True).replace(embedded.password, "guessed"), "select 1")


async def test_committed_rows_survive_kill_9_and_a_restart_on_the_same_port(embedded: EmbeddedPostgres) -> None:
    client = await asyncpg.connect(embedded.dsn())
    await client.execute("create table kept (n integer)")
    await client.execute("insert into kept values (1)")
    transaction = client.transaction()
    await transaction.start()
    await client.execute("insert into kept values (2)")
    first_pid, port = embedded.pid, embedded.port

    embedded.kill()

    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, OSError)):
        await client.fetchval("select 1")
    client.terminate()
    with pytest.raises(OSError, match=r"(?i)connect"):
        await asyncpg.connect(embedded.dsn(tcp=True))

    embedded.restart()

    assert await fetch(embedded.dsn(tcp=True), "select array_agg(n) from kept") == [1]
    assert (embedded.port, embedded.pid == first_pid) == (port, False)


async def test_kill_ends_every_backend_even_a_busy_one(embedded: EmbeddedPostgres) -> None:
    """An idle backend ends with its postmaster; a computing one may take minutes."""
    client = await asyncpg.connect(embedded.dsn())
    begun = asyncio.Event()
    client.add_log_listener(lambda *_: begun.set())
    endless = asyncio.create_task(client.execute("do $$ begin raise notice 'begun'; loop end loop; end $$"))
    await asyncio.wait_for(begun.wait(), timeout=10)
    all_ended = ended_in([embedded.pid, client.get_server_pid()], timeout_s=0)

    embedded.kill()

    assert all_ended()
    with pytest.raises((asyncpg.PostgresConnectionError, OSError)):
        await endless


async def test_stop_ends_the_server_with_open_clients_and_removes_its_folder() -> None:
    server = EmbeddedPostgres(fsync=False)
    server.start()
    client = await asyncpg.connect(server.dsn())
    folder, all_ended = server.folder, ended_in([server.pid, client.get_server_pid()], timeout_s=0)
    server.stop()
    client.terminate()
    assert all_ended()
    assert not folder.exists()


def test_a_server_whose_owner_is_killed_ends_and_its_folder_is_removed() -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", START_AND_PRINT, find_binaries(os.environ)],
        cwd=PROJECT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    with owner:
        assert owner.stdout is not None
        printed = ast.literal_eval(owner.stdout.readline().decode())
        all_ended = ended_in(printed["pids"], timeout_s=10)
        owner.kill()
    assert all_ended()
    assert not Path(printed["folder"]).exists()


def test_a_failed_start_reports_the_reason_and_leaves_nothing() -> None:
    server = EmbeddedPostgres(fsync=False, settings={"max_connections": "plenty"})
    with pytest.raises(PostgresUnavailableError, match='invalid value for parameter "max_connections": "plenty"'):
        server.start()
    assert (server.pid, server.folder) == (None, Path())


def test_the_error_for_a_missing_postgres_names_every_remedy(tmp_path: Path) -> None:
    with pytest.raises(PostgresUnavailableError) as raised:
        find_binaries({"PATH": str(tmp_path)}, wheels=(), system_folder=tmp_path)
    for remedy in (
        "PREDICTU_DISPATCH_DSN",
        "PREDICTU_DISPATCH_PG_BIN",
        "predictu-dispatch[demo]",
        f"{tmp_path}/*/bin",
        "PATH",
    ):
        assert remedy in str(raised.value)


def test_a_configured_folder_without_postgres_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(PostgresUnavailableError, match=str(tmp_path)):
        find_binaries({PG_BIN_VARIABLE: str(tmp_path)})


def test_the_search_order_is_the_variable_the_newest_system_version_and_path(tmp_path: Path) -> None:
    def installed(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(parents=True)
        for program in ("initdb", "postgres"):
            (folder / program).touch(mode=0o755)
        return folder

    env = {"PATH": str(installed("path"))}
    assert find_binaries(env, wheels=(), system_folder=tmp_path / "system") == tmp_path / "path"
    installed("system/9/bin")
    newest = installed("system/15/bin")
    assert find_binaries(env, wheels=(), system_folder=tmp_path / "system") == newest
    env[PG_BIN_VARIABLE] = str(installed("configured"))
    assert find_binaries(env, system_folder=tmp_path / "system") == tmp_path / "configured"


@as_root
def test_root_runs_programs_behind_a_private_folder_in_a_user_namespace(
    hidden_binaries: Path, public_folder: Path
) -> None:
    launch = choose_launch(hidden_binaries, os.environ, copies=public_folder)
    if launch.user is not None:
        pytest.skip("this system allows root no user namespaces")
    with EmbeddedPostgres(binaries=hidden_binaries, fsync=False) as server:
        server.kill()
        server.restart()
        assert Path(f"/proc/{server.pid}/uid_map").read_text().split() == [str(NOBODY), "0", "1"]


@as_root
def test_root_without_user_namespaces_runs_a_copy_as_nobody(
    hidden_binaries: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with EmbeddedPostgres(binaries=hidden_binaries, fsync=False) as server:
        assert Path(f"/proc/{server.pid}").stat().st_uid == NOBODY
        assert Path(f"/proc/{server.pid}/exe").readlink().is_relative_to(server.folder)
        assert asyncio.run(fetch(server.dsn(), "select 1")) == 1


@as_root
def test_a_plain_user_runs_the_server(public_folder: Path) -> None:
    """It uses the system's Python, because this environment may be below root's home."""
    python = next((path for path in ("/usr/bin/python3", "/usr/local/bin/python3") if runs_for_nobody(path)), None)
    if python is None:
        pytest.skip("no Python 3.11 or newer that every user may run")
    shutil.copytree(PROJECT / "predictu_dispatch", public_folder / "predictu_dispatch", copy_function=shutil.copyfile)
    for path in public_folder.rglob("*"):
        path.chmod(0o755)
    binaries = find_binaries(os.environ)
    if not binaries.is_relative_to("/usr"):
        binaries = copy_of_installation(public_folder)
    printed = subprocess.run(
        [python, "-c", START_AND_PRINT, binaries],
        cwd=public_folder,
        env={"PATH": os.defpath, "PYTHONDONTWRITEBYTECODE": "1"},
        user=NOBODY,
        group=NOBODY,
        extra_groups=[],
        input=b"",
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert printed.returncode == 0, printed.stderr.decode()
    report = ast.literal_eval(printed.stdout.decode())
    assert report["uid"] == NOBODY
    assert not Path(report["folder"]).exists()


def runs_for_nobody(python: str) -> bool:
    program = "import sys; sys.exit(sys.version_info < (3, 11))"
    try:
        return (
            subprocess.run([python, "-c", program], user=NOBODY, group=NOBODY, extra_groups=[], check=False).returncode
            == 0
        )
    except OSError:
        return False
