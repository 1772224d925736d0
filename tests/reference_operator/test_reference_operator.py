"""The reference operator from outside: what it verifies, books and refuses."""

import asyncio
import hashlib
import hmac
import json
import random
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path
from uuid import uuid4

import pytest
from joserfc.jwk import OKPKey

from predictu_dispatch.reference_operator.answer import Answer
from predictu_dispatch.reference_operator.callback import Callback
from predictu_dispatch.reference_operator.faults import Fault
from predictu_dispatch.reference_operator.keys import read_keyring
from predictu_dispatch.reference_operator.money import Money
from predictu_dispatch.reference_operator.verify import verified_callback
from tests.reference_operator.client import (
    FUNDS,
    KEY,
    OPERATOR_ID,
    Operator,
    base64url,
    bet_body,
    body_of,
    request_id_of,
    running,
    token_of,
    unsigned_head,
)

# RFC 9864 renames EdDSA to Ed25519; the protocol says EdDSA, and the signature is the same.
pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")


@pytest.fixture
async def operator(tmp_path: Path) -> AsyncIterator[Operator]:
    async with running(tmp_path) as operator:
        yield operator


def test_a_flipped_bit_in_body_or_token_is_unauthorized(tmp_path: Path) -> None:
    (tmp_path / "predictu.pem").write_bytes(KEY.as_pem(private=False))
    keyring = read_keyring("EdDSA", pem_files=[tmp_path / "predictu.pem"], jwks_files=[])
    body = bet_body("BET_MAKE", "b-1")
    token = token_of(body).encode()

    def content(token: bytes, body: bytes) -> Callback | Answer:
        # aiohttp decodes non-text bytes like this.
        authorization = [f"Bearer {token.decode(errors='surrogateescape')}"]
        return verified_callback(authorization, body, keyring=keyring, operator_id=OPERATOR_ID, money=Money()).content

    def flips(text: bytes) -> list[bytes]:
        positions = [(place, bit) for place in range(len(text)) for bit in range(8)]
        return [text[:place] + bytes([text[place] ^ 1 << bit]) + text[place + 1 :] for place, bit in positions]

    assert isinstance(content(token, body), Callback)
    answers = [content(token, changed) for changed in flips(body)]
    answers += [content(changed, body) for changed in flips(token)]
    assert {answer.http_status if isinstance(answer, Answer) else 200 for answer in answers} == {401}


async def test_a_forged_or_unrelated_token_is_unauthorized(operator: Operator) -> None:
    """Over a real connection; vectors.json has every kind of forgery."""
    body, now = bet_body("BET_MAKE", "b-1"), int(time.time())
    good = token_of(body)
    stranger = OKPKey.generate_key("Ed25519", private=True)
    signed = f"{unsigned_head('HS256')}.{good.split('.')[1]}"
    by_public_key = base64url(hmac.digest(KEY.as_pem(private=False), signed.encode(), "sha256"))
    forgeries = {
        "alg none": ".".join((unsigned_head("none"), *good.split(".")[1:])),
        "alg none, no signature": f"{unsigned_head('none')}.{good.split('.')[1]}.",
        "alg HS256 with the public key": f"{signed}.{by_public_key}",
        "stranger's key": token_of(body, key=stranger),
        "no typ": token_of(body, header={"typ": None}),
        "signature of another token": good[:-86] + token_of(bet_body("BET_MAKE", "b-2"))[-86:],
        "other claims": ".".join((good.split(".")[0], token_of(bet_body("BET_WIN", "b-1")).split(".")[1], good[-86:])),
        "no token": "",
        "expired": token_of(body, claims={"iat": now - 60, "exp": now - 30}),
        "a jti with a common prefix": token_of(body, claims={"jti": request_id_of(body) + "1"}),
    }
    answers = {name: await operator.post(body, token or " ") for name, token in forgeries.items()}
    assert {name: status for name, (status, _) in answers.items()} == dict.fromkeys(forgeries, 401)
    assert all(answer["status"] == "UNAUTHORIZED" and answer["message"] for _, answer in answers.values())
    assert await operator.balance() == FUNDS
    assert (await operator.ledger())["callbacks"] == {"unauthorized": len(forgeries)}
    assert (await operator.post(body, token_of(body, claims={"jti": f"{request_id_of(body)}:7"})))[1]["status"] == "OK"


async def test_a_signed_but_malformed_body_is_a_bad_request(operator: Operator) -> None:
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
        "too deep nesting": good[:-1] + b',"more":' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    }
    answers = {}
    for name, body in bodies.items():
        digest = {"digest": hashlib.sha256(body).hexdigest()}
        answers[name] = await operator.post(body, token_of(good, claims=digest))
    assert {name: status for name, (status, _) in answers.items()} == dict.fromkeys(bodies, 400)
    assert all(answer["status"] == "BAD_REQUEST" and answer["message"] for _, answer in answers.values())
    assert await operator.balance() == FUNDS


