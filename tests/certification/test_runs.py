"""Runs on one sandbox give the same verdicts, and reach nothing but the sandbox."""

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from predictu_dispatch.certification.scenario import Group
from tests.certification.playing import SCENARIOS, described, hastened, played, verdicts
from tests.certification.sandbox import PLAYERS, STATUSES, UNTOUCHED, changed_operator, new_key
from tests.reference_operator.client import OPERATOR_ID
from tests.support.connections import Connections, count_connections

_COMMAND_S = 120.0


async def test_a_second_run_on_the_same_sandbox_gives_the_same_verdicts(tmp_path: Path) -> None:
    # 50 whole runs: `make certification`.
    short = [hastened(each, 20.0) for each in SCENARIOS.values() if each.group is not Group.LOAD]
    async with changed_operator(tmp_path) as sandbox:
        first, second = await played(sandbox, short), await played(sandbox, short)
        assert verdicts(first) == verdicts(second), described(second)
        assert sandbox.balances() == UNTOUCHED


@pytest.fixture
def connections(tmp_path: Path) -> Connections:
    return count_connections(tmp_path)


@asynccontextmanager
async def _elsewhere() -> AsyncIterator[tuple[str, int]]:
    """An address that nothing may reach."""
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    async with server:
        host, port = server.sockets[0].getsockname()
        yield host, port


async def _certify(folder: Path, connections: Connections, url: str, *options: str, proxy: str) -> int:
    """Run the command with every variable that could send a client elsewhere."""
    proxies = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "http_proxy", "all_proxy"), proxy)
    players: Sequence[str] = [part for player in PLAYERS for part in ("--player", player)]
    statuses = [part for status in STATUSES.rejected for part in ("--rejected", status)]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "predictu_dispatch", "certify", "--url", url, "--key", str(folder / "sandbox.pem")),
        *("--operator-id", OPERATOR_ID, "--allow-insecure-http", "--allow-private-addresses"),
        *(*players, *statuses, "--retry", "BAD_REQUEST", "--reports", str(folder / "reports"), *options),
        cwd=folder,
        env={**os.environ, **proxies, **connections.environment},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        async with asyncio.timeout(_COMMAND_S):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode in (0, 1), output.decode()
    return process.returncode


async def test_a_run_connects_to_the_sandbox_only(tmp_path: Path, connections: Connections) -> None:
    groups = [part for group in ("connection", "signature", "money", "recovery") for part in ("--only", group)]
    async with changed_operator(tmp_path) as sandbox, _elsewhere() as (host, port):
        code = await _certify(tmp_path, connections, sandbox.url, *groups, proxy=f"http://{host}:{port}")
        address = ("127.0.0.1", int(sandbox.url.split(":")[2].split("/")[0]))
    assert code == 0
    assert set(connections.counted()) == {address}
    # The counter sees connections at all: recovery alone opens one for each cut request.
    assert connections.counted()[address] > 100


async def test_a_redirect_is_not_followed(tmp_path: Path, connections: Connections) -> None:
    new_key(tmp_path / "sandbox.pem")
    async with _elsewhere() as (host, port):
        answer = f"HTTP/1.1 307 Moved\r\nLocation: http://{host}:{port}/predictu\r\nContent-Length: 0\r\n\r\n".encode()

        async def redirect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            # The request's body may remain unread: the connection is closed after the answer.
            await reader.readuntil(b"\r\n\r\n")
            writer.write(answer)
            await writer.drain()
            writer.close()

        server = await asyncio.start_server(redirect, "127.0.0.1", 0)
        async with server:
            sandbox = server.sockets[0].getsockname()
            url = f"http://127.0.0.1:{sandbox[1]}/predictu"
            code = await _certify(tmp_path, connections, url, proxy=f"http://{host}:{port}")
    assert code == 1
    assert set(connections.counted()) == {tuple(sandbox)}
    report = json.loads(next((tmp_path / "reports").glob("*/report.json")).read_text(encoding="utf-8"))
    found = {scenario["id"]: scenario["verdict"] for scenario in report["scenarios"]}
    assert found["connection-no-redirect"] == "FAILED"
