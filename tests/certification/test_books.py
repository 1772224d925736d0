"""The books of a run: whatever was sent and answered, a correct wallet ends where it began."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import hypothesis.strategies as st
import pytest
from hypothesis import given, note

from predictu_dispatch.certification.books import bets_of, net_of
from predictu_dispatch.certification.entries import Entry, OutcomeEntry, RequestEntry, VerdictEntry
from predictu_dispatch.certification.observation import Outcome
from predictu_dispatch.certification.requests import Prepared
from predictu_dispatch.certification.scenario import ScenarioVerdict
from predictu_dispatch.certification.steps import TokenFault
from predictu_dispatch.core.methods import TERMINALS, Method

STAKE = 500
PLAYER = "p-1"


@dataclass(kw_only=True)
class Wallet:
    """A correct wallet: one booking a request_id, one end a bet, tombstones."""

    balance: int = 0
    answers: dict[str, Outcome] = field(default_factory=dict)
    debits: dict[str, str] = field(default_factory=dict)
    """The request_id of each bet's debit."""
    ended: set[str] = field(default_factory=set)

    def receive(self, sent: Prepared) -> Outcome:
        if sent.token is not TokenFault.NONE:
            return Outcome.UNAUTHORIZED
        if sent.request_id not in self.answers:
            self.answers[sent.request_id] = self._book(sent)
        return self.answers[sent.request_id]

    def _book(self, sent: Prepared) -> Outcome:
        bet, amount = sent.bet_id, sent.amount or 0
        if sent.method is Method.BET_MAKE:
            if bet in self.ended or bet in self.debits:
                return Outcome.REFUSED
            self.debits[bet] = sent.request_id
            self.balance -= amount
            return Outcome.CONFIRMED
        if bet not in self.debits:
            if sent.method is not Method.BET_ROLLBACK:
                return Outcome.REFUSED
            self.ended.add(bet)
            return Outcome.NOTHING_TO_REVERSE
        if bet in self.ended or sent.rollback_of not in ("", self.debits[bet]):
            return Outcome.REFUSED
        self.ended.add(bet)
        self.balance += amount
        return Outcome.CONFIRMED


@dataclass(kw_only=True)
class Run:
    """A journal that grows by what is sent to a wallet."""

    wallet: Wallet = field(default_factory=Wallet)
    entries: list[Entry] = field(default_factory=list)
    sendings: int = 0
    booked: set[int] = field(default_factory=set)
    """The sendings that reached the wallet."""

    def send(self, request: Prepared, *, is_lost: bool = False, is_booked: bool = True) -> None:
        """Send it; without an answer if `is_lost`, and then perhaps not even booked."""
        self.sendings += 1
        self.entries.append(RequestEntry(n=self.sendings, prepared=request))
        outcome = self.wallet.receive(request) if is_booked else Outcome.NO_ANSWER
        self.booked |= {self.sendings} if is_booked else set()
        if not is_lost:
            self.entries.append(outcome_entry(self.sendings, outcome))

    def undo(self) -> None:
        """Do what a reversal does, in as many rounds."""
        for _ in range(3):
            before = self.sendings
            for is_placement in (True, False):
                for booking in [booking for bet in bets_of(self.entries) for booking in bet.to_repeat]:
                    if (booking.request.method is Method.BET_MAKE) is is_placement:
                        self.send(request(booking.request.method, booking.request.bet_id, booking.request))
            for placement in [placement for bet in bets_of(self.entries) for placement in bet.to_roll_back]:
                self.send(rollback(placement.request))
            if self.sendings == before:
                return

    @property
    def net(self) -> int:
        return net_of(bets_of(self.entries), PLAYER, self.wallet.balance)


def outcome_entry(n: int, outcome: Outcome) -> OutcomeEntry:
    return OutcomeEntry(n=n, outcome=outcome, reason="", status="", http_status=None)


def request(
    method: Method,
    bet: str,
    of: Prepared | None = None,
    *,
    name: str = "",
    amount: int | None = STAKE,
    token: TokenFault = TokenFault.NONE,
    rollback_of: str = "",
) -> Prepared:
    """A request; with `of` a repetition of it with a good token."""
    return Prepared(
        scenario_id="s-1",
        name=name or f"{method}-{bet}",
        method=method,
        request_id=of.request_id if of else (name or f"{method}-{bet}"),
        bet_id=bet,
        player_id=PLAYER,
        amount=of.amount if of else None if method is Method.BET_LOSE else amount,
        rollback_of=of.rollback_of if of else rollback_of,
        created_at=datetime(2026, 11, 30, tzinfo=UTC),
        body=b"{}",
        token=token,
    )


def rollback(placement: Prepared, *, name: str = "") -> Prepared:
    return request(
        Method.BET_ROLLBACK,
        placement.bet_id,
        name=name or f"undo-{placement.request_id}",
        amount=placement.amount,
        rollback_of=placement.request_id,
    )


