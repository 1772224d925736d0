"""Parses a callback's body and checks every name and amount."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import NoReturn, TypeGuard
from uuid import UUID

from .answer import Answer, Status, shown
from .money import Money

TEXT_CHARS_MAX = 200
"""The longest id of the protocol."""
BET_CONTEXT_KEYS = ("market_id", "outcome", "odds", "shares", "price")
"""The required keys of BET_MAKE's `bet` object."""


class Method(StrEnum):
    """The eight callbacks."""

    PING = "PING"
    BALANCE = "BALANCE"
    BET_MAKE = "BET_MAKE"
    BET_WIN = "BET_WIN"
    BET_LOSE = "BET_LOSE"
    BET_SELL = "BET_SELL"
    BET_REFUND = "BET_REFUND"
    BET_ROLLBACK = "BET_ROLLBACK"


_WITHOUT_CURRENCY = frozenset({Method.PING, Method.BET_LOSE})
_WITHOUT_AMOUNT = frozenset({Method.PING, Method.BALANCE, Method.BET_LOSE})
_WITHOUT_BET = frozenset({Method.PING, Method.BALANCE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """The names of a verified callback, for the record; without names if it is not verified."""

    request_id: str | None = None
    method: str | None = None
    bet_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Callback:
    """One verified message; `amount` is in subunits. Missing texts are "", a missing amount 0."""

    method: Method
    request_id: str
    body_sha256: str
    player_id: str = ""
    currency: str = ""
    amount: int = 0
    bet_id: str = ""
    rollback_of: str = ""

    @property
    def names(self) -> Names:
        return Names(request_id=self.request_id, method=self.method, bet_id=self.bet_id or None)


class _BadBodyError(ValueError):
    """Carries the message of a BAD_REQUEST answer inside this module."""


def read_callback(body: bytes, *, operator_id: str, money: Money) -> Callback | Answer:
    """Returns the callback, or a BAD_REQUEST that says what is wrong and where."""
    try:
        return _read(_parse(body), body, operator_id, money)
    except _BadBodyError as fault:
        return Answer(http_status=400, status=Status.BAD_REQUEST, message=str(fault))


def is_text(value: object) -> TypeGuard[str]:
    """Whether it is a text of 1 to 200 characters without NUL and surrogates."""
    if not isinstance(value, str) or not 1 <= len(value) <= TEXT_CHARS_MAX or "\0" in value:
        return False
    return not any("\ud800" <= character <= "\udfff" for character in value)


def _read(envelope: dict[str, object], body: bytes, operator_id: str, money: Money) -> Callback:
    name = _text(envelope, "method", where="body")
    if name not in frozenset(Method):
        raise _BadBodyError(f'body: method "{name}" is not one of {", ".join(Method)}')
    method = Method(name)
    request_id = _text(envelope, "request_id", where="body")
    _check_uuid(request_id, "body: request_id")
    if envelope.get("operator_id") != operator_id:
        raise _BadBodyError(f"body: operator_id is {shown(envelope.get('operator_id'))}, this is {operator_id}")
    _check_timestamp(_text(envelope, "timestamp", where="body"))
    params = envelope.get("params")
    if not isinstance(params, dict):
        raise _BadBodyError(f"body: params is {shown(params)}, not an object")
    currency = "" if method in _WITHOUT_CURRENCY else _text(params, "currency")
    if method is Method.BET_MAKE:
        _check_bet_context(params.get("bet"))
    rollback_of = _text(params, "rollback_of") if method is Method.BET_ROLLBACK else ""
    if rollback_of:
        _check_uuid(rollback_of, "params: rollback_of")
    return Callback(
        method=method,
        request_id=request_id,
        body_sha256=hashlib.sha256(body).hexdigest(),
        player_id="" if method is Method.PING else _text(params, "player_id"),
        currency=currency,
        amount=0 if method in _WITHOUT_AMOUNT else _amount(params.get("amount"), method, currency, money),
        bet_id="" if method in _WITHOUT_BET else _text(params, "bet_id"),
        rollback_of=rollback_of,
    )


def _parse(body: bytes) -> dict[str, object]:
    """Returns the body as one JSON object; numbers with a decimal point become Decimal."""
    try:
        # json.loads would also accept UTF-16 bytes.
        parsed = json.loads(
            body.decode("utf-8"), object_pairs_hook=_object, parse_float=Decimal, parse_constant=_refuse_constant
        )
    except UnicodeDecodeError as fault:
        raise _BadBodyError(f"body: not UTF-8 at byte {fault.start}") from None
    except RecursionError:
        raise _BadBodyError("body: nested too deeply") from None
    except _BadBodyError:
        raise
    except (ValueError, ArithmeticError) as fault:
        raise _BadBodyError(f"body: not JSON: {fault}") from None
    if not isinstance(parsed, dict):
        raise _BadBodyError(f"body: {shown(parsed)} is not a JSON object")
    return parsed


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Builds an object. Refuses duplicate keys: parsers disagree on which value counts."""
    members: dict[str, object] = {}
    for key, value in pairs:
        if key in members:
            raise _BadBodyError(f"body: duplicate key {shown(key)}")
        members[key] = value
    return members


def _refuse_constant(name: str) -> NoReturn:
    raise _BadBodyError(f"body: {name} is not JSON")


def _text(members: dict[str, object], key: str, *, where: str = "params") -> str:
    if key not in members:
        raise _BadBodyError(f"{where}: {key} is missing")
    value = members[key]
    if not is_text(value):
        raise _BadBodyError(f"{where}: {key} is {shown(value)}, not a text of 1 to {TEXT_CHARS_MAX} characters")
    return value


def _amount(value: object, method: Method, currency: str, money: Money) -> int:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise _BadBodyError(f"params: amount is {shown(value)}, not a number")
    try:
        subunits = money.to_subunits(value, currency)
    except ValueError as fault:
        raise _BadBodyError(f"params: amount {fault}") from None
    if method is Method.BET_MAKE and subunits == 0:
        raise _BadBodyError("params: amount is 0; a placement must debit more than 0")
    return subunits


def _check_uuid(text: str, where: str) -> None:
    """Accepts only the canonical spelling; two spellings of one id could be applied twice."""
    try:
        canonical = str(UUID(text))
    except ValueError:
        canonical = ""
    if text != canonical:
        raise _BadBodyError(f"{where} is {shown(text)}, not a UUID in lower case")


def _check_timestamp(text: str) -> None:
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise _BadBodyError(f"body: timestamp {shown(text)} is not ISO 8601") from None
    if time.tzinfo is None:
        raise _BadBodyError(f"body: timestamp {shown(text)} has no time zone")


def _check_bet_context(bet: object) -> None:
    if not isinstance(bet, dict):
        raise _BadBodyError(f"params: bet is {shown(bet)}, not an object")
    missing = [key for key in BET_CONTEXT_KEYS if key not in bet]
    if missing:
        raise _BadBodyError(f"params: bet has no {', '.join(missing)}")
