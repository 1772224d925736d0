"""The body of a callback: the same bytes on every attempt, every number digit by digit."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from predictu_dispatch.core.callback import Callback, Effect, body
from predictu_dispatch.core.methods import RULES, Method
from tests.support.postgres import Server

REQUEST_ID = UUID("8f14e45f-ceea-467f-a0e6-1d5b2b8f9c11")
MOMENT = datetime(2026, 3, 19, 14, 30, tzinfo=UTC)


def a_callback(method: Method = Method.BET_MAKE, **differing: Any) -> Callback:
    """Return a callback leased just now for its first attempt, without a deadline."""
    usual: dict[str, Any] = {
        "operator_id": "op_abc123",
        "request_id": REQUEST_ID,
        "method": method,
        "bet_id": None if method in {Method.PING, Method.BALANCE} else "bet-1",
        "lane": RULES[method].lane,
        "attempt": 1,
        "budget_from": 0,
        "effect": Effect.NONE,
        "reason": None,
        "params": '{"amount": 1050, "bet_id": "bet-1", "currency": "EUR", "player_id": "p-1"}',
        "created_at": MOMENT,
        "due_at": MOMENT,
        "expires_in_s": None,
        "leased_at": MOMENT,
        "lease_s": 10.0,
        "amount_format": "subunits",
        "minor_digits": 2,
        "placement_ended_s_ago": None,
        "leased_at_s": 1000.0,
    }
    return Callback(**{**usual, **differing})


def test_the_envelope_has_its_five_keys_in_order_and_no_space() -> None:
    written = body(a_callback(Method.BALANCE, params='{"currency": "EUR", "player_id": "p-1"}'))
    assert written == (
        b'{"method":"BALANCE","timestamp":"2026-03-19T14:30:00.000Z","request_id":"8f14e45f-ceea-467f-a0e6-1d5b2b8f9c11",'
        b'"operator_id":"op_abc123","params":{"currency":"EUR","player_id":"p-1"}}'
    )


@pytest.mark.parametrize("method", Method)
def test_every_method_is_sent_under_its_name(method: Method) -> None:
    assert json.loads(body(a_callback(method)))["method"] == method.value


@pytest.mark.parametrize(
    ("microsecond", "written"), [(0, "000"), (7_000, "007"), (120_000, "120"), (999_999, "999"), (999, "000")]
)
def test_the_timestamps_milliseconds_are_truncated(microsecond: int, written: str) -> None:
    envelope = json.loads(body(a_callback(created_at=MOMENT.replace(microsecond=microsecond))))
    assert envelope["timestamp"] == f"2026-03-19T14:30:00.{written}Z"


def test_the_body_is_the_same_for_every_attempt() -> None:
    first = a_callback()
    later = first._replace(
        attempt=7,
        budget_from=3,
        effect=Effect.UNKNOWN,
        reason="http_503",
        due_at=MOMENT.replace(hour=20),
        leased_at=MOMENT.replace(hour=20),
        leased_at_s=99.0,
        expires_in_s=1.0,
        lease_s=300.0,
    )
    assert body(first) == body(later)


TEXTS = [
    r'"{\"amount\": 1}"',
    r'"a \\"',
    r'"\\\" , : [ ] { }"',
    '"€ 𝄞 é — “quoted”"',
    r'"\b\f\n\r\t\u0001"',
    '"two  spaces, and: a colon"',
    '"\N{NO-BREAK SPACE}\N{LINE SEPARATOR}"',
]
"""Strings as Postgres prints them that look like other JSON."""


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("amount_format", ["subunits", "decimal"])
def test_strings_are_copied_byte_by_byte(text: str, amount_format: str) -> None:
    written = body(a_callback(params=f'{{"note": {text}, {text}: 1}}', amount_format=amount_format))
    assert written.endswith(f'"params":{{"note":{text},{text}:1}}}}'.encode())


@pytest.mark.parametrize(
    ("params", "written"),
    [
        ('{"bet": {"amount": 7}, "amount": 1050}', '{"bet":{"amount":7},"amount":10.50}'),
        ('{"kind": "amount", "amount": 1050}', '{"kind":"amount","amount":10.50}'),
        ('{"list": ["amount", 7, {"amount": 7}], "amount": 1050}', '{"list":["amount",7,{"amount":7}],"amount":10.50}'),
        ('{"note": "{\\"amount\\": 7", "amount": 1050}', '{"note":"{\\"amount\\": 7","amount":10.50}'),
        ('{"amounts": 7, "the amount": 7, "Amount": 7}', '{"amounts":7,"the amount":7,"Amount":7}'),
        ('{"last": "amount"}', '{"last":"amount"}'),
        ("{}", "{}"),
    ],
)
def test_decimal_format_changes_only_the_top_level_amount(params: str, written: str) -> None:
    assert body(a_callback(params=params, amount_format="decimal")).endswith(f'"params":{written}}}'.encode())


def test_a_decimal_amount_without_known_minor_digits_is_refused() -> None:
    with pytest.raises(ValueError, match="minor digits"):
        body(a_callback(amount_format="decimal", minor_digits=None))


def test_a_callback_without_an_amount_needs_no_known_currency() -> None:
    callback = a_callback(Method.BET_LOSE, params='{"bet_id": "b"}', amount_format="decimal", minor_digits=None)
    assert body(callback).endswith(b'"params":{"bet_id":"b"}}')


# Any params

# What jsonb can hold: no NUL, no lone surrogates.
texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
names = st.one_of(texts, st.sampled_from(["amount", "bet", '"amount"', "{", "a\\"]))
numbers = st.decimals(allow_nan=False, allow_infinity=False, places=None).filter(lambda d: abs(d.adjusted()) < 400)
values = st.recursive(
    st.one_of(st.none(), st.booleans(), numbers, texts),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(names, inner, max_size=4)),
    max_leaves=12,
)
params_objects = st.dictionaries(names.filter(lambda name: name != "amount"), values, max_size=5)
amounts = st.integers(min_value=0, max_value=10**18 - 1)


def printed(value: object) -> str:
    """Return `value` as Postgres prints jsonb."""
    match value:
        case dict():
            return "{" + ", ".join(f"{printed(k)}: {printed(v)}" for k, v in value.items()) + "}"
        case list():
            return "[" + ", ".join(printed(v) for v in value) + "]"
        case Decimal():
            return f"{value:f}"
        case _:
            return json.dumps(value, ensure_ascii=False)


def parsed(text: str | bytes) -> Any:
    """Return the values, every number as its digits: 1.10 and 1.1 differ."""
    return json.loads(text, parse_int=lambda d: ("number", d), parse_float=lambda d: ("number", d))


@given(params=params_objects, amount=st.none() | amounts)
def test_any_params_are_sent_unchanged(params: dict[str, Any], amount: int | None) -> None:
    text = printed(params if amount is None else {**params, "amount": amount})
    assert parsed(body(a_callback(params=text)))["params"] == parsed(text)


@given(params=params_objects, amount=amounts, minor_digits=st.sampled_from([0, 2, 3, 4]), first=st.booleans())
def test_the_decimal_body_differs_only_in_the_top_level_amount_and_is_exact(
    params: dict[str, Any], amount: int, minor_digits: int, *, first: bool
) -> None:
    whole = {"amount": amount, **params} if first else {**params, "amount": amount}
    subunits = a_callback(params=printed(whole), minor_digits=minor_digits)
    as_subunits = parsed(body(subunits))["params"]
    as_decimal = parsed(body(subunits._replace(amount_format="decimal")))["params"]
    kind, digits = as_decimal.pop("amount")
    assert kind == "number"
    assert as_subunits.pop("amount") == ("number", str(amount))
    assert as_decimal == as_subunits
    assert len(digits.partition(".")[2]) == minor_digits
    assert int(digits.replace(".", "")) == amount
    assert Decimal(digits) * 10**minor_digits == amount


async def test_jsonb_printed_by_postgres_is_compacted_without_other_changes(postgres: Server) -> None:
    given_text = (
        '{"amount":1050,"odds":1.10,"huge":1e400,"tiny":1e-7,"long":123456789012345678901234567890,'
        '"text":"\\u20ac \\"x\\" {\\\\} \\u0007","nested":{"amount":[1.50,{"amount":2}]},"no":null,"yes":true,'
        '"none":[],"o":{}}'
    )
    connection = await asyncpg.connect(postgres.maintenance_dsn)
    try:
        text = await connection.fetchval("select $1::text::jsonb::text", given_text)
    finally:
        await connection.close()
    written = parsed(body(a_callback(params=text, amount_format="decimal")))["params"]
    assert written.pop("amount") == ("number", "10.50")
    assert written == {
        "odds": ("number", "1.10"),
        "huge": ("number", "1" + "0" * 400),
        "tiny": ("number", "0.0000001"),
        "long": ("number", "123456789012345678901234567890"),
        "text": '€ "x" {\\} \x07',
        "nested": {"amount": [("number", "1.50"), {"amount": ("number", "2")}]},
        "no": None,
        "yes": True,
        "none": [],
        "o": {},
    }
