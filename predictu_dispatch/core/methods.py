"""The eight methods of callbacks, and all that differs between them, as one table.

enqueue_callback() checks the same required keys; tests/core/test_methods.py compares the lists.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class Method(StrEnum):
    """A method's name in the request, the database, metrics and logs."""

    PING = "PING"
    BALANCE = "BALANCE"
    BET_MAKE = "BET_MAKE"
    BET_WIN = "BET_WIN"
    BET_LOSE = "BET_LOSE"
    BET_SELL = "BET_SELL"
    BET_REFUND = "BET_REFUND"
    BET_ROLLBACK = "BET_ROLLBACK"


class Lane(StrEnum):
    """The lane: `interactive` if someone may wait for the callback, else `settlement`.

    Names and comments call the callbacks of the first lane bets, those of the second settlements.
    """

    INTERACTIVE = "interactive"
    SETTLEMENT = "settlement"


class Retries(StrEnum):
    """An operator's retry policy; `probe`, a PING's, is a single attempt as in `interactive`."""

    PROBE = "probe"
    INTERACTIVE = "interactive"
    SETTLEMENT = "settlement"


class MethodRule(NamedTuple):
    """One row of PROTOCOL.md's table of callbacks; `required` are the keys of its params."""

    lane: Lane
    retries: Retries
    required: tuple[str, ...]
    ends_bet: bool = False
    expects_balance: bool = True


_BET = ("player_id", "currency", "amount", "bet_id")
_CREDIT = MethodRule(Lane.SETTLEMENT, Retries.SETTLEMENT, _BET, ends_bet=True)

RULES: dict[Method, MethodRule] = {
    Method.PING: MethodRule(Lane.INTERACTIVE, Retries.PROBE, (), expects_balance=False),
    Method.BALANCE: MethodRule(Lane.INTERACTIVE, Retries.INTERACTIVE, ("player_id", "currency")),
    Method.BET_MAKE: MethodRule(Lane.INTERACTIVE, Retries.INTERACTIVE, (*_BET, "bet")),
    Method.BET_WIN: _CREDIT,
    Method.BET_LOSE: MethodRule(Lane.SETTLEMENT, Retries.SETTLEMENT, ("player_id", "bet_id"), ends_bet=True),
    Method.BET_SELL: _CREDIT,
    Method.BET_REFUND: _CREDIT,
    Method.BET_ROLLBACK: MethodRule(Lane.INTERACTIVE, Retries.SETTLEMENT, (*_BET, "rollback_of"), ends_bet=True),
}

TERMINALS = frozenset(method for method, rule in RULES.items() if rule.ends_bet)
"""The callbacks that end a bet; the operator gets exactly one for each bet that was debited."""
