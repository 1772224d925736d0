"""The record of every callback that arrived: what it was, what was decided, what was answered. It only grows."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from enum import StrEnum

from .answer import Status
from .callback import Names
from .faults import Fault, Sent


class Outcome(StrEnum):
    """What became of a callback that arrived."""

    APPLIED = "applied"
    DUPLICATE = "duplicate"
    REFUSED = "refused"
    READ = "read"
    UNAUTHORIZED = "unauthorized"
    BAD_REQUEST = "bad_request"
    REQUEST_ID_REUSED = "request_id_reused"
    NOT_PROCESSED = "not_processed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrival:
    """A callback as it came in. The token itself is never kept: it is a credential for as long as it lives."""

    received_at: str
    body: bytes
    signature: str
    fault: Fault | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided:
    """What was decided on a callback, and what is sent; `status` is what was meant before a fault spoilt it."""

    outcome: Outcome
    status: Status | None
    sent: Sent


def write_record(sql: sqlite3.Connection, names: Names, arrival: Arrival, decided: Decided) -> None:
    """One row more, in the caller's transaction."""
    sql.execute(
        "insert into callback_record (received_at, request_id, method, bet_id, body, signature, outcome, status,"
        " http_status, answer, fault) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            arrival.received_at,
            names.request_id,
            names.method,
            names.bet_id,
            arrival.body,
            arrival.signature,
            decided.outcome,
            decided.status,
            decided.sent.http_status,
            decided.sent.body,
            arrival.fault,
        ),
    )
