"""The words of the page for verdicts, tokens, deliveries and outcomes."""

from __future__ import annotations

from typing import Final

from predictu_dispatch.certification.observation import Outcome
from predictu_dispatch.certification.scenario import Group, ScenarioVerdict
from predictu_dispatch.certification.steps import Delivery, TokenFault

SIGNS: Final[dict[ScenarioVerdict, str]] = {
    ScenarioVerdict.FAILED: "✕",
    ScenarioVerdict.REVIEW: "?",
    ScenarioVerdict.WARNING: "!",
    ScenarioVerdict.SKIPPED: "–",  # noqa: RUF001 - a dash as a sign
    ScenarioVerdict.PASSED: "✓",
}
HEADINGS: Final[dict[ScenarioVerdict, tuple[str, str]]] = {
    ScenarioVerdict.FAILED: ("Failed", "Money or protocol is broken. Correct these first."),
    ScenarioVerdict.REVIEW: ("For review", "A person must decide, or declare a status in the operator's file."),
    ScenarioVerdict.WARNING: ("Warnings", "These work, but they cost time or make disputes harder."),
    ScenarioVerdict.PASSED: ("Passed", "Open a scenario to see every byte."),
    ScenarioVerdict.SKIPPED: ("Skipped", "These were not played."),
}
"""For each verdict, in the order of the page: heading and explanation."""
GROUPS: Final[dict[Group, str]] = {
    Group.CONNECTION: "Connection",
    Group.SIGNATURE: "Signature",
    Group.ENVELOPE: "Envelope",
    Group.MONEY: "Money",
    Group.REPETITION: "Repetition",
    Group.ORDER: "Order",
    Group.RECOVERY: "Recovery",
    Group.LOAD: "Load",
    Group.LEDGER: "Ledger",
}
TOKENS: Final[dict[TokenFault, str]] = {
    TokenFault.NONE: "",
    TokenFault.NEXT_KEY: "signed with the next key",
    TokenFault.USED_JTI: "the jti of an earlier token",
    TokenFault.MISSING: "no token",
    TokenFault.WRONG_KEY: "signed with a wrong key",
    TokenFault.UNKNOWN_KID: "unknown kid",
    TokenFault.OTHER_SUB: "sub of another operator",
    TokenFault.OTHER_METHOD: "method of another request",
    TokenFault.OTHER_REQUEST_ID: "jti of another request",
    TokenFault.EXPIRED: "expired token",
    TokenFault.FROM_THE_FUTURE: "token from the future",
    TokenFault.ALG_NONE: "alg none",
    TokenFault.HS256_PUBLIC_KEY: "HS256 with the public key as secret",
    TokenFault.OTHER_BODY: "body changed after signing",
}
DELIVERIES: Final[dict[Delivery, str]] = {
    Delivery.COMPLETE: "",
    Delivery.CUT_AFTER_BODY: "connection cut after the body",
    Delivery.CUT_AT_ONCE: "connection cut directly after the body",
    Delivery.CUT_INSIDE_BODY: "connection cut inside the body",
    Delivery.NEVER_READ: "answer not read",
}
OUTCOMES: Final[dict[Outcome, str]] = {
    Outcome.CONFIRMED: "confirmed",
    Outcome.NOTHING_TO_REVERSE: "nothing to reverse",
    Outcome.REFUSED: "refused",
    Outcome.UNDECLARED: "undeclared status",
    Outcome.UNAUTHORIZED: "unauthorized",
    Outcome.REDIRECTED: "redirected",
    Outcome.MISCONFIGURED: "wrong URL or method",
    Outcome.TRY_AGAIN: "to be sent again",
    Outcome.NO_ANSWER: "no answer",
    Outcome.NOT_SENT: "not sent",
}
