"""Scenarios about lost answers: the connection breaks, and the request comes again."""

from __future__ import annotations

from typing import Final

from predictu_dispatch.certification.balance_expectations import Moved
from predictu_dispatch.certification.expectations import (
    confirmed,
    confirmed_or_put_off,
    preferably_first_answer,
    rolled_back,
    rolled_back_or_put_off,
)
from predictu_dispatch.certification.scenario import Group, Scenario
from predictu_dispatch.certification.scenarios.sends import STAKE, WIN, debit, rollback, win
from predictu_dispatch.certification.steps import Again, Batch, Delivery, Read
from predictu_dispatch.core.methods import Method

_MANY: Final = 50
_TINY: Final = 10
_ROLLED_BACK: Final = "rolled-back"
_REPEATED: Final = "repeated"
_ONE_TRANSACTION: Final = (
    "Book and store the answer in one database transaction, and finish it even if the client has gone."
)
_WAIT_OR_TOMBSTONE: Final = (
    "Let the rollback wait for a debit that is being booked, or leave a tombstone that the debit finds."
)


def _batch(
    name: str, method: Method = Method.BET_MAKE, *, again: str = "", delivery: Delivery = Delivery.COMPLETE
) -> Batch:
    """Return one request for each of many bets, all in flight at once."""
    return Batch(
        name=name, methods=(method,), amounts=(_TINY,), count=_MANY, in_flight=_MANY, again=again, delivery=delivery
    )


def _cut_debit(scenario_id: str, title: str, why: str, delivery: Delivery) -> Scenario:
    """Return a debit whose answer is lost, and which is asked for twice again.

    The first copy may meet the request itself; the reading gives it the time to end.
    """
    return Scenario(
        id=scenario_id,
        group=Group.RECOVERY,
        title=title,
        why=why,
        steps=(
            debit(delivery=delivery),
            Again(name="debit-again", of="debit"),
            Read(name=_REPEATED),
            Again(name="debit-once-more", of="debit"),
        ),
        expectations=(
            confirmed_or_put_off("debit-again"),
            confirmed("debit-once-more"),
            Moved(by=-STAKE),
        ),
        fix=_ONE_TRANSACTION,
    )


