"""The courier with the real transport and a raw server."""

import hashlib
import json
import threading
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import OKPKey, RSAKey
from typing_extensions import override

from predictu_dispatch.core.callback import Callback, Effect, Evidence, Exchange
from predictu_dispatch.core.clock import ClockReading, DatabaseClock
from predictu_dispatch.core.lifecycle import Attempt, CallbackState
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.operator_settings import OperatorSettings, SigningAlgorithm
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.core.verdict import Verdict
from predictu_dispatch.edge.config.keys import new_private_pem
from predictu_dispatch.edge.http.transport import Transport
from predictu_dispatch.flow.courier import Courier
from tests.core.test_callback_body import MOMENT, REQUEST_ID, a_callback
from tests.support.raw_server import OK, RawServer, Script, answering, settings_for

BUSY = b"HTTP/1.1 503 Busy\r\nRetry-After: 1\r\nContent-Length: 0\r\n\r\n"
ALGORITHMS: tuple[SigningAlgorithm, ...] = ("EdDSA", "RS256")
KEYS = {algorithm: SigningKey.from_pem(new_private_pem(algorithm), algorithm) for algorithm in ALGORITHMS}
PUBLISHED: dict[SigningAlgorithm, OKPKey | RSAKey] = {
    "EdDSA": OKPKey.import_key(KEYS["EdDSA"].public_pem()),
    "RS256": RSAKey.import_key(KEYS["RS256"].public_pem()),
}

# RFC 9864 renames EdDSA to Ed25519; PROTOCOL.md and the operators' libraries use EdDSA.
pytestmark = pytest.mark.filterwarnings("ignore:EdDSA is deprecated via RFC 9864:joserfc.errors.SecurityWarning")


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfiguredOperator:
    settings: OperatorSettings
    signing_key: SigningKey


@asynccontextmanager
async def courier_to(
    server: RawServer,
    *,
    algorithm: SigningAlgorithm = "EdDSA",
    jti: str = "request_id",
    clock: DatabaseClock | None = None,
    **tables: Any,
) -> AsyncIterator[Courier]:
    signing = {"key_file": "op_abc123.pem", "algorithm": algorithm, "jti": jti}
    settings = settings_for(server.url, signing=signing, **tables)
    operator = ConfiguredOperator(settings=settings, signing_key=KEYS[algorithm])
    transport = Transport(settings)
    try:
        yield Courier(operator, transport, lane=a_callback().lane, instance="host-1", clock=clock)
    finally:
        await transport.close()


def leased_now(method: Method = Method.BET_MAKE, **differing: Any) -> Callback:
    return a_callback(method, **{"leased_at_s": time.monotonic(), "expires_in_s": 15.0, **differing})


async def delivered(script: Script, callback: Callback, **tables: Any) -> tuple[Attempt, RawServer]:
    async with RawServer(script).running() as server, courier_to(server, **tables) as courier:
        return await courier.deliver(callback), server


def halves(request: bytes) -> tuple[dict[str, str], bytes]:
    """The headers of a raw request by name, and its body."""
    head, _, body = request.partition(b"\r\n\r\n")
    lines = head.decode().split("\r\n")[1:]
    return dict(line.split(": ", 1) for line in lines), body


def verified(request: bytes, algorithm: SigningAlgorithm = "EdDSA") -> jwt.Token:
    """The token of a request, verified against the published key by another library."""
    scheme, _, token = halves(request)[0]["Authorization"].partition(" ")
    assert scheme == "Bearer"
    return jwt.decode(token, PUBLISHED[algorithm], algorithms=[algorithm])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_the_signature_covers_the_exact_bytes_of_the_body(algorithm: SigningAlgorithm) -> None:
    before_s = int(time.time())
    _, server = await delivered(answering(OK), leased_now(), algorithm=algorithm)
    (request,) = server.requests
    headers, body = halves(request)
    token = verified(request, algorithm)
    assert token.header == {"alg": algorithm, "typ": "JWT", "kid": KEYS[algorithm].kid}
    issued_at_s = token.claims["iat"]
    assert before_s <= issued_at_s <= int(time.time())
    assert token.claims == {
        "iss": "predictu",
        "sub": "op_abc123",
        "iat": issued_at_s,
        "exp": issued_at_s + 30,
        "jti": str(REQUEST_ID),
        "method": "BET_MAKE",
        "digest": hashlib.sha256(body).hexdigest(),
    }
    assert headers["Content-Type"] == "application/json"
    assert headers["Accept-Encoding"] == "identity"
    assert json.loads(body)["params"]["amount"] == 1050


