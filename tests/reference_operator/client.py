"""A reference operator in its own process, with callbacks and tokens for it."""

import asyncio
import base64
import hashlib
import json
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
from joserfc import jws
from joserfc.jwk import OKPKey

OPERATOR_ID = "op_abc123"
PACKAGE = Path(__file__).parents[2] / "predictu_dispatch" / "reference_operator"
KEY = OKPKey.generate_key("Ed25519", private=True)
BET = {"market_id": "m-1", "outcome": "yes", "odds": 2, "shares": 10, "price": 50}
START = ("-m", "predictu_dispatch.reference_operator")
FUNDS = 1_000_000


def body_of(method: str, *, request_id: str | None = None, **params: Any) -> bytes:
    envelope = {
        "method": method,
        "timestamp": "2026-03-19T14:30:00.000Z",
        "request_id": request_id or str(uuid4()),
        "operator_id": OPERATOR_ID,
        "params": params,
    }
    return json.dumps(envelope, separators=(",", ":")).encode()


def bet_body(method: str, bet_id: str, amount: Any = 2500, **more: Any) -> bytes:
    params: dict[str, Any] = {"player_id": "player-1", "bet_id": bet_id}
    if method != "BET_LOSE":
        params |= {"currency": "EUR", "amount": amount}
    if method == "BET_MAKE":
        params["bet"] = BET
    return body_of(method, **(params | more))


def request_id_of(body: bytes) -> str:
    return str(json.loads(body)["request_id"])


def token_of(body: bytes, *, key: Any = KEY, alg: str = "EdDSA", header: Any = None, claims: Any = None) -> str:
    """A token for this body.

    `header` and `claims` replace members, and remove those that are None.
    """
    envelope, now = json.loads(body), int(time.time())
    payload = {
        "iss": "predictu",
        "sub": OPERATOR_ID,
        "iat": now,
        "exp": now + 30,
        "jti": envelope["request_id"],
        "method": envelope["method"],
        "digest": hashlib.sha256(body).hexdigest(),
    } | (claims or {})
    members = {"alg": alg, "typ": "JWT", "kid": KEY.thumbprint()} | (header or {})
    message = json.dumps({name: value for name, value in payload.items() if value is not None}).encode()
    protected = {name: value for name, value in members.items() if value is not None}
    return jws.serialize_compact(protected, message, key, algorithms=[alg])


def base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def unsigned_head(alg: str) -> str:
    """A header that no library writes."""
    return base64url(json.dumps({"alg": alg, "typ": "JWT", "kid": KEY.thumbprint()}).encode())


@dataclass(kw_only=True)
class Operator:
    process: asyncio.subprocess.Process
    http: aiohttp.ClientSession
    url: str
    admin_url: str
    database: Path
    witness_vkey: str = ""

    async def post(self, body: bytes, token: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token or token_of(body)}", "Content-Type": "application/json"}
        async with self.http.post(self.url, data=body, headers=headers) as reply:
            return reply.status, json.loads(await reply.text(), parse_float=Decimal)

    async def status(self, body: bytes) -> str:
        return str((await self.post(body))[1]["status"])

    async def post_until_answered(self, body: bytes) -> str:
        """Retries infrastructure failures with a new token, as Predictu does."""
        for _ in range(50):
            try:
                http_status, answer = await self.post(body)
            except (aiohttp.ClientError, json.JSONDecodeError):
                continue
            if http_status < 500:
                return str(answer["status"])
        raise AssertionError("no answer in 50 attempts")

    async def admin(self, route: str, content: Any) -> int:
        async with self.http.post(f"{self.admin_url}/_admin/{route}", json=content) as reply:
            return reply.status

    async def ledger(self) -> Any:
        async with self.http.get(f"{self.admin_url}/_admin/ledger") as reply:
            return await reply.json()

    async def balance(self) -> int:
        ledger = await self.ledger()
        assert ledger["balanced"]
        return int(ledger["balances"][0]["balance"])

    async def log_line(self) -> Any:
        assert self.process.stderr is not None
        return json.loads(await self.process.stderr.readline())


@asynccontextmanager
async def running(
    folder: Path, *options: str, start: tuple[str, ...] = START, cwd: Path = PACKAGE.parent.parent
) -> AsyncIterator[Operator]:
    """Runs an operator process; SIGTERM must end it with exit code 0, unless the test killed it."""
    (folder / "predictu.pem").write_bytes(KEY.as_pem(private=False))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *start, "--operator-id", OPERATOR_ID, "--listen", "127.0.0.1:0"),
        *("--admin-listen", "127.0.0.1:0", "--database", str(folder / "wallet.db"), "--seed-players", "1"),
        *("--seed-balance", str(FUNDS), "--log", "off"),
        *(() if "--jwks" in options else ("--public-key", str(folder / "predictu.pem"))),
        *options,
        cwd=cwd,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE if "--log" in options else None,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(20):
            line = json.loads(await process.stdout.readline())
        assert line.pop("event") == "operator.listening"
        timeout, connector = aiohttp.ClientTimeout(total=20), aiohttp.TCPConnector(limit=0)
        async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
            yield Operator(process=process, http=http, database=folder / "wallet.db", **line)
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            assert await process.wait() in (0, -signal.SIGKILL)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