METHODS = (Method.BET_MAKE, Method.BET_WIN, Method.BET_LOSE, Method.BET_SELL, Method.BET_REFUND, Method.BET_ROLLBACK)


@st.composite
def sent_requests(draw: st.DrawFn) -> list[tuple[Prepared, bool, bool]]:
    """Any requests for a few bets, in any order, repeated, with lost answers and bad tokens."""
    drawn = []
    for _ in range(draw(st.integers(0, 14))):
        bet, method = draw(st.sampled_from("abc")), draw(st.sampled_from(METHODS))
        # Few names, so that request_ids are repeated; a repetition has the same amount.
        name = f"{method}-{bet}-{draw(st.integers(1, 2))}"
        amount = STAKE if method in (Method.BET_MAKE, Method.BET_REFUND, Method.BET_ROLLBACK) else 70 * int(name[-1])
        token = draw(st.sampled_from((TokenFault.NONE, TokenFault.NONE, TokenFault.WRONG_KEY)))
        made = request(
            method,
            bet,
            name=name,
            amount=amount,
            token=token,
            rollback_of=f"BET_MAKE-{bet}-1" if method is Method.BET_ROLLBACK else "",
        )
        is_lost = draw(st.booleans())
        drawn.append((made, is_lost, draw(st.booleans()) if is_lost else True))
    return drawn


def shown(run: Run) -> str:
    return "\n".join(
        f"{entry.n} {entry.prepared.request_id} {entry.prepared.token}"
        if isinstance(entry, RequestEntry)
        else f"{entry.n} {entry.outcome}"
        for entry in run.entries
        if isinstance(entry, RequestEntry | OutcomeEntry)
    )


@given(sent=sent_requests(), verdict=st.sampled_from(ScenarioVerdict))
def test_after_undoing_and_compensating_a_correct_wallet_has_what_it_had(
    sent: list[tuple[Prepared, bool, bool]], verdict: ScenarioVerdict
) -> None:
    run = Run()
    for made, is_lost, is_booked in sent:
        run.send(made, is_lost=is_lost, is_booked=is_booked)
    run.entries.append(VerdictEntry(scenario="s-1", verdict=verdict))
    note(shown(run))
    run.undo()
    assert run.net == run.wallet.balance, "the confirmed net effect is all that the run moved"
    sendings = run.sendings
    run.undo()
    assert run.sendings == sendings, "a second reversal has nothing to do"


@given(sent=sent_requests(), at=st.integers(0, 40))
def test_a_journal_that_ends_anywhere_suffices(sent: list[tuple[Prepared, bool, bool]], at: int) -> None:
    run = Run()
    for made, is_lost, is_booked in sent:
        run.send(made, is_lost=is_lost, is_booked=is_booked)
    # The wallet has booked what was sent up to here; the rest was neither written nor sent.
    cut = Run(entries=run.entries[:at], sendings=run.sendings)
    for entry in cut.entries:
        if isinstance(entry, RequestEntry) and entry.n in run.booked:
            cut.wallet.receive(entry.prepared)
    note(shown(cut))
    cut.undo()
    assert cut.net == cut.wallet.balance
    sendings = cut.sendings
    cut.undo()
    assert cut.sendings == sendings


def journal(*sent: tuple[Prepared, Outcome | None]) -> list[Entry]:
    entries: list[Entry] = []
    for n, (made, outcome) in enumerate(sent, start=1):
        entries.append(RequestEntry(n=n, prepared=made))
        if outcome is not None:
            entries.append(outcome_entry(n, outcome))
    return entries


MAKE = request(Method.BET_MAKE, "a")
FORGED = request(Method.BET_MAKE, "a", token=TokenFault.WRONG_KEY)
WIN = request(Method.BET_WIN, "a", amount=800)
PASSED = VerdictEntry(scenario="s-1", verdict=ScenarioVerdict.PASSED)


@pytest.mark.parametrize(
    ("outcomes", "is_repeated", "is_rolled_back"),
    [
        ([Outcome.CONFIRMED], False, True),
        ([Outcome.NO_ANSWER], True, True),
        ([None], True, True),
        ([Outcome.TRY_AGAIN], True, True),
        ([Outcome.UNAUTHORIZED], True, True),
        ([Outcome.UNDECLARED], False, True),
        ([Outcome.REFUSED], False, False),
        ([Outcome.NOT_SENT], False, False),
        # As in production: a refusal after an attempt of unknown effect is rolled back.
        ([Outcome.NO_ANSWER, Outcome.REFUSED], False, True),
        ([Outcome.NO_ANSWER, Outcome.CONFIRMED], False, True),
        ([Outcome.CONFIRMED, Outcome.NO_ANSWER], False, True),
        ([Outcome.REFUSED, Outcome.NO_ANSWER], True, True),
        ([Outcome.NO_ANSWER, Outcome.NOT_SENT], True, True),
    ],
)
def test_a_debit_is_repeated_and_rolled_back_by_what_its_sendings_say(
    outcomes: list[Outcome | None],
    is_repeated: bool,  # noqa: FBT001 - a column of the table
    is_rolled_back: bool,  # noqa: FBT001 - as above
) -> None:
    entries = [*journal(*((MAKE, outcome) for outcome in outcomes)), PASSED]
    (bet,) = bets_of(entries)
    assert bool(bet.to_repeat) is is_repeated
    assert bool(bet.to_roll_back) is is_rolled_back


