"""Receives a callback over HTTP, has it verified and applied, and replies."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import socket
import sqlite3
import struct
import time
from collections.abc import Callable
from dataclasses import dataclass

from aiohttp import web

from .answer import Answer, Reply, Status
from .callback import Callback, Names
from .database import BusyError, Writer, utc_now
from .faults import NOT_PROCESSED, Fault, reply_to
from .settings import Settings
from .verify import Verification, verified_callback
from .wallet import Arrival, Decision, Outcome, Unverified, Wallet

BODY_BYTES_MAX = 256 * 1024
"""Predictu sends params of at most 64 KiB; JSON escapes may make them longer."""
READ_TIMEOUT_S = 10.0
"""The longest default attempt timeout of Predictu: a slower sender has already given up."""
UNVERIFIED_WAITING_MAX = 100
"""With more changes waiting, unverified arrivals are only logged, so that callbacks keep room."""
_log = logging.getLogger("reference_operator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Receiver:
    """Receives callbacks. Once `stopping` is set, no reply is stalled any longer."""

    settings: Settings
    wallet: Wallet
    writer: Writer
    stopping: asyncio.Event

    async def receive(self, request: web.Request) -> web.StreamResponse:
        """Replies to one callback, or resets the connection if a fault demands it."""
        started = time.perf_counter()
        received_at = utc_now()
        body, verification = await self._read(request)
        fault = self.settings.faults.draw() if isinstance(verification.content, Callback) else None
        if fault is Fault.STALL_BEFORE_APPLY:
            await self._stall()
        arrival = Arrival(received_at=received_at, body=body or b"", signature=verification.signature, fault=fault)
        if isinstance(verification.content, Callback) or verification.is_verified:
            decision = await self._decide(verification.names, verification.content, arrival)
        else:
            decision = await self._turn_away(verification.content, body, arrival)
        _log_answered(verification, decision, fault, total_ms=(time.perf_counter() - started) * 1000)
        if fault is Fault.STALL_AFTER_APPLY:
            await self._stall()
        if decision.reply.http_status is None:
            _reset(request)
        return _response(decision.reply)

    async def _read(self, request: web.Request) -> tuple[bytes | None, Verification]:
        try:
            async with asyncio.timeout(READ_TIMEOUT_S):
                body = await request.read()
        except web.HTTPRequestEntityTooLarge:
            return None, _unread(413, f"body: longer than {BODY_BYTES_MAX} bytes")
        except (ConnectionError, web.RequestPayloadError):
            return None, _unread(400, "body: it ended too early")
        except TimeoutError:
            return None, _unread(408, f"body: not complete within {READ_TIMEOUT_S:g} s")
        return body, verified_callback(
            request.headers.getall("Authorization", []),
            body,
            keyring=self.settings.keyring,
            operator_id=self.settings.operator_id,
            audience=self.settings.audience,
            money=self.settings.money,
            token_ttl_max_s=self.settings.token_ttl_max_s,
        )

    async def _turn_away(self, answer: Answer, body: bytes | None, arrival: Arrival) -> Decision:
        """Refuses what is not verified; keeps its hash and length unless the wallet is busy."""
        decision = _refused(answer, functools.partial(reply_to, fault=None, money=self.settings.money))
        if self.writer.waiting < UNVERIFIED_WAITING_MAX:
            unverified = Unverified(
                received_at=arrival.received_at,
                body_sha256=None if body is None else hashlib.sha256(body).hexdigest(),
                body_bytes=None if body is None else len(body),
                reason=arrival.signature,
                http_status=decision.reply.http_status,
            )
            try:
                await self.writer.write(functools.partial(self.wallet.record_unverified, unverified))
            except (sqlite3.Error, BusyError):
                _log.exception("unverified.not_recorded")
        return decision

    async def _decide(self, names: Names, content: Callback | Answer, arrival: Arrival) -> Decision:
        """Returns the recorded decision; 503 if the wallet's database is unavailable."""
        try:
            return await self._apply_or_record(names, content, arrival)
        except (sqlite3.Error, BusyError) as fault:
            _log.exception("wallet.failed", extra={"fields": {"request_id": names.request_id}})
            return self._unavailable(f"the wallet's database: {fault}")

    async def _apply_or_record(self, names: Names, content: Callback | Answer, arrival: Arrival) -> Decision:
        to_reply = functools.partial(reply_to, fault=arrival.fault, money=self.settings.money)
        if isinstance(content, Callback) and arrival.fault not in NOT_PROCESSED:
            return await self.writer.write(functools.partial(self.wallet.apply, content, arrival, to_reply))
        decision = _refused(content, to_reply) if isinstance(content, Answer) else _not_processed(to_reply)
        await self.writer.write(functools.partial(self.wallet.record, names, arrival, decision))
        return decision

    async def _stall(self) -> None:
        """Waits for `stall_s`, or until the operator stops."""
        try:
            async with asyncio.timeout(self.settings.faults.stall_s):
                await self.stopping.wait()
        except TimeoutError:
            pass

    def _unavailable(self, message: str) -> Decision:
        answer = Answer(http_status=503, status=Status.UNAVAILABLE, message=message)
        reply = reply_to(answer, fault=None, money=self.settings.money)
        return Decision(outcome=Outcome.NOT_PROCESSED, status=answer.status, reply=reply)


def _unread(http_status: int, message: str) -> Verification:
    return Verification(
        signature=message, content=Answer(http_status=http_status, status=Status.BAD_REQUEST, message=message)
    )


def _refused(answer: Answer, to_reply: Callable[[Answer], Reply]) -> Decision:
    outcome = Outcome.UNAUTHORIZED if answer.status is Status.UNAUTHORIZED else Outcome.BAD_REQUEST
    return Decision(outcome=outcome, status=answer.status, reply=to_reply(answer))


def _not_processed(to_reply: Callable[[Answer], Reply]) -> Decision:
    # The fault replaces this answer.
    answer = Answer(http_status=503, status=Status.UNAVAILABLE)
    return Decision(outcome=Outcome.NOT_PROCESSED, status=None, reply=to_reply(answer))


def _response(reply: Reply) -> web.Response:
    headers = {} if reply.retry_after_s is None else {"Retry-After": str(reply.retry_after_s)}
    return web.Response(
        status=reply.http_status or 500,
        text=reply.body,
        content_type=reply.content_type,
        charset="utf-8",
        headers=headers,
    )


def _reset(request: web.Request) -> None:
    """Ends the connection with a TCP RST, by a linger time of 0."""
    if request.transport is None:
        return
    connection: socket.socket = request.transport.get_extra_info("socket")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    request.transport.abort()


def _log_answered(verification: Verification, decision: Decision, fault: Fault | None, *, total_ms: float) -> None:
    names = verification.names
    fields = {
        "request_id": names.request_id,
        "method": names.method,
        "bet_id": names.bet_id,
        "outcome": decision.outcome,
        "status": decision.status,
        "http_status": decision.reply.http_status,
        # It never quotes the token or the body.
        "reason": None if verification.is_verified else verification.signature,
        "fault": fault,
        "total_ms": round(total_ms),
    }
    _log.info("callback.answered", extra={"fields": fields})
