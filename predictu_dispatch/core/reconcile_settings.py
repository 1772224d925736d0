"""The section [reconcile] of an operator's file: how the operator writes its ledger files."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from predictu_dispatch.core.section import Section

LedgerFormat = Literal["csv", "ndjson", "json"]
AmountSign = Literal["player", "operator", "none"]

IGNORED: Final = "ignore"
"""Under [reconcile.values] method: lines with this value are of other products."""


class ReconcileColumns(Section):
    """Our name of a column = the operator's name of it; "" if its files have no such column."""

    booked_at: str = "booked_at"
    amount: str = "amount"
    currency: str = "currency"
    request_id: str = "request_id"
    transaction_id: str = "transaction_id"
    method: str = "method"
    direction: str = "direction"
    """debit or credit, as the player's wallet sees it."""
    bet_id: str = "bet_id"
    player_id: str = "player_id"


class ReconcileSettings(Section):
    """How the operator's ledger is read. No daemon uses it."""

    format: LedgerFormat = "csv"
    time_zone: str = "UTC"
    """For times without an offset, and for the accounting day."""
    day_starts: str = "00:00"
    settle_s: float = Field(default=900.0, ge=0, le=86_400)
    amount_format: Literal["subunits", "decimal"] = "subunits"
    amount_sign: AmountSign = "player"
    """player: a debit of the player is negative; operator: positive; none: amounts have no sign, and
    the direction follows from the column `direction`, or from `method`."""
    no_end_days: int = Field(default=90, ge=1, le=3650)
    """A debit without an end counts as `no_end` after this time."""
    url: str = Field(default="", max_length=2048)
    columns: ReconcileColumns = ReconcileColumns()
    values: dict[str, dict[str, str]] = Field(default_factory=dict)
    """For each column of ours, the operator's values = ours: method = { BET = "BET_MAKE" }."""