@pytest.mark.parametrize("outcome", [Outcome.UNAUTHORIZED, Outcome.REFUSED])
def test_a_refused_debit_is_rolled_back_only_if_its_scenario_failed_or_did_not_end(outcome: Outcome) -> None:
    refused = journal((FORGED, outcome))
    failed = VerdictEntry(scenario="s-1", verdict=ScenarioVerdict.FAILED)
    assert [bool(bets_of([*refused, *more])[0].to_roll_back) for more in ([PASSED], [failed], [])] == [
        False,
        True,
        True,
    ]


def test_a_forged_debit_without_an_answer_is_rolled_back_and_never_sent_with_a_good_token() -> None:
    (bet,) = bets_of(journal((FORGED, Outcome.NO_ANSWER)))
    assert (bet.to_repeat, len(bet.to_roll_back)) == ((), 1)


def test_a_debit_is_not_repeated_once_its_rollback_was_sent() -> None:
    (bet,) = bets_of(journal((MAKE, None), (rollback(MAKE), None)))
    assert [each.request.method for each in bet.to_repeat] == [Method.BET_ROLLBACK]


def test_a_debit_that_was_booked_after_its_rollback_is_still_rolled_back() -> None:
    early = rollback(MAKE, name="early")
    for outcome in (Outcome.NOTHING_TO_REVERSE, Outcome.CONFIRMED):
        (bet,) = bets_of(journal((early, outcome), (MAKE, Outcome.CONFIRMED)))
        assert len(bet.to_roll_back) == 1


def test_a_confirmed_debit_of_which_the_rollback_finds_nothing_stays_open() -> None:
    (bet,) = bets_of(journal((MAKE, Outcome.CONFIRMED), (rollback(MAKE), Outcome.NOTHING_TO_REVERSE)))
    assert (len(bet.to_roll_back), bet.net) == (1, 0)


@pytest.mark.parametrize(
    ("difference", "net"), [(300, 300), (1100, 1100), (1600, 1600), (800, 800), (0, 300), (1500, 1600)]
)
def test_second_ends_count_only_as_far_as_the_balance_moved(difference: int, net: int) -> None:
    second = request(Method.BET_WIN, "a", name="second", amount=800)
    bets = bets_of(
        journal(
            (MAKE, Outcome.CONFIRMED),
            (WIN, Outcome.CONFIRMED),
            (second, Outcome.CONFIRMED),
            (rollback(MAKE, name="late"), Outcome.CONFIRMED),
        )
    )
    assert net_of(bets, PLAYER, difference) == net


def test_an_end_of_unknown_outcome_is_listed_only_if_the_bet_has_no_confirmed_one() -> None:
    (open_bet,) = bets_of(journal((MAKE, Outcome.CONFIRMED), (WIN, Outcome.NO_ANSWER)))
    (ended,) = bets_of(
        journal((MAKE, Outcome.CONFIRMED), (WIN, Outcome.NO_ANSWER), (rollback(MAKE), Outcome.CONFIRMED))
    )
    assert (len(open_bet.unknown_ends), ended.unknown_ends) == (1, ())
    assert all(method in TERMINALS for method in METHODS[1:])


@pytest.mark.parametrize("answer", [Outcome.NOTHING_TO_REVERSE, Outcome.REFUSED, Outcome.CONFIRMED])
def test_a_debit_whose_rollback_was_confirmed_beside_it_is_rolled_back_once_more(answer: Outcome) -> None:
    """Both were in flight, so nobody knows which was booked first; the next rollback says it."""
    debit = request(Method.BET_MAKE, "a")
    beside, undoing = rollback(debit, name="beside"), rollback(debit)
    entries: list[Entry] = [
        RequestEntry(n=1, prepared=beside),
        RequestEntry(n=2, prepared=debit),
        outcome_entry(1, Outcome.CONFIRMED),
        outcome_entry(2, Outcome.CONFIRMED),
    ]
    assert [each.request for bet in bets_of(entries) for each in bet.to_roll_back] == [debit]
    entries += [RequestEntry(n=3, prepared=undoing), outcome_entry(3, answer)]
    bets = bets_of(entries)
    assert not any(bet.to_roll_back for bet in bets)
    assert net_of(bets, PLAYER, 0) == 0
