"""The eight callbacks, as one table.

Everything that differs from one callback to another stands here, so that no other module asks for a
method by name to learn its lane or its policy. Names marked [ours] in PROTOCOL.md are decisions of
this project, not of the vendor's documents: the wire name of a method is the `wire` column, and
changing one is changing one line here. The required keys are checked when a callback is enqueued,
by the database; `tests/core/test_methods.py` compares the two lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Method(StrEnum):
    """A callback's name in the database, in metrics and in logs."""

    PING = "PING"
    BALANCE = "BALANCE"
    BET_MAKE = "BET_MAKE"
    BET_WIN = "BET_WIN"
    BET_LOSE = "BET_LOSE"
    BET_SELL = "BET_SELL"
    BET_REFUND = "BET_REFUND"
    BET_ROLLBACK = "BET_ROLLBACK"


class Lane(StrEnum):
    """Whose slots a callback takes: `interactive` where someone is waiting, `settlement` where nobody is."""

    INTERACTIVE = "interactive"
    SETTLEMENT = "settlement"


class Retries(StrEnum):
    """Which retry policy of the operator's file holds; a `probe` has one attempt and no other."""

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
"""The callbacks that end a bet; exactly one of them reaches the operator for each bet that was
debited."""
