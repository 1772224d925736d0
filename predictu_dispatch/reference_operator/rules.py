"""The wallet's rules: decide what a callback does from the state of the wallet. Pure, no database.

    BET_MAKE ──debit──▶ open ──┬─ BET_WIN ──────▶ won          credit, the callback's amount
                               ├─ BET_LOSE ─────▶ lost         no money
                               ├─ BET_SELL ─────▶ sold         credit, the callback's amount
                               ├─ BET_REFUND ───▶ refunded     credit, the debit's amount
                               └─ BET_ROLLBACK ─▶ rolled_back  credit, the debit's amount
    BET_ROLLBACK of an unknown debit ───────────▶ never_placed tombstone: no money now or later

A bet ends once. Everything else is refused, and a refused callback moves no money.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import StrEnum

from .answer import Status
from .callback import Callback, Method
from .money import SUBUNITS_MAX


class BetState(StrEnum):
    """The state of a bet; all but `open` are final."""

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
    """A bet in the wallet; `ended_by` is the request_id of the callback that ended it."""

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

    `delta` is booked to the balance; None: no transaction. `bet` is the bet's new state; None:
    unchanged. A `final` answer is repeated for every repetition of the request_id; otherwise a
    repetition is decided again. `with_balance`: the answer has the balance.
    """

    status: Status
    http_status: int = 200
    message: str = ""
    delta: int | None = None
    bet: Bet | None = None
    final: bool = False
    with_balance: bool = False


def rule(callback: Callback, *, bets: Sequence[Bet], balance: int | None) -> Ruling:
    """Returns the ruling on a callback without a final answer.

    `bets`: first the one with its bet_id, then the one with the debit's request_id that it names.
    `balance` is None if the player has no wallet.
    """
    match callback.method:
        case Method.PING:
            return Ruling(status=Status.OK)
        case Method.BALANCE:
            return _no_such_player(callback) if balance is None else Ruling(status=Status.OK, with_balance=True)
        case Method.BET_MAKE:
            # Final even if refused: the player may know the answer, so a retry must get the same.
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
    """Leaves a tombstone: the debit may still arrive, and must then be refused."""
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
        message=f"debit {callback.rollback_of} is unknown, and will be refused if it arrives",
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
    """Returns how the callback contradicts the bet; "" if it does not."""
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
