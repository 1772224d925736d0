"""What an answer means: the judging table of DESIGN.md 4, as one pure function.

The rows are tried from top to bottom, the first that fits decides:

    not_sent                                      retry, the effect stays as it was
    unanswered                                    retry, effect unknown
    3xx                                           retry, effect unknown, `misconfigured`: a redirect is never an answer
    below 500, body's status is a success         delivered
    below 500, to a rollback: nothing to reverse  delivered, reason `nothing_to_reverse`
    below 500, body's status is a known refusal   rejected
    429, 503                                      retry not before Retry-After, effect unknown
    401, 403, 404, 405, 410                       retry, effect unknown, `misconfigured`
    everything else                               retry, effect unknown

The body wins over the status code because operators differ in the codes they choose, and none of them differs in the
status.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Context, Decimal, Inexact, InvalidOperation
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any, NamedTuple

from predictu_dispatch.core.callback import Effect, Evidence
from predictu_dispatch.core.methods import RULES, Method
from predictu_dispatch.core.operator_settings import BUILT_IN_STATUSES

if TYPE_CHECKING:
    from predictu_dispatch.core.callback import Callback, Exchange
    from predictu_dispatch.core.operator_settings import StatusesSettings

MISCONFIGURED = "misconfigured"
"""The reason of an attempt that a person has to put right, here or at the operator."""
_MISCONFIGURED_CODES = frozenset({401, 403, 404, 405, 410})
"""Codes that a wrong address or a wrong key brings.

A 401 may also follow a debit, where an operator checks jti for replay.
"""
_TEXT_CHARS_MAX = 200
"""As long as any identifier that the database takes.

What is longer is cut, and kept whole in the audit's response_body.
"""
_DIGITS_MAX = 30
"""Postgres bigint has 19 digits; the rest is room for any currency's minor digits."""
_EXACT = Context(prec=2 * _DIGITS_MAX, traps=[Inexact])
_BALANCE_MAX = 2**63 - 1
"""Postgres bigint."""


class Verdict(StrEnum):
    """What one attempt means; `late` is given by the database alone, to a report whose lease was lost."""

    DELIVERED = "delivered"
    REJECTED = "rejected"
    RETRY = "retry"
    LATE = "late"


@dataclass(frozen=True, slots=True, kw_only=True)
class Statuses:
    """What an operator's `status` values mean."""

    success: frozenset[str]
    rejected: frozenset[str]
    nothing_to_reverse: frozenset[str]

    @classmethod
    def of(cls, settings: StatusesSettings | None = None) -> Statuses:
        """The built-in ones and those of an operator's file, which add to them and never replace them."""
        return cls(
            **{kind: built_in.union(getattr(settings, kind, ())) for kind, built_in in BUILT_IN_STATUSES.items()}
        )


class Judgement(NamedTuple):
    """A verdict with its reason; `effect` is None where the attempt has taught nothing about the operator's side."""

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
    """What `exchange` means for `callback`. `now` (aware) is when it ended.

    Only a Retry-After that is a date needs it.
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
    """The operator's own word, or None where its status is none that we know."""
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
    """The body's one JSON object; fractions are Decimal. Raises _NoAnswerError."""
    try:
        answer = _DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise _NoAnswerError("not_utf8") from None
    except (ValueError, RecursionError):
        # A nesting deeper than Python's parser goes is no answer either.
        raise _NoAnswerError("not_json") from None
    if not isinstance(answer, dict):
        raise _NoAnswerError("not_object")
    return answer


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Two parsers may read such an object differently (RFC 8259 section 4), so nobody can say what the operator
        # meant.
        raise _NoAnswerError("duplicate_keys")
    return found


def _whole_number(digits: str) -> int | Decimal:
    """Beyond any amount is beyond any amount: it must be an anomaly of the balance, never an unreadable answer."""
    return int(digits) if len(digits) <= _DIGITS_MAX else Decimal("Infinity")


def _fraction(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:
        return Decimal("Infinity")


def _refuse_constant(name: str) -> None:
    message = f"{name} is not JSON"
    raise ValueError(message)


_DECODER = json.JSONDecoder(
    object_pairs_hook=_object_without_duplicates,
    parse_int=_whole_number,
    parse_float=_fraction,
    parse_constant=_refuse_constant,
)
"""Made once: json.loads makes one for each call that has hooks."""


def _text(value: str) -> str:
    """`value` as Postgres can keep it: no NUL, no lone surrogates, at most _TEXT_CHARS_MAX characters."""
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
    """The balance in subunits, or what is wrong with it."""
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
    """`value` in subunits, exactly; None where it is beyond any amount or the currency is not known."""
    if (
        minor_digits is None
        or not value.is_finite()
        or abs(value.adjusted()) > _DIGITS_MAX
        or len(value.as_tuple().digits) > _DIGITS_MAX
    ):
        return None
    return value.scaleb(minor_digits, _EXACT)


def _retry_after_s(exchange: Exchange, now: datetime) -> float | None:
    """Seconds that the operator asks us to wait, at least 0; None where it does not say.

    Source: RFC 9110 section 10.2.3.
    """
    value = next((value for name, value in exchange.headers if name.lower() == "retry-after"), "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    try:
        moment = parsedate_to_datetime(value)
        return max(0.0, (moment - now).total_seconds())
    except (ValueError, TypeError, OverflowError, IndexError):
        # Not a date, or one without a zone, which RFC 9110 does not know.
        return None
