"""What scenarios expect of answers: `Answered`, made by a function for each meaning.

A correct operator may answer in several ways, so an expectation lists the outcomes that it accepts
and those that are only worth a warning. `balance_expectations.py` judges the money, which decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Final

from predictu_dispatch.certification.observation import Observed, Outcome, Sent
from predictu_dispatch.certification.scenario import Finding, ScenarioVerdict
from predictu_dispatch.core.verdict import OPERATOR_RETRY

_ABOUT_MAX: Final = 5
"""The most names of one finding; a batch has hundreds."""
_PUT_OFF_CODES: Final = frozenset({429, 503})
_PUT_OFF_ADVICE: Final = {
    False: "If your sandbox limits the rate of requests, play with a lower --max-rate.",
    True: "The status is declared under [statuses] retry: Predictu sends the same bytes again, until you book them.",
}
"""By whether a declared status asks for the retry."""


def sent_as(seen: Observed, names: Iterable[str]) -> tuple[Sent, ...]:
    """Return the requests with these names; a batch's name stands for all of its requests."""
    return tuple(
        sent for name in names for sent in ((seen.sent[name],) if name in seen.sent else seen.batches.get(name, ()))
    )


def listed(names: Iterable[str]) -> str:
    """Return `debit, win and loss`."""
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered:
    """The named requests have one of the accepted outcomes.

    `warned` and `reviewed` are outcomes that are worth no more than that; every other one fails.
    """

    of: tuple[str, ...]
    meaning: str
    """What the answer must mean, to follow "is" or "are"."""
    accepted: tuple[Outcome, ...]
    warned: tuple[Outcome, ...] = ()
    reviewed: tuple[Outcome, ...] = ()
    put_off: ScenarioVerdict = ScenarioVerdict.FAILED
    """The verdict if the operator asks for a retry: by 429, 503 or a declared status."""
    declare_as: str = ""
    """The key of [statuses] that an undeclared status probably belongs to."""
    advice: str = ""

    @property
    def text(self) -> str:
        return f"{listed(self.of)} {'is' if len(self.of) == 1 else 'are'} {self.meaning}."

    def findings(self, seen: Observed) -> Iterator[Finding]:
        groups: dict[tuple[ScenarioVerdict, str, str], list[str]] = {}
        for sent in sent_as(seen, self.of):
            verdict = self._verdict(sent)
            if verdict is not ScenarioVerdict.PASSED:
                groups.setdefault((verdict, answer_text(sent), self._advice(sent)), []).append(sent.name)
        for (verdict, answer, advice), names in groups.items():
            who = names[0] if len(names) == 1 else f"{len(names)} requests, such as {names[0]}"
            yield Finding(
                verdict=verdict,
                expected=self.text,
                observed=f"{who}: {answer}.",
                advice=advice,
                about=tuple(names[:_ABOUT_MAX]),
            )
        if not sent_as(seen, self.of):
            yield Finding(verdict=ScenarioVerdict.FAILED, expected=self.text, observed="Nothing was sent.")

    def _verdict(self, sent: Sent) -> ScenarioVerdict:
        outcome = sent.outcome
        if is_put_off(sent):
            return self.put_off
        if outcome in self.accepted:
            return ScenarioVerdict.PASSED
        if outcome in self.warned:
            return ScenarioVerdict.WARNING
        return ScenarioVerdict.REVIEW if outcome in self.reviewed else ScenarioVerdict.FAILED

    def _advice(self, sent: Sent) -> str:
        if sent.outcome is Outcome.UNDECLARED and self.declare_as:
            status = sent.judgement.operator_status
            return (
                f'If "{status}" means this, declare it under [statuses] {self.declare_as}, or with'
                f' --{self.declare_as.replace("_", "-")} "{status}"; else answer another status.'
            )
        if is_put_off(sent) and self.put_off is ScenarioVerdict.FAILED:
            return _PUT_OFF_ADVICE[sent.judgement.reason == OPERATOR_RETRY]
        # What is wrong is the booking or the rejection: the fix of the scenario is the advice.
        is_booked = sent.outcome is Outcome.CONFIRMED
        is_rejected = sent.outcome is Outcome.REFUSED and Outcome.NOTHING_TO_REVERSE not in self.accepted
        return "" if self._verdict(sent) is ScenarioVerdict.FAILED and (is_booked or is_rejected) else self.advice


