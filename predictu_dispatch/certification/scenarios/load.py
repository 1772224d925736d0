"""Scenarios about many requests at a time: every sum is exact."""

from __future__ import annotations

from typing import Final

from predictu_dispatch.certification.balance_expectations import MovedAsAnswered
from predictu_dispatch.certification.expectations import confirmed_under_load
from predictu_dispatch.certification.scenario import Group, Need, Scenario
from predictu_dispatch.certification.steps import Batch, Read
from predictu_dispatch.core.methods import Method

_TINY: Final = 10
_DEBITED: Final = "debited"
_BETS: Final = 500
_FIX: Final = (
    "Change the balance in one statement, such as update … set balance = balance - amount, or lock its row. To read,"
    " compute and write without a lock loses updates."
)
_ENDS: Final = {
    Method.BET_WIN: 23,
    Method.BET_LOSE: 0,
    Method.BET_SELL: 7,
    Method.BET_REFUND: _TINY,
    Method.BET_ROLLBACK: _TINY,
}
"""The ends of five bets in turn; together they credit what five debits take."""


def _batch(name: str, method: Method, count: int, in_flight: int, again: str = "") -> Batch:
    return Batch(name=name, methods=(method,), amounts=(_TINY,), count=count, in_flight=in_flight, again=again)


def _in_flight(scenario_id: str, title: str, why: str, *, in_flight: int, count: int) -> Scenario:
    """Return many debits, the same again, and their refunds."""
    return Scenario(
        id=scenario_id,
        group=Group.LOAD,
        title=title,
        why=why,
        steps=(
            _batch("debits", Method.BET_MAKE, count, in_flight),
            _batch("debits-again", Method.BET_MAKE, count, in_flight, again="debits"),
            Read(name=_DEBITED),
            _batch("refunds", Method.BET_REFUND, count, in_flight),
        ),
        expectations=(
            confirmed_under_load("debits", "debits-again", "refunds"),
            MovedAsAnswered(of=("debits", "debits-again"), until=_DEBITED),
            MovedAsAnswered(of=("refunds",), since=_DEBITED),
        ),
        fix=_FIX,
    )


def _settlements(name: str, again: str = "") -> Batch:
    return Batch(name=name, methods=tuple(_ENDS), amounts=tuple(_ENDS.values()), count=_BETS, in_flight=32, again=again)


SCENARIOS: Final = (
    _in_flight(
        "load-sixteen",
        "Sixteen debits in flight are each booked once",
        "If two debits of 5.00 EUR read the same balance and both write their result, they take 5.00 EUR together: one"
        " bet is free.",
        in_flight=16,
        count=160,
    ),
    _in_flight(
        "load-sixty-four",
        "Sixty-four debits in flight are each booked once",
        "Many players bet in the last minute before a match. If one debit in a hundred is lost or doubled, 10,000 bets"
        " of 5.00 EUR are wrong by 500.00 EUR.",
        in_flight=64,
        count=320,
    ),
    Scenario(
        id="load-five-hundred-settlements",
        group=Group.LOAD,
        title="Five hundred settlements to two players, each sent twice, are each booked once",
        why="When a market ends, all its bets are settled within seconds. If one update of a balance is lost, a player"
        " does not get a win of 7.00 EUR, and nobody notices.",
        steps=(
            _batch("debits", Method.BET_MAKE, _BETS, 32),
            Read(name=_DEBITED),
            _settlements("settlements"),
            _settlements("settlements-again", again="settlements"),
        ),
        expectations=(
            confirmed_under_load("debits", "settlements", "settlements-again"),
            *(
                expectation
                for player in (0, 1)
                for expectation in (
                    MovedAsAnswered(of=("debits",), until=_DEBITED, player=player),
                    MovedAsAnswered(of=("settlements", "settlements-again"), since=_DEBITED, player=player),
                )
            ),
        ),
        fix=_FIX,
        needs=frozenset({Need.TWO_PLAYERS}),
        players=(0, 1),
    ),
)
