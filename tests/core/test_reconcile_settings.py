"""The section [reconcile] of an operator's file."""

from typing import Any

import pytest
from pydantic import ValidationError

from predictu_dispatch.core.operator_settings import OperatorSettings, settings_fingerprint
from predictu_dispatch.core.settings import refusals

LEAST: dict[str, Any] = {
    "operator_id": "op_abc123",
    "callback_url": "https://wallet.example.com/predictu",
    "signing": {"key_file": "keys/op_abc123.pem"},
}
USUAL: dict[str, Any] = {
    "format": "ndjson",
    "time_zone": "Europe/Malta",
    "day_starts": "06:00",
    "amount_format": "decimal",
    "amount_sign": "none",
    "url": "https://wallet.example.com/ledger",
    "columns": {"request_id": "external_ref", "currency": "", "player_id": ""},
    "values": {"method": {"BET": "BET_MAKE", "POKER": "ignore", "": ""}, "currency": {"": "EUR"}},
}


def refused(reconcile: object) -> dict[str, str]:
    """Return the refused keys with what is allowed."""
    given = {**LEAST, "reconcile": reconcile}
    with pytest.raises(ValidationError) as raised:
        OperatorSettings.model_validate(given)
    return {refusal.key: refusal.allowed for refusal in refusals(raised.value, OperatorSettings, given)}


def test_the_section_changes_nothing_for_a_daemon() -> None:
    settings = OperatorSettings.model_validate({**LEAST, "reconcile": USUAL})
    assert settings.reconcile.values.method["BET"] == "BET_MAKE"
    assert settings_fingerprint(settings) == settings_fingerprint(OperatorSettings.model_validate(LEAST))


ZONE = 'must be "UTC" or the name of an IANA time zone, such as "Europe/Malta"'
METHODS = 'BET_LOSE, BET_MAKE, BET_REFUND, BET_ROLLBACK, BET_SELL, BET_WIN, "ignore" or ""'
A_TABLE = f"must be a table of at most 1000 values of the operator = {METHODS}"
VALUES = f"must be a table of values of the operator = {METHODS}"


@pytest.mark.parametrize(
    ("given", "key", "allowed"),
    [
        ({"format": "xlsx"}, "format", 'must be "csv" or "ndjson" or "json"'),
        ({"time_zone": "../Europe/Malta"}, "time_zone", ZONE),
        ({"time_zone": ""}, "time_zone", ZONE),
        ({"day_starts": "6:00"}, "day_starts", 'must be a local time from "00:00" to "23:59"'),
        ({"day_starts": "24:00"}, "day_starts", 'must be a local time from "00:00" to "23:59"'),
        ({"settle_s": -1}, "settle_s", "must be a number from 0 to 86400"),
        ({"no_end_days": 0}, "no_end_days", "must be a whole number from 1 to 3650"),
        ({"amount_sign": "debit"}, "amount_sign", 'must be "player" or "operator" or "none"'),
        ({"url": "http://w.example/"}, "url", "must be an https:// URL, or allow_insecure_http = true"),
        (
            {"url": "https://10.0.0.1/"},
            "url",
            "must be a URL of a public host, or allow_private_addresses = true (10.0.0.1 is private (RFC 1918))",
        ),
        ({"columns": {"amount": ""}}, "columns.amount", "must be text of 1 to 200 characters"),
        ({"columns": {"booked_at": ""}}, "columns.booked_at", "must be text of 1 to 200 characters"),
        ({"columns": {"bet_id": "x", "method": "x"}}, "columns.method", "must be another column than bet_id"),
        ({"columns": {"player_id": "amount"}}, "columns.player_id", "must be another column than amount"),
        (
            {"columns": {"request_id": "", "transaction_id": "", "bet_id": ""}},
            "columns.bet_id",
            'must be the name of a column, because request_id and transaction_id are ""',
        ),
        (
            {"columns": {"currency": ""}},
            "values.currency",
            'must be a table with a currency for "", because columns.currency is "": { "" = "EUR" }',
        ),
        (
            {"amount_sign": "none", "columns": {"method": "", "direction": ""}},
            "amount_sign",
            'must be "player" or "operator", because columns.method and columns.direction are ""',
        ),
        ({"values": {"method": {"BET": "PING"}}}, "values.method", f'{VALUES}; "BET" = "PING" is not'),
        ({"values": {"method": {"BET": 1}}}, "values.method", f'{VALUES}; "BET" = 1 is not'),
        ({"values": {"method": "BET_MAKE"}}, "values.method", A_TABLE),
        ({"values": {"method": {str(n): "BET_WIN" for n in range(1001)}}}, "values.method", A_TABLE),
        ({"values": {"bet_id": {"x" * 201: ""}}}, "values.bet_id", None),
        ({"values": {"currency": {"euro": "eur"}}}, "values.currency", None),
        ({"values": {"currency": {"euro": ""}}}, "values.currency", None),
        ({"values": {"direction": {"D": "DEBIT"}}}, "values.direction", None),
        ({"values": {"bet_id": {"1": "2"}}}, "values.bet_id", None),
        ({"values": {"amount": {"-": "0"}}}, "values.amount", None),
        ({"values": {"methods": {}}}, "values.methods", "unknown key; did you mean reconcile.values.method?"),
        ({"columns": {"external_ref": "request_id"}}, "columns.external_ref", None),
        ({"timezone": "UTC"}, "timezone", "unknown key; did you mean reconcile.time_zone?"),
    ],
)
def test_a_refused_key_says_what_is_allowed(given: dict[str, Any], key: str, allowed: str | None) -> None:
    [(found, why)] = refused(given).items()
    assert found == f"reconcile.{key}"
    assert why == (allowed or why)


def test_every_fault_of_the_section_is_named_at_once() -> None:
    wrong = {"format": "x", "columns": {"amount": "", "method": "currency"}, "values": {"method": {"A": "B"}}}
    assert {*refused(wrong)} == {
        "reconcile.format",
        "reconcile.columns.amount",
        "reconcile.columns.method",
        "reconcile.values.method",
    }
