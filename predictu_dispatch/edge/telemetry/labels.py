"""The values of labels that come from an attempt: why it failed, and the money that it confirmed.

Their number is bounded: an operator chooses its HTTP codes, and must not create series with them.
"""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Final, NamedTuple

import orjson

from predictu_dispatch.core.callback import Callback
from predictu_dispatch.core.lifecycle import Attempt
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.verdict import MISCONFIGURED, OPERATOR_RETRY, UNKNOWN_STATUS, Verdict

_REASONS: Final = frozenset(
    {
        # Not sent.
        *("address_refused", "connect_failed", "connect_refused", "connect_timeout", "dns_failed", "no_socket"),
        *("tls_failed", "too_late", "unsolicited_data", "interrupted", "internal_error"),
        # Without a complete answer.
        *("bad_http", "reset", "timeout", "too_large", "truncated", "unanswered"),
        # Answered.
        *("duplicate_keys", "no_status", "not_json", "not_object", "not_utf8", "nothing_to_reverse"),
        *(MISCONFIGURED, OPERATOR_RETRY, UNKNOWN_STATUS),
        *(f"http_{status.value}" for status in HTTPStatus),
        # Not registered: answers of Cloudflare about the server behind it.
        *(f"http_{code}" for code in range(520, 531)),
    }
)
_OTHER = "other"
_DIRECTIONS: Final = {
    Method.BET_MAKE: "debit",
    Method.BET_WIN: "credit",
    Method.BET_SELL: "credit",
    Method.BET_REFUND: "credit",
    Method.BET_ROLLBACK: "rollback",
}
_NUMBER_CHARS_MAX = 30
_EXACT_DECODER = json.JSONDecoder(
    parse_int=lambda digits: int(digits) if len(digits) <= _NUMBER_CHARS_MAX else None, parse_float=lambda _: None
)
"""Also reads numbers that no machine type holds; orjson takes a fifth of its time."""


class ConfirmedAmount(NamedTuple):
    """Money that moved at the operator, in the currency's smallest unit."""

    subunits: int
    currency: str
    direction: str


def failure_reason(attempt: Attempt) -> str | None:
    """Return why the attempt failed; None if it was delivered, or rejected with a known status."""
    reason = attempt.judgement.reason
    if attempt.outcome.verdict is not Verdict.RETRY and reason != UNKNOWN_STATUS:
        return None
    return reason_label(reason)


def reason_label(reason: str | None) -> str:
    """Return the reason; `http_4xx` and so on for an unusual code, and `other` for no known one."""
    if reason in _REASONS:
        return reason
    if reason is not None and reason.startswith("http_") and reason[5:6].isdigit():
        return f"http_{reason[5]}xx"
    return _OTHER


def confirmed_amount(callback: Callback, reason: str | None) -> ConfirmedAmount | None:
    """Return what a delivered callback moved; None if it moves no money, or reversed nothing."""
    direction = _DIRECTIONS.get(callback.method)
    if direction is None or reason == "nothing_to_reverse":
        return None
    try:
        params = orjson.loads(callback.params)
    except ValueError:
        try:
            params = _EXACT_DECODER.decode(callback.params)
        except (ValueError, RecursionError):
            return None
    subunits, currency = params.get("amount"), params.get("currency")
    if type(subunits) is not int or type(currency) is not str:
        return None
    return ConfirmedAmount(subunits, currency, direction)
