"""The answers to sent requests, the address guard, and TLS."""

import json
import ssl
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from predictu_dispatch.certification.observation import Outcome, Sent
from predictu_dispatch.certification.requests import Prepared
from predictu_dispatch.certification.sender import Sender
from predictu_dispatch.certification.steps import Again, Delivery, TokenFault
from predictu_dispatch.core.methods import Method
from tests.support.arrivals import Operator
from tests.support.raw_server import OK, Peer, RawServer, answering, never_answer
from tests.support.sandboxes import DEBIT, NOW, Requests, answer, here, sender_to, target_for


async def test_an_answer_is_judged_as_production_judges_it() -> None:
    bodies = ['{"status":"DONE","balance":87.50}', '{"status":"LIMIT"}', '{"status":"HM"}', "<html>", '{"status":"OK"}']
    codes = ["200 OK", "409 Conflict", "200 OK", "502 Bad Gateway", "401 Unauthorized"]
    answers = [answer(body, code=code) for body, code in zip(bodies, codes, strict=True)]
    async with RawServer(answering(*answers)).running() as server:
        statuses = {"success": ["DONE"], "rejected": ["LIMIT"]}
        target = target_for(server.url, amount_format="decimal", statuses=statuses)
        requests = Requests(target)
        async with sender_to(target) as sender:
            sent = [await sender.send(requests.one(DEBIT))]
            sent += [await sender.send(requests.one(Again(name=f"a{n}", of="debit"))) for n in range(4)]
    assert [one.outcome for one in sent] == [
        *(Outcome.CONFIRMED, Outcome.REFUSED, Outcome.UNDECLARED, Outcome.TRY_AGAIN, Outcome.CONFIRMED)
    ]
    assert [one.balance for one in sent] == [8750, None, None, None, None]


async def send(sender: Sender, prepared: Prepared, *, is_alone: bool) -> Sent:
    """Send on a connection of its own, or on one of the lane."""
    return (await sender.send_at_once([prepared]))[0] if is_alone else await sender.send(prepared)


@pytest.mark.parametrize("is_alone", [False, True])
async def test_a_redirect_is_not_followed(*, is_alone: bool) -> None:
    async with RawServer(answering(OK)).running() as elsewhere:
        moved = answer("", code="307 Temporary Redirect", headers=f"Location: {elsewhere.url}\r\n")
        async with RawServer(answering(moved)).running() as server:
            target = target_for(server.url)
            prepared = Requests(target).one(DEBIT)
            async with sender_to(target) as sender:
                sent = await send(sender, prepared, is_alone=is_alone)
    assert (sent.outcome, elsewhere.connections) == (Outcome.REDIRECTED, 0)


@pytest.mark.parametrize("is_alone", [False, True])
async def test_a_large_answer_is_not_kept(*, is_alone: bool) -> None:
    async with RawServer(answering(answer(f'{{"status":"OK","note":"{"x" * 1000}"}}'))).running() as server:
        target = target_for(server.url, limits={"max_response_bytes": 100})
        prepared = Requests(target).one(DEBIT)
        async with sender_to(target) as sender:
            sent = await send(sender, prepared, is_alone=is_alone)
    assert (sent.outcome, sent.exchange.reason, len(sent.exchange.body)) == (Outcome.NO_ANSWER, "too_large", 100)


@pytest.mark.parametrize("is_alone", [False, True])
@pytest.mark.parametrize("method", [Method.BET_MAKE, Method.BET_LOSE])
async def test_an_attempt_ends_with_the_timeout_of_its_lane(*, is_alone: bool, method: Method) -> None:
    short, long = ({"attempt_timeout_s": s, "connect_timeout_s": 0.5} for s in (0.5, 200.0))
    lanes = (short, long) if method is Method.BET_MAKE else (long, short)
    async with RawServer(never_answer).running() as server:
        target = target_for(server.url, interactive=lanes[0] | {"deadline_s": 0.0}, settlement=lanes[1])
        prepared = Requests(target).one(replace(DEBIT, method=method))
        async with sender_to(target) as sender:
            sent = await send(sender, prepared, is_alone=is_alone)
    assert (sent.outcome, sent.exchange.reason) == (Outcome.NO_ANSWER, "timeout")


