"""Makes the requests that most scenarios have. Amounts are in subunits."""

from __future__ import annotations

from typing import Final

from predictu_dispatch.certification.steps import AboveBalance, Delivery, Send, TokenFault
from predictu_dispatch.core.methods import Method

STAKE: Final = 500
"""The usual debit."""
WIN: Final = 700
"""The usual win, which includes the stake."""
BET: Final = "bet"
"""The label of a scenario's only bet."""


def debit(
    name: str = "debit",
    *,
    bet: str = BET,
    amount: int | AboveBalance = STAKE,
    player: int = 0,
    token: TokenFault = TokenFault.NONE,
    delivery: Delivery = Delivery.COMPLETE,
) -> Send:
    """Return a placement."""
    return Send(
        name=name,
        method=Method.BET_MAKE,
        bet=bet,
        amount=amount,
        player=player,
        token=token,
        delivery=delivery,
    )


def win(name: str = "win", *, bet: str = BET, amount: int = WIN, delivery: Delivery = Delivery.COMPLETE) -> Send:
    """Return a win."""
    return Send(name=name, method=Method.BET_WIN, bet=bet, amount=amount, delivery=delivery)


def loss(name: str = "loss", *, bet: str = BET) -> Send:
    """Return a loss."""
    return Send(name=name, method=Method.BET_LOSE, bet=bet)


def sale(name: str = "sale", *, bet: str = BET, amount: int) -> Send:
    """Return the sale of a position."""
    return Send(name=name, method=Method.BET_SELL, bet=bet, amount=amount)


def refund(name: str = "refund", *, bet: str = BET, amount: int = STAKE, player: int = 0) -> Send:
    """Return a refund; its amount is the debit's."""
    return Send(name=name, method=Method.BET_REFUND, bet=bet, amount=amount, player=player)


def rollback(
    name: str = "rollback",
    *,
    of: str = "debit",
    bet: str = BET,
    amount: int = STAKE,
    delivery: Delivery = Delivery.COMPLETE,
) -> Send:
    """Return the rollback of the placement `of`, which may be sent later or never."""
    return Send(name=name, method=Method.BET_ROLLBACK, bet=bet, amount=amount, rollback_of=of, delivery=delivery)
