"""A DSN at a real server: several hosts, and what `check`, `run` and the other commands answer."""

import asyncio
import json
import socket
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from predictu_dispatch.edge.config.keys import create_key_file
from predictu_dispatch.edge.postgres.connections import Hosts
from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.support.command_line import CommandLine

EVERY_VERB = (["check"], ["run"], ["migrate"], ["status"], ["retain"])


def configured(folder: Path, database: str) -> CommandLine:
    (folder / "dispatcher.toml").write_text(f"[database]\n{database}\n")
    (folder / "operators").mkdir()
    create_key_file(folder / "operators" / "keys" / "op_a.pem", "EdDSA")
    line = CommandLine(folder=folder)
    line.write_operator(
        "op_a", 'operator_id = "op_a"\ncallback_url = "https://h.example/"\n[signing]\nkey_file = "keys/op_a.pem"\n'
    )
    return line


async def outcome(line: CommandLine, verb: list[str]) -> tuple[int | None, str, str]:
    """Runs the command; `run` needs the main thread, and so a process."""
    if verb != ["run"]:
        return await line.run(*verb)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*line.process(*verb), stdout=pipe, stderr=pipe)
    stdout, stderr = await process.communicate()
    return process.returncode, stdout.decode(), stderr.decode()


@pytest.mark.parametrize("key", ["dsn", "listen_dsn"])
async def test_every_command_refuses_a_parameter_that_cannot_work_and_names_it(tmp_path: Path, key: str) -> None:
    line = configured(tmp_path, f'{key} = "postgresql://u:hunter2@127.0.0.1:1/db?connect_timeout=10"')
    for verb in EVERY_VERB:
        code, stdout, stderr = await outcome(line, verb)
        assert (code, stdout) == (2, ""), verb
        assert f"database.{key} = (hidden): must be a DSN without connect_timeout" in stderr
        assert "hunter2" not in stderr


async def test_every_command_refuses_a_remote_host_without_sslmode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = configured(tmp_path, "")
    monkeypatch.setenv("PREDICTU_DISPATCH_DSN", "postgresql://u@db.example.com/db")
    for verb in EVERY_VERB:
        code, stdout, stderr = await outcome(line, verb)
        assert (code, stdout) == (2, ""), verb
        assert "PREDICTU_DISPATCH_DSN" in stderr
        assert "?sslmode=verify-full&sslrootcert=FILE" in stderr


async def test_a_certificate_file_that_is_none_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    line = configured(tmp_path, f'dsn = "postgresql://h/db?sslmode=verify-full&sslrootcert={tmp_path}/ca.pem"')
    code, _, stderr = await line.run("check")
    assert code == 2
    assert "sslrootcert is a file that can be used" in stderr


async def test_an_unknown_setting_in_options_ends_with_the_code_of_a_bad_configuration(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    """The server knows its settings, so only it can say."""
    dsn = f"{embedded.dsn(tcp=True)}&options=-c%20no_such_setting=1"
    line = configured(tmp_path, f"dsn = {json.dumps(dsn)}")
    assert (await line.run("check"))[0] == 0
    for verb in (["migrate"], ["status"], ["run"]):
        code, _, stderr = await outcome(line, verb)
        assert code == 2
        assert "no_such_setting" in stderr


@pytest.mark.parametrize(
    "hosts",
    [
        "127.0.0.1:{dead},127.0.0.1:{port}",
        "[::1]:{dead},127.0.0.1:{port}",
        "%2Fnowhere:{dead},localhost:{port}",
        "?host=127.0.0.1,127.0.0.1&port={dead},{port}",
        "?host=%2Fnowhere,{folder}&port={port}",
    ],
)
async def test_the_first_host_that_answers_is_used(embedded: EmbeddedPostgres, hosts: str) -> None:
    parts = urlsplit(embedded.dsn(tcp=True))
    folder = urlsplit(embedded.dsn()).query.partition("&")[0].removeprefix("host=")
    with socket.create_server(("127.0.0.1", 0)) as closed:
        dead = closed.getsockname()[1]
    written = hosts.format(dead=dead, port=parts.port, folder=folder)
    login = parts.netloc.rpartition("@")[0]
    where, query = ("", f"{written}&") if written.startswith("?") else (written, "?")
    dsn = f"postgresql://{login}@{where}{parts.path}{query}sslmode=disable&target_session_attrs=read-write"
    connection = await asyncio.wait_for(Hosts(dsn).connect(), 10)
    try:
        assert await connection.fetchval("select 1") == 1
    finally:
        await connection.close()
