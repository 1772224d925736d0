"""A callback, the body that carries it, and the exchange with the operator.

Records made for every attempt are named tuples: a frozen dataclass takes three times as long.
"""

from __future__ import annotations

import re
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple
from uuid import UUID

from predictu_dispatch.core.methods import Lane, Method


class Effect(StrEnum):
    """What we know of the effect at the operator; it only moves from none to unknown to applied."""

    NONE = "none"
    UNKNOWN = "unknown"
    APPLIED = "applied"


class Evidence(StrEnum):
    """Whether the request was sent, and whether a complete answer came."""

    NOT_SENT = "not_sent"
    UNANSWERED = "unanswered"
    ANSWERED = "answered"


LEASE_MARGIN_S = 5.0
"""A lease outlasts the attempt's timeout by this: time to start it and to settle it in a batch."""
_SETTLING_S = 2.0
"""The part of the margin kept for settling; an attempt that cannot start before it is not sent."""


class Callback(NamedTuple):
    """A callback as leased for one attempt; durations are as of `leased_at` (database's clock).

    `leased_at_s` is this process's monotonic time just before the claim was sent, so a lease
    measured from it ends early and never late. `params` is the JSON text as Postgres prints it,
    always the same for the same row.
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
        """The monotonic time from which nothing may be sent.

        It is the deadline, or the time from which the lease could end before the attempt is
        settled.
        """
        latest_s = self.leased_at_s + LEASE_MARGIN_S - _SETTLING_S
        return latest_s if self.expires_in_s is None else min(latest_s, self.leased_at_s + self.expires_in_s)


class Exchange(NamedTuple):
    """What happened on the socket; times since the attempt began, None if not reached."""

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
    peer: str | None = None
    """Address and port of the connection on which the request was written."""
    peer_certificate_sha256: bytes | None = None
    """Of the operator's certificate (DER); None without TLS."""


_LEXEME = re.compile(r'"(?:[^"\\]|\\.)*"|[{}\[\],:]|[^\s"{}\[\],:]+')
"""The lexemes of valid JSON text: strings, punctuation, numbers and literals. Space is skipped."""


def body(callback: Callback) -> bytes:
    """Return the body to POST: PROTOCOL.md's envelope as compact UTF-8 JSON.

    It depends on the row alone, which also has the amount format, so every attempt on every host
    sends the same bytes. Numbers in `params` are copied digit by digit. Raises ValueError if a
    decimal amount is needed in a currency without known minor digits.
    """
    # Timestamps from the database are in UTC: Z replaces the offset's six characters.
    timestamp = f"{callback.created_at.isoformat(timespec='milliseconds')[:-6]}Z"
    return (
        f'{{"method":"{callback.method}","timestamp":"{timestamp}","request_id":"{callback.request_id}",'
        f'"operator_id":"{callback.operator_id}","params":{_wire_params(callback)}}}'
    ).encode()


def _wire_params(callback: Callback) -> str:
    if callback.amount_format == "subunits" and "\\" not in callback.params:
        # Without escapes every second part between quotes is a string: a fifth of the lexer's time.
        parts = callback.params.split('"')
        parts[::2] = [part.replace(" ", "") for part in parts[::2]]
        return '"'.join(parts)
    lexemes = _LEXEME.findall(callback.params)
    if callback.amount_format == "decimal":
        _write_amount_as_decimal(lexemes, callback.minor_digits)
    return "".join(lexemes)


def _write_amount_as_decimal(lexemes: list[str], minor_digits: int | None) -> None:
    """Rewrite a top-level `amount` as a decimal number with exactly the currency's minor digits."""
    depth = 0
    for index, lexeme in enumerate(lexemes):
        if lexeme in "{[":
            depth += 1
        elif lexeme in "}]":
            depth -= 1
        elif depth == 1 and lexeme == '"amount"' and lexemes[index + 1] == ":":
            if minor_digits is None:
                raise ValueError("an amount without a currency of known minor digits cannot be written as a decimal")
            lexemes[index + 2] = f"{Decimal(lexemes[index + 2]).scaleb(-minor_digits):.{minor_digits}f}"
