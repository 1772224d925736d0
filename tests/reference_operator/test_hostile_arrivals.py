"""What anyone can send: it costs little, is kept short and forges nothing in the log."""

import asyncio
import gzip
import hashlib
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from typing_extensions import override

from predictu_dispatch.reference_operator import receiver, server, wallet, witness
from predictu_dispatch.reference_operator.answer import Answer, shown
from predictu_dispatch.reference_operator.callback import read_callback
from predictu_dispatch.reference_operator.database import open_database
from predictu_dispatch.reference_operator.money import Money
from predictu_dispatch.reference_operator.server import Listening, serving
from predictu_dispatch.reference_operator.settings import parse_settings
from predictu_dispatch.reference_operator.wallet import Unverified, Wallet
from tests.reference_operator.client import (
    FUNDS,
    KEY,
    OPERATOR_ID,
    Operator,
    base64url,
    bet_body,
    body_of,
    running,
    token_of,
)
from tests.reference_operator.test_witness import LOG

# RFC 9864 renames EdDSA to Ed25519; the protocol says EdDSA, and the signature is the same.
pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")

REPEATED = "{" + ",".join(f'"{number}":1,"{number}":1' for number in range(10_000)) + "}"
"""More than 200 kB; to compare each key with each other took this operator 17 seconds."""


@asynccontextmanager
async def served(folder: Path, *options: str) -> AsyncIterator[Listening]:
    """Serves in this process, so that a test can change a limit."""
    (folder / "predictu.pem").write_bytes(KEY.as_pem(private=False))
    settings = parse_settings(
        [
            *("--operator-id", OPERATOR_ID, "--database", str(folder / "wallet.db"), "--listen", "127.0.0.1:0"),
            *("--public-key", str(folder / "predictu.pem"), *options),
        ]
    )
    async with serving(settings) as listening:
        yield listening


async def connect(url: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = url.split("/")[2].split(":")
    return await asyncio.open_connection(host, int(port))


async def ended(reader: asyncio.StreamReader) -> bytes:
    """Returns what comes until the other side closes the connection."""
    async with asyncio.timeout(20):
        return await reader.read()


def test_searching_for_duplicate_keys_compares_no_key_with_every_other(monkeypatch: pytest.MonkeyPatch) -> None:
    compared = 0

    class Key(str):
        __slots__ = ()

        @override
        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return str.__eq__(self, str(other))

        __hash__ = str.__hash__

    def loads(_text: str, *, object_pairs_hook: Any, **_options: Any) -> Any:
        return object_pairs_hook([(Key(number % 999), 1) for number in range(1000)])

    monkeypatch.setattr("predictu_dispatch.reference_operator.callback.json.loads", loads)
    answer = read_callback(b"{}", operator_id=OPERATOR_ID, money=Money())
    assert isinstance(answer, Answer)
    assert answer.message == "body: duplicate key '0'"
    assert compared < 3000


async def test_of_an_unverified_arrival_only_hash_length_and_reason_are_kept(tmp_path: Path) -> None:
    repeated = body_of("PING").replace(b"{}", REPEATED.encode())
    by_stranger = token_of(bet_body("BET_MAKE", "b-1"))
    async with running(tmp_path, "--log", "json") as operator:
        lines = []
        for body, token in ((repeated, "x"), (bet_body("BET_MAKE", "b-2"), by_stranger)):
            assert (await operator.post(body, token))[0] == 401
            lines.append(await operator.log_line())
        async with operator.http.post(operator.url, data=b" " * 300_000) as reply:
            assert reply.status == 413
        lines.append(await operator.log_line())
        assert (await operator.ledger())["callbacks"] == {"unauthorized": 2, "bad_request": 1}
        with closing(sqlite3.connect(operator.database)) as sql:
            kept = sql.execute(
                "select body_sha256, body_bytes, reason, http_status from unverified_arrivals"
            ).fetchall()
            assert sql.execute("select count(*) from callback_record").fetchone() == (0,)
    assert [row[2] for row in kept] == [line["reason"] for line in lines]
    assert kept[0] == (hashlib.sha256(repeated).hexdigest(), len(repeated), kept[0][2], 401)
    assert kept[1][2] == "token claims: digest is not the SHA-256 of the body that arrived"
    assert kept[2] == (None, None, "body: longer than 262144 bytes", 413)
    # Neither the body's names nor the token's are known.
    assert not any({"request_id", "method", "bet_id"} & line.keys() for line in lines)
    assert not any(part in json.dumps(lines) for part in by_stranger.split("."))


def test_the_newest_unverified_arrivals_replace_the_oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wallet, "UNVERIFIED_MAX", 10)
    with closing(open_database(tmp_path / "wallet.db")) as sql:
        for number in range(25):
            Wallet(sql).record_unverified(
                Unverified(received_at="", body_sha256=None, body_bytes=None, reason=str(number), http_status=401)
            )
        kept = sql.execute("select reason from unverified_arrivals order by arrival_id").fetchall()
    assert kept == [(str(number),) for number in range(15, 25)]