async def test_our_signature_is_withheld_from_what_the_operator_quotes() -> None:
    async def script(peer: Peer) -> None:
        for _ in range(2):
            quoted = (await peer.request()).partition(b"Authorization: Bearer ")[2].split(b"\r\n")[0].decode()
            await peer.send(answer(json.dumps({"status": "OK", "transaction_id": quoted})))

    async with RawServer(script).running() as server:
        target = target_for(server.url)
        prepared = Requests(target).one(DEBIT)
        async with sender_to(target) as sender:
            sent = [await sender.send(one) for one in (prepared, replace(prepared, token=TokenFault.HS256_PUBLIC_KEY))]
    for one in sent:
        token = json.loads(one.exchange.body)["transaction_id"]
        assert set(token.rpartition(".")[2]) == {"*"}


async def test_a_request_without_a_token_has_no_authorization() -> None:
    async with RawServer(answering(OK)).running() as server:
        target = target_for(server.url)
        prepared = Requests(target).one(replace(DEBIT, token=TokenFault.MISSING))
        async with sender_to(target) as sender:
            sent = await sender.send(prepared)
    assert b"authorization" not in server.requests[0].lower()
    assert (sent.header, sent.claims, sent.body) == ({}, {}, prepared.body)


# The address guard


async def test_nothing_is_sent_to_a_private_address() -> None:
    async with RawServer(answering(OK)).running() as server:
        port = server.address[1]
        url = f"http://sandbox.example.com:{port}/predictu"
        target = target_for(url, allow_private_addresses=False, ledger_url=f"http://sandbox.example.com:{port}/ledger")
        prepared = Requests(target).one(DEBIT)
        async with sender_to(target, look_up=here) as sender:
            sent = [
                await sender.send(prepared),
                *await sender.send_at_once([replace(prepared, delivery=each) for each in Delivery]),
            ]
            handshake = await sender.handshake()
            ledger = await sender.ledger(NOW, NOW)
            loopback = replace(target, ledger_url=f"http://127.0.0.1:{port}/ledger")
            async with sender_to(loopback, look_up=here) as other:
                refused_url = await other.ledger(NOW, NOW)
    assert {(one.outcome, one.exchange.reason) for one in sent} == {(Outcome.NOT_SENT, "address_refused")}
    assert not any(one.is_on_used_connection for one in sent)
    assert handshake.fault.startswith("address_refused: ")
    assert ledger.fault.startswith("address_refused: ")
    assert "allow_private_addresses" in refused_url.fault
    assert server.connections == 0


# TLS


async def test_a_handshake_shows_the_version_and_the_end_of_the_certificate(tls: ssl.SSLContext, ca_file: str) -> None:
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    async with Operator().running(tls) as operator:
        async with sender_to(target_for(operator.url, tls={"ca_file": ca_file})) as sender:
            facts = await sender.handshake()
        arrival = await operator.only_arrival()
    assert (facts.version, facts.fault) == ("TLSv1.2", "")
    assert facts.certificate_ends_at == datetime(2035, 5, 4, 3, 2, 1, tzinfo=UTC)
    assert arrival.received == b""


async def test_a_handshake_that_fails_says_why(tls: ssl.SSLContext) -> None:
    async with Operator().running(tls) as operator, sender_to(target_for(operator.url)) as sender:
        facts = await sender.handshake()
        sent: Sent = await sender.send(Requests(target_for(operator.url)).one(DEBIT))
    assert facts.fault.startswith("tls_failed: ")
    assert (facts.version, facts.certificate_ends_at) == ("", None)
    assert (sent.outcome, sent.exchange.reason) == (Outcome.NOT_SENT, "tls_failed")


async def test_without_tls_there_is_no_handshake() -> None:
    async with Operator().running() as operator, sender_to(target_for(operator.url)) as sender:
        assert (await sender.handshake()).fault == "the URL is http://: there is no TLS"
