"""The reference operator's process: crashes, commits, stops, key formats, wrong options."""

import asyncio
import json
import signal
import sqlite3
import ssl
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import aiohttp
import pytest
import trustme
from joserfc.jwk import KeySet, RSAKey

from predictu_dispatch.reference_operator.cli import main
from predictu_dispatch.reference_operator.database import WalletError, Writer, open_database
from predictu_dispatch.reference_operator.wallet import NewPlayer, Wallet
from tests.reference_operator.client import (
    FUNDS,
    KEY,
    OPERATOR_ID,
    Operator,
    bet_body,
    body_of,
    running,
    token_of,
)

# RFC 9864 renames EdDSA to Ed25519; the protocol says EdDSA, and the signature is the same.
pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")


async def test_after_a_kill_answered_debits_are_booked_and_retries_are_duplicates(tmp_path: Path) -> None:
    bodies = [bet_body("BET_MAKE", f"b-{number}") for number in range(200)]
    answered: list[bytes] = []

    async def place(operator: Operator, body: bytes) -> None:
        try:
            await operator.post(body)
        except aiohttp.ClientError:
            return
        answered.append(body)
        if len(answered) == 60:
            operator.process.kill()

    async with running(tmp_path) as operator:
        await asyncio.gather(*(place(operator, body) for body in bodies))
    async with running(tmp_path) as operator:
        assert [await operator.status(body) for body in answered] == ["DUPLICATE"] * len(answered)
        await asyncio.gather(*(operator.post(body) for body in bodies))
        assert await operator.balance() == FUNDS - 2500 * len(bodies)


async def test_a_failed_change_leaves_the_others_and_a_failed_transaction_fails_all(tmp_path: Path) -> None:
    file = tmp_path / "wallet.db"
    with ThreadPoolExecutor(1) as thread, closing(open_database(file)) as sql, closing(sqlite3.connect(file)) as rival:
        sql.execute("pragma busy_timeout = 0")
        writer, wallet = Writer(sql, thread), Wallet(sql)
        committing = asyncio.create_task(writer.run())

        def create(*ids: str) -> Callable[[], int]:
            players = [NewPlayer(player_id=player_id, currency="EUR", balance=1) for player_id in ids]
            return lambda: wallet.create_players(players)

        def break_all() -> int:
            # SQLite rolls back the whole transaction, as it may for a full disk.
            sql.execute("insert or rollback into players (player_id, currency, balance) values ('a', 'EUR', 1)")
            return 0

        async def write_all(*changes: Callable[[], int]) -> list[int | type[BaseException]]:
            """Requests all before the writer runs again, so that they share one transaction."""
            results = await asyncio.gather(*map(writer.write, changes), return_exceptions=True)
            return [type(result) if isinstance(result, BaseException) else result for result in results]

        statements: list[str] = []
        sql.set_trace_callback(statements.append)
        assert await write_all(create("a"), create("b", "a"), create("c")) == [1, WalletError, 1]
        assert statements.count("begin immediate") == 1
        assert await write_all(create("x"), break_all, create("y")) == [sqlite3.IntegrityError] * 3
        rival.execute("begin immediate")
        assert await write_all(create("d"), create("e")) == [sqlite3.OperationalError] * 2
        rival.execute("rollback")
        assert await write_all(create("d")) == [1]
        assert rival.execute("select group_concat(player_id) from players").fetchone() == ("a,c,d",)
        committing.cancel()


async def test_a_stop_sends_stalled_replies_at_once(tmp_path: Path) -> None:
    stall = ("--faults", "stall_after_apply=1", "--stall-s", "3600", "--log", "json")
    async with running(tmp_path, *stall) as operator:
        answer = asyncio.create_task(operator.post(bet_body("BET_MAKE", "b-1")))
        line = await operator.log_line()
        assert (line["event"], line["outcome"], line["fault"]) == ("callback.answered", "applied", "stall_after_apply")
        operator.process.send_signal(signal.SIGTERM)
        assert (await answer)[1]["status"] == "OK"
        # A second SIGTERM while the process ends would kill it.
        async with asyncio.timeout(20):
            await operator.process.wait()


