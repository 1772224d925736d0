"""Reads an operator's answer: the one JSON object of its body, and the values in it."""

from __future__ import annotations

import json
from decimal import Context, Decimal, Inexact, InvalidOperation
from typing import Any, Final

from predictu_dispatch.core.callback import Callback
from predictu_dispatch.core.methods import RULES

BUILT_IN_STATUSES: Final[dict[str, frozenset[str]]] = {
    "success": frozenset({"OK", "DUPLICATE", "DUPLICATE_TRANSACTION"}),
    "rejected": frozenset({"INSUFFICIENT_FUNDS", "PLAYER_NOT_FOUND"}),
    "nothing_to_reverse": frozenset({"TRANSACTION_NOT_FOUND", "BET_NOT_FOUND"}),
    "retry": frozenset(),
}
"""The statuses of every operator, by the key of `[statuses]` that adds to them."""

_TEXT_CHARS_MAX = 200
"""The longest identifier that the database takes; the audit's response_body has the whole text."""
_DIGITS_MAX = 30
"""Postgres bigint has 19 digits; the rest is for a currency's minor digits."""
_EXACT = Context(prec=2 * _DIGITS_MAX, traps=[Inexact])
_BALANCE_MAX = 2**63 - 1
"""Postgres bigint."""


class NoAnswerError(Exception):
    """The body is not an answer; the message is the reason code."""


def read_answer(body: bytes) -> dict[str, Any]:
    """Return the body's one JSON object, with fractions as Decimal. Raises NoAnswerError."""
    try:
        text = body.decode("utf-8").strip(_JSON_SPACE)
        answer, end = _DECODER.raw_decode(text)
    except UnicodeDecodeError:
        raise NoAnswerError("not_utf8") from None
    except (ValueError, RecursionError):
        # RecursionError: nested deeper than Python's parser goes.
        raise NoAnswerError("not_json") from None
    if end != len(text):
        raise NoAnswerError("not_json")
    if not isinstance(answer, dict):
        raise NoAnswerError("not_object")
    return answer


def _object_without_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        # Parsers read such an object differently (RFC 8259 section 4), so its meaning is unknown.
        raise NoAnswerError("duplicate_keys")
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


def storable(value: str) -> str:
    """Return `value` as Postgres can store it: no NUL, no lone surrogates, not too long."""
    shortened = value[:_TEXT_CHARS_MAX].replace("\0", "\ufffd")
    return shortened if shortened.isascii() else shortened.encode("utf-8", "replace").decode("utf-8")


def transaction_id_of(answer: dict[str, Any]) -> tuple[str | None, str | None]:
    """Return the operator's transaction id, or what is wrong with it; both None if absent."""
    value = answer.get("transaction_id")
    if value is None:
        return None, None
    if isinstance(value, str) and value:
        return storable(value), None
    if isinstance(value, int) and not isinstance(value, bool):
        return storable(str(value)), None
    return None, f"transaction_id is {storable(str(value))!r}, neither text nor a whole number"


def balance_of(callback: Callback, answer: dict[str, Any]) -> tuple[int | None, str | None]:
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
        shown = repr(storable(value)) if isinstance(value, str) else storable(str(value))
        return None, f"balance is {shown}, not an amount in amount_format {callback.amount_format}"
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
