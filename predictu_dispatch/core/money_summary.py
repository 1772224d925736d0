"""What became of a bet's money, decided from its placement and its terminal callback.

The states of both decide alone; the bet's own state follows from them. CREDITS is the table for
terminal callbacks, `debit_of` decides about the placement.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, NamedTuple

from predictu_dispatch.core.callback import Effect
from predictu_dispatch.core.lifecycle import FINAL, CallbackState
from predictu_dispatch.core.methods import Method


class Debit(StrEnum):
    """What is known of a bet's debit."""

    ADOPTED = "adopted"
    """It took place before this system existed."""
    DEBITED = "debited"
    PENDING = "pending"
    """No attempt of it can have been applied so far; it may still be sent."""
    UNKNOWN = "unknown"
    NEVER = "never"
    """It did not take place, and is not sent any more."""


class Credit(StrEnum):
    """What is known of the callback that ends a bet."""

    NONE = "none"
    """There is none that counts."""
    WAITING = "waiting"
    """The bet's debit is not settled yet."""
    PENDING = "pending"
    """No attempt of it can have been applied so far; it may still be sent."""
    UNKNOWN_PENDING = "unknown_pending"
    """It may have been applied, and is sent again."""
    CONFIRMED = "confirmed"
    NOTHING_TO_REVERSE = "nothing_to_reverse"
    """A rollback that the operator confirmed without having a debit to return."""
    FAILED = "failed"
    """It ended, and the operator has not applied it."""
    UNKNOWN = "unknown"
    """It ended, and the operator may have applied it."""


class Step(NamedTuple):
    """A callback as far as money is concerned."""

    method: Method
    state: CallbackState
    effect: Effect
    is_nothing_to_reverse: bool = False
    """True if the operator answered that there was no debit."""


class Money(NamedTuple):
    """What became of a bet's money."""

    debit: Debit
    credit: Credit


def debit_of(placement: Step | None) -> Debit:
    """Decide about the placement; None if the bet was adopted."""
    if placement is None:
        return Debit.ADOPTED
    if placement.state is CallbackState.DELIVERED or placement.effect is Effect.APPLIED:
        return Debit.DEBITED
    if placement.effect is Effect.UNKNOWN:
        return Debit.UNKNOWN
    return Debit.NEVER if placement.state in FINAL else Debit.PENDING


_S, _E = CallbackState, Effect

CREDITS: Final[dict[tuple[CallbackState, Effect], Credit]] = {
    (_S.WAITING, _E.NONE): Credit.WAITING,
    (_S.WAITING, _E.UNKNOWN): Credit.UNKNOWN_PENDING,
    (_S.WAITING, _E.APPLIED): Credit.CONFIRMED,
    (_S.READY, _E.NONE): Credit.PENDING,
    (_S.READY, _E.UNKNOWN): Credit.UNKNOWN_PENDING,
    (_S.READY, _E.APPLIED): Credit.CONFIRMED,
    (_S.IN_FLIGHT, _E.NONE): Credit.PENDING,
    (_S.IN_FLIGHT, _E.UNKNOWN): Credit.UNKNOWN_PENDING,
    (_S.IN_FLIGHT, _E.APPLIED): Credit.CONFIRMED,
    (_S.DELIVERED, _E.NONE): Credit.CONFIRMED,
    (_S.DELIVERED, _E.UNKNOWN): Credit.CONFIRMED,
    (_S.DELIVERED, _E.APPLIED): Credit.CONFIRMED,
    (_S.REJECTED, _E.NONE): Credit.FAILED,
    (_S.REJECTED, _E.UNKNOWN): Credit.UNKNOWN,
    (_S.REJECTED, _E.APPLIED): Credit.CONFIRMED,
    (_S.EXHAUSTED, _E.NONE): Credit.FAILED,
    (_S.EXHAUSTED, _E.UNKNOWN): Credit.UNKNOWN,
    (_S.EXHAUSTED, _E.APPLIED): Credit.CONFIRMED,
    (_S.CANCELLED, _E.NONE): Credit.NONE,
    (_S.CANCELLED, _E.UNKNOWN): Credit.UNKNOWN,
    (_S.CANCELLED, _E.APPLIED): Credit.CONFIRMED,
}
"""By the terminal callback's state and effect; those that never occur are decided too."""


def money_of(placement: Step | None, terminal: Step | None) -> Money:
    """Decide what became of a bet's money."""
    debit = debit_of(placement)
    if terminal is None:
        return Money(debit, Credit.NONE)
    if terminal.state is CallbackState.DELIVERED and terminal.is_nothing_to_reverse:
        # Only an unknown debit is settled by this answer: a confirmed one stands.
        known = Debit.NEVER if debit is Debit.UNKNOWN else debit
        return Money(known, Credit.NOTHING_TO_REVERSE)
    return Money(debit, CREDITS[terminal.state, terminal.effect])
