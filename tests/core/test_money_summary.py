"""What became of a bet's money is decided for every state of its callbacks."""

import itertools
from datetime import UTC, datetime

import pytest

from predictu_dispatch.commands.money_line import money_line
from predictu_dispatch.core.callback import Effect
from predictu_dispatch.core.lifecycle import FINAL, BetState, CallbackState
from predictu_dispatch.core.methods import TERMINALS, Method
from predictu_dispatch.core.money_summary import CREDITS, Credit, Debit, Step, debit_of, money_of

_S, _E = CallbackState, Effect
DEBITS = {
    (_S.READY, _E.NONE): Debit.PENDING,
    (_S.IN_FLIGHT, _E.NONE): Debit.PENDING,
    (_S.READY, _E.UNKNOWN): Debit.UNKNOWN,
    (_S.IN_FLIGHT, _E.UNKNOWN): Debit.UNKNOWN,
    (_S.DELIVERED, _E.APPLIED): Debit.DEBITED,
    (_S.REJECTED, _E.NONE): Debit.NEVER,
    (_S.EXHAUSTED, _E.NONE): Debit.NEVER,
    (_S.CANCELLED, _E.NONE): Debit.NEVER,
    (_S.REJECTED, _E.UNKNOWN): Debit.UNKNOWN,
    (_S.EXHAUSTED, _E.UNKNOWN): Debit.UNKNOWN,
}
"""Every state and effect that a placement may have."""
TERMINAL_STATES = {
    (_S.WAITING, _E.NONE): Credit.WAITING,
    (_S.READY, _E.NONE): Credit.PENDING,
    (_S.IN_FLIGHT, _E.NONE): Credit.PENDING,
    (_S.READY, _E.UNKNOWN): Credit.UNKNOWN_PENDING,
    (_S.IN_FLIGHT, _E.UNKNOWN): Credit.UNKNOWN_PENDING,
    (_S.DELIVERED, _E.APPLIED): Credit.CONFIRMED,
    (_S.REJECTED, _E.NONE): Credit.FAILED,
    (_S.EXHAUSTED, _E.NONE): Credit.FAILED,
    (_S.REJECTED, _E.UNKNOWN): Credit.UNKNOWN,
    (_S.EXHAUSTED, _E.UNKNOWN): Credit.UNKNOWN,
    (_S.CANCELLED, _E.NONE): Credit.NONE,
}
"""Every state and effect that a terminal callback may have, but for nothing_to_reverse."""
ALL = tuple(itertools.product(CallbackState, Effect))
AT = datetime(2026, 11, 28, 10, tzinfo=UTC)


@pytest.mark.parametrize(("state", "effect"), DEBITS)
def test_a_placement_decides_about_the_debit(state: CallbackState, effect: Effect) -> None:
    assert debit_of(Step(Method.BET_MAKE, state, effect)) is DEBITS[state, effect]


def test_an_adopted_bet_was_debited_before() -> None:
    assert debit_of(None) is Debit.ADOPTED


@pytest.mark.parametrize(("state", "effect"), TERMINAL_STATES)
@pytest.mark.parametrize("method", sorted(TERMINALS))
def test_a_terminal_callback_decides_about_the_credit(method: Method, state: CallbackState, effect: Effect) -> None:
    placement = Step(Method.BET_MAKE, _S.DELIVERED, _E.APPLIED)
    assert money_of(placement, Step(method, state, effect)) == (Debit.DEBITED, TERMINAL_STATES[state, effect])


@pytest.mark.parametrize(
    ("effect", "debit"), [(_E.NONE, Debit.PENDING), (_E.UNKNOWN, Debit.NEVER), (_E.APPLIED, Debit.DEBITED)]
)
def test_nothing_to_reverse_settles_an_unknown_debit_and_no_confirmed_one(effect: Effect, debit: Debit) -> None:
    placement = Step(Method.BET_MAKE, _S.READY, effect)
    answer = Step(Method.BET_ROLLBACK, _S.DELIVERED, _E.UNKNOWN, is_nothing_to_reverse=True)
    assert money_of(placement, answer) == (debit, Credit.NOTHING_TO_REVERSE)


def test_the_table_is_complete() -> None:
    assert set(CREDITS) == set(ALL)


def _row(
    bet_state: BetState,
    placement: tuple[CallbackState, Effect] | None,
    terminal: tuple[Method, CallbackState, Effect, str | None] | None,
    *,
    in_review: bool,
) -> dict[str, object]:
    row: dict[str, object] = dict.fromkeys(
        f"{prefix}_{name}"
        for prefix in ("placement", "terminal")
        for name in ["state", "effect", "reason", "operator_status", "finished_at", "unknown_since"]
    )
    row |= {"operator_id": "op", "bet_id": "b", "bet_state": bet_state, "currency": "EUR", "minor_digits": 2}
    row |= {"stake": 641, "placed_at": AT, "terminal_method": None, "terminal_amount": 569, "others_in_review": None}
    row |= {"terminal_review_since": AT if in_review else None, "terminal_created_at": AT}
    if placement is not None:
        row |= {"placement_state": placement[0], "placement_effect": placement[1]}
        row |= {"placement_finished_at": AT if placement[0] in FINAL else None}
    if terminal is not None:
        method, state, effect, reason = terminal
        row |= {"terminal_method": method, "terminal_state": state, "terminal_effect": effect}
        row |= {"terminal_reason": reason, "terminal_finished_at": AT if state in FINAL else None}
    return row


