"""Reads one record of an operator's ledger: from texts to a line, or what is wrong in which column.

A value that could mean two things is refused, never guessed. Ids are compared with ours exactly, so
none is trimmed: a space at an end of an id is a fault.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Final, NamedTuple
from uuid import UUID

from predictu_dispatch.core.accounting_days import AccountingDays
from predictu_dispatch.core.booking_amount import read_decimal, read_subunits
from predictu_dispatch.core.booking_time import read_time
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.reconcile_settings import BOOKED_METHODS, IGNORED, ReconcileSettings
from predictu_dispatch.core.settings import shown

_ID_CHARS_MAX: Final = 200
"""As in `bet` and `callback`."""
_UNSAFE: Final = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff]")
_PLAIN_UUID: Final = re.compile("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
"""What nearly all ids look like; it is matched in a third of the time."""
_UUID: Final = re.compile(
    r"(?:urn:uuid:|({))?([0-9a-f]{8}(-?)[0-9a-f]{4}\3[0-9a-f]{4}\3[0-9a-f]{4}\3[0-9a-f]{12})(?(1)})",
    re.IGNORECASE | re.ASCII,
)
_NIL: Final = str(UUID(int=0))
_DIRECTIONS: Final = {"debit": True, "credit": False}
_SIGN_KEY: Final = "[reconcile] amount_sign"


class LedgerLine(NamedTuple):
    """One booking in the operator's ledger. The fields are the columns of reconciliation_line."""

    booked_at: datetime
    """In UTC."""
    day: date
    """The accounting day of `booked_at`."""
    transaction_id: str | None
    request_id: str | None
    """A UUID as text, in lower case with hyphens; a UUID object would cost too much CPU."""
    method: str | None
    """One of ours, or None if the ledger does not say."""
    bet_id: str | None
    player_id: str | None
    currency: str
    amount: int
    """Subunits, as the player's wallet sees it: a debit is negative."""
    is_debit: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LineFault:
    """Why a record cannot be read."""

    column: str
    """The operator's name of the column; empty if the fault concerns the whole line."""
    why: str


class Ignored(NamedTuple):
    """A record of another product."""


IGNORED_LINE: Final = Ignored()


class _RefusedError(Exception):
    """A column, by our name, and why its value is refused."""

    def __init__(self, column: str, why: str) -> None:
        super().__init__(why)
        self.column = column
        self.why = why


def read_line(
    record: Mapping[str, str | None], settings: ReconcileSettings, days: AccountingDays, digits: Mapping[str, int]
) -> LedgerLine | LineFault | Ignored:
    """Return the line that a record holds, or why it holds none.

    `record` has our names of the columns, and nothing for a column that the file has not. `digits`
    are the decimals of every known currency.
    """
    try:
        return _line(record, settings, days, digits)
    except _RefusedError as refused:
        theirs = getattr(settings.columns, refused.column) if refused.column else ""
        return LineFault(column=theirs or refused.column, why=refused.why)


def _line(
    record: Mapping[str, str | None], settings: ReconcileSettings, days: AccountingDays, digits: Mapping[str, int]
) -> LedgerLine | Ignored:
    method = _method(record, settings)
    if method == IGNORED:
        return IGNORED_LINE
    currency = _currency(record, settings, digits)
    amount, is_debit = _signed(record, settings, method, currency, digits)
    booked_at = record.get("booked_at")
    moment = read_time(booked_at, days) if booked_at else "is empty"
    if isinstance(moment, str):
        raise _RefusedError("booked_at", moment)
    request_id = _request_id(record, settings)
    transaction_id = _id(record, "transaction_id", settings.values.transaction_id)
    bet_id = _id(record, "bet_id", settings.values.bet_id)
    if request_id is None and transaction_id is None and bet_id is None:
        raise _RefusedError("", "has no request_id, no transaction_id and no bet_id")
    player_id = _id(record, "player_id", settings.values.player_id)
    return LedgerLine(*moment, transaction_id, request_id, method, bet_id, player_id, currency, amount, is_debit)


def _method(record: Mapping[str, str | None], settings: ReconcileSettings) -> str | None:
    """Return one of ours, IGNORED, or None."""
    given = record.get("method") or ""
    ours = settings.values.method.get(given)
    if ours is None:
        if given and given not in BOOKED_METHODS:
            raise _RefusedError("method", f"unknown method {shown(given)}; name it under [reconcile.values] method")
        ours = given
    return ours or None


