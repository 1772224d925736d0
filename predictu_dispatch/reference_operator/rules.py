"""The wallet's rules: what a callback does, decided from what the wallet holds. Pure: nothing is read or written here.

    BET_MAKE ──debit──▶ open ──┬─ BET_WIN ──────▶ won          credit, the callback's amount
                               ├─ BET_LOSE ─────▶ lost         no money
                               ├─ BET_SELL ─────▶ sold         credit, the callback's amount
                               ├─ BET_REFUND ───▶ refunded     credit, the debit's amount
                               └─ BET_ROLLBACK ─▶ rolled_back  credit, the debit's amount
    BET_ROLLBACK of a debit never seen ─────────▶ never_placed no money, and none ever: the tombstone

A bet ends once. Everything else is a refusal, and a refusal moves nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from .answer import Status
from .callback import Callback, Method
from .money import SUBUNITS_MAX


class BetState(StrEnum):
    """Where a bet is; all but `open` are final."""

    OPEN = "open"
    WON = "won"
    LOST = "lost"
    SOLD = "sold"
    REFUNDED = "refunded"
    ROLLED_BACK = "rolled_back"
    NEVER_PLACED = "never_placed"


_ENDS_AS = {
    Method.BET_WIN: BetState.WON,
    Method.BET_LOSE: BetState.LOST,
    Method.BET_SELL: BetState.SOLD,
    Method.BET_REFUND: BetState.REFUNDED,
    Method.BET_ROLLBACK: BetState.ROLLED_BACK,
}
_PAYS_OUT = frozenset({Method.BET_WIN, Method.BET_SELL})
_GIVES_BACK = frozenset({Method.BET_REFUND, Method.BET_ROLLBACK})


@dataclass(frozen=True, slots=True, kw_only=True)
class Bet:
    """A bet as the wallet holds it; `ended_by` is the request_id of the callback that ended it."""

    bet_id: str
    debit_request_id: str
    player_id: str
    currency: str
    amount: int
    state: BetState
    ended_by: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruling:
    """What a callback does.

    `delta` is what is booked to the balance, None where no transaction is booked at all. `bet` is the bet as it stands
    afterwards, None where it stays. A `final` answer is given again to every repetition of the request_id; others are
    judged afresh. `with_balance` says whether the answer tells the balance.
    """

    status: Status
    http_status: int = 200
    message: str = ""
    delta: int | None = None
    bet: Bet | None = None
    final: bool = False
    with_balance: bool = False


def rule(callback: Callback, *, bets: Sequence[Bet], balance: int | None) -> Ruling:
    """The ruling on a callback that was not decided before.

    `bets` are those the callback could mean: first the one with its bet_id, then the one whose debit has the
    request_id it speaks of. `balance` is that of the wallet concerned, None if there is no such wallet.
    """
    match callback.method:
        case Method.PING:
            return Ruling(status=Status.OK)
        case Method.BALANCE:
            return _no_such_player(callback) if balance is None else Ruling(status=Status.OK, with_balance=True)
        case Method.BET_MAKE:
            # Every answer to a placement is final: the player may have been told, so a retry must not hear another.
            return replace(_place(callback, bets, balance), final=True)
        case Method.BET_ROLLBACK if not bets:
            return _never_placed(callback)
        case _:
            return _end(callback, bets, balance)


def _place(callback: Callback, bets: Sequence[Bet], balance: int | None) -> Ruling:
    if any(bet.state is BetState.NEVER_PLACED for bet in bets):
        return Ruling(
            status=Status.BET_ROLLED_BACK,
            http_status=409,
            message="this bet was rolled back before its debit arrived; nothing was debited",
        )
    if bets:
        return Ruling(
            status=Status.BET_ALREADY_PLACED,
            http_status=409,
            message=f"bet {bets[0].bet_id} was placed by request {bets[0].debit_request_id}",
        )
    if balance is None:
        return _no_such_player(callback)
    if balance < callback.amount:
        return Ruling(
            status=Status.INSUFFICIENT_FUNDS, message=f"the debit is {callback.amount} subunits", with_balance=True
        )
    bet = Bet(
        bet_id=callback.bet_id,
        debit_request_id=callback.request_id,
        player_id=callback.player_id,
        currency=callback.currency,
        amount=callback.amount,
        state=BetState.OPEN,
        ended_by=None,
    )
    return Ruling(status=Status.OK, delta=-callback.amount, bet=bet, with_balance=True)


def _never_placed(callback: Callback) -> Ruling:
    """Nothing to reverse, and a tombstone, so that this stays true: the debit may still be on its way."""
    tombstone = Bet(
        bet_id=callback.bet_id,
        debit_request_id=callback.rollback_of,
        player_id=callback.player_id,
        currency=callback.currency,
        amount=callback.amount,
        state=BetState.NEVER_PLACED,
        ended_by=callback.request_id,
    )
    return Ruling(
        status=Status.TRANSACTION_NOT_FOUND,
        http_status=404,
        message=f"no debit {callback.rollback_of} was ever seen here, and none will be taken any more",
        bet=tombstone,
        final=True,
    )


def _end(callback: Callback, bets: Sequence[Bet], balance: int | None) -> Ruling:
    if not bets:
        return Ruling(
            status=Status.BET_NOT_FOUND, http_status=404, message=f"bet {callback.bet_id} was never placed here"
        )
    mismatch = _mismatch(callback, bets)
    if mismatch:
        return Ruling(status=Status.BET_MISMATCH, http_status=422, message=mismatch)
    bet = bets[0]
    if bet.state is not BetState.OPEN:
        return Ruling(
            status=Status.BET_ALREADY_SETTLED,
            http_status=409,
            message=f"bet {bet.bet_id} is {bet.state} by request {bet.ended_by}",
        )
    if balance is None:
        return _no_such_player(callback)
    credit = callback.amount if callback.method in _PAYS_OUT else bet.amount if callback.method in _GIVES_BACK else 0
    if balance + credit > SUBUNITS_MAX:
        return Ruling(
            status=Status.WALLET_LIMIT,
            http_status=422,
            message=f"the balance would be above {SUBUNITS_MAX} subunits",
            with_balance=True,
        )
    ended = replace(bet, state=_ENDS_AS[callback.method], ended_by=callback.request_id)
    return Ruling(status=Status.OK, delta=credit, bet=ended, final=True, with_balance=True)


def _mismatch(callback: Callback, bets: Sequence[Bet]) -> str:
    """In words, what of the callback contradicts the bet; empty where all agrees."""
    bet = bets[0]
    if callback.method is Method.BET_ROLLBACK and bet.debit_request_id != callback.rollback_of:
        return f"bet {bet.bet_id} was placed by {bet.debit_request_id}, not by {callback.rollback_of}"
    if bet.bet_id != callback.bet_id:
        return f"request {bet.debit_request_id} placed bet {bet.bet_id}, not {callback.bet_id}"
    if bet.player_id != callback.player_id:
        return f"bet {bet.bet_id} belongs to another player"
    if callback.currency not in ("", bet.currency):
        return f"bet {bet.bet_id} is in {bet.currency}, not in {callback.currency}"
    if callback.method in _GIVES_BACK and callback.amount != bet.amount:
        return f"the debit of bet {bet.bet_id} was {bet.amount} subunits, not {callback.amount}"
    return ""


def _no_such_player(callback: Callback) -> Ruling:
    return Ruling(
        status=Status.PLAYER_NOT_FOUND,
        http_status=404,
        message=f"there is no wallet in {callback.currency} for this player",
    )
