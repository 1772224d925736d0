"""Sends prepared requests as production does, or cuts their connections, and judges the answers.

Address guard, TLS, timeouts, size limits and the judgement are those of production: all connections
are opened by edge/http.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from datetime import UTC, datetime
from ssl import cert_time_to_seconds
from typing import Final, cast
from uuid import uuid4

from predictu_dispatch.certification.cutting import cut, request_head
from predictu_dispatch.certification.fetching import fetch_ledger
from predictu_dispatch.certification.observation import Ledger, Sent, TlsFacts
from predictu_dispatch.certification.requests import Prepared, callback_of
from predictu_dispatch.certification.steps import Delivery
from predictu_dispatch.certification.target import Target
from predictu_dispatch.certification.tokens import Token, ledger_token, token_of
from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.lifecycle import policy_of
from predictu_dispatch.core.methods import RULES, Lane
from predictu_dispatch.core.redaction import without_signature
from predictu_dispatch.core.verdict import judge
from predictu_dispatch.edge.http.connector import Connector
from predictu_dispatch.edge.http.failure_reason import reason_not_sent, unwrapped
from predictu_dispatch.edge.http.resolver import LookUp, look_up
from predictu_dispatch.edge.http.transport import Transport

USER_AGENT: Final = "predictu-dispatch"
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
        self._lanes = {lane: self._transport() for lane in Lane}
        self._connector = Connector(target.settings, target.ssl_context, look_up=look_up, connecting=lambda: None)

    async def close(self) -> None:
        """Close all connections; requests in flight end as interrupted."""
        for transport in self._lanes.values():
            await transport.close()
        await self._connector.close()

    async def send(self, prepared: Prepared) -> Sent:
        """Send one request and return what came of it; never raises for what the operator does."""
        if prepared.delivery is Delivery.COMPLETE and prepared.is_on_new_connection:
            return (await self.send_at_once([prepared]))[0]
        if prepared.delivery is Delivery.COMPLETE:
            return await self._post(self._lanes[RULES[prepared.method].lane], prepared)
        return await self._cut(prepared)

    async def send_at_once(self, prepared: Sequence[Prepared]) -> tuple[Sent, ...]:
        """Open a connection for each request, then send all at the same moment."""
        transports = [self._transport() for _ in prepared]
        try:
            # A connection that cannot be opened now fails again when its request is sent.
            await asyncio.gather(
                *(
                    transport.connect(policy_of(one.method, self._target.settings).connect_timeout_s)
                    for transport, one in zip(transports, prepared, strict=True)
                    if one.delivery is Delivery.COMPLETE
                )
            )
            return tuple(
                await asyncio.gather(
                    *(
                        self._post(transport, one, is_own_connection=True)
                        if one.delivery is Delivery.COMPLETE
                        else self._cut(one)
                        for transport, one in zip(transports, prepared, strict=True)
                    )
                )
            )
        finally:
            for transport in transports:
                await transport.close()

    async def handshake(self) -> TlsFacts:
        """Open one TLS connection and return what it showed."""
        timeout_s = self._target.settings.interactive.connect_timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                opened = await self._connector.open()
        except Exception as failed:  # noqa: BLE001 - the failure is what the scenario is about
            error = unwrapped(failed)
            return TlsFacts(fault=f"{reason_not_sent(error)}: {type(error).__name__}: {error}".removesuffix(": "))
        transport = cast("asyncio.Transport", opened.transport)
        tls: ssl.SSLObject | None = transport.get_extra_info("ssl_object")
        certificate = transport.get_extra_info("peercert") or {}
        transport.abort()
        opened.close()
        if tls is None:
            return TlsFacts(fault="the URL is http://: there is no TLS")
        ends_at = certificate.get("notAfter")
        return TlsFacts(
            version=tls.version() or "",
            certificate_ends_at=None if ends_at is None else datetime.fromtimestamp(cert_time_to_seconds(ends_at), UTC),
        )

    async def ledger(self, since: datetime, until: datetime) -> Ledger:
        """Fetch the operator's ledger from `since` to before `until`."""
        token = ledger_token(self._target, jti=str(uuid4()), now_s=int(self._clock().timestamp()))
        return await fetch_ledger(self._target, token, since=since, until=until, look_up=self._look_up)

    def _transport(self) -> Transport:
        return Transport(
            self._target.settings, self._target.ssl_context, look_up=self._look_up, connecting=_count_new_connection
        )

    async def _post(self, transport: Transport, prepared: Prepared, *, is_own_connection: bool = False) -> Sent:
        started_at = self._clock()
        token = token_of(prepared, self._target, run=self._run, now_s=int(started_at.timestamp()))
        policy = policy_of(prepared.method, self._target.settings)
        new_connections: list[None] = []
        _NEW_CONNECTIONS.set(new_connections)
        exchange = await transport.post(
            headers=headers_of(token),
            body=prepared.body,
            timeout_s=policy.attempt_timeout_s,
            connect_timeout_s=policy.connect_timeout_s,
            send_before_s=float("inf"),
        )
        is_used = not new_connections and not is_own_connection and exchange.evidence is not Evidence.NOT_SENT
        return self._sent(prepared, token, exchange, started_at=started_at, is_on_used_connection=is_used)

    async def _cut(self, prepared: Prepared) -> Sent:
        started_at = self._clock()
        token = token_of(prepared, self._target, run=self._run, now_s=int(started_at.timestamp()))
        policy = policy_of(prepared.method, self._target.settings)
        exchange = await cut(
            self._connector,
            head=request_head("POST", self._target.settings.callback_url, headers_of(token), len(prepared.body)),
            body=prepared.body,
            delivery=prepared.delivery,
            timeout_s=policy.attempt_timeout_s,
            connect_timeout_s=policy.connect_timeout_s,
        )
        return self._sent(prepared, token, exchange, started_at=started_at)

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
