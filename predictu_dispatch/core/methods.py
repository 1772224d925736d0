"""The eight methods of callbacks, and all that differs between them, as one table.

The `wire` column is the method's name in the request. enqueue_callback() checks the required keys
in the database; tests/core/test_methods.py compares the two lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Method(StrEnum):
    """A method's name in the database, metrics and logs."""

    PING = "PING"
    BALANCE = "BALANCE"
    BET_MAKE = "BET_MAKE"
    BET_WIN = "BET_WIN"
    BET_LOSE = "BET_LOSE"
    BET_SELL = "BET_SELL"
    BET_REFUND = "BET_REFUND"
    BET_ROLLBACK = "BET_ROLLBACK"


class Lane(StrEnum):
    """The lane: `interactive` if a producer waits for the callback, else `settlement`."""

    INTERACTIVE = "interactive"
    SETTLEMENT = "settlement"


class Retries(StrEnum):
    """The section of an operator's file with the retry policy; a `probe` has a single attempt."""

    PROBE = "probe"
    INTERACTIVE = "interactive"
    SETTLEMENT = "settlement"


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRule:
    """One row of PROTOCOL.md's table of callbacks."""

    wire: str
    lane: Lane
    retries: Retries
    ends_bet: bool
    required: tuple[str, ...]
    expects_balance: bool = True


_CREDIT_KEYS = ("player_id", "currency", "amount", "bet_id")

RULES: dict[Method, MethodRule] = {
    Method.PING: MethodRule(
        wire="PING",
        lane=Lane.INTERACTIVE,
        retries=Retries.PROBE,
        ends_bet=False,
        required=(),
        expects_balance=False,
    ),
    Method.BALANCE: MethodRule(
        wire="BALANCE",
        lane=Lane.INTERACTIVE,
        retries=Retries.INTERACTIVE,
        ends_bet=False,
        required=("player_id", "currency"),
    ),
    Method.BET_MAKE: MethodRule(
        wire="BET_MAKE",
        lane=Lane.INTERACTIVE,
        retries=Retries.INTERACTIVE,
        ends_bet=False,
        required=("player_id", "currency", "amount", "bet_id", "bet"),
    ),
    Method.BET_WIN: MethodRule(
        wire="BET_WIN",
        lane=Lane.SETTLEMENT,
        retries=Retries.SETTLEMENT,
        ends_bet=True,
        required=_CREDIT_KEYS,
    ),
    Method.BET_LOSE: MethodRule(
        wire="BET_LOSE",
        lane=Lane.SETTLEMENT,
        retries=Retries.SETTLEMENT,
        ends_bet=True,
        required=("player_id", "bet_id"),
    ),
    Method.BET_SELL: MethodRule(
        wire="BET_SELL",
        lane=Lane.SETTLEMENT,
        retries=Retries.SETTLEMENT,
        ends_bet=True,
        required=_CREDIT_KEYS,
    ),
    Method.BET_REFUND: MethodRule(
        wire="BET_REFUND",
        lane=Lane.SETTLEMENT,
        retries=Retries.SETTLEMENT,
        ends_bet=True,
        required=_CREDIT_KEYS,
    ),
    Method.BET_ROLLBACK: MethodRule(
        wire="BET_ROLLBACK",
        lane=Lane.INTERACTIVE,
        retries=Retries.SETTLEMENT,
        ends_bet=True,
        required=(*_CREDIT_KEYS, "rollback_of"),
    ),
}

TERMINALS = frozenset(method for method, rule in RULES.items() if rule.ends_bet)
"""The callbacks that end a bet; the operator gets exactly one of them for each bet that was
debited."""