SCENARIOS: Final = (
    _cut_debit(
        "recovery-cut-after-body",
        "A debit whose connection breaks before the answer is booked once",
        "Connections break every day. If you book the repetition too, the player pays 10.00 EUR. If you confirm the"
        " debit and do not book it, the bet of 5.00 EUR is free.",
        Delivery.CUT_AFTER_BODY,
    ),
    Scenario(
        id="recovery-cut-inside-body",
        group=Group.RECOVERY,
        title="Half a request books nothing",
        why="An incomplete body is no request. If you book it or store a refusal for it, the complete debit of 5.00 EUR"
        " is booked wrongly or refused.",
        steps=(
            debit(delivery=Delivery.CUT_INSIDE_BODY),
            Read(name="cut"),
            Again(name="debit-again", of="debit"),
        ),
        expectations=(
            Moved(by=0, until="cut"),
            confirmed("debit-again"),
            Moved(by=-STAKE, since="cut"),
        ),
        fix="Read the whole body, as long as Content-Length says, and verify it before you do anything else.",
    ),
    _cut_debit(
        "recovery-answer-never-read",
        "A debit whose answer is never read is booked once",
        "An answer that you wrote may never arrive. If you store the debit of 5.00 EUR only after it has arrived, its"
        " repetition takes 5.00 EUR again.",
        Delivery.NEVER_READ,
    ),
    Scenario(
        id="recovery-win-cut",
        group=Group.RECOVERY,
        title="A win whose connection breaks before the answer is paid once",
        why="If you pay the repetition too, a win of 7.00 EUR costs you 14.00 EUR. If you pay neither, the player does"
        " not get 7.00 EUR.",
        steps=(
            debit(),
            Read(name="debited"),
            win(delivery=Delivery.CUT_AFTER_BODY),
            Again(name="win-again", of="win"),
            Read(name=_REPEATED),
            Again(name="win-once-more", of="win"),
        ),
        expectations=(
            confirmed("debit"),
            confirmed_or_put_off("win-again"),
            confirmed("win-once-more"),
            Moved(by=WIN, since="debited"),
        ),
        fix=_ONE_TRANSACTION,
    ),
    Scenario(
        id="recovery-rollback-cut",
        group=Group.RECOVERY,
        title="A rollback whose connection breaks before the answer gives back once",
        why="If the repetition credits too, you give 10.00 EUR back for a debit of 5.00 EUR.",
        steps=(
            debit(),
            rollback(delivery=Delivery.CUT_AFTER_BODY),
            Again(name="rollback-again", of="rollback"),
            Read(name=_REPEATED),
            Again(name="rollback-once-more", of="rollback"),
        ),
        expectations=(
            confirmed("debit"),
            rolled_back_or_put_off("rollback-again"),
            rolled_back("rollback-once-more"),
            Moved(by=0),
        ),
        fix=_ONE_TRANSACTION,
    ),
    Scenario(
        id="recovery-cut-and-rolled-back",
        group=Group.RECOVERY,
        title="A debit whose answer is lost can be rolled back",
        why="Predictu rolls a debit back if it gets no answer in time. If the debit stays booked, the player has paid"
        " 5.00 EUR for a bet that does not exist.",
        steps=(
            debit(delivery=Delivery.CUT_AFTER_BODY),
            rollback(),
            Read(name="asked"),
            Again(name="rollback-again", of="rollback"),
            # Between the two: if both are booked again, one must not hide the other.
            Read(name=_ROLLED_BACK),
            Again(name="debit-again", of="debit"),
        ),
        expectations=(
            rolled_back_or_put_off("rollback"),
            rolled_back("rollback-again"),
            preferably_first_answer("debit-again"),
            Moved(by=0, until=_ROLLED_BACK),
            Moved(by=0, since=_ROLLED_BACK),
        ),
        fix=_WAIT_OR_TOMBSTONE,
    ),
    Scenario(
        id="recovery-fifty-cut",
        group=Group.RECOVERY,
        title="Fifty debits whose connections break at once are each booked once",
        why="If a network or a proxy fails, Predictu repeats everything that was in flight. Fifty debits of 5.00 EUR"
        " that are booked twice take 250.00 EUR too much.",
        steps=(
            _batch("debits", delivery=Delivery.CUT_AT_ONCE),
            _batch("debits-again", again="debits"),
            Read(name=_REPEATED),
            _batch("debits-once-more", again="debits"),
        ),
        expectations=(
            confirmed_or_put_off("debits-again"),
            confirmed("debits-once-more"),
            Moved(by=-_MANY * _TINY),
        ),
        fix=_ONE_TRANSACTION,
    ),
    Scenario(
        id="recovery-fifty-rolled-back",
        group=Group.RECOVERY,
        title="Fifty debits whose connections break at once can be rolled back",
        why="If the network is down for longer than a bet can wait, Predictu rolls back everything that was in flight."
        " Each debit that you book after its rollback takes 5.00 EUR for a bet that does not exist.",
        steps=(
            _batch("debits", delivery=Delivery.CUT_AT_ONCE),
            _batch("rollbacks", Method.BET_ROLLBACK),
            Read(name="asked"),
            _batch("rollbacks-again", Method.BET_ROLLBACK, again="rollbacks"),
            Read(name=_ROLLED_BACK),
            _batch("debits-again", again="debits"),
        ),
        expectations=(
            rolled_back_or_put_off("rollbacks"),
            rolled_back("rollbacks-again"),
            preferably_first_answer("debits-again"),
            Moved(by=0, until=_ROLLED_BACK),
            Moved(by=0, since=_ROLLED_BACK),
        ),
        fix=_WAIT_OR_TOMBSTONE,
    ),
)
