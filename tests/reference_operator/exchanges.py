"""One exchange for each kind of callback and answer, always with the same bytes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import Any

from tests.reference_operator.client import BET, OPERATOR_ID, Operator, token_of

UNSIGNED = "?"
"""Sent without a token."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A callback and its answer."""

    name: str
    body: bytes
    http_status: int
    answer: Any


def bodies() -> Iterator[tuple[str, bytes]]:
    """Yields a name for each body; further bets are placed under the name ""."""
    numbers = count(1)

    def request_id(number: int) -> str:
        return f"4f1c0b1e-6f0e-4a51-9a2b-{number:012x}"

    def body(method: str, *, number: int = 0, **params: Any) -> bytes:
        envelope = {
            "method": method,
            "timestamp": "2026-03-19T14:30:00.000Z",
            "request_id": request_id(number or next(numbers)),
            "operator_id": OPERATOR_ID,
            "params": params,
        }
        return json.dumps(envelope, separators=(",", ":")).encode()

    def bet(method: str, bet_id: str, amount: int, **more: Any) -> bytes:
        given: dict[str, Any] = {"player_id": "player-1", "currency": "EUR", "amount": amount, "bet_id": bet_id}
        return body(method, **given | ({"bet": BET} if method == "BET_MAKE" else {}) | more)

    for bet_id in ("b-2", "b-3", "b-4", "b-5"):
        yield "", bet("BET_MAKE", bet_id, 1250)
    yield "PING", body("PING")
    yield "BALANCE", body("BALANCE", player_id="player-1", currency="EUR")
    yield "BET_MAKE", (placed := bet("BET_MAKE", "b-1", 1250))
    yield "BET_WIN", bet("BET_WIN", "b-1", 2312)
    yield "BET_LOSE", body("BET_LOSE", player_id="player-1", bet_id="b-2")
    yield "BET_SELL", bet("BET_SELL", "b-3", 1100)
    yield "BET_REFUND", bet("BET_REFUND", "b-4", 1250)
    yield "BET_ROLLBACK", bet("BET_ROLLBACK", "b-5", 1250, rollback_of=request_id(4))
    yield "DUPLICATE", placed
    yield "INSUFFICIENT_FUNDS", bet("BET_MAKE", "b-6", 10_000_000)
    yield "PLAYER_NOT_FOUND", body("BALANCE", player_id="player-9", currency="EUR")
    yield "TRANSACTION_NOT_FOUND", bet("BET_ROLLBACK", "b-7", 1250, rollback_of=request_id(0x700))
    yield "BET_NOT_FOUND", bet("BET_WIN", "b-8", 2312)
    yield "BET_ALREADY_PLACED", bet("BET_MAKE", "b-1", 1250)
    yield "BET_ALREADY_SETTLED", bet("BET_REFUND", "b-1", 1250)
    yield "BET_ROLLED_BACK", bet("BET_MAKE", "b-7", 1250, number=0x700)
    yield "REQUEST_ID_REUSED", placed.replace(b"1250", b"1350")
    yield "", bet("BET_MAKE", "b-10", 1)
    yield "BET_MISMATCH", bet("BET_REFUND", "b-10", 1250)
    yield "WALLET_LIMIT", bet("BET_WIN", "b-10", 10**18 - 1)
    yield "BAD_REQUEST", placed.replace(b'"player_id"', b'"player"')
    yield f"UNAUTHORIZED{UNSIGNED}", placed


async def exchanges(operator: Operator) -> list[Exchange]:
    """Posts all bodies in order to an operator whose first player has 1,000.00 EUR."""
    done = []
    for name, body in bodies():
        status, answer = await operator.post(body, " " if name.endswith(UNSIGNED) else token_of(body))
        done.append(Exchange(name=name.removesuffix(UNSIGNED), body=body, http_status=status, answer=answer))
    return [exchange for exchange in done if exchange.name]
