"""One callback over HTTP: read, understood, applied in the wallet's thread, answered. Nothing is decided here."""

from __future__ import annotations

import asyncio
import functools
import logging
import socket
import sqlite3
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from .answer import Answer, Status
from .callback import Callback, Names, read_claimed_names
from .database import utc_now
from .faults import NOT_PROCESSED, Fault, Sent, disguise
from .reception import Reception, understand
from .record import Arrival, Decided, Outcome
from .settings import Settings
from .wallet import Wallet
from .writer import BusyError, Writer

BODY_BYTES_MAX = 256 * 1024
"""Predictu sends params of 64 KiB at most; JSON escapes may make more bytes of them."""

READ_TIMEOUT_S = 10.0
"""The longest attempt timeout of Predictu's defaults: a sender that takes longer for its body has given up itself."""

_log = logging.getLogger("reference_operator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """Takes callbacks in. Once `stopping` is set, no answer is held any longer."""

    settings: Settings
    wallet: Wallet
    writer: Writer
    stopping: asyncio.Event

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """The answer to one callback, or a reset connection where a fault says so."""
        started = time.perf_counter()
        received_at = utc_now()
        body, reception = await self._read(request)
        content = reception.content
        if isinstance(content, Callback):
            names, fault = content.names, self.settings.faults.draw()
        else:
            names, fault = read_claimed_names(body), None
        if fault is Fault.STALL_BEFORE_APPLY:
            await self._stall()
        arrival = Arrival(received_at=received_at, body=body, signature=reception.signature, fault=fault)
        decided = await self._decide(names, content, arrival)
        _log_answered(names, decided, fault, total_ms=(time.perf_counter() - started) * 1000)
        if fault is Fault.STALL_AFTER_APPLY:
            await self._stall()
        if decided.sent.http_status is None:
            _reset(request)
        return _response(decided.sent)

    async def _read(self, request: web.Request) -> tuple[bytes, Reception]:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return b"", _unread(413, f"body: above {BODY_BYTES_MAX} bytes")
        except TimeoutError:
            return b"", _unread(408, f"body: not complete within {READ_TIMEOUT_S:g} s")
        return body, understand(
            request.headers.getall("Authorization", []),
            body,
            keyring=self.settings.keyring,
            operator_id=self.settings.operator_id,
            amount_format=self.settings.amount_format,
        )

    async def _decide(self, names: Names, content: Callback | Answer, arrival: Arrival) -> Decided:
        """What the wallet says, on record; or 503, with nothing booked, where the wallet can't be asked."""
        try:
            return await self._ask_wallet(names, content, arrival)
        except (sqlite3.Error, BusyError) as fault:
            _log.exception("wallet.failed", extra={"fields": {"request_id": names.request_id}})
            return self._unavailable(f"the wallet's database: {fault}")

    async def _ask_wallet(self, names: Names, content: Callback | Answer, arrival: Arrival) -> Decided:
        say = functools.partial(disguise, fault=arrival.fault, amount_format=self.settings.amount_format)
        if isinstance(content, Callback) and arrival.fault not in NOT_PROCESSED:
            return await self.writer.write(functools.partial(self.wallet.apply, content, arrival, say))
        decided = _refused(content, say) if isinstance(content, Answer) else _not_processed(say)
        await self.writer.write(functools.partial(self.wallet.record, names, arrival, decided))
        return decided

    async def _stall(self) -> None:
        """Time passes, but a stop does not wait for it."""
        try:
            async with asyncio.timeout(self.settings.faults.stall_s):
                await self.stopping.wait()
        except TimeoutError:
            pass

    def _unavailable(self, message: str) -> Decided:
        answer = Answer(http_status=503, status=Status.UNAVAILABLE, message=message)
        sent = disguise(answer, fault=None, amount_format=self.settings.amount_format)
        return Decided(outcome=Outcome.NOT_PROCESSED, status=answer.status, sent=sent)


def _unread(http_status: int, message: str) -> Reception:
    return Reception(
        signature=message, content=Answer(http_status=http_status, status=Status.BAD_REQUEST, message=message)
    )


def _refused(answer: Answer, say: Callable[[Answer], Sent]) -> Decided:
    outcome = Outcome.UNAUTHORIZED if answer.status is Status.UNAUTHORIZED else Outcome.BAD_REQUEST
    return Decided(outcome=outcome, status=answer.status, sent=say(answer))


def _not_processed(say: Callable[[Answer], Sent]) -> Decided:
    # The fault puts its own answer in place of this one, which nobody ever sees.
    never_seen = Answer(http_status=503, status=Status.UNAVAILABLE)
    return Decided(outcome=Outcome.NOT_PROCESSED, status=None, sent=say(never_seen))


def _response(sent: Sent) -> web.Response:
    headers = {} if sent.retry_after_s is None else {"Retry-After": str(sent.retry_after_s)}
    return web.Response(
        status=sent.http_status or 500, text=sent.body, content_type=sent.content_type, charset="utf-8", headers=headers
    )


def _reset(request: web.Request) -> None:
    """The connection ends in a TCP RST: lingering for no time throws away what is unsent and skips the orderly FIN."""
    if request.transport is None:
        return
    connection: socket.socket = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


def _log_answered(names: Names, decided: Decided, fault: Fault | None, *, total_ms: float) -> None:
    fields = {
        "request_id": names.request_id,
        "method": names.method,
        "bet_id": names.bet_id,
        "outcome": decided.outcome,
        "status": decided.status,
        "http_status": decided.sent.http_status,
        "fault": fault,
        "total_ms": round(total_ms),
    }
    _log.info("callback.answered", extra={"fields": fields})
