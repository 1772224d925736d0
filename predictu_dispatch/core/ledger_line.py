"""Reads one record of an operator's ledger: from texts to a line, or what is wrong with which column."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID


class LedgerLine(NamedTuple):
    """One booking in the operator's ledger. The fields are the columns of reconciliation_line."""

    booked_at: datetime
    """In UTC."""
    day: date
    """The accounting day of `booked_at`."""
    transaction_id: str | None
    request_id: UUID | None
    method: str | None
    """One of ours, or None if the ledger does not say."""
    bet_id: str | None
    player_id: str | None
    currency: str
    amount: int
    """Subunits, as the player's wallet sees it: a debit is negative."""
    is_debit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LineFault:
    """Why a record cannot be read."""

    column: str
    """The operator's name of the column; empty if the fault concerns the whole line."""
    why: str


class Ignored(NamedTuple):
    """A record of another product."""
