"""Sends prepared requests as production does, or cuts their connections, and judges the answers.

Address guard, TLS, timeouts, size limits and the judgement are those of production: all connections
are opened by edge/http.
"""

from __future__ import annotations

import asyncio
import math
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from uuid import uuid4

from predictu_dispatch.certification.connections import (
    Opened,
    cut,
    exchange_on,
    open_connection,
    request_head,
)
from predictu_dispatch.certification.ledger import fetch_ledger
from predictu_dispatch.certification.observation import Ledger, Sent, TlsFacts
from predictu_dispatch.certification.requests import Prepared, callback_of
from predictu_dispatch.certification.steps import Delivery
from predictu_dispatch.certification.target import Target
from predictu_dispatch.certification.tokens import Token, ledger_token, token_of
from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.ledger_request import USER_AGENT
from predictu_dispatch.core.lifecycle import policy_of
from predictu_dispatch.core.methods import RULES, Lane
from predictu_dispatch.core.redaction import without_signature
from predictu_dispatch.core.verdict import judge
from predictu_dispatch.edge.http.connector import Connector
from predictu_dispatch.edge.http.resolver import LookUp, look_up
from predictu_dispatch.edge.http.transport import Transport

_NEW_CONNECTIONS: ContextVar[list[None] | None] = ContextVar("new_connections", default=None)
"""Of the request that is being sent in this context: one item for each connection attempt."""


