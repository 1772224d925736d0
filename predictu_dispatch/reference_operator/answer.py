"""An answer to a callback, its JSON, and the reply that is really sent."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from .money import Money


class Status(StrEnum):
    """Every `status` of this operator; README.md says which must be declared to Predictu."""

    OK = "OK"
    DUPLICATE = "DUPLICATE"
    INSUFFICIENT_FUNDS = "INSUFFICIENT_FUNDS"
    PLAYER_NOT_FOUND = "PLAYER_NOT_FOUND"
    TRANSACTION_NOT_FOUND = "TRANSACTION_NOT_FOUND"
    BET_NOT_FOUND = "BET_NOT_FOUND"
    BET_ALREADY_PLACED = "BET_ALREADY_PLACED"
    BET_ALREADY_SETTLED = "BET_ALREADY_SETTLED"
    BET_ROLLED_BACK = "BET_ROLLED_BACK"
    BET_MISMATCH = "BET_MISMATCH"
    WALLET_LIMIT = "WALLET_LIMIT"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    BAD_REQUEST = "BAD_REQUEST"
    UNAUTHORIZED = "UNAUTHORIZED"
    INTERNAL_ERROR = "INTERNAL_ERROR"
    UNAVAILABLE = "UNAVAILABLE"


REJECTED = (
    Status.BET_ALREADY_PLACED,
    Status.BET_ALREADY_SETTLED,
    Status.BET_ROLLED_BACK,
    Status.BET_MISMATCH,
    Status.WALLET_LIMIT,
    Status.REQUEST_ID_REUSED,
)
"""Rejections beyond those of the protocol, to declare to Predictu."""
RETRY = (Status.BAD_REQUEST,)
"""Temporary conditions, to declare to Predictu."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The decided answer; `balance` is in subunits and never without `currency`."""

    http_status: int
    status: Status
    message: str = ""
    balance: int | None = None
    currency: str | None = None
    transaction_id: str | None = None

    def to_json(self, money: Money) -> str:
        """Returns the body; `json.dumps` cannot write a decimal balance as a number."""
        fields = [f'"status":"{self.status}"']
        if self.balance is not None and self.currency is not None:
            fields.append(f'"balance":{money.to_wire(self.balance, self.currency)}')
        if self.transaction_id is not None:
            fields.append(f'"transaction_id":{json.dumps(self.transaction_id)}')
        if self.message:
            fields.append(f'"message":{json.dumps(self.message)}')
        return "{" + ",".join(fields) + "}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The HTTP response; with `http_status` None the connection is reset and nothing is sent."""

    http_status: int | None
    body: str | None = None
    content_type: str = "application/json"
    retry_after_s: int | None = None


def shown(value: object) -> str:
    """Returns a value for a message: short, and in ASCII."""
    try:
        return ascii(value)[:80]
    except RecursionError:
        return "a value that is nested too deeply"
