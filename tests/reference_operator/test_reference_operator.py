"""The reference operator, from outside: real sockets, a real process, tokens made with a library it does not use."""

import asyncio
import base64
import hashlib
import hmac
import json
import random
import shutil
import signal
import sqlite3
import ssl
import sys
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import pytest
import trustme
from joserfc import jws
from joserfc.jwk import KeySet, OKPKey, RSAKey

from predictu_dispatch.reference_operator.answer import Answer
from predictu_dispatch.reference_operator.callback import Callback
from predictu_dispatch.reference_operator.cli import main
from predictu_dispatch.reference_operator.database import WalletError, open_database
from predictu_dispatch.reference_operator.faults import Fault
from predictu_dispatch.reference_operator.keys import read_keyring
from predictu_dispatch.reference_operator.money import AmountFormat
from predictu_dispatch.reference_operator.reception import understand
from predictu_dispatch.reference_operator.wallet import NewPlayer, Wallet
from predictu_dispatch.reference_operator.writer import Writer

OPERATOR_ID = "op_abc123"
PACKAGE = Path(__file__).parents[2] / "predictu_dispatch" / "reference_operator"
KEY = OKPKey.generate_key("Ed25519", private=True)
BET = {"market_id": "m-1", "outcome": "yes", "odds": 2, "shares": 10, "price": 50}
START = ("-m", "predictu_dispatch.reference_operator")
FUNDS = 1_000_000

# RFC 9864 renames EdDSA to Ed25519; the protocol says EdDSA, and the signature is the same.
pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")


def body_of(method: str, *, request_id: str | None = None, **params: Any) -> bytes:
    """An envelope as PROTOCOL.md has it."""
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
    """A token for this body; `header` and `claims` replace members, and take away those that are None."""
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
    said = json.dumps({name: value for name, value in payload.items() if value is not None}).encode()
    shown = {name: value for name, value in members.items() if value is not None}
    return jws.serialize_compact(shown, said, key, algorithms=[alg])


def base64url(octets: bytes) -> str:
    return base64.urlsafe_b64encode(octets).rstrip(b"=").decode()


def unsigned_head(alg: str) -> str:
    """A header that no library wants to write."""
    return base64url(json.dumps({"alg": alg, "typ": "JWT", "kid": KEY.thumbprint()}).encode())


@dataclass(kw_only=True)
class Operator:
    """A running operator, and Predictu's side of the wire."""

    process: asyncio.subprocess.Process
    http: aiohttp.ClientSession
    url: str
    admin_url: str
    database: Path

    async def post(self, body: bytes, token: str | None = None) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {token or token_of(body)}", "Content-Type": "application/json"}
        async with self.http.post(self.url, data=body, headers=headers) as reply:
            return reply.status, json.loads(await reply.text(), parse_float=Decimal)

    async def status(self, body: bytes) -> str:
        return str((await self.post(body))[1]["status"])

    async def post_until_answered(self, body: bytes) -> str:
        """As Predictu does: infrastructure failures are retried, with a fresh token, until there is an answer."""
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
    """An operator of its own process; it must end with 0 when it is asked to stop, unless the test ended it."""
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


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    async with running(tmp_path) as operator:
        yield operator


def test_not_one_bit_of_body_or_token_can_be_changed(tmp_path: Path) -> None:
    (tmp_path / "predictu.pem").write_bytes(KEY.as_pem(private=False))
    keyring = read_keyring("EdDSA", pem_files=[tmp_path / "predictu.pem"], jwks_files=[])
    body = bet_body("BET_MAKE", "b-1")
    token = token_of(body).encode()

    def content(token: bytes, body: bytes) -> Callback | Answer:
        # Bytes that are no text come out of aiohttp like this.
        authorization = [f"Bearer {token.decode(errors='surrogateescape')}"]
        return understand(
            authorization, body, keyring=keyring, operator_id=OPERATOR_ID, amount_format=AmountFormat.SUBUNITS
        ).content

    def flips(text: bytes) -> list[bytes]:
        positions = [(place, bit) for place in range(len(text)) for bit in range(8)]
        return [text[:place] + bytes([text[place] ^ 1 << bit]) + text[place + 1 :] for place, bit in positions]

    assert isinstance(content(token, body), Callback)
    answers = [content(token, changed) for changed in flips(body)]
    answers += [content(changed, body) for changed in flips(token)]
    assert {answer.http_status if isinstance(answer, Answer) else 200 for answer in answers} == {401}


