"""Runs the example operators of reference_operator/examples in their own processes."""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.reference_operator.client import KEY, OPERATOR_ID, token_of

EXAMPLES = Path(__file__).parents[2] / "predictu_dispatch" / "reference_operator" / "examples"
PACKAGES = {"node": "nodejs", "go": "golang-go"}
"""The Debian package of each language's program."""
REJECTED = ("BET_CLOSED", "BET_EXISTS", "BET_MISMATCH", "REQUEST_ID_REUSED", "WALLET_LIMIT")
"""The statuses of both examples that must be declared to Predictu."""
_START_S = 30.0


@dataclass(kw_only=True)
class Example:
    """A running example operator."""

    process: asyncio.subprocess.Process
    http: aiohttp.ClientSession
    url: str
    database: Path

    async def post(self, body: bytes, token: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token_of(body) if token is None else token}"}
        async with self.http.post(self.url, data=body, headers=headers) as reply:
            return reply.status, await reply.json()

    async def status(self, body: bytes) -> str:
        return str((await self.post(body))[1]["status"])


def need(language: str) -> pytest.MarkDecorator:
    """Skips the test where the language's program is missing."""
    is_missing = shutil.which(language) is None
    return pytest.mark.skipif(is_missing, reason=f"{language} missing; on Debian: apt install {PACKAGES[language]}")


@functools.cache
def command(language: str) -> tuple[str, ...]:
    """Returns the command that starts the example; the Go program is built once."""
    if language == "node":
        return ("node", str(EXAMPLES / "node" / "operator.mjs"))
    folder = tempfile.mkdtemp(prefix="go-operator-")
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    program = str(Path(folder) / "operator")
    build = ["go", "build", "-o", program, "."]
    built = subprocess.run(build, cwd=EXAMPLES / "go", capture_output=True, text=True, check=False, timeout=150)
    assert built.returncode == 0, built.stderr
    return (program,)


async def started(
    language: str,
    folder: Path,
    *options: str,
    public_key: bytes | None = None,
    listen: str = "127.0.0.1:0",
) -> asyncio.subprocess.Process:
    """Starts the example with an empty wallet, or with the one that is in the folder."""
    key_file = folder / "predictu.pem"
    key_file.write_bytes(public_key or KEY.as_pem(private=False))
    return await asyncio.create_subprocess_exec(
        *command(language),
        *("--operator-id", OPERATOR_ID, "--listen", listen, "--database", str(folder / "wallet.ndjson")),
        *("--players", "player-1=10000,player-2=10000"),
        *(() if "--jwks" in options else ("--public-key", str(key_file))),
        *options,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


@asynccontextmanager
async def running(
    language: str, folder: Path, *options: str, public_key: bytes | None = None
) -> AsyncIterator[Example]:
    """Runs an example; SIGTERM must end it with exit code 0, unless the test killed it."""
    process = await started(language, folder, *options, public_key=public_key)
    assert process.stdout is not None
    assert process.stderr is not None
    drained = asyncio.create_task(process.stderr.read(), name="stderr of the example")
    try:
        async with asyncio.timeout(_START_S):
            line = await process.stdout.readline()
        assert line, await drained
        timeout, connector = aiohttp.ClientTimeout(total=20), aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
            url = json.loads(line)["url"]
            yield Example(process=process, http=http, url=url, database=folder / "wallet.ndjson")
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await process.wait() in (0, -signal.SIGKILL), await drained
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
        await drained