async def test_decimal_amounts_are_exact_in_both_directions(tmp_path: Path) -> None:
    async with running(tmp_path, "--amount-format", "decimal", "--currency-digits", "USDT=6") as operator:
        players = [{"player_id": "player-1", "currency": code, "balance": 10_000} for code in ("JPY", "BHD", "USDT")]
        assert await operator.admin("players", players) == 201
        assert await operator.admin("players", players[0]) == 409

        async def balance_after(currency: str, amount: str) -> str | None:
            body = bet_body("BET_MAKE", f"{currency}-{amount}", "AMOUNT", currency=currency)
            _, answer = await operator.post(body.replace(b'"AMOUNT"', amount.encode()))
            return str(answer["balance"]) if answer["status"] == "OK" else None

        assert await balance_after("EUR", "0.10") == "9999.90"
        assert await balance_after("EUR", "0.2") == "9999.70"
        assert await balance_after("EUR", "9999.70") == "0.00"
        assert await balance_after("JPY", "3") == "9997"
        assert await balance_after("BHD", "0.001") == "9.999"
        assert await balance_after("USDT", "0.000001") == "0.009999"
        refused = [
            ("EUR", "1.001"),
            ("JPY", "1.5"),
            ("BHD", "1.0000000000000000000000000000000001"),
            ("EUR", "1e999999"),
            ("USDT", "0.0000001"),
        ]
        assert [await balance_after(currency, amount) for currency, amount in refused] == [None] * len(refused)
        assert (await operator.ledger())["balanced"]


async def test_rs256_with_a_jwks_and_tls(tmp_path: Path) -> None:
    authority = trustme.CA()
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "server.pem"))
    keys = [RSAKey.generate_key(2048), RSAKey.generate_key(2048)]
    (tmp_path / "jwks.json").write_text(json.dumps(KeySet([*keys, KEY]).as_dict(private=False)))
    options = (
        "--algorithm",
        "RS256",
        "--jwks",
        str(tmp_path / "jwks.json"),
        "--tls-cert",
        str(tmp_path / "server.pem"),
    )
    async with running(tmp_path, *options) as operator:
        assert operator.url.startswith("https://")
        authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        body = body_of("PING")
        for key in keys:
            token = token_of(body, key=key, alg="RS256", header={"kid": key.thumbprint()})
            headers = {"Authorization": f"Bearer {token}"}
            context = ssl.create_default_context(cafile=tmp_path / "ca.pem")
            async with operator.http.post(operator.url, data=body, headers=headers, ssl=context) as reply:
                assert (reply.status, await reply.json()) == (200, {"status": "OK"})


def test_wrong_options_are_refused_with_the_value_and_what_is_allowed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "public.pem").write_bytes(KEY.as_pem(private=False))
    (tmp_path / "private.pem").write_bytes(KEY.as_pem(private=True))
    (tmp_path / "short.pem").write_bytes(RSAKey.generate_key(1024).as_pem(private=False))
    needed = ["--operator-id", OPERATOR_ID, "--database", str(tmp_path / "wallet.db")]
    key = ["--public-key", str(tmp_path / "public.pem")]
    refusals = {
        ("--faults", "rest=0.1", *key): 'unknown fault "rest"; allowed are reset,',
        ("--faults", "reset=1.5", *key): 'the rate of "reset" is 1.5; it must be between 0 and 1',
        ("--faults", "reset", *key): '"reset" is not of the form name=rate',
        ("--faults", "reset=0.6,not_json=0.6", *key): "the rates add up to 1.2",
        ("--admin-listen", "0.0.0.0:0", *key): "0.0.0.0 is not loopback",
        ("--listen", "8080", *key): '"8080" is not of the form host:port',
        ("--currency-digits", "USDT=19", *key): '"USDT=19" is not of the form CODE=DIGITS with 0 to 18 digits',
        ("--token-ttl-max", "3601", *key): "--token-ttl-max: 3601 is not between 1 and 3600 seconds",
        ("--algorithm", "HS256", *key): "invalid choice: 'HS256'",
        ("--algorithm", "RS256", *key): "this key cannot verify RS256",
        ("--algorithm", "RS256", "--public-key", str(tmp_path / "short.pem")): "an RSA key of 1024 bits",
        ("--public-key", str(tmp_path / "private.pem")): "not a public key in PEM",
        ("--public-key", str(tmp_path / "absent.pem")): "No such file",
        (): "no public key",
    }
    for options, message in refusals.items():
        assert main([*needed, *options]) == 2
        assert message in capsys.readouterr().err