async def test_a_token_that_predictu_did_not_make_for_this_very_message_is_unauthorized(operator: Operator) -> None:
    body, now = bet_body("BET_MAKE", "b-1"), int(time.time())
    good = token_of(body)
    stranger = OKPKey.generate_key("Ed25519", private=True)
    signed = f"{unsigned_head('HS256')}.{good.split('.')[1]}"
    by_public_key = base64url(hmac.digest(KEY.as_pem(private=False), signed.encode(), "sha256"))
    forgeries = {
        "alg none": ".".join((unsigned_head("none"), *good.split(".")[1:])),
        "alg none, no signature": f"{unsigned_head('none')}.{good.split('.')[1]}.",
        "alg HS256 with the public key": f"{signed}.{by_public_key}",
        "alg RS256": token_of(body, key=RSAKey.generate_key(2048), alg="RS256"),
        "stranger's key": token_of(body, key=stranger),
        "stranger's kid": token_of(body, key=stranger, header={"kid": stranger.thumbprint()}),
        "no kid": token_of(body, header={"kid": None}),
        "no typ": token_of(body, header={"typ": None}),
        "signature of another token": good[:-86] + token_of(bet_body("BET_MAKE", "b-2"))[-86:],
        "other claims": ".".join((good.split(".")[0], token_of(bet_body("BET_WIN", "b-1")).split(".")[1], good[-86:])),
        "no token": "",
        "expired": token_of(body, claims={"iat": now - 60, "exp": now - 30}),
        "from the future": token_of(body, claims={"iat": now + 60, "exp": now + 90}),
        "no exp": token_of(body, claims={"exp": None}),
        "wrong iss": token_of(body, claims={"iss": "predict"}),
        "wrong sub": token_of(body, claims={"sub": "op_other"}),
        "wrong method": token_of(body, claims={"method": "PING"}),
        "wrong digest": token_of(body, claims={"digest": hashlib.sha256(body + b" ").hexdigest()}),
        "another jti": token_of(body, claims={"jti": str(uuid4())}),
        "a jti that only begins alike": token_of(body, claims={"jti": request_id_of(body) + "1"}),
    }
    answers = {name: await operator.post(body, token or " ") for name, token in forgeries.items()}
    assert {name: status for name, (status, _) in answers.items()} == dict.fromkeys(forgeries, 401)
    assert all(answer["status"] == "UNAUTHORIZED" and answer["message"] for _, answer in answers.values())
    assert await operator.balance() == FUNDS
    assert (await operator.ledger())["callbacks"] == {"unauthorized": len(forgeries)}
    assert (await operator.post(body, token_of(body, claims={"jti": f"{request_id_of(body)}:7"})))[1]["status"] == "OK"


