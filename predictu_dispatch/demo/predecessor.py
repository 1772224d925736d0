"""The system before this one: it placed bets by itself, and they are adopted and ended here."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import aiohttp

from predictu_dispatch.core.signing import SigningKey, sign
from predictu_dispatch.demo.cast import RICH
from predictu_dispatch.demo.child import DemoError
from predictu_dispatch.demo.platform import Bet, Platform
from predictu_dispatch.demo.stage import Operator

_TOKEN_TTL_S = 30
"""Source: PROTOCOL.md, Signature."""


async def adopted(platform: Platform, http: aiohttp.ClientSession, operator: Operator, method: str | None) -> None:
    """A bet that the system before this one placed is adopted and ended here; without a method, its trade failed."""
    bet = platform.new_bet(operator.role.operator_id, platform.draws.choice(RICH))
    await _place_as_predecessor(http, operator, bet)
    async with platform.transaction() as transaction:
        await transaction.adopt(bet)
        request_id = await (transaction.enqueue(bet, method) if method else transaction.rollback(bet))
    if request_id is None:
        raise DemoError(f"{bet.bet_id}: an adopted bet is open, so its rollback must go over the wire")
    await platform.settled(bet.operator_id, request_id)


async def _place_as_predecessor(http: aiohttp.ClientSession, operator: Operator, bet: Bet) -> None:
    """The operator has debited the bet, asked by a system that knows no outbox."""
    body = _body(operator, bet)
    token = _token(operator.signing_key, operator.role.operator_id, bet, body)
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
    async with http.post(operator.callback_url, data=body, headers=headers) as answer:
        if not answer.ok:
            raise DemoError(f"{operator.callback_url} answered {answer.status}: {await answer.text()}")


def _body(operator: Operator, bet: Bet) -> bytes:
    """The envelope of PROTOCOL.md, written apart from the daemon's own writer."""
    amount = str(bet.amount)
    if operator.role.amount_format == "decimal":
        amount = f"{bet.amount // 100}.{bet.amount % 100:02d}"
    params = bet.params("BET_MAKE").replace(f'"amount": {bet.amount}', f'"amount": {amount}')
    timestamp = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return (
        f'{{"method":"BET_MAKE","timestamp":"{timestamp}","request_id":"{bet.placement_id}",'
        f'"operator_id":"{bet.operator_id}","params":{params}}}'
    ).encode()


def _token(signing_key: SigningKey, operator_id: str, bet: Bet, body: bytes) -> str:
    return sign(
        signing_key,
        operator_id=operator_id,
        method="BET_MAKE",
        jti=str(bet.placement_id),
        body=body,
        issued_at_s=int(time.time()),
        ttl_s=_TOKEN_TTL_S,
    )
