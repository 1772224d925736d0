"""A callback, the bytes that carry it, and one attempt to deliver it.

Records of which each attempt needs some are named tuples, which are made three times as fast as frozen dataclasses.
"""

from __future__ import annotations

import re
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

from predictu_dispatch.core.methods import RULES, Lane, Method

if TYPE_CHECKING:
    from datetime import datetime
    from uuid import UUID

    from predictu_dispatch.core.lifecycle import Outcome
    from predictu_dispatch.core.verdict import Judgement


class Effect(StrEnum):
    """What is known of the operator's side; it only ever moves from none to unknown to applied."""

    NONE = "none"
    UNKNOWN = "unknown"
    APPLIED = "applied"


class Evidence(StrEnum):
    """What is known of one attempt: whether anything left, and whether a complete answer came back."""

    NOT_SENT = "not_sent"
    UNANSWERED = "unanswered"
    ANSWERED = "answered"


LEASE_MARGIN_S = 5.0
"""How much a lease outlives the attempt's total timeout: time to begin the attempt, and to settle it in a batch."""
_SETTLING_S = 2.0
"""The part of the margin that is kept for settling; an attempt that begins later than the rest is not begun at all."""


class Callback(NamedTuple):
    """A callback as leased for one attempt. Ages and spans in seconds are on the database's clock, as of `leased_at`.

    `leased_at_s` is this process's monotonic clock just before the claim was asked for, so what we measure from it ends
    sooner than the lease itself. `params` is the JSON text as Postgres prints it: the same for ever for the same row.
    """

    operator_id: str
    request_id: UUID
    method: Method
    bet_id: str | None
    lane: Lane
    attempt: int
    budget_from: int
    effect: Effect
    reason: str | None
    params: str
    created_at: datetime
    due_at: datetime
    expires_in_s: float | None
    leased_at: datetime
    lease_s: float
    amount_format: str
    minor_digits: int | None
    placement_ended_s_ago: float | None
    leased_at_s: float

    @property
    def send_before_s(self) -> float:
        """The monotonic moment after which no byte may leave: deadline passed, or too little lease left."""
        latest_s = self.leased_at_s + LEASE_MARGIN_S - _SETTLING_S
        return latest_s if self.expires_in_s is None else min(latest_s, self.leased_at_s + self.expires_in_s)


class Exchange(NamedTuple):
    """What really happened on the socket. Times are milliseconds since the attempt began.

    None where it never came so far.
    """

    evidence: Evidence
    total_ms: float
    reason: str | None = None
    error: str | None = None
    status: int | None = None
    headers: tuple[tuple[str, str], ...] = ()
    body: bytes = b""
    truncated: bool = False
    connect_ms: float | None = None
    first_byte_ms: float | None = None


class Attempt(NamedTuple):
    """One attempt, whole: the audit row, the log line and the metrics are all read from this record."""

    callback: Callback
    instance: str
    finished_at: datetime
    exchange: Exchange
    judgement: Judgement
    outcome: Outcome
    report_id: UUID
    url: str | None = None
    key_id: str | None = None
    request_headers: str | None = None
    """A JSON object of what was sent, without the token's signature."""
    request_body: str | None = None
    reaped: bool = False


_LEXEME = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s"{}\[\],:]+')
"""The lexemes of valid JSON text: strings, punctuation, and numbers or words. Space between them carries nothing."""


def body(callback: Callback) -> bytes:
    """The bytes to POST: the five keys of the envelope in PROTOCOL.md's order, compact UTF-8 JSON.

    They depend on nothing but the row, so they are the same on every attempt and on every host. Numbers in `params` are
    copied digit by digit. Raises ValueError where a decimal amount is asked for in a currency without known minor
    digits.
    """
    # In UTC, as everything from the database; without its offset of six characters.
    timestamp = f"{callback.created_at.isoformat(timespec='milliseconds')[:-6]}Z"
    return (
        f'{{"method":"{RULES[callback.method].wire}","timestamp":"{timestamp}","request_id":"{callback.request_id}",'
        f'"operator_id":"{callback.operator_id}","params":{_wire_params(callback)}}}'
    ).encode()


def _wire_params(callback: Callback) -> str:
    if callback.amount_format == "subunits" and "\\" not in callback.params:
        # Nothing is escaped, so every other part between the quotes is a string: the same at a fifth of the time.
        parts = callback.params.split('"')
        parts[::2] = [part.replace(" ", "") for part in parts[::2]]
        return '"'.join(parts)
    lexemes = _LEXEME.findall(callback.params)
    if callback.amount_format == "decimal":
        _write_amount_as_decimal(lexemes, callback.minor_digits)
    return "".join(lexemes)


def _write_amount_as_decimal(lexemes: list[str], minor_digits: int | None) -> None:
    """The top-level `amount`, if there is one, has become a decimal number with exactly the currency's minor digits."""
    depth = 0
    for index, lexeme in enumerate(lexemes):
        if lexeme in "{[":
            depth += 1
        elif lexeme in "}]":
            depth -= 1
        elif depth == 1 and lexeme == '"amount"' and lexemes[index + 1] == ":":
            if minor_digits is None:
                message = "an amount without a currency of known minor digits cannot be written as a decimal"
                raise ValueError(message)
            lexemes[index + 2] = f"{Decimal(lexemes[index + 2]).scaleb(-minor_digits):.{minor_digits}f}"