async def test_a_signed_body_that_is_not_the_protocol_is_a_bad_request_and_nothing_is_applied(
    operator: Operator,
) -> None:
    good = bet_body("BET_MAKE", "b-1")
    bodies = {
        "a key twice": good.replace(b'{"player_id"', b'{"amount":1,"player_id"'),
        "not an object": b"[" + good + b"]",
        "cut off": good[:-1],
        "two objects": good + good,
        "UTF-16": good.decode().encode("utf-16"),
        "NaN": good.replace(b"2500", b"NaN"),
        "a float": good.replace(b"2500", b"2500.0"),
        "a negative amount": bet_body("BET_MAKE", "b-1", -2500),
        "nothing": bet_body("BET_MAKE", "b-1", 0),
        "too much": bet_body("BET_MAKE", "b-1", 10**18),
        "true": bet_body("BET_MAKE", "b-1", amount=True),
        "no player": good.replace(b'"player_id"', b'"player"'),
        "no bet context": good.replace(b'"shares"', b'"share"'),
        "half a character": bet_body("BET_MAKE", "b-\ud800"),
        "an upper-case request_id": good.replace(request_id_of(good).encode(), request_id_of(good).upper().encode()),
        "another operator": good.replace(OPERATOR_ID.encode(), b"op_other99"),
        "an unknown method": good.replace(b"BET_MAKE", b"BET_TAKE"),
        "a bottomless one": good[:-1] + b',"more":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    }
    answers = {}
    for name, body in bodies.items():
        digest = {"digest": hashlib.sha256(body).hexdigest()}
        answers[name] = await operator.post(body, token_of(good, claims=digest))
    assert {name: status for name, (status, _) in answers.items()} == dict.fromkeys(bodies, 400)
    assert all(answer["status"] == "BAD_REQUEST" and answer["message"] for _, answer in answers.values())
    assert await operator.balance() == FUNDS


async def test_fifty_copies_of_one_placement_at_once_debit_once_even_over_two_processes(tmp_path: Path) -> None:
    body = bet_body("BET_MAKE", "b-1")
    async with running(tmp_path) as operator, running(tmp_path) as twin:
        answers = [answer for _, answer in await asyncio.gather(*(one.post(body) for one in [operator, twin] * 25))]
        assert sorted(answer["status"] for answer in answers) == ["DUPLICATE"] * 49 + ["OK"]
        transaction_id = answers[0]["transaction_id"]
        assert {(one["balance"], one["transaction_id"]) for one in answers} == {(FUNDS - 2500, transaction_id)}
        assert await operator.balance() == FUNDS - 2500


async def test_a_debit_that_arrives_after_its_rollback_never_takes_money(operator: Operator) -> None:
    debit = bet_body("BET_MAKE", "b-1")
    rollback = bet_body("BET_ROLLBACK", "b-1", rollback_of=request_id_of(debit))
    for _ in range(2):
        assert (await operator.post(rollback))[1]["status"] == "TRANSACTION_NOT_FOUND"
        assert (await operator.post(debit))[1]["status"] == "BET_ROLLED_BACK"
    # Neither under another request_id for the same bet, nor for another bet under the same request_id.
    assert await operator.status(bet_body("BET_MAKE", "b-1")) == "BET_ROLLED_BACK"
    other = bet_body("BET_MAKE", "b-2")
    assert (
        await operator.status(bet_body("BET_ROLLBACK", "b-3", rollback_of=request_id_of(other)))
        == "TRANSACTION_NOT_FOUND"
    )
    assert await operator.status(other) == "BET_ROLLED_BACK"
    assert await operator.balance() == FUNDS


async def test_a_second_terminal_is_refused_and_stays_on_record(operator: Operator) -> None:
    await operator.post(debit := bet_body("BET_MAKE", "b-1"))
    assert (await operator.post(win := bet_body("BET_WIN", "b-1", 5000)))[1]["balance"] == FUNDS + 2500
    rollback = bet_body("BET_ROLLBACK", "b-1", rollback_of=request_id_of(debit))
    seconds = [bet_body(method, "b-1") for method in ("BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND")] + [rollback]
    for second in seconds:
        http_status, answer = await operator.post(second)
        assert (http_status, answer["status"]) == (409, "BET_ALREADY_SETTLED")
    assert await operator.status(win) == "DUPLICATE"
    assert await operator.balance() == FUNDS + 2500
    with closing(sqlite3.connect(operator.database)) as sql:
        refused = sql.execute("select body, signature, http_status from callback_record where outcome = 'refused'")
        assert refused.fetchall() == [(second, "verified", 409) for second in seconds]
        for statement in ("delete from callback_record", "update callback_record set outcome = 'applied'"):
            with pytest.raises(sqlite3.IntegrityError, match="append-only"):
                sql.execute(statement)


async def test_a_terminal_that_contradicts_its_bet_moves_nothing(operator: Operator) -> None:
    debit = bet_body("BET_MAKE", "b-1")
    await operator.post(debit)
    await operator.post(other := bet_body("BET_MAKE", "b-2"))
    mismatches = [
        bet_body("BET_REFUND", "b-1", 2501),
        bet_body("BET_WIN", "b-1", currency="USD"),
        bet_body("BET_LOSE", "b-1", player_id="player-2"),
        bet_body("BET_ROLLBACK", "b-1", 2499, rollback_of=request_id_of(debit)),
        bet_body("BET_ROLLBACK", "b-1", rollback_of=request_id_of(other)),
        bet_body("BET_ROLLBACK", "b-3", rollback_of=request_id_of(debit)),
        bet_body("BET_ROLLBACK", "b-1", rollback_of=str(uuid4())),
    ]
    assert [await operator.status(body) for body in mismatches] == ["BET_MISMATCH"] * len(mismatches)
    assert await operator.balance() == FUNDS - 5000
    assert await operator.status(bet_body("BET_ROLLBACK", "b-1", rollback_of=request_id_of(debit))) == "OK"
    assert await operator.balance() == FUNDS - 2500


async def test_a_refused_placement_stays_refused_and_a_refused_credit_may_be_driven_again(operator: Operator) -> None:
    dear = bet_body("BET_MAKE", "b-dear", FUNDS + 1)
    win = bet_body("BET_WIN", "b-1", 10_000)
    http_status, answer = await operator.post(dear)
    assert (http_status, answer["status"], answer["balance"]) == (200, "INSUFFICIENT_FUNDS", FUNDS)
    assert (await operator.post(win)) == (404, {"status": "BET_NOT_FOUND", "message": "bet b-1 was never placed here"})
    assert await operator.status(bet_body("BET_MAKE", "b-1")) == "OK"
    assert await operator.status(win) == "OK"
    assert await operator.status(dear) == "INSUFFICIENT_FUNDS"
    assert await operator.balance() == FUNDS + 7500
    assert await operator.status(bet_body("BET_MAKE", "b-2", player_id="nobody")) == "PLAYER_NOT_FOUND"
    assert await operator.status(bet_body("BET_MAKE", "b-2", currency="USD")) == "PLAYER_NOT_FOUND"


async def test_a_request_id_with_other_bytes_is_never_applied(operator: Operator) -> None:
    first = bet_body("BET_MAKE", "b-1")
    await operator.post(first)
    for other in (bet_body("BET_MAKE", "b-2", request_id=request_id_of(first)), first.replace(b"{", b"{ ", 1)):
        http_status, answer = await operator.post(other)
        assert (http_status, answer["status"]) == (409, "REQUEST_ID_REUSED")
    # A balance inquiry books nothing, and binds its request_id all the same.
    await operator.post(inquiry := body_of("BALANCE", player_id="player-1", currency="EUR"))
    reused = bet_body("BET_MAKE", "b-3", request_id=request_id_of(inquiry))
    assert await operator.status(reused) == "REQUEST_ID_REUSED"
    assert await operator.balance() == FUNDS - 2500
    assert (await operator.post(inquiry))[1] == {"status": "OK", "balance": FUNDS - 2500}


@pytest.mark.parametrize("fault", Fault)
async def test_a_fault_spoils_the_answer_and_never_the_wallet(fault: Fault, operator: Operator) -> None:
    assert await operator.admin("faults", {fault: 1, "stall_s": 0}) == 200
    body = bet_body("BET_MAKE", "b-1")
    if fault in (Fault.RESET, Fault.RESET_AFTER_APPLY):
        host, port = operator.url.split("/")[2].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        head = f"POST /predictu HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token_of(body)}\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.close()
    elif fault is Fault.NOT_JSON:
        with pytest.raises(json.JSONDecodeError):
            await operator.post(body)
    else:
        http_status, answer = await operator.post(body)
        assert (http_status, answer["status"]) == {
            Fault.ERROR_BEFORE_APPLY: (500, "INTERNAL_ERROR"),
            Fault.ERROR_AFTER_APPLY: (500, "INTERNAL_ERROR"),
            Fault.UNAVAILABLE: (503, "UNAVAILABLE"),
            Fault.DUPLICATE: (200, "DUPLICATE"),
        }.get(fault, (200, "OK"))
    applied = fault not in ("reset", "error_before_apply", "unavailable")
    assert await operator.balance() == (FUNDS - 2500 if applied else FUNDS)
    assert (await operator.ledger())["faults"] == {fault: 1}
    assert await operator.admin("faults", {}) == 200
    assert await operator.status(body) == ("DUPLICATE" if applied else "OK")
    assert await operator.balance() == FUNDS - 2500


async def test_under_faults_and_retries_the_wallet_agrees_with_a_model_to_the_cent(tmp_path: Path) -> None:
    draw = random.Random(20260319)
    faults = ",".join(f"{fault}=0.06" for fault in Fault)
    ends = {"BET_WIN": "won", "BET_LOSE": "lost", "BET_SELL": "sold", "BET_REFUND": "refunded"}

    async def live(operator: Operator, bet_id: str) -> tuple[str, str, int]:
        """One bet's messages in a random order, some twice; returns its id, state and net by the protocol's rules."""
        amount, payout = draw.randint(1, 500), draw.randint(0, 900)
        debit = bet_body("BET_MAKE", bet_id, amount)
        bodies = [bet_body(method, bet_id, payout) for method in ("BET_WIN", "BET_SELL", "BET_LOSE")]
        bodies += [bet_body("BET_REFUND", bet_id, amount)]
        bodies += [bet_body("BET_ROLLBACK", bet_id, amount, rollback_of=request_id_of(debit))]
        messages = [debit, *draw.sample(bodies, draw.randint(0, 3))]
        messages += draw.choices(messages, k=3)
        if draw.random() < 0.5:
            draw.shuffle(messages)
        state, net = "", 0
        for body in messages:
            method, status = json.loads(body)["method"], await operator.post_until_answered(body)
            if method == "BET_MAKE" and not state:
                state, net = "open", -amount
            elif method == "BET_ROLLBACK" and not state:
                state = "never_placed"
                assert status == "TRANSACTION_NOT_FOUND"
            elif method != "BET_MAKE" and state == "open":
                state = ends.get(method, "rolled_back")
                net += {"BET_WIN": payout, "BET_SELL": payout, "BET_LOSE": 0}.get(method, amount)
                assert status in ("OK", "DUPLICATE")
        return bet_id, state, net

    async with running(tmp_path, "--faults", faults, "--fault-seed", "7", "--stall-s", "0.01") as operator:
        lives = await asyncio.gather(*(live(operator, f"b-{number:03}") for number in range(120)))
        ledger = await operator.ledger()
        assert await operator.balance() == FUNDS + sum(net for _, _, net in lives)
        assert set(ledger["faults"]) == set(Fault)
    assert [(bet["bet_id"], bet["state"], bet["net"]) for bet in ledger["bets"]] == [life for life in lives if life[1]]
    assert {"open", "won", "lost", "sold", "refunded", "rolled_back", "never_placed"} == {
        state for _, state, _ in lives if state
    }


async def test_after_a_kill_every_answered_debit_stands_and_every_retry_is_known(tmp_path: Path) -> None:
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


async def test_a_change_that_fails_takes_nothing_with_it_and_a_locked_file_fails_them_all(tmp_path: Path) -> None:
    file = tmp_path / "wallet.db"
    with ThreadPoolExecutor(1) as thread, closing(open_database(file)) as sql, closing(sqlite3.connect(file)) as rival:
        sql.execute("pragma busy_timeout = 0")
        writer, wallet = Writer(sql, thread), Wallet(sql)
        committing = asyncio.create_task(writer.run())

        def create(*ids: str) -> Callable[[], int]:
            players = [NewPlayer(player_id=player_id, currency="EUR", balance=1) for player_id in ids]
            return lambda: wallet.create_players(players)

        def break_all() -> int:
            # SQLite takes the whole transaction back, as it may where the disk is full.
            sql.execute("insert or rollback into players (player_id, currency, balance) values ('a', 'EUR', 1)")
            return 0

        async def ask(*changes: Callable[[], int]) -> list[int | type[BaseException]]:
            """All are asked for before the writer runs again, so they share one transaction."""
            results = await asyncio.gather(*map(writer.write, changes), return_exceptions=True)
            return [type(result) if isinstance(result, BaseException) else result for result in results]

        statements: list[str] = []
        sql.set_trace_callback(statements.append)
        assert await ask(create("a"), create("b", "a"), create("c")) == [1, WalletError, 1]
        assert statements.count("begin immediate") == 1
        assert await ask(create("x"), break_all, create("y")) == [sqlite3.IntegrityError] * 3
        rival.execute("begin immediate")
        assert await ask(create("d"), create("e")) == [sqlite3.OperationalError] * 2
        rival.execute("rollback")
        assert await ask(create("d")) == [1]
        assert rival.execute("select group_concat(player_id) from players").fetchone() == ("a,c,d",)
        committing.cancel()


async def test_a_stop_lets_a_stalled_answer_out_and_does_not_wait_for_it(tmp_path: Path) -> None:
    stall = ("--faults", "stall_after_apply=1", "--stall-s", "3600", "--log", "json")
    async with running(tmp_path, *stall) as operator:
        answer = asyncio.create_task(operator.post(bet_body("BET_MAKE", "b-1")))
        line = await operator.log_line()
        assert (line["event"], line["outcome"], line["fault"]) == ("callback.answered", "applied", "stall_after_apply")
        operator.process.send_signal(signal.SIGTERM)
        assert (await answer)[1]["status"] == "OK"


async def test_decimal_amounts_are_exact_in_both_directions(tmp_path: Path) -> None:
    async with running(tmp_path, "--amount-format", "decimal") as operator:
        players = [{"player_id": "player-1", "currency": code, "balance": 10_000} for code in ("JPY", "BHD")]
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
        refused = [
            ("EUR", "1.001"),
            ("JPY", "1.5"),
            ("BHD", "1.0000000000000000000000000000000001"),
            ("EUR", "1e999999"),
        ]
        assert [await balance_after(currency, amount) for currency, amount in refused] == [None] * 4
        assert (await operator.ledger())["balanced"]


async def test_an_rs256_operator_with_a_key_set_and_tls_is_served_too(tmp_path: Path) -> None:
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


async def test_the_folder_copied_away_runs_alone(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "away" / "reference_operator", ignore=shutil.ignore_patterns("__pycache__"))
    # A module that is None in sys.modules can't be imported: it is as if this project were not installed.
    alone = (
        "import runpy,sys; sys.modules['predictu_dispatch']=None; runpy.run_module('reference_operator','','__main__')"
    )
    async with running(tmp_path, start=("-c", alone.replace("'',", "None,")), cwd=tmp_path / "away") as operator:
        assert await operator.status(bet_body("BET_MAKE", "b-1")) == "OK"
        assert await operator.balance() == FUNDS - 2500


def test_what_cannot_be_meant_is_refused_at_the_start_with_the_value_and_what_is_allowed(
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
        ("--algorithm", "HS256", *key): "invalid choice: 'HS256'",
        ("--algorithm", "RS256", *key): "this key can't verify RS256",
        ("--algorithm", "RS256", "--public-key", str(tmp_path / "short.pem")): "an RSA key of 1024 bits",
        ("--public-key", str(tmp_path / "private.pem")): "not a public key in PEM",
        ("--public-key", str(tmp_path / "absent.pem")): "No such file",
        (): "no public key",
    }
    for options, message in refusals.items():
        assert main([*needed, *options]) == 2
        assert message in capsys.readouterr().err
