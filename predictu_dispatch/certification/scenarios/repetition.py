"""Scenarios about repeated requests: the same request_id is booked once, however it comes again."""

from __future__ import annotations

from typing import Final

from predictu_dispatch.certification.balance_expectations import Moved, MovedAsAnswered
from predictu_dispatch.certification.expectations import (
    confirmed,
    confirmed_or_put_off,
    not_confirmed,
    preferably_first_answer,
    preferably_refused,
    refused,
    rolled_back,
    rolled_back_or_put_off,
)
from predictu_dispatch.certification.repetition_expectations import SameAnswer, StillConfirmed
from predictu_dispatch.certification.scenario import Group, Need, Scenario
from predictu_dispatch.certification.scenarios.sends import BET, STAKE, WIN, debit, loss, refund, rollback, sale, win
from predictu_dispatch.certification.steps import RESUMED, AboveBalance, Again, AtOnce, Pause, Read, Send
from predictu_dispatch.core.methods import Method

_BOOKED: Final = "booked"
_SMALL: Final = 100
_OTHERS: Final = 300
_FEW_COPIES: Final = tuple(f"copy-{number}" for number in (2, 3, 4))
_COPIES: Final = tuple(f"copy-{number}" for number in range(2, 11))
_RARE_ENDS: Final = ("sale", "refund", "rollback")
_ENDS: Final = ("win", "sale", "loss", "refund", "rollback")
_ENDS_NET: Final = -len(_ENDS) * _SMALL + 150 + 50 + _SMALL + _SMALL
"""The five debits, and what win, sale, refund and rollback credit."""
_STORE: Final = "Store each request_id with its answer in the transaction that books. Keep it as long as the bet."
_ATOMIC: Final = (
    "Let a unique key on request_id decide, in the transaction that books. A look-up before it is not enough."
)


def _copies_of(end: str) -> tuple[str, ...]:
    return tuple(f"{end}-copy-{number}" for number in (2, 3, 4))


def _after(scenario_id: str, seconds: int, why: str) -> Scenario:
    """Return a debit and a win that are repeated after a pause.

    Their amounts differ: if both are booked again, one must not hide the other.
    """
    return Scenario(
        id=scenario_id,
        group=Group.REPETITION,
        title=f"A repetition after {seconds} s is not booked",
        why=why,
        steps=(
            debit(),
            debit("won-debit", bet="won"),
            win(bet="won"),
            Read(name=_BOOKED),
            Pause(seconds=seconds),
            Again(name="debit-again", of="debit"),
            Again(name="win-again", of="win"),
        ),
        expectations=(
            confirmed("debit", "won-debit", "win", "debit-again", "win-again"),
            Moved(by=WIN - 2 * STAKE, until=_BOOKED),
            Moved(by=0, since=RESUMED),
        ),
        fix=_STORE,
    )