def is_put_off(sent: Sent) -> bool:
    """Return True if the operator asks to send the request again later."""
    is_asked = sent.judgement.reason == OPERATOR_RETRY or sent.exchange.status in _PUT_OFF_CODES
    return sent.outcome is Outcome.TRY_AGAIN and is_asked


def confirmed(*of: str) -> Answered:
    """Expect a success: OK, DUPLICATE or a declared one."""
    return Answered(
        of=of,
        meaning="confirmed (OK, DUPLICATE or a declared success)",
        accepted=(Outcome.CONFIRMED,),
        reviewed=(Outcome.UNDECLARED,),
        declare_as="success",
    )


def confirmed_or_put_off(*of: str) -> Answered:
    """Expect a success, or a request to send it again: another copy may be in the middle."""
    return Answered(
        of=of,
        meaning="confirmed, or put off with 429, 503 or a declared retry status",
        accepted=(Outcome.CONFIRMED,),
        warned=(Outcome.TRY_AGAIN, Outcome.NO_ANSWER),
        put_off=ScenarioVerdict.PASSED,
        reviewed=(Outcome.UNDECLARED,),
        declare_as="success",
        advice="Answer 503 with Retry-After if you cannot book it now.",
    )


def confirmed_under_load(*of: str) -> Answered:
    """Expect a success; putting requests off is a warning, because Predictu repeats them."""
    return Answered(
        of=of,
        meaning="confirmed, or at least put off with 429 or 503",
        accepted=(Outcome.CONFIRMED,),
        reviewed=(Outcome.UNDECLARED,),
        put_off=ScenarioVerdict.WARNING,
        declare_as="success",
        advice="Ask Predictu to set max_in_flight and limits.max_requests_per_s for you.",
    )


def refused(*of: str) -> Answered:
    """Expect a business rejection, built in or declared."""
    return Answered(
        of=of,
        meaning="rejected with a business status",
        accepted=(Outcome.REFUSED,),
        reviewed=(Outcome.UNDECLARED,),
        declare_as="rejected",
        advice="Answer a status such as INSUFFICIENT_FUNDS with an HTTP code below 500.",
    )


def known_or_refused(*of: str) -> Answered:
    """Expect a balance, such as 0 of a player created on sight, or a business rejection."""
    return Answered(
        of=of,
        meaning="answered with a balance or rejected with a business status",
        accepted=(Outcome.CONFIRMED, Outcome.REFUSED),
        reviewed=(Outcome.UNDECLARED,),
        declare_as="rejected",
        advice="Answer PLAYER_NOT_FOUND with an HTTP code below 500.",
    )


def not_confirmed(*of: str) -> Answered:
    """Expect anything but a success; Predictu never sends it, so a crash is only a warning."""
    return Answered(
        of=of,
        meaning="not confirmed",
        accepted=(Outcome.REFUSED, Outcome.NOTHING_TO_REVERSE),
        put_off=ScenarioVerdict.PASSED,
        warned=_UNCLEAR,
        reviewed=(Outcome.UNDECLARED,),
        declare_as="rejected",
        advice="Answer a business rejection.",
    )


