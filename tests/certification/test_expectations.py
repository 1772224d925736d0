"""Truth tables of the expectations, over observations made by hand."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from predictu_dispatch.certification import expectations as expect
from predictu_dispatch.certification.balance_expectations import (
    BalanceInAnswer,
    BookedOnceInLedger,
    Moved,
    MovedAsAnswered,
)
from predictu_dispatch.certification.connection_expectations import (
    AnswerTime,
    ConnectionKept,
    GoodTls,
    NotRedirected,
)
from predictu_dispatch.certification.expectations import Answered
from predictu_dispatch.certification.observation import Ledger, LedgerRow, Observed, Sent, TlsFacts
from predictu_dispatch.certification.repetition_expectations import AtMostOneConfirmed, SameAnswer, StillConfirmed
from predictu_dispatch.certification.scenario import Expectation, Finding, ScenarioVerdict
from predictu_dispatch.core.methods import Method
from tests.certification.observations import ANSWERS, NO_ANSWER, NOW, OUTCOMES, answered, observed

_WORST_LAST = list(ScenarioVerdict)


def verdict_of(findings: Iterable[Finding]) -> ScenarioVerdict:
    return max((each.verdict for each in findings), key=_WORST_LAST.index, default=ScenarioVerdict.PASSED)


def letters_of(expectation: Expectation, observations: Iterable[Observed]) -> str:
    """The verdicts on these observations, a letter each."""
    return "".join(verdict_of(expectation.findings(seen)).value[0] for seen in observations)


def test_each_answer_has_the_outcome_that_production_gives_it() -> None:
    assert tuple(sent.outcome for sent in ANSWERS.values()) == OUTCOMES


# OK, nothing to reverse, rejected, undeclared; 401, redirect, 404; put off, 503, 500; the others.
TRUTH: dict[Callable[..., Answered], str] = {
    expect.confirmed: "PFFR FFF FFF FF",
    expect.confirmed_or_put_off: "PFFR FFF PPW WF",
    expect.confirmed_under_load: "PFFR FFF WWF FF",
    expect.refused: "FFPR FFF FFF FF",
    expect.known_or_refused: "PFPR FFF FFF FF",
    expect.not_confirmed: "FPPR WFW PPW WF",
    expect.preferably_refused: "WPPR WFW PPW WF",
    expect.preferably_first_answer: "PWPR WFW WWW WF",
    expect.rolled_back: "PPFR FFF FFF FF",
    expect.rolled_back_or_put_off: "PPFR FFF PPW WF",
    expect.unauthorized: "FFWW PFW WWW WF",
}


@pytest.mark.parametrize(("make", "letters"), TRUTH.items(), ids=[make.__name__ for make in TRUTH])
def test_an_answer_is_judged_by_its_outcome(make: Callable[..., Answered], letters: str) -> None:
    assert letters_of(make("it"), (observed([sent]) for sent in ANSWERS.values())) == letters.replace(" ", "")


def test_a_finding_quotes_the_answer_and_says_how_to_declare_its_status() -> None:
    (finding,) = expect.rolled_back("it").findings(observed([ANSWERS["undeclared"]]))
    assert finding.observed == 'it: HTTP 418, status "TEAPOT", which is not declared.'
    assert "[statuses] nothing_to_reverse" in finding.advice
    assert '--nothing-to-reverse "TEAPOT"' in finding.advice
    (finding,) = expect.confirmed("it").findings(observed([ANSWERS["no answer"]]))
    assert finding.observed == "it: no complete answer (timeout) after 5.0 s."


def test_advice_for_a_request_that_was_put_off_names_the_reason() -> None:
    (declared,) = expect.confirmed("it").findings(observed([ANSWERS["put off"]]))
    (limited,) = expect.confirmed("it").findings(observed([ANSWERS["503"]]))
    assert "[statuses] retry" in declared.advice
    assert "--max-rate" in limited.advice


def test_equal_answers_of_a_batch_are_one_finding() -> None:
    batch = tuple(answered(f"debits-{number}", "ERROR" if number % 4 else "OK", code=500) for number in range(1, 9))
    findings = list(expect.confirmed("debits").findings(observed(batches={"debits": batch})))
    assert [finding.observed for finding in findings] == [
        '6 requests, such as debits-1: HTTP 500, status "ERROR".',
        '2 requests, such as debits-4: HTTP 500, status "OK".',
    ]
    assert findings[0].about == ("debits-1", "debits-2", "debits-3", "debits-5", "debits-6")


def test_a_request_that_was_not_even_sent_fails() -> None:
    assert letters_of(expect.confirmed("it"), [observed()]) == "F"


@pytest.mark.parametrize(
    ("by", "balances", "letter"),
    [
        (-500, (10_000, 9_500), "P"),
        (-500, (10_000, 9_000), "F"),
        (-500, (10_000, 10_000), "F"),
        (0, (10_000, 10_000), "P"),
        (0, (10_000, 10_001), "F"),
        (0, (None, 10_000), "F"),
        (0, (10_000, None), "F"),
    ],
)
def test_a_balance_moves_by_exactly_what_is_expected(
    by: int, balances: tuple[int | None, int | None], letter: str
) -> None:
    # The other player's balance must not matter.
    seen = observed(balances={"before": (1, balances[0]), "after": (2, balances[1])})
    assert letters_of(Moved(by=by, player=1), [seen]) == letter


def test_a_wrong_balance_is_told_in_money() -> None:
    seen = observed(balances={"before": (10_000,), "after": (9_000,)})
    (finding,) = Moved(by=-500).findings(seen)
    assert finding.expected == "The balance of player 1 changes by -5.00 EUR from the start to the end."
    assert finding.observed == "The balance of p-1 changes by -10.00 EUR, from 100.00 EUR to 90.00 EUR."


@pytest.mark.parametrize(
    ("sent", "allowed"),
    [
        ([answered("a"), answered("b", request="b")], {-1000}),
        # A repetition counts once, and any of its answers says that it is booked.
        ([answered("a", exchange=NO_ANSWER), answered("again", request="a"), answered("b", request="a")], {-500}),
        ([answered("a", "BET_CLOSED")], {0}),
        ([answered("a", "BET_CLOSED"), answered("again", request="a")], {-500}),
        ([answered("a", exchange=NO_ANSWER)], {-500, 0}),
        ([answered("a", "ERROR", code=500), answered("b", "TEAPOT")], {-1000, -500, 0}),
        ([answered("a"), answered("win", method=Method.BET_WIN, amount=700)], {200}),
        ([answered("a"), answered("win", method=Method.BET_WIN, amount=700, exchange=NO_ANSWER)], {-500, 200}),
        ([answered("loss", method=Method.BET_LOSE, amount=None)], {0}),
        ([answered("rollback", "BET_NOT_FOUND", method=Method.BET_ROLLBACK)], {0}),
        ([answered("a"), answered("other", player=1)], {-500}),
    ],
)
def test_a_balance_moves_by_what_was_confirmed_once_each(sent: Sequence[Sent], allowed: set[int]) -> None:
    expectation = MovedAsAnswered(of=tuple(each.name for each in sent))
    moves = range(-1500, 1501, 100)
    seen = [observed(sent, balances={"before": (10_000,), "after": (10_000 + move,)}) for move in moves]
    passed = {move for move, letter in zip(moves, letters_of(expectation, seen), strict=True) if letter == "P"}
    # All between the least and the most that unclear answers may have moved is accepted.
    assert passed == {move for move in moves if min(allowed) <= move <= max(allowed)}


@pytest.mark.parametrize(
    ("sent", "letter"),
    [
        (answered("it", balance=9500), "P"),
        (answered("it", balance=10_000), "F"),
        (answered("it", balance="9500"), "W"),
        (answered("it", balance=None), "W"),
        (answered("it", "BET_CLOSED", balance=1), "P"),
    ],
)
def test_the_balance_in_an_answer_is_the_one_that_balance_says(sent: Sent, letter: str) -> None:
    assert letters_of(BalanceInAnswer(of="it"), [observed([sent], balances={"after": (9500,)})]) == letter


@pytest.mark.parametrize(
    ("again", "letter"),
    [
        (answered("again", "DUPLICATE", request="it"), "P"),
        (answered("again", "DUPLICATE", request="it", transaction_id="tx-2"), "F"),
        (answered("again", "DUPLICATE", request="it", balance=9300), "F"),
        (answered("again", "DUPLICATE", request="it", transaction_id=None), "W"),
        (answered("again", "DUPLICATE", request="it", balance=None), "W"),
        (answered("again", request="other", transaction_id="tx-2", balance=9300), "P"),
        (answered("again", "BET_CLOSED", request="it", transaction_id="tx-2"), "P"),
    ],
)
def test_a_repetition_has_the_first_transaction_id_and_balance(again: Sent, letter: str) -> None:
    assert letters_of(SameAnswer(of=("it", "again")), [observed([answered("it"), again])]) == letter


@pytest.mark.parametrize(
    ("statuses", "letter"), [(("OK", "BET_CLOSED"), "P"), (("OK", "OK"), "F"), (("BUSY", "BET_CLOSED"), "W")]
)
def test_of_two_that_exclude_each_other_one_is_confirmed(statuses: tuple[str, str], letter: str) -> None:
    seen = observed([answered("first", statuses[0]), answered("second", statuses[1])])
    assert letters_of(AtMostOneConfirmed(of=("first", "second")), [seen]) == letter


@pytest.mark.parametrize(
    ("statuses", "letter"),
    [
        (("OK", "DUPLICATE"), "P"),
        (("OK", "INSUFFICIENT_FUNDS"), "F"),
        (("OK", "TEAPOT"), "R"),
        # A limit of the operator refuses both: nothing was tested.
        (("INSUFFICIENT_FUNDS", "INSUFFICIENT_FUNDS"), "W"),
    ],
)
def test_what_was_confirmed_is_confirmed_again(statuses: tuple[str, str], letter: str) -> None:
    first, again = statuses
    seen = observed([answered("debit", first), answered("again", again)])
    assert letters_of(StillConfirmed(of=("debit", "again")), [seen]) == letter


@pytest.mark.parametrize(
    ("facts", "letter"),
    [
        (TlsFacts(version="TLSv1.3", certificate_ends_at=NOW + timedelta(days=90)), "P"),
        (TlsFacts(version="TLSv1.2", certificate_ends_at=NOW + timedelta(days=29)), "W"),
        (TlsFacts(version="TLSv1.1", certificate_ends_at=NOW + timedelta(days=90)), "F"),
        (TlsFacts(fault="tls_failed: self-signed certificate"), "F"),
        (None, "F"),
    ],
)
def test_tls_is_new_enough_and_its_certificate_lasts(facts: TlsFacts | None, letter: str) -> None:
    seen = observed([answered("ping", method=Method.PING)])
    seen.tls = facts
    assert letters_of(GoodTls(ping="ping"), [seen]) == letter


def test_a_redirect_is_told_with_its_target() -> None:
    (finding,) = NotRedirected(of=("it",)).findings(observed([ANSWERS["redirect"]]))
    assert (finding.verdict, finding.observed) == (ScenarioVerdict.FAILED, "it: HTTP 302 to /other/.")
    assert letters_of(NotRedirected(of=("it",)), (observed([ANSWERS[kind]]) for kind in ("OK", "401", "500"))) == "PPP"


@pytest.mark.parametrize(("used", "letter"), [((False, False), "W"), ((False, True), "P"), ((True, True), "P")])
def test_connections_that_are_not_kept_are_a_warning(used: tuple[bool, bool], letter: str) -> None:
    seen = observed(
        answered(name, is_on_used_connection=is_used) for name, is_used in zip(("a", "b"), used, strict=True)
    )
    assert letters_of(ConnectionKept(of=("a", "b")), [seen]) == letter


def test_connections_that_could_not_be_opened_say_nothing_of_being_kept() -> None:
    assert letters_of(ConnectionKept(of=("it",)), [observed([ANSWERS["not sent"]])]) == "P"


@pytest.mark.parametrize(
    ("method", "total_ms", "letter"),
    [
        (Method.BET_MAKE, 2_500, "P"),
        (Method.BET_MAKE, 2_501, "W"),
        (Method.BET_MAKE, 5_000, "F"),
        (Method.BET_REFUND, 5_000, "P"),
        (Method.BET_REFUND, 5_001, "W"),
    ],
)
def test_the_slowest_answer_is_compared_with_its_lanes_timeout(method: Method, total_ms: float, letter: str) -> None:
    seen = observed([answered("fast"), answered("slow", method=method, total_ms=total_ms)])
    assert letters_of(AnswerTime(of=("fast", "slow")), [seen]) == letter


def test_a_timeout_is_too_slow() -> None:
    assert letters_of(AnswerTime(of=("it",)), [observed([ANSWERS["no answer"]])]) == "F"


def row_of(sent: Sent, amount: int) -> LedgerRow:
    return LedgerRow(
        request_id=sent.request_id,
        transaction_id="tx-1",
        method=sent.method,
        bet_id=sent.bet_id,
        player_id=sent.player_id,
        currency="EUR",
        amount=amount,
    )


DEBIT = answered("debit")
LOSS = answered("loss", method=Method.BET_LOSE, amount=None, after_s=1)
ROLLBACK = answered("rollback", method=Method.BET_ROLLBACK, after_s=1)
LATE_DEBIT = replace(DEBIT, started_at=NOW + timedelta(seconds=2))


@pytest.mark.parametrize(
    ("confirmed", "rows", "letter"),
    [
        ([DEBIT], [(DEBIT, -500)], "P"),
        # A repetition was confirmed too.
        ([DEBIT, replace(DEBIT, name="again")], [(DEBIT, -500)], "P"),
        ([DEBIT], [], "F"),
        ([DEBIT], [(DEBIT, -500), (DEBIT, -500)], "F"),
        ([DEBIT], [(DEBIT, -5000)], "F"),
        ([DEBIT], [(DEBIT, 500)], "F"),
        ([DEBIT], [(replace(DEBIT, player_id="p-2"), -500)], "F"),
        ([DEBIT, LOSS], [(DEBIT, -500)], "P"),
        ([DEBIT, LOSS], [(DEBIT, -500), (LOSS, 0)], "P"),
        ([DEBIT, LOSS], [(DEBIT, -500), (LOSS, -500)], "F"),
        ([DEBIT, ROLLBACK], [(DEBIT, -500), (ROLLBACK, 500)], "P"),
        ([DEBIT, ROLLBACK], [(DEBIT, -500)], "F"),
        # An operator may confirm the rollback of a debit that it never saw: nothing to book.
        ([ROLLBACK], [], "P"),
        ([ROLLBACK], [(ROLLBACK, 0)], "P"),
        ([ROLLBACK, LATE_DEBIT], [(LATE_DEBIT, -500)], "P"),
        ([], [(DEBIT, -500)], "P"),
    ],
)
def test_the_ledger_has_each_confirmed_booking_once(
    confirmed: Sequence[Sent], rows: Sequence[tuple[Sent, int]], letter: str
) -> None:
    seen = observed()
    seen.confirmed_in_run = tuple(confirmed)
    seen.ledger = Ledger(rows=tuple(row_of(sent, amount) for sent, amount in rows))
    assert letters_of(BookedOnceInLedger(), [seen]) == letter


def test_a_ledger_that_cannot_be_read_fails() -> None:
    seen = observed()
    assert letters_of(BookedOnceInLedger(), [seen]) == "F"
    seen.ledger = Ledger(fault="HTTP 404")
    (finding,) = BookedOnceInLedger().findings(seen)
    assert finding.observed == "The ledger could not be read: HTTP 404."