@pytest.mark.parametrize("bet_state", BetState)
@pytest.mark.parametrize("placement", [None, *ALL])
def test_every_combination_has_a_line_that_claims_only_what_is_known(
    bet_state: BetState, placement: tuple[CallbackState, Effect] | None
) -> None:
    """Also the combinations that the database refuses, because a screen must not fail on them."""
    terminals = [
        (method, state, effect, reason)
        for method in sorted(TERMINALS)
        for state, effect in ALL
        for reason in (None, "nothing_to_reverse")
    ]
    for terminal, in_review in itertools.product([None, *terminals], [False, True]):
        line = money_line(_row(bet_state, placement, terminal, in_review=in_review))
        case = (placement, terminal, line)
        is_debited = placement is None or _S.DELIVERED in placement or _E.APPLIED in placement
        assert line.startswith("debited 6.41 EUR") == is_debited, case
        ends_unknown = terminal is not None and terminal[1] is _S.DELIVERED
        if placement is not None and not is_debited and placement[1] is _E.UNKNOWN and not ends_unknown:
            assert "unknown" in line, case
        if line.startswith("never charged"):
            assert placement is not None, case
            assert placement[1] is _E.NONE or (terminal is not None and terminal[3] is not None), case
        is_confirmed = terminal is not None and (terminal[1] is _S.DELIVERED or terminal[2] is _E.APPLIED)
        if any(f"{word} 5.69 EUR" in line for word in ("paid", "refunded", "rolled back,")):
            assert is_confirmed, case
            assert terminal is not None, case
            assert terminal[3] is None or terminal[1] is not _S.DELIVERED, case


@pytest.mark.parametrize(
    ("placement", "terminal", "line"),
    [
        ((_S.DELIVERED, _E.APPLIED), None, "debited 6.41 EUR at {at}, the bet has not ended"),
        (
            (_S.DELIVERED, _E.APPLIED),
            (Method.BET_WIN, _S.DELIVERED, _E.APPLIED, None),
            "debited 6.41 EUR at {at}, paid 5.69 EUR at {at}",
        ),
        (
            (_S.DELIVERED, _E.APPLIED),
            (Method.BET_LOSE, _S.DELIVERED, _E.APPLIED, None),
            "debited 6.41 EUR at {at}, lost at {at}, nothing to pay",
        ),
        (
            (_S.DELIVERED, _E.APPLIED),
            (Method.BET_SELL, _S.READY, _E.UNKNOWN, None),
            "debited 6.41 EUR at {at}, outcome of the sale of 5.69 EUR unknown since {at}, being retried",
        ),
        (
            (_S.DELIVERED, _E.APPLIED),
            (Method.BET_WIN, _S.REJECTED, _E.NONE, "max_attempts"),
            "debited 6.41 EUR at {at}, 5.69 EUR not paid: all attempts were used; needs manual review",
        ),
        (
            (_S.DELIVERED, _E.APPLIED),
            (Method.BET_ROLLBACK, _S.DELIVERED, _E.APPLIED, None),
            "debited 6.41 EUR at {at}, rolled back, 5.69 EUR returned at {at}",
        ),
        (
            (_S.DELIVERED, _E.APPLIED),
            (Method.BET_ROLLBACK, _S.DELIVERED, _E.NONE, "nothing_to_reverse"),
            "debited 6.41 EUR at {at}, the operator had nothing to return at {at}; needs manual review",
        ),
        ((_S.EXHAUSTED, _E.NONE), None, "never charged"),
        ((_S.IN_FLIGHT, _E.NONE), None, "not charged yet: the debit of 6.41 EUR is being sent"),
        (
            (_S.READY, _E.UNKNOWN),
            None,
            "outcome unknown since {at}: the debit of 6.41 EUR may have been applied and is retried",
        ),
        (
            (_S.EXHAUSTED, _E.UNKNOWN),
            (Method.BET_ROLLBACK, _S.READY, _E.NONE, None),
            "outcome unknown since {at}: the debit of 6.41 EUR may have been applied, being rolled back (5.69 EUR)",
        ),
        (
            (_S.EXHAUSTED, _E.UNKNOWN),
            (Method.BET_ROLLBACK, _S.DELIVERED, _E.APPLIED, None),
            "the outcome of the debit of 6.41 EUR was unknown, rolled back, 5.69 EUR returned at {at}",
        ),
        (
            (_S.EXHAUSTED, _E.UNKNOWN),
            (Method.BET_ROLLBACK, _S.DELIVERED, _E.NONE, "nothing_to_reverse"),
            "never charged: the operator had no debit to return (confirmed at {at})",
        ),
        (
            None,
            (Method.BET_WIN, _S.DELIVERED, _E.APPLIED, None),
            "debited 6.41 EUR before this system existed (adopted at {at}), paid 5.69 EUR at {at}",
        ),
    ],
)
def test_the_line_of_each_path(
    placement: tuple[CallbackState, Effect] | None,
    terminal: tuple[Method, CallbackState, Effect, str | None] | None,
    line: str,
) -> None:
    found = money_line(_row(BetState.CLOSING, placement, terminal, in_review=True))
    assert found == line.format(at="2026-11-28T10:00:00.000Z")
