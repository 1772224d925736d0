"""The proof: both sides' books, read apart, held against each other; and every path of a bet's life walked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from predictu_dispatch.demo.books import OperatorBook, PredictuBooks, ReviewRow
from predictu_dispatch.demo.check import Check
from predictu_dispatch.demo.paths import walked
from predictu_dispatch.demo.proof_delivery import delivery_checks
from predictu_dispatch.demo.proof_money import money_checks


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """All checks with their numbers, how often every path was walked, and what a person would have to look at."""

    bets: int
    callbacks: int
    attempts: int
    wallets: int
    checks: tuple[Check, ...]
    paths: Mapping[str, int]
    reviews: tuple[ReviewRow, ...]

    @property
    def holds(self) -> bool:
        """True where every single check does."""
        return all(check.holds for check in self.checks)

    @property
    def sentence(self) -> str:
        """The result in one line."""
        rows = f"{self.bets} bets, {self.callbacks} callbacks, {self.attempts} attempts, {self.wallets} wallets"
        if self.holds:
            return f"proof: {rows}: wallets, bets and audit agree to the cent"
        return f"DISPROOF: {rows}: {sum(not check.holds for check in self.checks)} of {len(self.checks)} checks fail"


def prove(
    predictu: PredictuBooks,
    operators: Sequence[OperatorBook],
    *,
    opening: Mapping[str, Mapping[str, int]],
    witnessed: Mapping[str, int],
) -> Proof:
    """The proof of a finished demo. `opening`: first balances by operator and player; `witnessed`: see paths.py."""
    paths = walked(predictu, witnessed)
    return Proof(
        bets=len(predictu.bets),
        callbacks=len(predictu.callbacks),
        attempts=len(predictu.attempts),
        wallets=sum(len(operator.balances) for operator in operators),
        checks=(
            *money_checks(predictu, operators, opening),
            *delivery_checks(predictu, operators),
            Check(
                name="every path of a bet's life was walked",
                rows=sum(paths.values()),
                figures=f"{sum(count > 0 for count in paths.values())} of {len(paths)} paths",
                faults=tuple(f"never: {path}" for path, count in paths.items() if count == 0),
            ),
        ),
        paths=paths,
        reviews=predictu.reviews,
    )