async def test_fifty_concurrent_copies_in_two_processes_debit_once(tmp_path: Path) -> None:
    body = bet_body("BET_MAKE", "b-1")
    async with running(tmp_path) as operator, running(tmp_path) as twin:
        answers = [answer for _, answer in await asyncio.gather(*(one.post(body) for one in [operator, twin] * 25))]
        assert sorted(answer["status"] for answer in answers) == ["DUPLICATE"] * 49 + ["OK"]
        transaction_id = answers[0]["transaction_id"]
        assert {(one["balance"], one["transaction_id"]) for one in answers} == {(FUNDS - 2500, transaction_id)}
        assert await operator.balance() == FUNDS - 2500


async def test_a_debit_that_arrives_after_its_rollback_is_refused(operator: Operator) -> None:
    debit = bet_body("BET_MAKE", "b-1")
    rollback = bet_body("BET_ROLLBACK", "b-1", rollback_of=request_id_of(debit))
    for _ in range(2):
        assert (await operator.post(rollback))[1]["status"] == "TRANSACTION_NOT_FOUND"
        assert (await operator.post(debit))[1]["status"] == "BET_ROLLED_BACK"
    # Neither under another request_id for the same bet, nor for another bet under the same
    # request_id.
    assert await operator.status(bet_body("BET_MAKE", "b-1")) == "BET_ROLLED_BACK"
    other = bet_body("BET_MAKE", "b-2")
    assert (
        await operator.status(bet_body("BET_ROLLBACK", "b-3", rollback_of=request_id_of(other)))
        == "TRANSACTION_NOT_FOUND"
    )
    assert await operator.status(other) == "BET_ROLLED_BACK"
    assert await operator.balance() == FUNDS


async def test_a_second_terminal_is_refused_and_recorded(operator: Operator) -> None:
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


async def test_a_refused_placement_is_final_and_a_refused_credit_can_be_retried(operator: Operator) -> None:
    too_expensive = bet_body("BET_MAKE", "b-too_expensive", FUNDS + 1)
    win = bet_body("BET_WIN", "b-1", 10_000)
    http_status, answer = await operator.post(too_expensive)
    assert (http_status, answer["status"], answer["balance"]) == (200, "INSUFFICIENT_FUNDS", FUNDS)
    assert (await operator.post(win)) == (404, {"status": "BET_NOT_FOUND", "message": "bet b-1 was never placed here"})
    assert await operator.status(bet_body("BET_MAKE", "b-1")) == "OK"
    assert await operator.status(win) == "OK"
    assert await operator.status(too_expensive) == "INSUFFICIENT_FUNDS"
    assert await operator.balance() == FUNDS + 7500
    assert await operator.status(bet_body("BET_MAKE", "b-2", player_id="nobody")) == "PLAYER_NOT_FOUND"
    assert await operator.status(bet_body("BET_MAKE", "b-2", currency="USD")) == "PLAYER_NOT_FOUND"


async def test_a_request_id_with_other_bytes_is_never_applied(operator: Operator) -> None:
    first = bet_body("BET_MAKE", "b-1")
    await operator.post(first)
    for other in (bet_body("BET_MAKE", "b-2", request_id=request_id_of(first)), first.replace(b"{", b"{ ", 1)):
        http_status, answer = await operator.post(other)
        assert (http_status, answer["status"]) == (409, "REQUEST_ID_REUSED")
    # A BALANCE books nothing, but its request_id is bound to its bytes too.
    await operator.post(inquiry := body_of("BALANCE", player_id="player-1", currency="EUR"))
    reused = bet_body("BET_MAKE", "b-3", request_id=request_id_of(inquiry))
    assert await operator.status(reused) == "REQUEST_ID_REUSED"
    assert await operator.balance() == FUNDS - 2500
    assert (await operator.post(inquiry))[1] == {"status": "OK", "balance": FUNDS - 2500}


@pytest.mark.parametrize("fault", Fault)
async def test_a_fault_changes_the_reply_and_never_the_wallet(fault: Fault, operator: Operator) -> None:
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


async def test_under_faults_and_retries_the_wallet_equals_a_model(tmp_path: Path) -> None:
    draw = random.Random(20260319)
    faults = ",".join(f"{fault}=0.06" for fault in Fault)
    ends = {"BET_WIN": "won", "BET_LOSE": "lost", "BET_SELL": "sold", "BET_REFUND": "refunded"}

    async def live(operator: Operator, bet_id: str) -> tuple[str, str, int]:
        """Sends a bet's messages in random order, some twice.

        Returns its id and the expected state and net.
        """
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


@pytest.mark.parametrize("agreed", ["", "https://wallet.example.com"])
async def test_the_token_must_have_exactly_the_agreed_audience(tmp_path: Path, agreed: str) -> None:
    async with running(tmp_path, *(("--audience", agreed) if agreed else ())) as operator:
        for number, audience in enumerate(("", "https://wallet.example.com", "https://test.example.com")):
            body = bet_body("BET_MAKE", f"b-{number}")
            token = token_of(body, claims={"aud": audience or None})
            assert (await operator.post(body, token))[0] == (200 if audience == agreed else 401), audience
