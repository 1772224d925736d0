"""The section [reconcile] of an operator's file: how the operator writes its ledger files.

A rule between two keys is a validator of the later field, as in core/operator_settings.py.
"""

from __future__ import annotations

import re
from datetime import time
from typing import Annotated, Final, Literal

from pydantic import BeforeValidator, Field, ValidationError, ValidationInfo, field_validator
from pydantic_core import InitErrorDetails

from predictu_dispatch.core.accounting_days import AccountingDays, time_zone
from predictu_dispatch.core.methods import Method
from predictu_dispatch.core.section import Section
from predictu_dispatch.core.settings import shown

LedgerFormat = Literal["csv", "ndjson", "json"]
AmountSign = Literal["player", "operator", "none"]

IGNORED: Final = "ignore"
"""Under [reconcile.values] method: lines with this value are of other products."""
BOOKED_METHODS: Final = frozenset(method.value for method in Method if method not in (Method.PING, Method.BALANCE))
"""The methods that a ledger's line can have."""

_NAME: Final = 'text of at most 200 characters, or "" if the files have no such column'
_VALUES_MAX: Final = 1000
_VALUE_CHARS_MAX: Final = 200


class ReconcileColumns(Section):
    """Our name of a column = the operator's name of it; "" if its files have no such column."""

    booked_at: str = Field(default="booked_at", min_length=1, max_length=200, description="text of 1 to 200 characters")
    amount: str = Field(default="amount", min_length=1, max_length=200, description="text of 1 to 200 characters")
    currency: str = Field(default="currency", max_length=200, description=_NAME)
    request_id: str = Field(default="request_id", max_length=200, description=_NAME)
    transaction_id: str = Field(default="transaction_id", max_length=200, description=_NAME)
    bet_id: str = Field(default="bet_id", max_length=200, description=_NAME)
    method: str = Field(default="method", max_length=200, description=_NAME)
    direction: str = Field(default="direction", max_length=200, description=_NAME)
    """debit or credit, as the player's wallet sees it."""
    player_id: str = Field(default="player_id", max_length=200, description=_NAME)

    @field_validator("*")
    @classmethod
    def _no_two_are_the_same(cls, theirs: str, info: ValidationInfo) -> str:
        for ours, other in info.data.items():
            if theirs and theirs == other:
                raise ValueError(f"another column than {ours}")
        return theirs

    @field_validator("bet_id")
    @classmethod
    def _a_line_can_be_matched(cls, theirs: str, info: ValidationInfo) -> str:
        if not theirs and not any(info.data.get(ours, "?") for ours in ("request_id", "transaction_id")):
            raise ValueError('the name of a column, because request_id and transaction_id are ""')
        return theirs


def _values(given: object, allowed: str, is_allowed: re.Pattern[str]) -> object:
    """Return the values as they are; raises ValueError with what is allowed."""
    if not isinstance(given, dict) or len(given) > _VALUES_MAX:
        raise ValueError(f"a table of at most {_VALUES_MAX} values of the operator = {allowed}")
    for theirs, ours in given.items():
        if len(theirs) > _VALUE_CHARS_MAX:
            raise ValueError(f"a table of values of at most {_VALUE_CHARS_MAX} characters; {shown(theirs)} is longer")
        if not isinstance(ours, str) or not is_allowed.fullmatch(ours):
            raise ValueError(f"a table of values of the operator = {allowed}; {shown(theirs)} = {shown(ours)} is not")
    return given


def _checked(allowed: str, pattern: str) -> BeforeValidator:
    is_allowed = re.compile(pattern)
    return BeforeValidator(lambda given: _values(given, allowed, is_allowed))


_Methods = Annotated[
    dict[str, str],
    _checked(f'{", ".join(sorted(BOOKED_METHODS))}, "{IGNORED}" or ""', "|".join([*BOOKED_METHODS, IGNORED, ""])),
]
_Directions = Annotated[dict[str, str], _checked('"debit", "credit" or ""', "debit|credit|")]
_Currencies = Annotated[
    dict[str, str], _checked("a currency of 3 to 10 capital letters and digits", "(?=.{3,10}$)[0-9]*[A-Z][A-Z0-9]*")
]
_Missing = Annotated[dict[str, str], _checked('"", for a value that stands for a missing one', "")]


class ReconcileValues(Section):
    """For each column of ours, the operator's values = ours: method = { BET = "BET_MAKE" }.

    The key "" stands for an empty or missing value: currency = { "" = "EUR" } is a constant.
    """

    amount: _Missing = Field(default_factory=dict)
    currency: _Currencies = Field(default_factory=dict)
    request_id: _Missing = Field(default_factory=dict)
    transaction_id: _Missing = Field(default_factory=dict)
    bet_id: _Missing = Field(default_factory=dict)
    method: _Methods = Field(default_factory=dict)
    direction: _Directions = Field(default_factory=dict)
    player_id: _Missing = Field(default_factory=dict)


class ReconcileSettings(Section):
    """How the operator's ledger is read. No daemon uses it."""

    format: LedgerFormat = "csv"
    time_zone: str = Field(
        default="UTC",
        max_length=100,
        pattern=r"^[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*$",
        description='"UTC" or the name of an IANA time zone, such as "Europe/Malta"',
    )
    """For times without an offset, and for the accounting day. Whether the host knows it is checked
    where it is used: a daemon must not refuse the file because its host has no time zones."""
    day_starts: str = Field(
        default="00:00", pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", description='a local time from "00:00" to "23:59"'
    )
    settle_s: float = Field(default=900.0, ge=0, le=86_400)
    amount_format: Literal["subunits", "decimal", "decimal_comma"] = "subunits"
    columns: ReconcileColumns = ReconcileColumns()
    values: ReconcileValues = ReconcileValues()
    amount_sign: AmountSign = "player"
    """player: a debit of the player is negative; operator: it is positive; none: amounts have no
    sign, and the direction follows from the column `direction`, or from `method`."""
    no_end_days: int = Field(default=90, ge=1, le=3650)
    """A debit without an end counts as `no_end` after this time."""
    url: str = Field(
        default="",
        max_length=2048,
        description='the https:// URL of the operator\'s ledger, of at most 2048 characters, or "" for none',
    )

    @property
    def days(self) -> AccountingDays:
        """The operator's accounting days. Raises ValueError if the host does not know the zone."""
        return AccountingDays(zone=time_zone(self.time_zone), day_starts=time.fromisoformat(self.day_starts))

    @field_validator("values")
    @classmethod
    def _a_line_has_a_currency(cls, values: ReconcileValues, info: ValidationInfo) -> ReconcileValues:
        columns = info.data.get("columns")
        if columns is not None and not columns.currency and "" not in values.currency:
            wrong = ValueError('a table with a currency for "", because columns.currency is "": { "" = "EUR" }')
            error = InitErrorDetails(type="value_error", loc=("currency",), input=values.currency, ctx={"error": wrong})
            raise ValidationError.from_exception_data(cls.__name__, [error])
        return values

    @field_validator("amount_sign")
    @classmethod
    def _a_line_has_a_direction(cls, amount_sign: AmountSign, info: ValidationInfo) -> AmountSign:
        columns, values = info.data.get("columns"), info.data.get("values")
        if amount_sign == "none" and columns and values:
            known = columns.method or columns.direction or values.method.get("") or values.direction.get("")
            if not known:
                raise ValueError('"player" or "operator", because columns.method and columns.direction are ""')
        return amount_sign
