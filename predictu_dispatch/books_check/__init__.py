"""The independent check of the money: Predictu's tables against the operators' wallets.

It imports nothing of the daemon, so a fault in the daemon cannot hide in it.
"""

from collections.abc import Mapping, Sequence

from predictu_dispatch.books_check.check import Check
from predictu_dispatch.books_check.delivery_checks import delivery_checks
from predictu_dispatch.books_check.ledgers import OperatorLedger, PredictuLedger
from predictu_dispatch.books_check.money_checks import money_checks


def check_books(
    predictu: PredictuLedger, operators: Sequence[OperatorLedger], *, opening: Mapping[str, Mapping[str, int]]
) -> list[Check]:
    """All checks; `opening` holds the first balances by operator and player."""
    return [*money_checks(predictu, operators, opening), *delivery_checks(predictu, operators)]
