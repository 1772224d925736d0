"""The Node and Go operators do what the guide asks, also if they are killed at any moment."""

from __future__ import annotations

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from joserfc.jwk import RSAKey

from predictu_dispatch.reference_operator.callback import Method
from tests.certification.example_operators import EXAMPLES, Example, need, running, started
from tests.reference_operator.client import KEY, bet_body, body_of, request_id_of, token_of

# RFC 9864 renames EdDSA to Ed25519; the protocol says EdDSA, and the signature is the same.
pytestmark = pytest.mark.filterwarnings("ignore::joserfc.errors.SecurityWarning")
each_language = pytest.mark.parametrize(
    "language", [pytest.param("node", marks=need("node")), pytest.param("go", marks=need("go"))]
)


async def balance_of(operator: Example, player_id: str = "player-1") -> int:
    _, answer = await operator.post(body_of("BALANCE", player_id=player_id, currency="EUR"))
    return int(answer["balance"])


def rollback(bet_id: str, debit: bytes, amount: int = 2500) -> bytes:
    return bet_body("BET_ROLLBACK", bet_id, amount, rollback_of=request_id_of(debit))


@each_language
async def test_a_repeated_debit_books_once_and_gets_the_first_answer(tmp_path: Path, language: str) -> None:
    async with running(language, tmp_path) as operator:
        debit = bet_body("BET_MAKE", "b-1")
        first, *again = await asyncio.gather(*(operator.post(debit) for _ in range(20)))
        await operator.post(bet_body("BET_MAKE", "b-2", 100))
        again.append(await operator.post(debit))
        statuses = sorted(answer.pop("status") for _, answer in [first, *again])
        assert statuses == ["DUPLICATE"] * 20 + ["OK"]
        assert all(answer == first[1] for _, answer in again)
        assert first[1]["balance"] == 7500
        assert await balance_of(operator) == 7400


@each_language
async def test_every_end_moves_its_money_once(tmp_path: Path, language: str) -> None:
    async with running(language, tmp_path) as operator:
        expected = 10_000
        for method, amount, credit in [
            (Method.BET_WIN, 4000, 4000),
            (Method.BET_WIN, 0, 0),
            (Method.BET_SELL, 1200, 1200),
            (Method.BET_LOSE, None, 0),
            (Method.BET_REFUND, 2500, 2500),
            (Method.BET_ROLLBACK, 2500, 2500),
        ]:
            bet_id = f"{method}-{amount}"
            debit = bet_body("BET_MAKE", bet_id)
            assert await operator.status(debit) == "OK"
            end = rollback(bet_id, debit) if method is Method.BET_ROLLBACK else bet_body(method, bet_id, amount)
            assert await operator.status(end) == "OK"
            assert await operator.status(end) == "DUPLICATE"
            assert await operator.status(bet_body("BET_WIN", bet_id, 9)) == "BET_CLOSED"
            expected += credit - 2500
            assert await balance_of(operator) == expected, method


@each_language
async def test_a_refused_debit_stays_refused_after_a_deposit(tmp_path: Path, language: str) -> None:
    async with running(language, tmp_path) as operator:
        too_much = bet_body("BET_MAKE", "b-1", 10_001)
        assert await operator.status(too_much) == "INSUFFICIENT_FUNDS"
        await operator.post(bet_body("BET_MAKE", "b-2", 1))
        await operator.post(bet_body("BET_WIN", "b-2", 5000))
        assert await operator.status(too_much) == "INSUFFICIENT_FUNDS"
        assert await balance_of(operator) == 14_999


@each_language
async def test_a_debit_that_was_rolled_back_before_it_arrived_is_refused(tmp_path: Path, language: str) -> None:
    async with running(language, tmp_path) as operator:
        debit = bet_body("BET_MAKE", "b-1")
        for _ in range(2):
            assert (await operator.post(rollback("b-1", debit)))[1]["status"] == "TRANSACTION_NOT_FOUND"
        assert await operator.status(debit) == "BET_CLOSED"
        assert await operator.status(bet_body("BET_MAKE", "b-1")) == "BET_CLOSED"
        assert await operator.status(bet_body("BET_WIN", "b-1", 100)) == "BET_CLOSED"
        assert await balance_of(operator) == 10_000


@each_language
async def test_callbacks_that_contradict_their_bet_move_nothing(tmp_path: Path, language: str) -> None:
    async with running(language, tmp_path) as operator:
        debit = bet_body("BET_MAKE", "b-1")
        await operator.post(debit)
        same_id = bet_body("BET_MAKE", "b-1", 100).replace(b"2500", b"100")
        reused = debit.replace(b"2500", b"2501")
        expected = {
            bet_body("BET_REFUND", "b-1", 2501): "BET_MISMATCH",
            rollback("b-1", same_id): "BET_MISMATCH",
            bet_body("BET_WIN", "b-1", 1, player_id="player-2"): "BET_MISMATCH",
            bet_body("BET_WIN", "b-9", 1): "BET_NOT_FOUND",
            bet_body("BET_MAKE", "b-1", 100, player_id="player-2"): "BET_EXISTS",
            reused: "REQUEST_ID_REUSED",
            body_of("BALANCE", player_id="nobody", currency="EUR"): "PLAYER_NOT_FOUND",
        }
        assert {body: await operator.status(body) for body in expected} == expected
        assert [await balance_of(operator), await balance_of(operator, "player-2")] == [7500, 10_000]


