"""Judges an attempt: what the operator's answer, or its absence, means for the callback.

The first row that fits decides:

    not_sent                                      retry, the effect stays as it was
    unanswered                                    retry, effect unknown
    3xx                                           retry, effect unknown, `misconfigured`
    below 500, body's status is a success         delivered
    below 500, to a rollback: nothing to reverse  delivered, reason `nothing_to_reverse`
    below 500, body's status is a rejection       rejected
    below 500, to another: nothing to reverse     rejected, effect unknown for a BET_MAKE
    any code, body's status is one of `retry`     retry not before Retry-After, effect unknown
    429, 503                                      retry not before Retry-After, effect unknown
    401, 403, 405, 410, 404 without a status      retry, effect unknown, `misconfigured`
    below 500, an unknown status to a rollback    retry, effect unknown, `unknown_status`
    below 500, an unknown status to another       rejected, effect unknown, `unknown_status`
    everything else                               retry, effect unknown

The body's status decides before the HTTP code: operators choose different codes for one status.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from predictu_dispatch.core.answer import (
    BUILT_IN_STATUSES,
    NoAnswerError,
    balance_of,
    read_answer,
    storable,
    transaction_id_of,
)
from predictu_dispatch.core.callback import Callback, Effect, Evidence, Exchange
from predictu_dispatch.core.methods import Method

if TYPE_CHECKING:
    # At run time it would load pydantic, and every command reads the names in this module.
    from predictu_dispatch.core.operator_settings import StatusesSettings

MISCONFIGURED = "misconfigured"
"""The reason of an attempt that fails until the configuration changes, here or at the operator."""
OPERATOR_RETRY = "operator_retry"
"""The reason of an answer whose status is one of `[statuses] retry`."""
UNKNOWN_STATUS = "unknown_status"
"""The reason of an answer with a status that the operator's file does not declare."""
_MISCONFIGURED_CODES = frozenset({401, 403, 405, 410})
"""The codes of a wrong URL or key, as is 404 without a status.

A 401 may follow a debit, if a repeated jti is refused.
"""
_NOT_FOUND = 404
_SLOW_DOWN_CODES = frozenset({429, 503})
_GATE_CODES = frozenset({401, 403})
"""A gateway before the operator's application may answer with these, and with JSON."""


class Verdict(StrEnum):
    """What one attempt means. Only the database says `late`: the report's lease was lost."""

    DELIVERED = "delivered"
    REJECTED = "rejected"
    RETRY = "retry"
    LATE = "late"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statuses:
    """The meaning of an operator's `status` values."""

    success: frozenset[str]
    rejected: frozenset[str]
    nothing_to_reverse: frozenset[str]
    retry: frozenset[str]

    @classmethod
    def of(cls, settings: StatusesSettings | None = None) -> Statuses:
        """Return the built-in statuses and those that an operator's file adds."""
        return cls(
            **{kind: built_in.union(getattr(settings, kind, ())) for kind, built_in in BUILT_IN_STATUSES.items()}
        )


class Judgement(NamedTuple):
    """A verdict with its reason; `effect` is None if the attempt says nothing about it."""

    verdict: Verdict
    reason: str | None = None
    effect: Effect | None = None
    retry_after_s: float | None = None
    operator_status: str | None = None
    operator_transaction_id: str | None = None
    balance: int | None = None
    anomaly: str | None = None
    is_from_application: bool = False
    """True if the operator's application gave the answer: then the operator is not down."""


