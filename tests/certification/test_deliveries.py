"""A request whose connection is cut on purpose: what arrives, and what is known of it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from predictu_dispatch.certification import connections
from predictu_dispatch.certification.observation import Outcome, Sent
from predictu_dispatch.certification.requests import Prepared
from predictu_dispatch.certification.steps import Delivery, Send
from predictu_dispatch.core.callback import Evidence
from predictu_dispatch.flow import courier
from tests.support.arrivals import Arrival, Operator
from tests.support.sandboxes import DEBIT, DONE, Requests, sender_to, target_for

LARGE = replace(DEBIT, further=(("note", f'"{"x" * 60_000}"'),))
LARGER = replace(DEBIT, further=(("note", f'"{"x" * 2_000_000}"'),))
"""More than a TLS connection of asyncio reads before its protocol does."""
HUGE = replace(DEBIT, further=(("note", f'"{"x" * 16_000_000}"'),))
"""More than the kernels of both sides keep for a peer that does not read."""


@pytest.mark.usefixtures("never_read_s")
@pytest.mark.parametrize("is_tls", [False, True])
@pytest.mark.parametrize("step", [DEBIT, LARGE], ids=["small", "large"])
@pytest.mark.parametrize("delivery", [Delivery.CUT_AFTER_BODY, Delivery.NEVER_READ])
async def test_all_of_a_request_arrives_whose_answer_is_not_read(
    *, is_tls: bool, step: Send, delivery: Delivery, tls: ssl.SSLContext, ca_file: str
) -> None:
    async with Operator().running(tls if is_tls else None) as operator:
        target = target_for(operator.url, tls={"ca_file": ca_file})
        prepared = Requests(target).one(replace(step, delivery=delivery))
        async with sender_to(target) as sender:
            sent = await sender.send(prepared)
        arrival = await operator.only_arrival()
    assert arrival.body == prepared.body
    assert isinstance(arrival.error, ConnectionResetError)
    assert (sent.exchange.evidence, sent.exchange.reason) == (Evidence.UNANSWERED, "cut")
    assert (sent.outcome, sent.exchange.body) == (Outcome.NO_ANSWER, b"")
    assert sent.exchange.error is not None
    assert "on purpose" in sent.exchange.error


@pytest.mark.parametrize("is_tls", [False, True])
async def test_half_of_a_body_arrives_that_is_cut(*, is_tls: bool, tls: ssl.SSLContext, ca_file: str) -> None:
    async with Operator().running(tls if is_tls else None) as operator:
        target = target_for(operator.url, tls={"ca_file": ca_file})
        prepared = Requests(target).one(replace(LARGE, delivery=Delivery.CUT_INSIDE_BODY))
        async with sender_to(target) as sender:
            sent = await sender.send(prepared)
        arrival = await operator.only_arrival()
    assert arrival.body == prepared.body[: len(prepared.body) // 2]
    assert f"Content-Length: {len(prepared.body)}\r\n".encode() in arrival.received
    assert isinstance(arrival.error, ConnectionResetError)
    assert sent.outcome is Outcome.NO_ANSWER


@asynccontextmanager
async def being_sent(
    step: Send, delivery: Delivery, operator: Operator, context: ssl.SSLContext | None, **tables: Any
) -> AsyncIterator[tuple[Prepared, asyncio.Task[Sent], Arrival]]:
    """Start to send; yield once the connection is open and there was time to end too early."""
    async with operator.running(context):
        target = target_for(operator.url, **tables)
        prepared = Requests(target).one(replace(step, delivery=delivery))
        async with sender_to(target) as sender, asyncio.TaskGroup() as tasks:
            sending = tasks.create_task(sender.send(prepared))
            await operator.got_connection.wait()
            for _ in range(50):
                await asyncio.sleep(0.001)
            yield prepared, sending, operator.arrivals[0]


@pytest.mark.parametrize("is_tls", [False, True])
async def test_the_reset_waits_until_the_operators_kernel_has_every_byte(
    *, is_tls: bool, tls: ssl.SSLContext, ca_file: str
) -> None:
    operator = Operator(reads=False)
    context = tls if is_tls else None
    async with being_sent(LARGER, Delivery.CUT_AFTER_BODY, operator, context, tls={"ca_file": ca_file}) as started:
        prepared, sending, arrival = started
        assert not sending.done()
        arrival.transport.resume_reading()
        await operator.only_arrival()
    assert arrival.body == prepared.body
    assert "on purpose" in (sending.result().exchange.error or "")


async def test_an_operator_that_reads_after_the_reset_has_the_whole_request() -> None:
    """Else most operators would never see the request, and the scenario would test nothing."""
    async with being_sent(DEBIT, Delivery.CUT_AFTER_BODY, Operator(reads=False), None) as started:
        prepared, sending, arrival = started
        await sending
        assert arrival.received == b""
        arrival.transport.resume_reading()
        await arrival.ended
    assert arrival.body == prepared.body


async def test_an_operator_that_closes_before_the_whole_request_is_reported() -> None:
    async with being_sent(LARGE, Delivery.CUT_AFTER_BODY, Operator(reads=False), None) as started:
        _, sending, arrival = started
        arrival.transport.abort()
    sent = sending.result()
    assert sent.exchange.error == "the operator closed the connection before it had the whole request"
    assert sent.outcome is Outcome.NO_ANSWER


async def test_the_connection_of_an_unread_answer_stays_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "NEVER_READ_S", 600.0)
    operator = Operator(answer=DONE)
    async with being_sent(DEBIT, Delivery.NEVER_READ, operator, None) as (_, sending, arrival):
        await operator.got_request.wait()
        assert not sending.done()
        assert not arrival.ended.done()
        # A run that is interrupted closes it too.
        sending.cancel()
        await arrival.ended
    assert isinstance(arrival.error, ConnectionResetError)


async def test_an_operator_that_never_reads_a_request_is_not_waited_for() -> None:
    async with Operator(reads=False).running() as operator:
        target = target_for(operator.url, interactive={"attempt_timeout_s": 0.5, "connect_timeout_s": 0.5})
        prepared = Requests(target).one(replace(HUGE, delivery=Delivery.CUT_AFTER_BODY))
        async with sender_to(target) as sender:
            sent = await sender.send(prepared)
    assert sent.outcome is Outcome.NO_ANSWER
    assert sent.exchange.error == "the operator's host did not take the whole request before the timeout"


@pytest.mark.usefixtures("never_read_s")
async def test_every_way_of_sending_writes_the_same_bytes() -> None:
    async with Operator(answer=DONE).running() as operator:
        target = target_for(operator.url)
        prepared = Requests(target).one(DEBIT)
        async with sender_to(target) as sender:
            # The first connection is kept, the others end.
            await sender.send(prepared)
            await sender.send_at_once([prepared])
            for delivery in (Delivery.CUT_AFTER_BODY, Delivery.NEVER_READ):
                await sender.send(replace(prepared, delivery=delivery))
            await asyncio.gather(*(arrival.ended for arrival in operator.arrivals[1:]))
        requests = {arrival.received for arrival in operator.arrivals}
    assert len(operator.arrivals) == 4
    assert len(requests) == 1
    names = [line.partition(b": ")[0].decode() for line in requests.pop().partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]]
    assert names == ["Host", *courier._HEADERS, "Content-Length"]
