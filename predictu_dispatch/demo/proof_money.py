"""The money: what every bet has come to for Predictu, against what every wallet and ledger says it came to."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from predictu_dispatch.demo.books import Booking, CallbackRow, OperatorBook, PredictuBooks
from predictu_dispatch.demo.check import Check, units
from predictu_dispatch.demo.paths import Story, stories

_PAYOUTS: Final = frozenset({"BET_WIN", "BET_SELL"})
_RETURNS: Final = frozenset({"BET_REFUND", "BET_ROLLBACK"})


def money_checks(
    predictu: PredictuBooks, operators: Sequence[OperatorBook], opening: Mapping[str, Mapping[str, int]]
) -> Iterator[Check]:
    """Wallet by wallet, bet by bet, booking by booking; `opening` are the players' first balances by operator."""
    told = stories(predictu)
    for operator in operators:
        yield _wallet_check(operator, opening[operator.operator_id], told)
    yield _bet_check(operators, told)
    yield _booking_check(predictu, operators, told)
    yield _terminal_check(operators, predictu)


def believed(story: Story) -> tuple[int, int]:
    """The debit and the credit that Predictu believes this bet has come to, in subunits."""
    stake, ending = story.bet.amount, story.ending
    if story.bet.state == "void":
        return 0, 0
    if ending is None or ending.state != "delivered":
        return (stake if story.placement is None or story.placed("delivered") else 0), 0
    if ending.method in _PAYOUTS:
        return stake, ending.amount or 0
    if ending.method in _RETURNS:
        return (0, 0) if ending.reason == "nothing_to_reverse" else (stake, stake)
    return stake, 0


def _wallet_check(operator: OperatorBook, opening: Mapping[str, int], told: list[Story]) -> Check:
    """Player by player: what a wallet lost is what was debited less what was credited."""
    debits, credits_ = Counter[str](), Counter[str]()
    for story in told:
        if story.bet.operator_id == operator.operator_id:
            debit, credit = believed(story)
            debits[story.bet.player_id] += debit
            credits_[story.bet.player_id] += credit
    faults = []
    for player_id in sorted({*opening, *operator.balances, *(+debits), *(+credits_)}):
        expected = opening.get(player_id, 0) - debits[player_id] + credits_[player_id]
        found = operator.balances.get(player_id, 0)
        if found != expected:
            faults.append(f"{operator.operator_id} {player_id}: the wallet holds {units(found)}, not {units(expected)}")
    first, last = sum(opening.values()), sum(operator.balances.values())
    return Check(
        name=f"{operator.operator_id}: opening - closing = debits - credits",
        rows=min(len(operator.balances), len(operator.bookings)),
        figures=(
            f"{units(first)} - {units(last)} = {units(first - last)}; "
            f"{units(debits.total())} - {units(credits_.total())} = {units(debits.total() - credits_.total())}"
        ),
        faults=tuple(faults),
    )


def _bet_check(operators: Sequence[OperatorBook], told: list[Story]) -> Check:
    """Bet by bet: the ledger's movement is what the bet's state says."""
    ledger = Counter[tuple[str, str]]()
    for operator in operators:
        for booking in operator.bookings:
            ledger[operator.operator_id, booking.bet_id] += booking.amount
    states = Counter(story.bet.state for story in told)
    faults = []
    for story in told:
        key = (story.bet.operator_id, story.bet.bet_id)
        debit, credit = believed(story)
        if (found := ledger.pop(key, 0)) != credit - debit:
            faults.append(
                f"{key[0]} {key[1]} ({story.bet.state}): ledger {units(found)}, Predictu {units(credit - debit)}"
            )
        if story.placement is not None and story.placement.amount != story.bet.amount:
            faults.append(f"{key[0]} {key[1]}: its stake is {units(story.bet.amount)}, its BET_MAKE says another")
    faults += [f"{operator_id} {bet_id}: in the ledger, unknown to Predictu" for operator_id, bet_id in ledger]
    return Check(
        name="every bet moved the ledger by what its state says",
        rows=len(told),
        figures=", ".join(f"{count} {state}" for state, count in sorted(states.items())),
        faults=tuple(faults),
    )