def _currency(record: Mapping[str, str | None], settings: ReconcileSettings, digits: Mapping[str, int]) -> str:
    given = record.get("currency") or ""
    currency = settings.values.currency.get(given, given)
    if not currency:
        raise _RefusedError("currency", 'is empty; for a constant: [reconcile.values] currency = { "" = "EUR" }')
    if currency not in digits:
        raise _RefusedError(
            "currency",
            f"unknown currency {shown(currency)}; name it under [reconcile.values] currency, or add it:"
            " predictu-dispatch currencies add CODE DIGITS",
        )
    return currency


def _signed(
    record: Mapping[str, str | None],
    settings: ReconcileSettings,
    method: str | None,
    currency: str,
    digits: Mapping[str, int],
) -> tuple[int, bool]:
    """Return the amount as the player's wallet sees it, and whether it is a debit."""
    text = record.get("amount") or ""
    if text in settings.values.amount:
        text = ""
    if method == Method.BET_LOSE and not text:
        return 0, False
    amount = _amount(text, settings, currency, digits)
    if isinstance(amount, str):
        raise _RefusedError("amount", amount)
    if method == Method.BET_LOSE:
        if amount:
            raise _RefusedError("amount", f"{shown(text)} is not the 0 of a BET_LOSE")
        return 0, False
    is_debit = _is_debit(amount, text, method, record, settings)
    return -abs(amount) if is_debit else abs(amount), is_debit


def _amount(text: str, settings: ReconcileSettings, currency: str, digits: Mapping[str, int]) -> int | str:
    if not text:
        return "is empty"
    if settings.amount_format == "subunits":
        return read_subunits(text)
    return read_decimal(text, currency, digits[currency], "," if settings.amount_format == "decimal_comma" else ".")


def _direction(record: Mapping[str, str | None], settings: ReconcileSettings) -> bool | None:
    """Return True for a debit, None if the column says nothing."""
    given = record.get("direction") or ""
    direction = settings.values.direction.get(given, given)
    if direction and direction not in _DIRECTIONS:
        raise _RefusedError(
            "direction", f"unknown direction {shown(direction)}; name it under [reconcile.values] direction"
        )
    return _DIRECTIONS.get(direction)


def _is_debit(
    amount: int, text: str, method: str | None, record: Mapping[str, str | None], settings: ReconcileSettings
) -> bool:
    by_direction = _direction(record, settings)
    by_method = None if method is None else method == Method.BET_MAKE
    if by_direction is not None and by_method not in (None, by_direction):
        raise _RefusedError(
            "direction",
            f"{'debit' if by_direction else 'credit'} contradicts method {method}; it is as the player's wallet sees"
            " it, see [reconcile.values] direction",
        )
    stated = by_method if by_direction is None else by_direction
    if settings.amount_sign == "none":
        if text[0] in "+-":
            raise _RefusedError("amount", f'{shown(text)} has a sign, but {_SIGN_KEY} is "none"')
        if stated is None and amount:
            raise _RefusedError("", f'has neither direction nor method, and {_SIGN_KEY} is "none"')
        return bool(stated)
    if not amount:
        return bool(stated)
    by_sign = (amount < 0) == (settings.amount_sign == "player")
    if stated is not None and stated != by_sign:
        reason = f"direction {'debit' if stated else 'credit'}" if by_direction is not None else f"method {method}"
        raise _RefusedError("amount", f'{shown(text)} contradicts {reason}; {_SIGN_KEY} is "{settings.amount_sign}"')
    return by_sign


def _request_id(record: Mapping[str, str | None], settings: ReconcileSettings) -> str | None:
    text = record.get("request_id") or ""
    if not text or text in settings.values.request_id:
        return None
    if _PLAIN_UUID.fullmatch(text):
        request_id = text
    elif match := _UUID.fullmatch(text):
        request_id = str(UUID(match[2]))
    else:
        raise _RefusedError("request_id", f"{shown(text)} is no UUID")
    if request_id == _NIL:
        raise _RefusedError(
            "request_id", f'is the nil UUID; if it stands for none: [reconcile.values] request_id = {{ "{text}" = "" }}'
        )
    return request_id


def _id(record: Mapping[str, str | None], column: str, missing: Mapping[str, str]) -> str | None:
    text = record.get(column)
    if not text or text in missing:
        return None
    if len(text) > _ID_CHARS_MAX:
        raise _RefusedError(column, f"{shown(text)} has more than {_ID_CHARS_MAX} characters")
    if not text.isprintable() and _UNSAFE.search(text):
        raise _RefusedError(column, f"{shown(text)} has a control character")
    if text[0].isspace() or text[-1].isspace():
        raise _RefusedError(column, f"{shown(text)} begins or ends with a space, so it is the same as no other id")
    return text
