"""A certification target with keys of its own, and requests for it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import Any

import aiohttp

from predictu_dispatch.certification.preparing import Balances, prepare
from predictu_dispatch.certification.requests import Prepared
from predictu_dispatch.certification.sender import Sender
from predictu_dispatch.certification.steps import Again, AtOnce, Batch, Read, Send
from predictu_dispatch.certification.target import Target
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.operator_settings import SigningAlgorithm
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.edge.config.keys import new_private_pem
from predictu_dispatch.edge.http.resolver import LookUp, look_up
from tests.support.raw_server import BOUND_S, settings_for, tls_context

DEBIT = Send(name="debit", method=Method.BET_MAKE, bet="bet", amount=1250)
RUN = "20261130-101502-3f2a"
SCENARIO = "repetition-at-once"
NOW = datetime(2026, 11, 30, 10, 15, 2, 123_456, tzinfo=UTC)


@cache
def signing_key(algorithm: SigningAlgorithm, use: str = "active") -> SigningKey:
    """Return the same key for the same algorithm and use."""
    assert use in ("active", "next")
    return SigningKey.from_pem(new_private_pem(algorithm), algorithm)


def target_for(
    url: str = "https://sandbox.example.com/predictu",
    *,
    algorithm: SigningAlgorithm = "EdDSA",
    signing: dict[str, Any] | None = None,
    digits: int = 2,
    ledger_url: str = "",
    **tables: Any,
) -> Target:
    """Return a target with two players; `tables` go into the operator's settings."""
    signing = {"key_file": "op_abc123.pem", "algorithm": algorithm, **(signing or {})}
    settings = settings_for(url, signing=signing, **tables)
    return Target(
        settings=settings,
        key=signing_key(algorithm),
        next_key=signing_key(algorithm, "next"),
        players=("p-1", "p-2"),
        currency="EUR",
        digits=digits,
        ssl_context=tls_context(settings.tls),
        ledger_url=ledger_url,
    )


class Requests:
    """Prepares the steps of one scenario one after the other, as the runner does."""

    def __init__(self, target: Target, *, players: tuple[int, ...] = (0, 1), balances: Balances | None = None) -> None:
        self.target = target
        self.players = players
        self.balances = balances or {}
        self.earlier: dict[str, Prepared] = {}

    def all_of(self, step: Send | Again | AtOnce | Batch | Read, *, now: datetime = NOW) -> tuple[Prepared, ...]:
        prepared = prepare(
            step,
            run=RUN,
            scenario_id=SCENARIO,
            target=self.target,
            players=self.players,
            balances=self.balances,
            earlier=self.earlier,
            now=now,
        )
        self.earlier |= {one.name: one for one in prepared}
        return prepared

    def one(self, step: Send | Again, **changes: Any) -> Prepared:
        [prepared] = self.all_of(step)
        return replace(prepared, **changes)


@asynccontextmanager
async def sender_to(target: Target, *, look_up: LookUp = look_up) -> AsyncIterator[Sender]:
    """Send as of NOW, so that tokens are the same each time. Nothing in it may wait for long."""
    sender = Sender(target, run=RUN, look_up=look_up, clock=lambda: NOW)
    try:
        async with asyncio.timeout(10 * BOUND_S):
            yield sender
    finally:
        await sender.close()


def here(_host: str, port: int, family: int) -> Sequence[aiohttp.AddrInfoType]:
    """Resolve every name to this machine."""
    return look_up("127.0.0.1", port, family)


def answer(body: str, *, code: str = "200 OK", headers: str = "") -> bytes:
    """Return an answer with this body."""
    return f"HTTP/1.1 {code}\r\n{headers}Content-Length: {len(body.encode())}\r\n\r\n{body}".encode()


DONE = answer('{"status":"OK","balance":8750,"transaction_id":"tx-1"}')