@pytest.mark.parametrize("algorithm", ALGORITHMS)
async def test_an_rsa_signature_is_made_in_a_thread(
    algorithm: SigningAlgorithm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise it would delay the other operators' callbacks by a millisecond."""
    signature, signed_in = SigningKey.signature, set[int]()

    def noted(key: SigningKey, message: bytes) -> bytes:
        signed_in.add(threading.get_ident())
        return signature(key, message)

    monkeypatch.setattr(SigningKey, "signature", noted)
    attempt, _ = await delivered(answering(OK), leased_now(), algorithm=algorithm)
    assert attempt.outcome.verdict is Verdict.DELIVERED
    assert (signed_in == {threading.get_ident()}) == (algorithm == "EdDSA")


async def test_a_retry_has_the_same_bytes_and_a_new_token(monkeypatch: pytest.MonkeyPatch) -> None:
    issued_at_s = int(time.time())
    async with RawServer(answering(BUSY, OK)).running() as server, courier_to(server) as courier:
        first = await courier.deliver(leased_now())
        with monkeypatch.context() as clock:
            # The first token has expired by now.
            clock.setattr(time, "time", lambda: issued_at_s + 300.0)
            second = await courier.deliver(leased_now(attempt=2, effect=Effect.UNKNOWN, reason="http_503"))
    assert (first.outcome.verdict, second.outcome.verdict) == (Verdict.RETRY, Verdict.DELIVERED)
    first_body, second_body = (halves(request)[1] for request in server.requests)
    assert first_body == second_body
    first_token, second_token = (verified(request) for request in server.requests)
    assert second_token.claims["iat"] == issued_at_s + 300
    assert second_token.claims["exp"] == issued_at_s + 330
    # The same request has the same jti by default.
    assert first_token.claims["jti"] == second_token.claims["jti"] == str(REQUEST_ID)


async def test_with_jti_attempt_every_attempt_has_a_new_jti() -> None:
    async with RawServer(answering(BUSY, OK)).running() as server, courier_to(server, jti="attempt") as courier:
        for attempt in (1, 2):
            await courier.deliver(leased_now(attempt=attempt))
    first, second = (verified(request).claims for request in server.requests)
    assert first["jti"] != second["jti"]
    assert {claims["jti"].partition(":")[0] for claims in (first, second)} == {str(REQUEST_ID)}
    assert first["digest"] == second["digest"]


async def test_the_audit_has_the_sent_headers_but_no_signature() -> None:
    attempt, server = await delivered(answering(OK), leased_now())
    headers, body = halves(server.requests[0])
    signing_input, _, signature = headers["Authorization"].rpartition(".")
    assert attempt.request_headers is not None
    kept = json.loads(attempt.request_headers)
    assert kept.pop("Authorization") == f"{signing_input}.[signature withheld]"
    assert kept.items() <= headers.items()
    assert attempt.request_body is not None
    assert attempt.request_body.encode() == body
    assert signature not in repr(attempt)
    assert (attempt.url, attempt.key_id, attempt.instance) == (server.url, KEYS["EdDSA"].kid, "host-1")


async def test_a_delivery_is_judged_and_settled_as_one_record() -> None:
    answer = b'{"status":"OK","balance":95000,"transaction_id":"op-tx-123"}'
    callback = leased_now()
    attempt, _ = await delivered(
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(answer) + answer), callback
    )
    assert (attempt.exchange.evidence, attempt.exchange.body) == (Evidence.ANSWERED, answer)
    assert (attempt.outcome.state, attempt.outcome.effect) == (CallbackState.DELIVERED, Effect.APPLIED)
    assert (attempt.judgement.balance, attempt.judgement.operator_transaction_id) == (95000, "op-tx-123")
    assert attempt.callback is callback
    assert not attempt.reaped
    # On the database's clock: leased_at plus the duration.
    assert timedelta(0) <= attempt.finished_at - MOMENT < timedelta(seconds=5)


@pytest.mark.parametrize("method", [Method.BET_MAKE, Method.BET_WIN])
async def test_a_callback_without_a_body_is_settled_as_not_sent(method: Method) -> None:
    """A decimal amount in a currency without known minor digits must not stop the lane."""
    callback = leased_now(method, amount_format="decimal", minor_digits=None)
    attempt, server = await delivered(answering(OK), callback, amount_format="decimal")
    assert (attempt.exchange.evidence, attempt.exchange.reason) == (Evidence.NOT_SENT, "internal_error")
    assert "minor digits" in (attempt.exchange.error or "")
    assert (attempt.outcome.state, attempt.outcome.effect) == (CallbackState.READY, Effect.NONE)
    assert (attempt.request_body, attempt.request_headers) == (None, None)
    assert server.connections == 0


async def test_nothing_is_sent_after_the_deadline_or_near_the_end_of_the_lease() -> None:
    for late in ({"expires_in_s": -0.1}, {"leased_at_s": time.monotonic() - 3.1, "expires_in_s": None}):
        attempt, server = await delivered(answering(OK), leased_now(**late))
        assert (attempt.exchange.evidence, attempt.exchange.reason) == (Evidence.NOT_SENT, "too_late")
        assert server.connections == 0
    # After the deadline there is no retry either.
    ended, _ = await delivered(answering(OK), leased_now(expires_in_s=-0.1))
    assert (ended.outcome.state, ended.outcome.reason) == (CallbackState.EXHAUSTED, "deadline")