async def test_unverified_arrivals_are_not_recorded_while_the_wallet_is_busy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(receiver, "UNVERIFIED_WAITING_MAX", 0)
    async with served(tmp_path) as listening:
        reader, writer = await connect(listening.url)
        writer.write(b"POST /predictu HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
        assert (await ended(reader)).startswith(b"HTTP/1.1 401 ")
        writer.close()
        with closing(sqlite3.connect(tmp_path / "wallet.db")) as sql:
            assert sql.execute("select count(*) from unverified_arrivals").fetchone() == (0,)


async def test_a_token_that_is_valid_for_too_long_is_refused(tmp_path: Path) -> None:
    body, now = bet_body("BET_MAKE", "b-1"), int(time.time())
    ttls_s = (300, 301, 24 * 3600)
    async with running(tmp_path) as operator:
        answers = [
            await operator.post(body, token_of(body, claims={"iat": now, "exp": now + ttl_s})) for ttl_s in ttls_s
        ]
        assert [status for status, _ in answers] == [200, 401, 401]
        assert "a token may be valid for 300 s at most" in answers[1][1]["message"]
        fractions = token_of(body, claims={"iat": now + 0.5, "exp": now + 30.5})
        assert (await operator.post(body, fractions))[0] == 401
    async with running(tmp_path, "--token-ttl-max", "30") as operator:
        answers = [await operator.post(body, token_of(body, claims={"exp": now + ttl_s})) for ttl_s in (20, 600)]
        assert [status for status, _ in answers] == [200, 401]


async def test_hostile_json_gets_an_answer(tmp_path: Path) -> None:
    good = bet_body("BET_MAKE", "b-1")
    deep = b'{"a":' * 300 + b"1" + b"}" * 300
    bodies = {
        "a number of 5,000 digits": good.replace(b"2500", b"9" * 5000),
        "an exponent without end": good.replace(b"2500", b"1e99999999999999999999"),
        "a nested id": good.replace(b'"player-1"', deep),
        "many keys twice": good.replace(b'"m-1"', REPEATED.encode()),
    }
    async with running(tmp_path) as operator:
        for name, body in bodies.items():
            token = token_of(good, claims={"digest": hashlib.sha256(body).hexdigest()})
            assert (await operator.post(body, token))[0] == 400, name
        nested_header = f"{base64url(b'[' * 6000)}.a.b"
        assert (await operator.post(good, nested_header))[0] == 401
        assert await operator.status(good) == "OK"
        # A verified callback with a bad body is recorded with its bytes, under the token's names.
        with closing(sqlite3.connect(operator.database)) as sql:
            recorded = sql.execute("select body, method from callback_record where outcome = 'bad_request'").fetchall()
    assert recorded == [(body, "BET_MAKE") for body in bodies.values()]


def test_a_message_about_a_value_without_end_can_be_made() -> None:
    value: list[Any] = []
    for _ in range(100_000):
        value = [value]
    assert len(shown(value)) <= 80


async def test_a_compressed_body_is_not_the_one_that_was_signed(tmp_path: Path) -> None:
    body = bet_body("BET_MAKE", "b-1")
    headers = {"Authorization": f"Bearer {token_of(body)}", "Content-Encoding": "gzip"}
    async with running(tmp_path) as operator:
        async with operator.http.post(operator.url, data=gzip.compress(body), headers=headers) as reply:
            assert reply.status == 401
        assert await operator.balance() == FUNDS


async def test_no_text_makes_a_line_of_the_log(tmp_path: Path) -> None:
    async with running(tmp_path, "--log", "plain") as operator:
        forged = "b-1\r\n2026-11-30T00:00:00.000Z level=info event=callback.answered\x1b[2K"
        assert await operator.status(bet_body("BET_MAKE", forged)) == "OK"
        reader, writer = await connect(operator.url)
        # Neither a traceback nor the start of a token is logged.
        writer.write(b"POST /predictu HTTP/1.1\r\nAuthorization: Bearer SECRET" + b"x" * 9000 + b"\r\n\r\n")
        assert b" 400 " in await ended(reader)
        writer.close()
        reader, writer = await connect(operator.url)
        writer.write(b"POST /predictu HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc")
        await writer.drain()
        writer.transport.abort()
        assert operator.process.stderr is not None
        lines = [(await operator.process.stderr.readline()).decode() for _ in range(3)]
    assert [line.split()[2] for line in lines] == [
        "event=callback.answered",
        "event=request.malformed",
        "event=callback.answered",
    ]
    assert json.dumps(forged) in lines[0]
    assert "SECRET" not in lines[1]
    assert 'reason="body: it ended too early"' in lines[2]


async def admin_status(operator: Operator, route: str, headers: dict[str, str]) -> int:
    method = "GET" if route == "ledger" else "POST"
    request = operator.http.request(method, f"{operator.admin_url}/_admin/{route}", json={}, headers=headers)
    async with request as reply:
        return reply.status


@pytest.mark.parametrize("route", ["ledger", "faults", "players"])
async def test_no_web_page_can_use_the_admin_routes(tmp_path: Path, route: str) -> None:
    async with running(tmp_path) as operator:
        port = operator.admin_url.rpartition(":")[2]
        for host in ("evil.example", f"evil.example:{port}", "127.0.0.1.evil.example", "10.0.0.1", ""):
            assert await admin_status(operator, route, {"Host": host}) == 403, host
        for origin in ("https://evil.example", f"http://127.0.0.1:{port}", "null"):
            assert await admin_status(operator, route, {"Origin": origin}) == 403, origin
        for host in (f"localhost:{port}", "LOCALHOST", f"[::1]:{port}", "127.0.0.1"):
            assert await admin_status(operator, route, {"Host": host}) in (200, 400), host


async def test_a_flood_of_connections_leaves_the_open_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 3)
    request = b"GET /predictu HTTP/1.1\r\nHost: a\r\n\r\n"
    async with served(tmp_path) as listening:
        open_ones = [await connect(listening.url) for _ in range(3)]
        for reader, writer in open_ones:
            writer.write(request)
            assert b" 405 " in await reader.readline()
        reader, writer = await connect(listening.url)
        assert await ended(reader) == b""
        writer.close()
        # A place that becomes free is used again.
        open_ones[0][1].close()
        async with asyncio.timeout(20):
            answer = b""
            while not answer:
                reader, writer = await connect(listening.url)
                writer.write(request)
                try:
                    answer = await reader.readline()
                except ConnectionResetError:
                    continue
                finally:
                    writer.close()
        for _, writer in open_ones:
            writer.close()


