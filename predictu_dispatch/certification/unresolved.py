"""Says what is left of a run's bets that the operator did not let us undo. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from predictu_dispatch.certification.bookings import Booking
from predictu_dispatch.certification.books import Bet
from predictu_dispatch.certification.entries import OutcomeEntry
from predictu_dispatch.certification.observation import Outcome
from predictu_dispatch.certification.result import PlayerMoney
from predictu_dispatch.core.callback import Effect


def unresolved(bets: Iterable[Bet], players: Iterable[PlayerMoney], money: Callable[[int], str]) -> tuple[str, ...]:
    """Return one sentence for each bet that may still hold or have moved money.

    If a player has exactly the balance of before, a debit that was never confirmed is not booked.
    """
    whole = {player.player_id for player in players if player.net == 0}
    return tuple(sentence for bet in bets for sentence in _sentences(bet, money, is_whole=bet.player_id in whole))


def _sentences(bet: Bet, money: Callable[[int], str], *, is_whole: bool) -> Iterator[str]:
    # A refused debit is rolled back to be sure; if that fails, no answer says that it is booked.
    held = frozenset({Effect.APPLIED} if is_whole else {Effect.APPLIED, Effect.UNKNOWN})
    for placement in bet.to_roll_back:
        if placement.effect in held:
            yield (
                f"bet {bet.bet_id} of player {bet.player_id}: the rollback of {money(placement.amount)} was not"
                f" confirmed ({_why(bet.rollbacks_of(placement))}); ask the operator whether the debit"
                f" {placement.request.request_id} is booked, and to reverse it"
            )
            return
    is_credit_possible = not is_whole or any(each.effect is Effect.APPLIED for each in bet.placements)
    for end in bet.unknown_ends if is_credit_possible else ():
        yield (
            f"bet {bet.bet_id} of player {bet.player_id}: {end.request.method} of {money(end.amount)} has no definite"
            f" answer ({reason_of(end.last)}); ask the operator whether the request {end.request.request_id} is booked,"
            " and to reverse it"
        )
        return


def _why(rollbacks: tuple[Booking, ...]) -> str:
    return reason_of(rollbacks[-1].last) if rollbacks else "not sent in time"


def reason_of(outcome: OutcomeEntry | None) -> str:
    """Return what came of the last sending, in words."""
    if outcome is None:
        return "its outcome was never recorded"
    match outcome.outcome:
        case Outcome.NOT_SENT:
            return f"not sent: {outcome.reason}"
        case Outcome.NO_ANSWER:
            return f"no answer: {outcome.reason}"
        case Outcome.CONFIRMED:
            return f"confirmed with status {outcome.status}, but for another debit"
        case _:
            status = f", status {outcome.status}" if outcome.status else f", {outcome.reason}" if outcome.reason else ""
            return f"answer: HTTP {outcome.http_status}{status}"
