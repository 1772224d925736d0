"""Observations made by hand: requests with the answers of an operator, judged as in production."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from predictu_dispatch.certification.observation import Observed, Outcome, Sent
from predictu_dispatch.certification.requests import callback_of
from predictu_dispatch.certification.steps import Delivery, TokenFault
from predictu_dispatch.core.callback import Evidence, Exchange
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.operator_settings import StatusesSettings
from predictu_dispatch.core.verdict import Statuses, judge
from tests.support.sandboxes import target_for

NOW: Final = datetime(2026, 11, 30, 10, 15, 2, tzinfo=UTC)
PLAYERS: Final = ("p-1", "p-2")
_STATUSES: Final = Statuses.of(StatusesSettings(rejected=("BET_CLOSED",), retry=("BUSY",)))
_TARGET: Final = target_for()


def answered(
    name: str,
    status: str | None = "OK",
    *,
    code: int = 200,
    method: Method = Method.BET_MAKE,
    request: str = "",
    bet: str = "bet",
    player: int = 0,
    amount: int | None = 500,
    balance: object = 9500,
    transaction_id: str | None = "tx-1",
    exchange: Exchange | None = None,
    after_s: float = 0.0,
    total_ms: float = 20.0,
    is_on_used_connection: bool = False,
    headers: tuple[tuple[str, str], ...] = (),
) -> Sent:
    """Return a request with its answer; `request` names the request that it repeats."""
    request_id = str(uuid.uuid5(uuid.NAMESPACE_OID, request or name))
    answer = {"status": status, "balance": balance, "transaction_id": transaction_id}
    body = json.dumps({key: value for key, value in answer.items() if value is not None}).encode()
    exchange = exchange or Exchange(Evidence.ANSWERED, total_ms, status=code, body=body, headers=headers)
    callback = callback_of(_TARGET, method, request_id=request_id, created_at=NOW)
    return Sent(
        name=name,
        method=method,
        request_id=request_id,
        bet_id=bet,
        player_id=PLAYERS[player],
        amount=amount,
        body=b"{}",
        header={},
        claims={},
        token=TokenFault.NONE,
        delivery=Delivery.COMPLETE,
        started_at=NOW + timedelta(seconds=after_s),
        exchange=exchange,
        judgement=judge(callback, exchange, _STATUSES, now=NOW),
        is_on_used_connection=is_on_used_connection,
    )


NO_ANSWER: Final = Exchange(Evidence.UNANSWERED, 5000.0, reason="timeout")
NOT_SENT: Final = Exchange(Evidence.NOT_SENT, 1.0, reason="connect_refused")

ANSWERS: Final[Mapping[str, Sent]] = {
    "OK": answered("it"),
    "nothing to reverse": answered("it", "TRANSACTION_NOT_FOUND", code=404, method=Method.BET_ROLLBACK),
    "rejected": answered("it", "BET_CLOSED", code=409),
    "undeclared": answered("it", "TEAPOT", code=418),
    "401": answered("it", "UNAUTHORIZED", code=401),
    "redirect": answered("it", None, code=302, headers=(("Location", "/other/"),)),
    "404": answered("it", None, code=404),
    "put off": answered("it", "BUSY"),
    "503": answered("it", None, code=503),
    "500": answered("it", "ERROR", code=500),
    "no answer": answered("it", exchange=NO_ANSWER),
    "not sent": answered("it", exchange=NOT_SENT),
}
"""One answer of each kind, with the outcome that it must have."""
OUTCOMES: Final = (
    Outcome.CONFIRMED,
    Outcome.NOTHING_TO_REVERSE,
    Outcome.REFUSED,
    Outcome.UNDECLARED,
    Outcome.UNAUTHORIZED,
    Outcome.REDIRECTED,
    Outcome.MISCONFIGURED,
    Outcome.TRY_AGAIN,
    Outcome.TRY_AGAIN,
    Outcome.TRY_AGAIN,
    Outcome.NO_ANSWER,
    Outcome.NOT_SENT,
)


def observed(
    sent: Iterable[Sent] = (),
    *,
    batches: Mapping[str, tuple[Sent, ...]] | None = None,
    balances: Mapping[str, tuple[int | None, ...]] | None = None,
) -> Observed:
    """Return an observation; `balances` has those of the players in order, by reading."""
    return Observed(
        run="20261130-101502-3f2a",
        currency="EUR",
        digits=2,
        player_ids=PLAYERS,
        interactive_timeout_s=5.0,
        settlement_timeout_s=10.0,
        sent={each.name: each for each in sent},
        batches=dict(batches or {}),
        balances={name: dict(enumerate(each)) for name, each in (balances or {}).items()},
    )