async def test_each_method_uses_the_timeouts_of_its_policy() -> None:
    async def silent(peer: Any) -> None:
        await peer.request()
        await peer.read_until_closed()

    hasty = {"attempt_timeout_s": 0.1, "connect_timeout_s": 0.1}
    for method, lane in ((Method.BET_MAKE, "interactive"), (Method.BET_ROLLBACK, "settlement")):
        attempt, server = await delivered(silent, leased_now(method, expires_in_s=None), **{lane: hasty})
        assert (attempt.exchange.evidence, attempt.exchange.reason) == (Evidence.UNANSWERED, "timeout")
        assert attempt.exchange.total_ms < 3_000
        assert (attempt.outcome.state, attempt.outcome.effect) == (CallbackState.READY, Effect.UNKNOWN)
        assert len(server.requests) == 1


async def test_concurrent_attempts_have_different_timeouts() -> None:
    """Otherwise all slots of an operator that never answers would time out at once."""
    asked_s: list[float] = []

    class Noting(Transport):
        @override
        async def post(self, *, timeout_s: float, **_: Any) -> Exchange:
            asked_s.append(timeout_s)
            return Exchange(evidence=Evidence.UNANSWERED, total_ms=0.0, reason="timeout")

    settings = settings_for("http://127.0.0.1:1/predictu", interactive={"attempt_timeout_s": 5.0})
    transport = Noting(settings)
    operator = ConfiguredOperator(settings=settings, signing_key=KEYS["EdDSA"])
    courier = Courier(operator, transport, lane=a_callback().lane, instance="host-1")
    for _ in range(200):
        await courier.deliver(leased_now())
    await transport.close()
    # At most the configured timeout, at least 95 % of it, and well spread.
    assert 4.75 <= min(asked_s) < 4.80
    assert 4.95 < max(asked_s) <= 5.0


async def test_the_operators_statuses_and_max_delay_apply() -> None:
    blocked = b'HTTP/1.1 200 OK\r\nContent-Length: 27\r\n\r\n{"status":"PLAYER_BLOCKED"}'
    attempt, _ = await delivered(answering(blocked), leased_now(), statuses={"rejected": ["PLAYER_BLOCKED"]})
    assert (attempt.outcome.state, attempt.outcome.reason) == (CallbackState.REJECTED, "player_blocked")
    nothing = b'HTTP/1.1 404 No\r\nContent-Length: 26\r\n\r\n{"status":"BET_NOT_FOUND"}'
    rollback = leased_now(Method.BET_ROLLBACK, expires_in_s=None, placement_ended_s_ago=0.0)
    attempt, _ = await delivered(answering(nothing), rollback, rollback={"recheck_s": 7.0})
    assert (attempt.outcome.state, attempt.outcome.due_in_s) == (CallbackState.READY, 7.0)


async def test_a_step_forward_does_not_hide_that_a_debit_may_still_land() -> None:
    """By the database's clock it ended an hour ago, by this process's a moment ago."""
    nothing = b'HTTP/1.1 404 No\r\nContent-Length: 26\r\n\r\n{"status":"BET_NOT_FOUND"}'
    now_s = time.monotonic()
    leased_at = MOMENT + timedelta(hours=1)
    rollback = leased_now(Method.BET_ROLLBACK, expires_in_s=None, placement_ended_s_ago=3600.0, leased_at=leased_at)
    for stepped, state in ((True, CallbackState.READY), (False, CallbackState.DELIVERED)):
        clock = DatabaseClock()
        # The claim itself is the first reading after the step.
        before = MOMENT if stepped else leased_at
        for ago_s in (81.0, 61.0, 41.0, 21.0, 1.0):
            clock.observe(ClockReading(before.timestamp() - ago_s, now_s - ago_s, now_s - ago_s))
        attempt, _ = await delivered(answering(nothing), rollback, rollback={"recheck_s": 60.0}, clock=clock)
        assert attempt.outcome.state is state
        assert len(clock.take_steps()) == stepped


async def test_a_daemon_that_has_just_started_does_not_trust_the_age_of_a_debit() -> None:
    """The clock may have stepped before it started."""
    nothing = b'HTTP/1.1 404 No\r\nContent-Length: 26\r\n\r\n{"status":"BET_NOT_FOUND"}'
    rollback = leased_now(Method.BET_ROLLBACK, expires_in_s=None, placement_ended_s_ago=3600.0)
    attempt, _ = await delivered(answering(nothing), rollback, rollback={"recheck_s": 60.0}, clock=DatabaseClock())
    assert attempt.outcome.state is CallbackState.READY