def judge(callback: Callback, exchange: Exchange, statuses: Statuses, *, now: datetime) -> Judgement:
    """Judge `exchange`. `now` (aware) is when it ended; only a Retry-After that is a date needs it.

    `nothing_to_reverse` leaves the effect as it was, because that answer applied nothing.
    """
    if exchange.evidence is Evidence.NOT_SENT:
        return Judgement(verdict=Verdict.RETRY, reason=exchange.reason)
    if exchange.evidence is Evidence.UNANSWERED or exchange.status is None:
        return _retry(exchange.reason or "unanswered")
    code = exchange.status
    if 300 <= code < 400:  # noqa: PLR2004 - the class of redirections, RFC 9110 section 15.4
        return _retry(MISCONFIGURED)
    try:
        answer = read_answer(exchange.body)
        fault = None
    except NoAnswerError as not_an_answer:
        answer = {}
        fault = str(not_an_answer)
    status = answer.get("status")
    if not isinstance(status, str):
        return _without_status(code, fault or "no_status", exchange, now)
    if code < 500 and (business := _business(callback, answer, status, statuses)) is not None:  # noqa: PLR2004
        return business
    reason = _retry_reason(code, status, statuses)
    is_asked_to_wait = code in _SLOW_DOWN_CODES or reason == OPERATOR_RETRY
    is_final = reason == UNKNOWN_STATUS and callback.method is not Method.BET_ROLLBACK
    return Judgement(
        # A reversal must become definite; everything else with an unknown status ends, as a
        # rejection ends, and a debit that may have been applied is rolled back.
        verdict=Verdict.REJECTED if is_final else Verdict.RETRY,
        reason=reason,
        effect=Effect.UNKNOWN,
        retry_after_s=_retry_after_s(exchange, now) if is_asked_to_wait else None,
        operator_status=storable(status),
        operator_transaction_id=transaction_id_of(answer)[0] if is_final else None,
        is_from_application=code < 500 and code not in _GATE_CODES,  # noqa: PLR2004 - the class of server errors
    )


def _retry_reason(code: int, status: str, statuses: Statuses) -> str:
    """Return the reason for an answer whose status is none of a business meaning."""
    if status in statuses.retry:
        return OPERATOR_RETRY
    if code in _SLOW_DOWN_CODES or code >= 500:  # noqa: PLR2004 - the class of server errors
        return f"http_{code}"
    return MISCONFIGURED if code in _MISCONFIGURED_CODES else UNKNOWN_STATUS


def _without_status(code: int, fault: str, exchange: Exchange, now: datetime) -> Judgement:
    """Judge an answer from which no status can be read, for the reason `fault`."""
    if code in _SLOW_DOWN_CODES:
        return _retry(f"http_{code}", retry_after_s=_retry_after_s(exchange, now))
    if code in _MISCONFIGURED_CODES or code == _NOT_FOUND:
        return _retry(MISCONFIGURED)
    # 2xx: the class of successes, RFC 9110 section 15.3.
    return _retry(fault if 200 <= code < 300 else f"http_{code}")  # noqa: PLR2004


def _retry(reason: str, *, retry_after_s: float | None = None) -> Judgement:
    return Judgement(verdict=Verdict.RETRY, reason=reason, effect=Effect.UNKNOWN, retry_after_s=retry_after_s)


def _business(callback: Callback, answer: dict[str, Any], status: str, statuses: Statuses) -> Judgement | None:
    """Judge by the operator's status; None if the status is unknown."""
    transaction_id, transaction_anomaly = transaction_id_of(answer)
    if status in statuses.success:
        balance, balance_anomaly = balance_of(callback, answer)
        return Judgement(
            verdict=Verdict.DELIVERED,
            effect=Effect.APPLIED,
            operator_status=status,
            operator_transaction_id=transaction_id,
            balance=balance,
            anomaly=balance_anomaly or transaction_anomaly,
            is_from_application=True,
        )
    has_nothing_to_reverse = status in statuses.nothing_to_reverse
    if callback.method is Method.BET_ROLLBACK and has_nothing_to_reverse:
        return Judgement(
            verdict=Verdict.DELIVERED,
            reason="nothing_to_reverse",
            operator_status=status,
            is_from_application=True,
        )
    if has_nothing_to_reverse or status in statuses.rejected:
        is_unclear = callback.method is Method.BET_MAKE and has_nothing_to_reverse
        return Judgement(
            verdict=Verdict.REJECTED,
            reason=status.lower(),
            # This status does not answer a debit, so it is not known whether one took place.
            effect=Effect.UNKNOWN if is_unclear else None,
            operator_status=status,
            operator_transaction_id=transaction_id,
            is_from_application=True,
        )
    return None


def _retry_after_s(exchange: Exchange, now: datetime) -> float | None:
    """Return Retry-After (RFC 9110 section 10.2.3) in seconds; None if absent or invalid."""
    value = next((value for name, value in exchange.headers if name.lower() == "retry-after"), "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        return max(0.0, (parsedate_to_datetime(value) - now).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        # Not a date, or one without a zone, which RFC 9110 does not allow.
        return None
