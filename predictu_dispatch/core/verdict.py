"""Judges an attempt: what the operator's answer, or its absence, means for the callback.

The first row that fits decides:

    not_sent                                      retry, the effect stays as it was
    unanswered                                    retry, effect unknown
    3xx                                           retry, effect unknown, `misconfigured`
    below 500, body's status is a success         delivered
    below 500, to a rollback: nothing to reverse  delivered, reason `nothing_to_reverse`
    below 500, body's status is a rejection       rejected
    429, 503                                      retry not before Retry-After, effect unknown
    401, 403, 404, 405, 410                       retry, effect unknown, `misconfigured`
    everything else                               retry, effect unknown

The body's status decides before the HTTP code: operators choose different codes for one status.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Any, NamedTuple

from predictu_dispatch.core.callback import Callback, Effect, Evidence, Exchange
from predictu_dispatch.core.methods import RULES, Method
from predictu_dispatch.core.operator_settings import BUILT_IN_STATUSES, StatusesSettings

MISCONFIGURED = "misconfigured"
"""The reason of an attempt that fails until a person changes something, here or at the operator."""
_MISCONFIGURED_CODES = frozenset({401, 403, 404, 405, 410})
"""The codes of a wrong URL or key. A 401 may follow a debit if a repeated jti is refused."""
_TEXT_CHARS_MAX = 200
"""The longest identifier that the database takes; the audit's response_body has the whole text."""
_DIGITS_MAX = 30
"""Postgres bigint has 19 digits; the rest is for a currency's minor digits."""
_EXACT = Context(prec=2 * _DIGITS_MAX, traps=[Inexact])
_BALANCE_MAX = 2**63 - 1
"""Postgres bigint."""


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


class _NoAnswerError(Exception):
    """The body is not an answer; the message is the reason code."""


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
        answer = _parse(exchange.body)
        fault = None
    except _NoAnswerError as not_an_answer:
        answer = {}
        fault = str(not_an_answer)
    status = answer.get("status")
    business = _business(callback, answer, status, statuses) if code < 500 and isinstance(status, str) else None  # noqa: PLR2004
    if business is not None:
        return business
    seen = _text(status) if isinstance(status, str) else None
    if code in (429, 503):
        return _retry(f"http_{code}", retry_after_s=_retry_after_s(exchange, now), operator_status=seen)
    if code in _MISCONFIGURED_CODES:
        return _retry(MISCONFIGURED, operator_status=seen)
    if not 200 <= code < 300:  # noqa: PLR2004 - the class of successes, RFC 9110 section 15.3
        return _retry(f"http_{code}", operator_status=seen)
    return _retry(fault or ("no_status" if seen is None else "unknown_status"), operator_status=seen)


def _retry(reason: str, *, retry_after_s: float | None = None, operator_status: str | None = None) -> Judgement:
    return Judgement(
        verdict=Verdict.RETRY,
        reason=reason,
        effect=Effect.UNKNOWN,
        retry_after_s=retry_after_s,
        operator_status=operator_status,
    )


def _business(callback: Callback, answer: dict[str, Any], status: str, statuses: Statuses) -> Judgement | None:
    """Judge by the operator's status; None if the status is unknown."""
    transaction_id, transaction_anomaly = _transaction_id(answer)
    if status in statuses.success:
        balance, balance_anomaly = _balance(callback, answer)
        return Judgement(
            verdict=Verdict.DELIVERED,
            effect=Effect.APPLIED,
            operator_status=status,
            operator_transaction_id=transaction_id,
            balance=balance,
            anomaly=balance_anomaly or transaction_anomaly,
        )
    if callback.method is Method.BET_ROLLBACK and status in statuses.nothing_to_reverse:
        return Judgement(verdict=Verdict.DELIVERED, reason="nothing_to_reverse", operator_status=status)
    if status in statuses.rejected:
        return Judgement(
            verdict=Verdict.REJECTED,
            reason=status.lower(),
            operator_status=status,
            operator_transaction_id=transaction_id,
        )
    return None


def _parse(body: bytes) -> dict[str, Any]:
    """Return the body's one JSON object, with fractions as Decimal. Raises _NoAnswerError."""
    try:
        text = body.decode("utf-8").strip(_JSON_SPACE)
        answer, end = _DECODER.raw_decode(text)
    except UnicodeDecodeError:
        raise _NoAnswerError("not_utf8") from None
    except (ValueError, RecursionError):
        # RecursionError: nested deeper than Python's parser goes.
        raise _NoAnswerError("not_json") from None
    if end != len(text):
        raise _NoAnswerError("not_json")
    if not isinstance(answer, dict):
        raise _NoAnswerError("not_object")
    return answer


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Parsers read such an object differently (RFC 8259 section 4), so its meaning is unknown.
        raise _NoAnswerError("duplicate_keys")
    return found


def _whole_number(digits: str) -> int | Decimal:
    """Read too many digits as infinity, so that the balance is an anomaly and the rest is read."""
    return int(digits) if len(digits) <= _DIGITS_MAX else Decimal("Infinity")


def _fraction(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:
        return Decimal("Infinity")


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


_JSON_SPACE = " \t\n\r"
_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_without_duplicates,
    parse_int=_whole_number,
    parse_float=_fraction,
    parse_constant=_refuse_constant,
)
"""json.loads with hooks would make a decoder for each call."""


def _text(value: str) -> str:
    """Return `value` as Postgres can store it: no NUL, no lone surrogates, not too long."""
    shortened = value[:_TEXT_CHARS_MAX].replace("\0", "\ufffd")
    return shortened if shortened.isascii() else shortened.encode("utf-8", "replace").decode("utf-8")


def _transaction_id(answer: dict[str, Any]) -> tuple[str | None, str | None]:
    value = answer.get("transaction_id")
    if value is None:
        return None, None
    if isinstance(value, str) and value:
        return _text(value), None
    if isinstance(value, int) and not isinstance(value, bool):
        return _text(str(value)), None
    return None, f"transaction_id is {_text(str(value))!r}, neither text nor a whole number"


def _balance(callback: Callback, answer: dict[str, Any]) -> tuple[int | None, str | None]:
    """Return the balance in subunits, or what is wrong with it."""
    value = answer.get("balance")
    if value is None:
        return None, "balance is missing" if RULES[callback.method].expects_balance else None
    subunits: Decimal | int | None = None
    if callback.amount_format == "decimal" and isinstance(value, int | Decimal) and not isinstance(value, bool):
        subunits = _scaled(Decimal(value), callback.minor_digits)
    elif callback.amount_format == "subunits" and isinstance(value, int) and not isinstance(value, bool):
        subunits = value
    if subunits is None or not -_BALANCE_MAX <= subunits <= _BALANCE_MAX or subunits != int(subunits):
        return None, f"balance is {_text(str(value))!r}, not an amount in {callback.amount_format}"
    return int(subunits), None


def _scaled(value: Decimal, minor_digits: int | None) -> Decimal | None:
    """Return exactly `value` in subunits; None if it is too large or the currency is unknown."""
    if (
        minor_digits is None
        or not value.is_finite()
        or abs(value.adjusted()) > _DIGITS_MAX
        or len(value.as_tuple().digits) > _DIGITS_MAX
    ):
        return None
    return value.scaleb(minor_digits, _EXACT)


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
