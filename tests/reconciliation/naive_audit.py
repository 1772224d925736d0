"""Finds callbacks that contradict the audit or their bet, for the naive classifier."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

Row = Mapping[str, Any]
METHODS = ("BET_MAKE", "BET_WIN", "BET_LOSE", "BET_SELL", "BET_REFUND", "BET_ROLLBACK")
_VERDICTS = {"delivered": "delivered", "rejected": "rejected", "exhausted": "retry"}


class _Days(Protocol):
    @property
    def digits(self) -> Mapping[str, int]: ...


class _Period(Protocol):
    @property
    def dialect(self) -> _Days: ...

    def has(self, at: datetime | None) -> bool: ...


def contradictions(
    callbacks: Mapping[UUID, Row], bets: Mapping[str, Row], attempts: Mapping[UUID, Sequence[Row]], period: _Period
) -> set[UUID]:
    """Return the request ids of callbacks that contradict the audit or their bet.

    One that is missing may be among them.
    """
    found = set()
    for request_id, row in callbacks.items():
        if not period.has(row["finished_at"]):
            continue
        sent = attempts.get(request_id, ())
        deciding = sorted((one for one in sent if one["verdict"] != "late"), key=lambda one: one["attempt"])
        if not (
            _has_its_attempts(row, deciding)
            and all(_sent_as_here(row, one, period.dialect.digits) for one in sent)
            and _agrees_with_bet(row, bets.get(row["bet_id"]))
        ):
            found.add(request_id)
    for request_id, sent in attempts.items():
        for one in sent:
            is_delivery = one["verdict"] == "delivered" and one["method"] in METHODS
            if is_delivery and period.has(one["started_at"]) and not _is_delivered_by(callbacks.get(request_id), one):
                found.add(request_id)
    return found


def _is_delivered_by(row: Row | None, attempt: Row) -> bool:
    if row is None or row["state"] != "delivered" or row["attempts"] != attempt["attempt"]:
        return False
    return bool(row["effect"] == "applied" or row["reason"] == "nothing_to_reverse")


def _has_its_attempts(row: Row, deciding: Sequence[Row]) -> bool:
    if [one["attempt"] for one in deciding] != list(range(1, row["attempts"] + 1)):
        return False
    if any(one["verdict"] == "delivered" for one in deciding[:-1]):
        return False
    if deciding and deciding[-1]["verdict"] == "delivered":
        is_applied = row["effect"] == "applied" or row["reason"] == "nothing_to_reverse"
        return bool(row["state"] == "delivered" and is_applied)
    if row["state"] == "delivered":
        return False
    if not deciding or row["state"] not in _VERDICTS:
        return True
    # Ended after a retry by a person, before another attempt began.
    if row["state"] == "exhausted" and row["attempts"] == row["budget_from"]:
        return True
    return bool(deciding[-1]["verdict"] == _VERDICTS[row["state"]])


def _sent_as_here(row: Row, attempt: Row, digits: Mapping[str, int]) -> bool:
    if attempt["request_body"] is None:
        return True
    try:
        sent = json.loads(attempt["request_body"], parse_float=Decimal)
        params = dict(sent["params"])
    except (ValueError, KeyError, TypeError):
        return False
    if "amount" in params and row["amount_format"] == "decimal":
        params["amount"] = Decimal(params["amount"]).scaleb(digits[params["currency"]])
    here = row["params"]
    return bool(
        sent["method"] == row["method"] == attempt["method"]
        and all(params.get(name) == here.get(name) for name in ("player_id", "currency", "amount", "bet_id"))
        and params.get("bet_id") == row["bet_id"]
    )


def _agrees_with_bet(row: Row, bet: Row | None) -> bool:
    if bet is None:
        return False
    params, method = row["params"], row["method"]
    if method == "BET_MAKE":
        return bool(
            bet["placement_request_id"] == row["request_id"]
            and all(params[name] == bet[name] for name in ("amount", "player_id", "currency"))
        )
    if method in ("BET_REFUND", "BET_ROLLBACK") and params["amount"] != bet["amount"]:
        return False
    if row["state"] != "delivered":
        return True
    return bool(bet["terminal_request_id"] == row["request_id"] and bet["state"] == "closed")