async def test_a_flood_of_connections_leaves_files_for_the_wallet(tmp_path: Path) -> None:
    few_files = (
        "import resource, runpy; resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100));"
        "runpy.run_module('predictu_dispatch.reference_operator', None, '__main__')"
    )
    async with running(tmp_path, start=("-c", few_files)) as operator:
        # Both ports have an open connection now.
        assert await operator.status(body_of("PING")) == "OK"
        assert await operator.balance() == FUNDS
        flood = [await connect(operator.url) for _ in range(120)]
        for reader, _ in flood[40:]:
            assert await ended(reader) == b""
        assert await operator.status(bet_body("BET_MAKE", "b-1")) == "OK"
        assert await operator.balance() == FUNDS - 2500
        for _, writer in flood:
            writer.close()


@pytest.mark.parametrize("start", [b"", b"POST /predictu HTTP/1.1\r\nHost:"])
async def test_a_connection_without_a_request_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: bytes
) -> None:
    monkeypatch.setattr(server, "IDLE_S", 0.05)
    async with served(tmp_path) as listening:
        reader, writer = await connect(listening.url)
        writer.write(start)
        assert await ended(reader) == b""
        writer.close()


async def test_a_body_that_never_ends_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (receiver, witness):
        monkeypatch.setattr(module, "READ_TIMEOUT_S", 0.05)
    async with served(tmp_path, "--log-vkey", LOG.vkey) as listening:
        for path in ("/predictu", "/add-checkpoint"):
            reader, writer = await connect(listening.url)
            writer.write(f"POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc".encode())
            async with asyncio.timeout(20):
                assert (await reader.readline()).startswith(b"HTTP/1.1 408 ")
            writer.close()