def _booking_check(predictu: PredictuBooks, operators: Sequence[OperatorBook], told: list[Story]) -> Check:
    """What was delivered is booked exactly once, as it was sent; what else is booked is known and was given back."""
    booked: dict[tuple[str, str], list[Booking]] = defaultdict(list)
    for operator in operators:
        for booking in operator.bookings:
            booked[operator.operator_id, booking.request_id].append(booking)
    stakes = {(story.bet.operator_id, story.bet.bet_id): story.bet.amount for story in told}
    delivered = [callback for callback in predictu.callbacks if _must_be_booked(callback)]
    faults = []
    for callback in delivered:
        found = booked.pop((callback.operator_id, callback.request_id), [])
        sent = _effect_of(callback, stakes.get((callback.operator_id, callback.bet_id or ""), 0))
        if [(b.method, b.bet_id, b.amount) for b in found] != [(callback.method, callback.bet_id, sent)]:
            amounts = ", ".join(f"{b.method} {units(b.amount)}" for b in found) or "nothing"
            faults.append(
                f"{callback.operator_id} {callback.bet_id}: {callback.method} {callback.request_id} "
                f"of {units(sent)} is delivered, booked is {amounts}"
            )
    # A debit whose answer was lost may stand beside the rollback that gave it back; others placed the adopted ones.
    given_back = {
        (story.bet.operator_id, story.bet.placement_request_id): -story.bet.amount
        for story in told
        if story.placement is None or believed(story) == (story.bet.amount, story.bet.amount)
    }
    unexplained = [key for key, found in booked.items() if [b.amount for b in found] != [given_back.get(key)]]
    faults += [
        f"{operator_id} {booking.bet_id}: {booking.method} {request_id} of {units(booking.amount)} is booked "
        "and Predictu does not believe it"
        for operator_id, request_id in unexplained
        for booking in booked[operator_id, request_id]
    ]
    bookings = sum(len(operator.bookings) for operator in operators)
    return Check(
        name="every delivered callback of a bet is booked once, and nothing else is",
        rows=len(delivered),
        figures=f"{len(delivered)} delivered + {len(booked)} given back or adopted = {bookings} booked",
        faults=tuple(faults),
    )


def _must_be_booked(callback: CallbackRow) -> bool:
    return callback.bet_id is not None and callback.state == "delivered" and callback.reason != "nothing_to_reverse"


def _effect_of(callback: CallbackRow, stake: int) -> int:
    """What a delivered callback does to the balance, in subunits."""
    if callback.method == "BET_MAKE":
        return -stake
    return 0 if callback.method == "BET_LOSE" else callback.amount or 0


def _terminal_check(operators: Sequence[OperatorBook], predictu: PredictuBooks) -> Check:
    """Counted at the operators and in what was ever sent."""
    ended = Counter(
        (operator.operator_id, booking.bet_id)
        for operator in operators
        for booking in operator.bookings
        if booking.method != "BET_MAKE"
    )
    sent = Counter(
        (callback.operator_id, callback.bet_id or "")
        for callback in predictu.callbacks
        if callback.bet_id is not None and callback.method != "BET_MAKE" and callback.attempts > 0
    )
    return Check(
        name="no bet has two terminals",
        rows=len(ended),
        figures=f"{ended.total()} booked for {len(ended)} bets, {sent.total()} sent for {len(sent)} bets",
        faults=tuple(
            f"{operator_id} {bet_id}: {ended[operator_id, bet_id]} terminals booked, {sent[operator_id, bet_id]} sent"
            for operator_id, bet_id in sorted(ended | sent)
            if max(ended[operator_id, bet_id], sent[operator_id, bet_id]) > 1
        ),
    )
