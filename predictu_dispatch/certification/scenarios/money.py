"""Scenarios about the money that each callback moves."""

from __future__ import annotations

from typing import Final

from predictu_dispatch.certification.balance_expectations import BalanceInAnswer, Moved, MovedAsAnswered
from predictu_dispatch.certification.expectations import (
    confirmed,
    known_or_refused,
    not_confirmed,
    refused,
)
from predictu_dispatch.certification.repetition_expectations import AtMostOneConfirmed
from predictu_dispatch.certification.scenario import Group, Scenario
from predictu_dispatch.certification.scenarios.sends import BET, STAKE, WIN, debit, loss, refund, sale, win
from predictu_dispatch.certification.steps import BEFORE, AboveBalance, AtOnce, Read, Send
from predictu_dispatch.core.methods import Method

_DEBITED: Final = "debited"
_ODD: Final = (1, 29, 57, 58, 115, 435)
"""Amounts that a detour over floating point makes one subunit too small: int(0.29 * 100) is 28."""
_SOLD_FOR: Final = 350

SCENARIOS: Final = (
    Scenario(
        id="money-balance",
        group=Group.MONEY,
        title="BALANCE answers the balance in the agreed format",
        why="If 95000 means 95,000.00 EUR to one side and 950.00 EUR to the other, every stake is a hundred times too"
        " large or too small.",
        steps=(
            Send(name="balance", method=Method.BALANCE),
            Send(name="second-balance", method=Method.BALANCE),
        ),
        expectations=(
            confirmed("balance", "second-balance"),
            BalanceInAnswer(of="balance", reading=BEFORE),
            BalanceInAnswer(of="second-balance"),
            Moved(by=0),
        ),
        fix="Answer balance as a JSON number in the agreed amount_format, never as a string.",
    ),
    Scenario(
        id="money-debit",
        group=Group.MONEY,
        title="A debit takes exactly its amount, before its answer",
        why="Your answer places the bet. If the debit of 5.00 EUR is booked later or with another amount, the player"
        " can spend the money twice.",
        steps=(debit(),),
        expectations=(confirmed("debit"), Moved(by=-STAKE), BalanceInAnswer(of="debit")),
        fix="Book in one database transaction and commit it. Only then answer, with the balance after the booking.",
    ),
    Scenario(
        id="money-odd-amounts",
        group=Group.MONEY,
        title="Amounts such as 0.29 and 1.15 are exact",
        why="0.29 times 100 as floating point is 28.999999999999996. One cent lost in each of a million bets is"
        " 10,000.00 EUR.",
        steps=(
            *(debit(f"debit-of-{amount}", bet=f"bet-{amount}", amount=amount) for amount in _ODD),
            Read(name=_DEBITED),
            *(refund(f"refund-of-{amount}", bet=f"bet-{amount}", amount=amount) for amount in _ODD),
        ),
        expectations=(
            confirmed(*(f"{kind}-of-{amount}" for kind in ("debit", "refund") for amount in _ODD)),
            Moved(by=-sum(_ODD), until=_DEBITED),
            Moved(by=0),
            BalanceInAnswer(of=f"refund-of-{_ODD[-1]}"),
        ),
        fix="Keep money as whole subunits or as decimals, never as floating point.",
    ),
    Scenario(
        id="money-insufficient-funds",
        group=Group.MONEY,
        title="A debit above the balance is rejected",
        why="A debit above the balance is a bet with your money: if it wins, you pay 50.00 EUR for a stake that nobody"
        " paid.",
        steps=(debit(amount=AboveBalance(by=1)),),
        expectations=(refused("debit"), Moved(by=0)),
        fix="Answer INSUFFICIENT_FUNDS with an HTTP code below 500. A 500 is repeated, and counts as an outage.",
    ),
    Scenario(
        id="money-large-amount",
        group=Group.MONEY,
        title="An amount above 32 bits is not truncated",
        why="In 32 bits, 4,294,967,396 cents become 100. A debit of 42,949,673.96 EUR is then confirmed and takes 1.00"
        " EUR.",
        steps=(debit(amount=AboveBalance(by=2**32)),),
        expectations=(not_confirmed("debit"), Moved(by=0)),
        fix="Keep amounts in 64 bits, from the parser to the database.",
    ),
    Scenario(
        id="money-at-once-beyond-balance",
        group=Group.MONEY,
        title="Two debits at once do not overdraw the balance",
        why="Two bets of 90.00 EUR at the same moment on a balance of 100.00 EUR: if both are booked, the balance is"
        " -80.00 EUR, which nobody pays.",
        steps=(
            AtOnce(
                sends=(
                    debit("first-debit", bet="first", amount=AboveBalance(by=-100)),
                    debit("second-debit", bet="second", amount=AboveBalance(by=-100)),
                )
            ),
        ),
        expectations=(
            AtMostOneConfirmed(of=("first-debit", "second-debit")),
            MovedAsAnswered(of=("first-debit", "second-debit")),
        ),
        fix="Check the funds in the statement that debits, such as update … where balance >= amount, or lock the row.",
    ),
    Scenario(
        id="money-win",
        group=Group.MONEY,
        title="A win credits exactly its amount",
        why="The amount of a win includes the stake. If you add or subtract the stake, each win of 7.00 EUR is wrong"
        " by 5.00 EUR.",
        steps=(debit(), Read(name=_DEBITED), win()),
        expectations=(
            confirmed("debit", "win"),
            Moved(by=-STAKE, until=_DEBITED),
            Moved(by=WIN, since=_DEBITED),
            BalanceInAnswer(of="win"),
        ),
        fix="Credit the amount of BET_WIN as it is.",
    ),
    Scenario(
        id="money-zero-win",
        group=Group.MONEY,
        title="A win or a sale of 0 ends the bet",
        why="A win of 0.00 EUR is possible. If you refuse it, the bet stays open in your books until a person ends it.",
        steps=(debit(), win(amount=0), debit("sold-debit", bet="sold", amount=1), sale(bet="sold", amount=0)),
        expectations=(confirmed("debit", "win", "sold-debit", "sale"), Moved(by=-STAKE - 1)),
        fix="Accept an amount of 0 for BET_WIN and BET_SELL.",
    ),
    Scenario(
        id="money-sale",
        group=Group.MONEY,
        title="A sale credits its amount",
        why="A player who sells a position of 5.00 EUR for 3.50 EUR is owed 3.50 EUR.",
        steps=(debit(), Read(name=_DEBITED), sale(amount=_SOLD_FOR)),
        expectations=(
            confirmed("debit", "sale"),
            Moved(by=_SOLD_FOR, since=_DEBITED),
            BalanceInAnswer(of="sale"),
        ),
        fix="Book BET_SELL as BET_WIN: credit its amount, and end the bet.",
    ),
    Scenario(
        id="money-loss",
        group=Group.MONEY,
        title="A loss moves no money",
        why="The stake was debited with the bet. A loss that debits again takes 5.00 EUR too much; a loss that credits"
        " gives 5.00 EUR away.",
        steps=(debit(), Read(name=_DEBITED), loss()),
        expectations=(
            confirmed("debit", "loss"),
            Moved(by=-STAKE, until=_DEBITED),
            Moved(by=0, since=_DEBITED),
        ),
        fix="End the bet, and book nothing. BET_LOSE has neither currency nor amount.",
    ),
    Scenario(
        id="money-refund",
        group=Group.MONEY,
        title="A refund gives the debit back once",
        why="A refund of 5.00 EUR that credits twice, or adds the amount to the stake, gives 5.00 EUR away for each bet"
        " of a cancelled market.",
        steps=(debit(), Read(name=_DEBITED), refund()),
        expectations=(
            confirmed("debit", "refund"),
            Moved(by=STAKE, since=_DEBITED),
            BalanceInAnswer(of="refund"),
        ),
        fix="Credit the whole debit once, and end the bet.",
    ),
    Scenario(
        id="money-unknown-player",
        group=Group.MONEY,
        title="An unknown player cannot bet",
        why="If a debit creates an unknown player with credit or a negative balance, a wrong player id is a bet of 5.00"
        " EUR that nobody pays. An HTTP 500 counts as an outage, and outages stop the bets of all players.",
        steps=(
            Send(name="balance", method=Method.BALANCE, is_unknown_player=True),
            Send(name="debit", method=Method.BET_MAKE, bet=BET, amount=STAKE, is_unknown_player=True),
        ),
        expectations=(known_or_refused("balance"), refused("debit"), Moved(by=0)),
        fix="Answer PLAYER_NOT_FOUND, or create the player with a balance of 0 and answer INSUFFICIENT_FUNDS. Use an"
        " HTTP code below 500.",
    ),
    Scenario(
        id="money-other-currency",
        group=Group.MONEY,
        title="A debit in another currency is not booked",
        why="500 subunits of one currency are not worth 500 of another: a debit of 500 JPY that is booked as 5.00 EUR"
        " takes about 2.00 EUR too much.",
        steps=(Send(name="debit", method=Method.BET_MAKE, bet=BET, amount=STAKE, currency="XTS"),),
        expectations=(not_confirmed("debit"), Moved(by=0)),
        fix="Compare the currency with the wallet's, and reject another one, such as with PLAYER_NOT_FOUND. XTS is the"
        " code that ISO 4217 keeps for tests.",
    ),
)