@each_language
async def test_an_amount_that_is_not_whole_subunits_is_refused(tmp_path: Path, language: str) -> None:
    async with running(language, tmp_path) as operator:
        for amount in ("12.5", "0", "-5", '"500"', "1e300", "null", "9007199254740993000", "1.5e1000"):
            body = bet_body("BET_MAKE", "b-1", 777).replace(b"777", amount.encode())
            http_status, answer = await operator.post(body)
            assert (http_status, answer["status"]) in [(400, "BAD_REQUEST"), (200, "INSUFFICIENT_FUNDS")], amount
        assert await balance_of(operator) == 10_000


@each_language
async def test_a_bad_token_is_refused_and_forgotten(tmp_path: Path, language: str) -> None:
    async with running(language, tmp_path) as operator:
        debit = bet_body("BET_MAKE", "b-1")
        for token in ("", "a.b.c", token_of(bet_body("BET_MAKE", "b-1"))):
            assert (await operator.post(debit, token))[0] == 401
        too_long = body_of("PING", padding="x" * 300_000)
        assert (await operator.post(too_long, ""))[0] == 413
        assert await operator.status(debit) == "OK"


@each_language
async def test_keys_of_a_jwks_are_accepted_for_the_agreed_algorithm_only(tmp_path: Path, language: str) -> None:
    rsa_key = RSAKey.generate_key(2048, private=True)
    keys = [key.as_dict(private=False) | {"kid": key.thumbprint()} for key in (rsa_key, KEY)]
    (tmp_path / "jwks.json").write_text(json.dumps({"keys": keys}))
    ping = body_of("PING")
    tokens = {
        "RS256": token_of(ping, key=rsa_key, alg="RS256", header={"kid": rsa_key.thumbprint()}),
        "EdDSA": token_of(ping),
    }
    for algorithm in tokens:
        options = ("--jwks", str(tmp_path / "jwks.json"), "--algorithm", algorithm)
        async with running(language, tmp_path, *options) as operator:
            codes = {name: (await operator.post(ping, token))[0] for name, token in tokens.items()}
        assert codes == {name: 200 if name == algorithm else 401 for name in tokens}


@each_language
async def test_a_kill_loses_no_answered_booking_and_a_torn_line_is_dropped(tmp_path: Path, language: str) -> None:
    debits = [bet_body("BET_MAKE", f"b-{number}", 10) for number in range(200)]
    answered: dict[bytes, Any] = {}

    async def post(operator: Example, body: bytes) -> None:
        answered[body] = (await operator.post(body))[1]
        if len(answered) == 40:
            operator.process.kill()

    async with running(language, tmp_path) as operator:
        sent = [asyncio.create_task(post(operator, debit)) for debit in debits]
        await asyncio.gather(*sent, return_exceptions=True)
        assert await operator.process.wait() == -9
    assert len(answered) >= 40
    file = tmp_path / "wallet.ndjson"
    file.write_bytes(file.read_bytes() + file.read_bytes()[:200].splitlines()[0][:-5])
    for _ in range(2):  # What follows the torn line is readable too.
        async with running(language, tmp_path) as operator:
            for debit, first in answered.items():
                _, answer = await operator.post(debit)
                assert answer | {"status": "OK"} == first | {"status": "OK"}
            await asyncio.gather(*(operator.post(debit) for debit in debits))
            assert await balance_of(operator) == 10_000 - 200 * 10
    for line in file.read_text().splitlines():
        json.loads(line)


@each_language
async def test_a_port_in_use_is_one_line_and_the_wallet_is_not_touched(tmp_path: Path, language: str) -> None:
    async with running(language, tmp_path) as operator:
        before = operator.database.read_bytes()
        second = await started(language, tmp_path, listen=operator.url.split("/")[2])
        out, err = await asyncio.wait_for(second.communicate(), 20)
        assert (second.returncode, out) == (2, b"")
        assert err.decode().count("\n") == 1
        assert "the address is in use" in err.decode()
        assert operator.database.read_bytes() == before


@need("go")
def test_the_go_is_formatted_and_vetted() -> None:
    for check in (["gofmt", "-l", "."], ["go", "vet", "./..."]):
        ran = subprocess.run(check, cwd=EXAMPLES / "go", capture_output=True, text=True, check=False, timeout=150)
        assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
