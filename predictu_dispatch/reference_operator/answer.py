"""What is said back: one frozen answer, and its JSON."""

from __future__ import annotations

import json
from dataclasses import dataclass
from enum import StrEnum

from .money import AmountFormat, to_wire


class Status(StrEnum):
    """Every `status` this operator answers with. The README says which of them belong into Predictu's `[statuses]`."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """An answer before it becomes bytes; `balance` is in subunits and never without its `currency`."""

    http_status: int
    status: Status
    message: str = ""
    balance: int | None = None
    currency: str | None = None
    transaction_id: str | None = None

    def to_json(self, amount_format: AmountFormat) -> str:
        """The body. A decimal balance is written by hand: json.dumps could only make a float or a string of it."""
        fields = [f'"status":"{self.status}"']
        if self.balance is not None and self.currency is not None:
            fields.append(f'"balance":{to_wire(self.balance, self.currency, amount_format)}')
        if self.transaction_id is not None:
            fields.append(f'"transaction_id":{json.dumps(self.transaction_id)}')
        if self.message:
            fields.append(f'"message":{json.dumps(self.message)}')
        return "{" + ",".join(fields) + "}"


def shown(value: object) -> str:
    """A value as a message may show it: short, and in ASCII, so that it can always be encoded."""
    return ascii(value)[:80]