def preferably_refused(*of: str) -> Answered:
    """Expect a business rejection; everything else is a warning, while the balance is right."""
    return Answered(
        of=of,
        meaning="rejected with a business status",
        accepted=(Outcome.REFUSED, Outcome.NOTHING_TO_REVERSE),
        put_off=ScenarioVerdict.PASSED,
        warned=(Outcome.CONFIRMED, *_UNCLEAR),
        reviewed=(Outcome.UNDECLARED,),
        declare_as="rejected",
        advice="Answer a business rejection: a success says that it was booked.",
    )


def preferably_first_answer(*of: str) -> Answered:
    """Expect the first answer again; everything else is a warning, while the balance is right."""
    return Answered(
        of=of,
        meaning="answered as the first time, or rejected",
        accepted=(Outcome.CONFIRMED, Outcome.REFUSED),
        warned=(Outcome.NOTHING_TO_REVERSE, *_UNCLEAR),
        reviewed=(Outcome.UNDECLARED,),
        put_off=ScenarioVerdict.WARNING,
        declare_as="rejected",
        advice="Answer a repeated request_id with DUPLICATE and the first result.",
    )


def rolled_back(*of: str) -> Answered:
    """Expect a definite answer to a rollback: done, or nothing to reverse."""
    return Answered(
        of=of,
        meaning="confirmed, or answered with TRANSACTION_NOT_FOUND or another nothing-to-reverse status",
        accepted=(Outcome.CONFIRMED, Outcome.NOTHING_TO_REVERSE),
        reviewed=(Outcome.UNDECLARED,),
        declare_as="nothing_to_reverse",
        advice="Answer OK if you gave the debit back, DUPLICATE if you did so before, else TRANSACTION_NOT_FOUND.",
    )


def rolled_back_if_possible(*of: str) -> Answered:
    """Expect a definite answer to a rollback; a rejection is a warning: a person must decide."""
    return replace(rolled_back(*of), warned=(Outcome.REFUSED,))


def rolled_back_or_put_off(*of: str) -> Answered:
    """Expect a definite answer to a rollback, or a request to send it again."""
    return Answered(
        of=of,
        meaning="confirmed, answered with a nothing-to-reverse status, or put off",
        accepted=(Outcome.CONFIRMED, Outcome.NOTHING_TO_REVERSE),
        warned=(Outcome.TRY_AGAIN, Outcome.NO_ANSWER),
        put_off=ScenarioVerdict.PASSED,
        reviewed=(Outcome.UNDECLARED,),
        declare_as="nothing_to_reverse",
        advice="Answer 503 with Retry-After while the debit is still being booked.",
    )


def unauthorized(*of: str) -> Answered:
    """Expect 401 or 403; another refusal is a warning, a success fails."""
    return Answered(
        of=of,
        meaning="refused with 401",
        accepted=(Outcome.UNAUTHORIZED,),
        warned=(Outcome.REFUSED, Outcome.UNDECLARED, *_UNCLEAR),
        put_off=ScenarioVerdict.WARNING,
        advice="Answer 401: Predictu then repeats the request and alerts a person. A business status ends it.",
    )


_UNCLEAR: Final = (
    Outcome.UNAUTHORIZED,
    Outcome.MISCONFIGURED,
    Outcome.TRY_AGAIN,
    Outcome.NO_ANSWER,
)


def answer_text(sent: Sent) -> str:
    """Return what came back, such as `HTTP 409, status "BET_CLOSED", which is not declared`."""
    exchange, judgement = sent.exchange, sent.judgement
    if sent.outcome is Outcome.NOT_SENT:
        return f"it could not be sent ({exchange.reason or 'no connection'})"
    if sent.outcome is Outcome.NO_ANSWER:
        return f"no complete answer ({exchange.reason or 'unanswered'}) after {exchange.total_ms / 1000:.1f} s"
    if judgement.operator_status is None:
        return f"HTTP {exchange.status} without a status ({judgement.reason})"
    undeclared = ", which is not declared" if sent.outcome is Outcome.UNDECLARED else ""
    return f'HTTP {exchange.status}, status "{judgement.operator_status}"{undeclared}'
