"""Scenarios about callbacks in an order that networks and faults make: each bet ends once."""

from __future__ import annotations

from typing import Final

from predictu_dispatch.certification.balance_expectations import Moved, MovedAsAnswered
from predictu_dispatch.certification.expectations import (
    confirmed,
    not_confirmed,
    preferably_first_answer,
    preferably_refused,
    refused,
    rolled_back,
    rolled_back_if_possible,
    rolled_back_or_put_off,
)
from predictu_dispatch.certification.repetition_expectations import AtMostOneConfirmed
from predictu_dispatch.certification.scenario import Group, Scenario
from predictu_dispatch.certification.scenarios.sends import BET, STAKE, WIN, debit, loss, refund, rollback, sale, win
from predictu_dispatch.certification.steps import RESUMED, AboveBalance, Again, AtOnce, Pause, Read, Send
from predictu_dispatch.core.methods import Method

_ROLLED_BACK: Final = "rolled-back"
_DEBITED: Final = "debited"
_PAIRS: Final = (1, 2, 3, 4)
_SMALL: Final = 100
_TINY: Final = 10
_CREDITS: Final = {"win": 15, "sale": 7, "loss": 0, "refund": _TINY, "rollback": _TINY}
_SECOND_ENDS: Final = (
    *(("win", second) for second in ("sale", "refund")),
    *(("sale", second) for second in ("win", "sale", "refund", "rollback")),
    *(("loss", second) for second in ("sale", "refund", "rollback")),
    *(("refund", second) for second in ("win", "sale", "refund", "rollback")),
    ("rollback", "sale"),
)
"""Two ends of one bet that move money, except the pairs that have a scenario of their own."""
_TOMBSTONE: Final = (
    "Answer TRANSACTION_NOT_FOUND, and store a tombstone: that the request_id in rollback_of was rolled back. Refuse"
    " that debit if it arrives later."
)
_ONE_END: Final = "Store the bet's state. Check and change it in the transaction that books, so that a bet ends once."


def _debit_and_rollback(number: int) -> tuple[Send, Send]:
    """Return the two, every second time in reverse order."""
    placing = debit(f"debit-{number}", bet=f"bet-{number}", amount=_SMALL)
    reversing = rollback(f"rollback-{number}", of=placing.name, bet=placing.bet, amount=_SMALL)
    return (placing, reversing) if number % 2 else (reversing, placing)


def _end(kind: str, name: str, *, bet: str, of: str) -> Send:
    match kind:
        case "win":
            return win(name, bet=bet, amount=_CREDITS[kind])
        case "sale":
            return sale(name, bet=bet, amount=_CREDITS[kind])
        case "loss":
            return loss(name, bet=bet)
        case "refund":
            return refund(name, bet=bet, amount=_TINY)
        case _:
            return rollback(name, of=of, bet=bet, amount=_TINY)


def _ended_twice(first: str, second: str) -> tuple[Send, ...]:
    """Return a debit and two ends of its bet."""
    bet = f"{first}-{second}"
    placing = debit(f"debit-{bet}", bet=bet, amount=_TINY)
    return (
        placing,
        _end(first, f"{first}-ahead-of-{second}", bet=bet, of=placing.name),
        _end(second, f"{second}-after-{first}", bet=bet, of=placing.name),
    )