class Sender:
    """The connections of one run. Create and close it in the same event loop."""

    def __init__(
        self,
        target: Target,
        *,
        run: str,
        look_up: LookUp = look_up,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._target = target
        self._run = run
        self._look_up = look_up
        self._clock = clock
        settings, context = target.settings, target.ssl_context
        self._lanes = {
            lane: Transport(settings, context, look_up=look_up, connecting=_count_new_connection) for lane in Lane
        }
        self._connector = Connector(settings, context, look_up=look_up, connecting=lambda: None)

    async def close(self) -> None:
        """Close all connections; requests in flight end as interrupted."""
        for transport in self._lanes.values():
            await transport.close()
        await self._connector.close()

    async def send(self, prepared: Prepared) -> Sent:
        """Send one request and return what came of it; never raises for what the operator does."""
        if prepared.delivery is Delivery.COMPLETE:
            return await self._post(prepared)
        return (await self.send_at_once([prepared]))[0]

    async def send_at_once(self, prepared: Sequence[Prepared]) -> tuple[Sent, ...]:
        """Open a connection for each request; as soon as all are open, send all at once."""
        started_at = self._clock()
        # Signing between the first and the last request would keep them apart.
        tokens = [self._token(one, started_at) for one in prepared]
        timeouts_s = [policy_of(one.method, self._target.settings).connect_timeout_s for one in prepared]
        openings: list[asyncio.Task[Opened | Exchange]] = []
        try:
            async with asyncio.TaskGroup() as tasks:
                openings += [tasks.create_task(open_connection(self._connector, timeout_s=each)) for each in timeouts_s]
            opened = [opening.result() for opening in openings]
            exchanges = await asyncio.gather(*map(self._exchange_on, opened, prepared, tokens))
        finally:
            # Those that are open if this task is cancelled.
            for opening in openings:
                if not opening.cancelled() and isinstance(left := opening.result(), Opened):
                    left.reset()
        return tuple(
            self._sent(one, token, exchange, started_at=started_at)
            for one, token, exchange in zip(prepared, tokens, exchanges, strict=True)
        )

    async def handshake(self) -> TlsFacts:
        """Open one TLS connection and return what it showed."""
        opened = await open_connection(self._connector, timeout_s=self._target.settings.interactive.connect_timeout_s)
        if isinstance(opened, Exchange):
            return TlsFacts(fault=f"{opened.reason}: {opened.error}")
        tls: ssl.SSLObject | None = opened.transport.get_extra_info("ssl_object")
        certificate = opened.transport.get_extra_info("peercert") or {}
        opened.reset()
        if tls is None:
            return TlsFacts(fault="the URL is http://: there is no TLS")
        ends_at_s = ssl.cert_time_to_seconds(certificate["notAfter"])
        return TlsFacts(version=tls.version() or "", certificate_ends_at=datetime.fromtimestamp(ends_at_s, UTC))

    async def ledger(self, since: datetime, until: datetime) -> Ledger:
        """Fetch the operator's ledger from `since` to before `until`, both in UTC."""
        token = ledger_token(self._target, jti=str(uuid4()), now_s=int(self._clock().timestamp()))
        return await fetch_ledger(self._target, token, since=since, until=until, look_up=self._look_up)

    async def _post(self, prepared: Prepared) -> Sent:
        """Send on a connection of the lane, as production does."""
        started_at = self._clock()
        token = self._token(prepared, started_at)
        policy = policy_of(prepared.method, self._target.settings)
        new_connections: list[None] = []
        _NEW_CONNECTIONS.set(new_connections)
        exchange = await self._lanes[RULES[prepared.method].lane].post(
            headers=headers_of(token),
            body=prepared.body,
            timeout_s=policy.attempt_timeout_s,
            connect_timeout_s=policy.connect_timeout_s,
            send_before_s=math.inf,
        )
        is_used = not new_connections and exchange.evidence is not Evidence.NOT_SENT
        return self._sent(prepared, token, exchange, started_at=started_at, is_on_used_connection=is_used)

    async def _exchange_on(self, opened: Opened | Exchange, prepared: Prepared, token: Token) -> Exchange:
        """Send on this connection, if it could be opened."""
        if isinstance(opened, Exchange):
            return opened
        settings, body = self._target.settings, prepared.body
        timeout_s = policy_of(prepared.method, settings).attempt_timeout_s
        headers = {**headers_of(token), "Content-Length": str(len(body))}
        head = request_head("POST", settings.callback_url, headers)
        if prepared.delivery is not Delivery.COMPLETE:
            return await cut(opened, head=head, body=body, delivery=prepared.delivery, timeout_s=timeout_s)
        response_bytes_max = settings.limits.max_response_bytes
        return await exchange_on(opened, head + body, timeout_s=timeout_s, response_bytes_max=response_bytes_max)

    def _token(self, prepared: Prepared, at: datetime) -> Token:
        return token_of(prepared, self._target, run=self._run, now_s=int(at.timestamp()))

    def _sent(
        self,
        prepared: Prepared,
        token: Token,
        exchange: Exchange,
        *,
        started_at: datetime,
        is_on_used_connection: bool = False,
    ) -> Sent:
        if token.signature:
            exchange = without_signature(exchange, token.signature)
        callback = callback_of(
            self._target, prepared.method, request_id=prepared.request_id, created_at=prepared.created_at
        )
        return Sent(
            name=prepared.name,
            method=prepared.method,
            request_id=prepared.request_id,
            bet_id=prepared.bet_id,
            player_id=prepared.player_id,
            amount=prepared.amount,
            body=prepared.body,
            header=token.header,
            claims=token.claims,
            token=prepared.token,
            delivery=prepared.delivery,
            started_at=started_at,
            exchange=exchange,
            judgement=judge(callback, exchange, self._target.statuses, now=self._clock()),
            is_on_used_connection=is_on_used_connection,
        )


def headers_of(token: Token) -> Mapping[str, str]:
    """Return the headers of a request, as production has them."""
    authorization = {"Authorization": f"Bearer {token.compact}"} if token.compact else {}
    return {
        "Content-Type": "application/json",
        **authorization,
        "Accept": "application/json",
        "Accept-Encoding": "identity",
        "User-Agent": USER_AGENT,
    }


def _count_new_connection() -> None:
    if (counted := _NEW_CONNECTIONS.get()) is not None:
        counted.append(None)