SCENARIOS: Final = (
    Scenario(
        id="repetition-at-once",
        group=Group.REPETITION,
        title="A repetition at once is not booked, and is confirmed",
        why="If an answer is lost, Predictu repeats the debit. If you book it again, the player pays 10.00 EUR for a"
        " bet of 5.00 EUR. If you reject it, the player has paid 5.00 EUR for no bet.",
        steps=(debit(), Again(name="debit-again", of="debit")),
        expectations=(confirmed("debit", "debit-again"), Moved(by=-STAKE)),
        fix="Answer a repeated request_id with DUPLICATE and the first result. If you answer a status of your own,"
        " declare it as a success.",
    ),
    _after(
        "repetition-after-10-s",
        10,
        "Predictu repeats a debit after its timeout, seconds later. If you no longer know it then, you take 5.00 EUR"
        " twice.",
    ),
    _after(
        "repetition-after-70-s",
        70,
        "Predictu repeats a win for more than a day. If you keep answers for a minute only, each later repetition pays"
        " 7.00 EUR again.",
    ),
    Scenario(
        id="repetition-after-its-end",
        group=Group.REPETITION,
        title="A debit that is repeated after its bet has ended is not booked",
        why="The network may deliver a copy of the debit late. If you book it, you take 5.00 EUR for a bet that has"
        " ended.",
        steps=(debit(), win(), Again(name="debit-again", of="debit")),
        expectations=(
            confirmed("debit", "win"),
            preferably_first_answer("debit-again"),
            Moved(by=WIN - STAKE),
        ),
        fix="Keep the answer to a debit after its bet has ended.",
    ),
    Scenario(
        id="repetition-ten-at-once",
        group=Group.REPETITION,
        title="Ten copies of a debit at the same moment are booked once",
        why="If a connection hangs, two attempts of one debit can reach two of your servers at the same moment. If both"
        " check first and book afterwards, the player pays 10.00 EUR for a bet of 5.00 EUR.",
        steps=(
            AtOnce(sends=(debit(), *(Again(name=name, of="debit") for name in _COPIES))),
            Again(name="debit-again", of="debit"),
        ),
        expectations=(
            confirmed_or_put_off("debit", *_COPIES),
            confirmed("debit-again"),
            Moved(by=-STAKE),
        ),
        fix=_ATOMIC,
    ),
    Scenario(
        id="repetition-ten-wins-at-once",
        group=Group.REPETITION,
        title="Ten copies of a win at the same moment are paid once",
        why="A win of 7.00 EUR that is paid ten times costs you 63.00 EUR.",
        steps=(
            debit(),
            Read(name=_BOOKED),
            AtOnce(sends=(win(), *(Again(name=name, of="win") for name in _COPIES))),
            Again(name="win-again", of="win"),
        ),
        expectations=(
            confirmed("debit", "win-again"),
            confirmed_or_put_off("win", *_COPIES),
            Moved(by=WIN, since=_BOOKED),
        ),
        fix=_ATOMIC,
    ),
    Scenario(
        id="repetition-ends-at-once",
        group=Group.REPETITION,
        title="Copies of a sale, a refund or a rollback at the same moment are booked once",
        why="Refunds and rollbacks are often less protected than wins. A refund of 5.00 EUR that is paid for each of"
        " four copies costs you 15.00 EUR.",
        steps=(
            *(debit(f"{end}-debit", bet=end, amount=_SMALL) for end in _RARE_ENDS),
            Read(name=_BOOKED),
            AtOnce(
                sends=(
                    sale(bet="sale", amount=50),
                    refund(bet="refund", amount=_SMALL),
                    rollback(bet="rollback", of="rollback-debit", amount=_SMALL),
                    *(Again(name=name, of=end) for end in _RARE_ENDS for name in _copies_of(end)),
                )
            ),
            *(Again(name=f"{end}-again", of=end) for end in _RARE_ENDS),
        ),
        expectations=(
            confirmed("sale-debit", "refund-debit", "rollback-debit"),
            confirmed_or_put_off("sale", *_copies_of("sale"), "refund", *_copies_of("refund")),
            rolled_back_or_put_off("rollback", *_copies_of("rollback")),
            confirmed("sale-again", "refund-again"),
            rolled_back("rollback-again"),
            Moved(by=50 + 2 * _SMALL, since=_BOOKED),
        ),
        fix=_ATOMIC,
    ),
    Scenario(
        id="repetition-of-an-end",
        group=Group.REPETITION,
        title="A repeated win, sale, loss, refund or rollback is confirmed, and moves nothing",
        why="Predictu repeats a win until you confirm it. If you pay it again, each repetition costs you 1.50 EUR. If"
        " you reject it, a person must find out whether the player was paid.",
        steps=(
            *(debit(f"{end}-debit", bet=end, amount=_SMALL) for end in _ENDS),
            win(bet="win", amount=150),
            sale(bet="sale", amount=50),
            loss(bet="loss"),
            refund(bet="refund", amount=_SMALL),
            rollback(bet="rollback", of="rollback-debit", amount=_SMALL),
            Read(name=_BOOKED),
            *(Again(name=f"{end}-again", of=end) for end in _ENDS),
        ),
        expectations=(
            confirmed(*(f"{end}-debit" for end in _ENDS), *_ENDS),
            confirmed("win-again", "sale-again", "loss-again", "refund-again"),
            rolled_back("rollback-again"),
            Moved(by=_ENDS_NET, until=_BOOKED),
            Moved(by=0, since=_BOOKED),
        ),
        fix="Look up the request_id before you check the bet's state. Answer DUPLICATE and the first result, not that"
        " the bet has ended.",
    ),
    Scenario(
        id="repetition-same-answer",
        group=Group.REPETITION,
        title="A repetition gets the first transaction_id and balance",
        why="Two transaction ids for one win of 7.00 EUR look like two payments when books are compared. A new balance"
        " looks as if the win was booked again.",
        steps=(
            debit(),
            debit("other-debit", bet="other", amount=200),
            Again(name="debit-again", of="debit"),
            win(),
            refund("other-refund", bet="other", amount=200),
            Again(name="win-again", of="win"),
        ),
        expectations=(
            confirmed("debit", "other-debit", "debit-again", "win", "other-refund", "win-again"),
            SameAnswer(of=("debit", "debit-again", "win", "win-again")),
            Moved(by=WIN - STAKE),
        ),
        fix="Store the whole answer with the request_id. Answer it again, with the status DUPLICATE.",
    ),
    Scenario(
        id="repetition-another-body",
        group=Group.REPETITION,
        title="Another body under a known request_id is not booked",
        why="Predictu never sends it, so it is a fault or an attack. If you book it, one request_id takes 12.00 EUR"
        " instead of 5.00 EUR.",
        steps=(
            debit(),
            Send(name="changed-debit", method=Method.BET_MAKE, bet=BET, amount=WIN, request_id_of="debit"),
            Again(name="debit-again", of="debit"),
        ),
        expectations=(confirmed("debit", "debit-again"), Moved(by=-STAKE)),
        fix="Use the request_id alone as the key, not a hash of the body. Refuse another body, or answer the first"
        " result.",
    ),
    Scenario(
        id="repetition-refusal-after-deposit",
        group=Group.REPETITION,
        title="A rejected debit stays rejected after a deposit",
        why="The player was told that the bet failed. If you book a late copy of the debit after a deposit, the player"
        " has paid 5.00 EUR for no bet.",
        steps=(
            debit("rejected-debit", bet="rejected", amount=AboveBalance(by=100)),
            debit("other-debit", bet="other", amount=1),
            win("deposit", bet="other", amount=601),
            Read(name=_BOOKED),
            Again(name="rejected-again", of="rejected-debit"),
        ),
        expectations=(
            refused("rejected-debit", "rejected-again"),
            confirmed("other-debit", "deposit"),
            Moved(by=600, until=_BOOKED),
            Moved(by=0, since=_BOOKED),
        ),
        fix="Store the rejection of a BET_MAKE with its request_id, and answer the same status again, not DUPLICATE.",
    ),
    Scenario(
        id="repetition-rejected-at-once",
        group=Group.REPETITION,
        title="No copy of a rejected debit is confirmed, also at the same moment",
        why="If a copy is answered DUPLICATE while the first one is still being booked, and that one is then rejected,"
        " Predictu takes the debit as booked: a bet of 5.00 EUR is free.",
        steps=(
            AtOnce(
                sends=(
                    debit(amount=AboveBalance(by=100)),
                    *(Again(name=name, of="debit") for name in _FEW_COPIES),
                )
            ),
            Again(name="debit-again", of="debit"),
        ),
        expectations=(
            not_confirmed("debit", *_FEW_COPIES),
            refused("debit-again"),
            Moved(by=0),
        ),
        fix="Answer DUPLICATE only after the first copy is booked. Let the others wait for it, or answer 503 with"
        " Retry-After.",
    ),
    Scenario(
        id="repetition-without-funds",
        group=Group.REPETITION,
        title="A repeated debit is confirmed, whatever is left of the balance",
        why="A player bets 90.00 EUR of 100.00 EUR, and the answer is lost. If you check the funds before the"
        " request_id, the repetition is rejected: the player has paid 90.00 EUR for no bet until the rollback.",
        steps=(debit(amount=AboveBalance(by=-100)), Again(name="debit-again", of="debit")),
        expectations=(
            StillConfirmed(of=("debit", "debit-again")),
            MovedAsAnswered(of=("debit", "debit-again")),
        ),
        fix="Look the request_id up before you check the funds, the bet or the player.",
    ),
    Scenario(
        id="repetition-same-bet",
        group=Group.REPETITION,
        title="A second debit with a known bet_id is not confirmed unless it is booked",
        why="If you answer DUPLICATE because the bet_id is known, you confirm another debit and do not take it: a bet"
        " of 3.00 EUR is free.",
        steps=(debit(), debit("second-debit", amount=300)),
        expectations=(
            confirmed("debit"),
            preferably_refused("second-debit"),
            MovedAsAnswered(of=("debit", "second-debit")),
        ),
        fix="Recognise a repetition by its request_id. Reject another request for a bet_id that exists.",
    ),
    Scenario(
        id="repetition-two-players",
        group=Group.REPETITION,
        title="Two players with one bet_id are not mixed up",
        why="If the bet_id alone decides, you confirm the second player's debit of 3.00 EUR and do not take it, or you"
        " pay the end of that bet to the first player.",
        steps=(
            debit(),
            debit("other-debit", amount=_OTHERS, player=1),
            Read(name=_BOOKED),
            refund("other-refund", amount=_OTHERS, player=1),
            refund(),
        ),
        expectations=(
            confirmed("debit", "refund"),
            preferably_refused("other-debit"),
            MovedAsAnswered(of=("other-debit",), until=_BOOKED, player=1),
            Moved(by=0),
            Moved(by=0, player=1),
        ),
        fix="Compare the player of a callback with the bet's, and reject what does not match.",
        needs=frozenset({Need.TWO_PLAYERS}),
        players=(0, 1),
    ),
)