SCENARIOS: Final = (
    Scenario(
        id="order-rollback-of-unknown",
        group=Group.ORDER,
        title="After the rollback of an unknown debit, the debit is not booked",
        why="If a debit gets no answer, Predictu rolls it back. If the debit arrives after that and you book it, the"
        " player has paid 5.00 EUR for a bet that does not exist, and nothing gives it back.",
        steps=(
            rollback(),
            Again(name="rollback-again", of="rollback"),
            Read(name=_ROLLED_BACK),
            debit(),
        ),
        expectations=(
            rolled_back("rollback", "rollback-again"),
            Moved(by=0, until=_ROLLED_BACK),
            preferably_refused("debit"),
            Moved(by=0, since=_ROLLED_BACK),
        ),
        fix=_TOMBSTONE,
    ),
    Scenario(
        id="order-rollback-of-unknown-twice",
        group=Group.ORDER,
        title="Two rollbacks of an unknown debit give nothing back",
        why="A bet may be rolled back by two requests. If the second one treats the tombstone of the first as a debit,"
        " you give away 5.00 EUR that you never took.",
        steps=(rollback(), rollback("second-rollback")),
        expectations=(rolled_back("rollback"), Moved(by=0)),
        fix=_TOMBSTONE,
    ),
    Scenario(
        id="order-rollback-of-rejected",
        group=Group.ORDER,
        title="The rollback of a rejected debit gives nothing back",
        why="If the answer INSUFFICIENT_FUNDS is lost, Predictu rolls the debit back. If you find the request and give"
        " back what was never taken, a player without money gets 5.00 EUR.",
        steps=(
            debit(amount=AboveBalance(by=100)),
            Send(
                name="rollback",
                method=Method.BET_ROLLBACK,
                bet=BET,
                amount=AboveBalance(by=100),
                rollback_of="debit",
            ),
        ),
        expectations=(refused("debit"), rolled_back_if_possible("rollback"), Moved(by=0)),
        fix="Give back what the bet's booking took, not what the request asked for. Answer TRANSACTION_NOT_FOUND if"
        " there is no booking.",
    ),
    Scenario(
        id="order-rollback-10-s-before-debit",
        group=Group.ORDER,
        title="The debit is still not booked 10 s after the rollback",
        why="A debit may wait in a queue of yours for longer than Predictu waits for its answer. If you book it after"
        " its rollback, you take 5.00 EUR for no bet.",
        steps=(rollback(), Read(name=_ROLLED_BACK), Pause(seconds=10), debit()),
        expectations=(
            rolled_back("rollback"),
            Moved(by=0, until=_ROLLED_BACK),
            preferably_refused("debit"),
            Moved(by=0, since=RESUMED),
        ),
        fix=_TOMBSTONE + " Keep it in the database as long as bets, not in a cache.",
    ),
    Scenario(
        id="order-rollback-beside-debit",
        group=Group.ORDER,
        title="A debit and its rollback at the same moment cancel out",
        why="A rollback can overtake a slow debit inside your system. If it finds nothing and you book the debit a"
        " moment later, the player has paid 1.00 EUR for a bet that does not exist.",
        steps=(
            AtOnce(sends=tuple(send for number in _PAIRS for send in _debit_and_rollback(number))),
            *(Again(name=f"rollback-{number}-again", of=f"rollback-{number}") for number in _PAIRS),
        ),
        expectations=(
            rolled_back_or_put_off(*(f"rollback-{number}" for number in _PAIRS)),
            rolled_back(*(f"rollback-{number}-again" for number in _PAIRS)),
            Moved(by=0),
        ),
        fix=_TOMBSTONE + " Let a unique key or a lock on the bet order the two.",
    ),
    Scenario(
        id="order-rollback-twice",
        group=Group.ORDER,
        title="Two rollbacks of one debit give it back once",
        why="If each rollback credits, you give 10.00 EUR back for a debit of 5.00 EUR.",
        steps=(debit(), rollback(), rollback("second-rollback")),
        expectations=(confirmed("debit"), rolled_back("rollback"), Moved(by=0)),
        fix=_ONE_END,
    ),
    Scenario(
        id="order-debit-after-rollback",
        group=Group.ORDER,
        title="A debit that was rolled back is not booked again",
        why="If you book a late copy of a debit that was rolled back, you take 5.00 EUR for a bet that does not exist.",
        steps=(debit(), rollback(), Again(name="debit-again", of="debit")),
        expectations=(
            confirmed("debit"),
            rolled_back("rollback"),
            preferably_first_answer("debit-again"),
            Moved(by=0),
        ),
        fix="Keep the bet and the debit's answer when you roll it back; delete neither.",
    ),
    Scenario(
        id="order-win-before-debit",
        group=Group.ORDER,
        title="A win of a bet that was never debited is not paid",
        why="You pay 7.00 EUR for a bet without a stake.",
        steps=(win(), Read(name="won"), debit(), Read(name=_DEBITED), Again(name="win-again", of="win")),
        expectations=(
            not_confirmed("win"),
            Moved(by=0, until="won"),
            MovedAsAnswered(of=("debit",), since="won", until=_DEBITED),
            MovedAsAnswered(of=("win", "win-again"), since=_DEBITED),
        ),
        fix="Answer BET_NOT_FOUND to a win of a bet that you do not know, and book nothing.",
    ),
    Scenario(
        id="order-win-after-rollback",
        group=Group.ORDER,
        title="A win after the rollback is not paid",
        why="The stake was given back. You pay a win of 7.00 EUR for a bet that does not exist.",
        steps=(debit(), rollback(), win()),
        expectations=(
            confirmed("debit"),
            rolled_back("rollback"),
            not_confirmed("win"),
            Moved(by=0),
        ),
        fix=_ONE_END,
    ),
    Scenario(
        id="order-refund-after-rollback",
        group=Group.ORDER,
        title="A refund after the rollback is not paid",
        why="The stake was given back. If the market is cancelled later and you refund the bet too, you give 5.00 EUR"
        " away.",
        steps=(debit(), rollback(), refund()),
        expectations=(
            confirmed("debit"),
            rolled_back("rollback"),
            preferably_refused("refund"),
            Moved(by=0),
        ),
        fix=_ONE_END,
    ),
    Scenario(
        id="order-win-after-loss",
        group=Group.ORDER,
        title="A win after the loss is not paid",
        why="If another request can win a bet that was lost, you pay 7.00 EUR for a bet that was settled.",
        steps=(debit(), loss(), win()),
        expectations=(confirmed("debit", "loss"), not_confirmed("win"), Moved(by=-STAKE)),
        fix=_ONE_END,
    ),
    Scenario(
        id="order-two-wins",
        group=Group.ORDER,
        title="A second win by another request is not paid",
        why="If you compare only the request_id, a bet that is settled twice by mistake pays 14.00 EUR instead of 7.00"
        " EUR.",
        steps=(debit(), win(), win("second-win")),
        expectations=(
            confirmed("debit", "win"),
            preferably_refused("second-win"),
            Moved(by=WIN - STAKE),
        ),
        fix=_ONE_END,
    ),
    Scenario(
        id="order-two-ends-at-once",
        group=Group.ORDER,
        title="Of a win and a sale at the same moment only one is booked",
        why="A win of 1.50 EUR and a sale for 1.20 EUR arrive at the same moment. If both find the bet open, you pay"
        " 2.70 EUR.",
        steps=(
            *(debit(f"debit-{number}", bet=f"bet-{number}", amount=_SMALL) for number in _PAIRS),
            Read(name=_DEBITED),
            AtOnce(
                sends=tuple(
                    send
                    for number in _PAIRS
                    for send in (
                        win(f"win-{number}", bet=f"bet-{number}", amount=150),
                        sale(f"sale-{number}", bet=f"bet-{number}", amount=120),
                    )
                )
            ),
        ),
        expectations=(
            confirmed(*(f"debit-{number}" for number in _PAIRS)),
            *(AtMostOneConfirmed(of=(f"win-{number}", f"sale-{number}")) for number in _PAIRS),
            MovedAsAnswered(
                of=tuple(f"{end}-{number}" for number in _PAIRS for end in ("win", "sale")), since=_DEBITED
            ),
        ),
        fix="Change the bet's state in a statement that also checks it, such as update … where state = 'open', or lock"
        " the bet.",
    ),
    Scenario(
        id="order-rollback-after-win",
        group=Group.ORDER,
        title="A rollback after the win gives nothing back",
        why="The win was paid. If you also give the stake back, you give 5.00 EUR away.",
        steps=(debit(), win(), rollback()),
        expectations=(
            confirmed("debit", "win"),
            preferably_refused("rollback"),
            Moved(by=WIN - STAKE),
        ),
        fix=_ONE_END,
    ),
    Scenario(
        id="order-second-ends",
        group=Group.ORDER,
        title="A bet that has ended does not end again in another way",
        why="If a bet of 5.00 EUR can end twice, such as by a win and a refund or by a loss and a rollback, you give"
        " 5.00 EUR or more away.",
        steps=tuple(step for pair in _SECOND_ENDS for step in _ended_twice(*pair)),
        expectations=(
            confirmed(*(f"debit-{first}-{second}" for first, second in _SECOND_ENDS)),
            confirmed(*(f"{first}-ahead-of-{second}" for first, second in _SECOND_ENDS)),
            preferably_refused(*(f"{second}-after-{first}" for first, second in _SECOND_ENDS)),
            Moved(by=sum(_CREDITS[first] - _TINY for first, _ in _SECOND_ENDS)),
        ),
        fix=_ONE_END,
    ),
)
