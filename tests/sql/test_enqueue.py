"""enqueue_callback(): refusals and their messages, idempotency, and a callback's values."""

import json
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from tests.support.harness import (
    DISABLED,
    INTERACTIVE_DEADLINE_S,
    OPERATOR,
    Harness,
    claim,
    delivered,
    enqueue,
    know_operators,
    placement_params,
    terminal_params,
)

BALANCE: dict[str, Any] = {"player_id": "p1", "currency": "EUR"}
WIN: dict[str, Any] = {"player_id": "p1", "currency": "EUR", "amount": 900, "bet_id": "open"}
BET: dict[str, Any] = placement_params("b1")["bet"]
PLACEMENT = uuid.UUID(int=1)


async def adopt_open_bet(harness: Harness, amount: int = 500) -> None:
    await harness.producer.execute(
        "select predictu_dispatch.adopt_bet($1, 'open', 'p1', 'EUR', $2, $3)", OPERATOR, amount, PLACEMENT
    )


async def refusal_of(harness: Harness, method: str | None, params: Any, **more: Any) -> asyncpg.PostgresError:
    """The error that the producer gets; checks that nothing changed."""
    before = await harness.everything()
    with pytest.raises(asyncpg.PostgresError) as refused:
        await enqueue(harness.producer, method, params, **more)
    assert await harness.everything() == before
    assert refused.value.hint, f"{refused.value} does not say what to do"
    return refused.value


# Refused


async def test_an_unknown_method_is_refused_and_named(harness: Harness) -> None:
    for method, named in [
        ("BET_MAKE_", "'BET_MAKE_'"),
        ("bet_make", "'bet_make'"),
        ("", "''"),
        (None, "NULL"),
        ("x" * 500, "'xxx"),
    ]:
        refused = await refusal_of(harness, method, BALANCE)
        assert (refused.sqlstate, named in str(refused)) == ("PD001", True), str(refused)
        assert len(str(refused)) < 300


async def test_an_unknown_or_disabled_operator_is_refused_and_named(harness: Harness) -> None:
    for operator_id, text in [
        ("op_x", "unknown operator 'op_x'"),
        (None, "unknown operator NULL"),
        (DISABLED, "'op_off' is disabled"),
    ]:
        refused = await refusal_of(harness, "BALANCE", BALANCE, operator_id=operator_id)
        assert (refused.sqlstate, text in str(refused)) == ("PD002", True), str(refused)


def without(params: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in params.items() if name != key}


def amounts(text: str) -> str:
    """Params of a win whose amount is this JSON text."""
    return json.dumps(WIN | {"amount": "?"}).replace('"?"', text)


BAD_PARAMS: list[tuple[str, Any, str]] = [
    *(
        (method, params, "is not a JSON object")
        for method in ("PING", "BET_WIN")
        for params in (None, "[]", "null", '"x"', "1")
    ),
    ("PING", {"player_id": "p1"}, "is not empty"),
    *(("BALANCE", without(BALANCE, key), f"missing: {key}") for key in BALANCE),
    *(("BET_MAKE", without(placement_params("b1"), key), f"missing: {key}") for key in placement_params("b1")),
    *(("BET_WIN", without(WIN, key), f"missing: {key}") for key in WIN),
    ("BET_LOSE", {"player_id": "p1"}, "missing: bet_id"),
    ("BET_ROLLBACK", WIN, "missing: rollback_of"),
    ("BALANCE", {}, "missing: player_id, currency"),
    *(("BALANCE", BALANCE | {"player_id": bad}, '"player_id" is') for bad in (None, 1, "", [1], "x" * 201)),
    *(("BET_WIN", WIN | {"bet_id": bad}, '"bet_id" is') for bad in (None, 7, "", "x" * 201)),
    *(("BALANCE", BALANCE | {"currency": bad}, '"currency" is') for bad in (None, 978, "")),
    *(
        ("BALANCE", BALANCE | {"currency": bad}, f'unknown currency "{bad}"')
        for bad in ("eur", "EURO", "XXX", "XAU", "ABC")
    ),
    *(
        ("BET_WIN", amounts(bad), f'"amount" is {bad}')
        for bad in ("-1", "1.5", "500.0", "null", '"500"', "true", "[1]", "1000000000000000000")
    ),
    ("BET_WIN", amounts("1e30"), f'"amount" is 1{"0" * 30}'),
    ("BET_WIN", amounts("1e-3"), '"amount" is 0.001'),
    ("BET_MAKE", placement_params("b1", amount=0), '"amount" is 0'),
    *(("BET_MAKE", placement_params("b1") | {"bet": bad}, '"bet" is') for bad in (None, "x", 1)),
    (
        "BET_MAKE",
        placement_params("b1") | {"bet": {"market_id": "m", "outcome": "o", "odds": 2}},
        '"bet" lacks shares, price',
    ),
    *(
        ("BET_MAKE", placement_params("b1") | {"bet": BET | {"odds": bad}}, '"odds" is')
        for bad in ("1.85", "", True, [1.85], {"decimal": 1.85})
    ),
    *(("BET_LOSE", {"player_id": "p1", "bet_id": "open", "amount": n}, '"amount" is given') for n in (0, 500, None)),
    ("BALANCE", BALANCE | {"note": "x" * 65536}, "bytes"),
    ("BALANCE", json.dumps(BALANCE)[:-1] + ',"n":1e70000}', "bytes"),
    ("BALANCE", json.dumps(BALANCE)[:-1] + ',"n":' + "[" * 32 + "]" * 32 + "}", "nested"),
    ("BALANCE", json.dumps(BALANCE)[:-1] + ',"n":' + '{"n":' * 32 + "1" + "}" * 32 + "}", "nested"),
    ("BET_WIN", WIN | {"player_id": "p2"}, '"player_id" is p2, the bet\'s is p1'),
    ("BET_WIN", WIN | {"currency": "USD"}, '"currency" is USD, the bet\'s is EUR'),
    ("BET_LOSE", {"player_id": "p2", "bet_id": "open"}, '"player_id" is p2, the bet\'s is p1'),
    ("BET_REFUND", WIN | {"amount": 499}, '"amount" is 499, the bet\'s debit is 500'),
    ("BET_ROLLBACK", WIN | {"amount": 501, "rollback_of": str(PLACEMENT)}, '"amount" is 501, the bet\'s debit is 500'),
    *(
        ("BET_ROLLBACK", WIN | {"amount": 500, "rollback_of": bad}, '"rollback_of" is')
        for bad in (str(uuid.UUID(int=7)), "x", 1, None)
    ),
]


async def test_bad_params_are_refused_with_the_value_and_what_is_allowed(harness: Harness) -> None:
    await adopt_open_bet(harness)
    for method, params, text in BAD_PARAMS:
        refused = await refusal_of(harness, method, params)
        assert (refused.sqlstate, text in str(refused)) == ("PD003", True), f"{method} {str(params)[:200]}: {refused}"
        assert len(str(refused)) < 400, "the message must be readable"


async def test_a_deadline_in_the_past_or_too_far_away_or_of_a_rollback_is_refused(harness: Harness) -> None:
    """`show` could not print the far one; an expired rollback would leave its debit standing."""
    await harness.place()
    rollback, soon = terminal_params("BET_ROLLBACK", await harness.bet()), datetime.now(UTC) + timedelta(seconds=60)
    for method, params, expires_at, text in (
        ("BALANCE", BALANCE, datetime(2020, 1, 1, tzinfo=UTC), "is in the past"),
        ("BALANCE", BALANCE, datetime.now(UTC) - timedelta(seconds=1), "is in the past"),
        ("PING", {}, datetime(9999, 1, 1, tzinfo=UTC), "more than 10 years away"),
        ("BET_ROLLBACK", rollback, soon, "expires_at"),
    ):
        refused = await refusal_of(harness, method, params, expires_at=expires_at)
        assert (refused.sqlstate, text in str(refused)) == ("PD003", True), str(refused)


async def test_the_largest_and_deepest_allowed_params_are_accepted(harness: Harness) -> None:
    deepest = json.dumps(BALANCE)[:-1] + ',"n":' + "[" * 30 + "]" * 30 + "}"
    room = 65536 - len(json.dumps(BALANCE | {"note": ""}))
    for params in (deepest, BALANCE | {"note": "x" * room}, BALANCE | {"player_id": "ü" * 200}):
        assert await harness.state(await enqueue(harness.producer, "BALANCE", params)) == "ready"
    await adopt_open_bet(harness, 10**18 - 1)
    assert await harness.state(await enqueue(harness.producer, "BET_WIN", amounts("999999999999999999"))) == "ready"


async def test_a_second_placement_or_a_terminal_without_a_bet_is_refused(harness: Harness) -> None:
    await harness.place("b1")
    for method, params, text in [
        ("BET_MAKE", placement_params("b1"), "the bet exists already"),
        ("BET_WIN", WIN | {"bet_id": "b9"}, "bet b9"),
        ("BET_LOSE", {"player_id": "p1", "bet_id": "b9"}, "the bet is unknown"),
    ]:
        refused = await refusal_of(harness, method, params)
        assert (refused.sqlstate, text in str(refused)) == ("PD005", True), str(refused)


# Idempotent by request_id


async def test_repeating_a_request_enqueues_it_once(harness: Harness) -> None:
    """Also after its bet has changed and its deadline has passed."""
    placement, win = uuid.uuid4(), uuid.uuid4()
    await harness.place(request_id=placement)
    await harness.attempt(placement, delivered)
    await harness.end("BET_WIN", request_id=win)
    await harness.attempt(win, delivered)
    balance = await enqueue(harness.producer, "BALANCE", BALANCE)
    await harness.let_deadline_pass(balance)
    # A repetition succeeds even if nothing new is accepted, because the operator may have received
    # it.
    await harness.owner.execute(
        "update predictu_dispatch.operator set enabled = false where operator_id = $1", OPERATOR
    )
    before = await harness.everything()
    assert await harness.place(request_id=placement) == placement
    assert await harness.end("BET_WIN", request_id=win) == win
    past = datetime(2020, 1, 1, tzinfo=UTC)
    assert await enqueue(harness.producer, "BALANCE", BALANCE, request_id=balance, expires_at=past) == balance
    assert await harness.everything() == before


async def test_a_request_id_with_other_content_is_refused(harness: Harness) -> None:
    placement = await harness.place("b1")
    await harness.attempt(placement, delivered)
    win = await harness.end("BET_WIN", "b1")
    for request_id, method, params in [
        (placement, "BET_MAKE", placement_params("b1", amount=501)),
        (placement, "BET_MAKE", placement_params("b2")),
        (placement, "BALANCE", BALANCE),
        (placement, "PING", {}),
        (win, "BET_SELL", WIN | {"bet_id": "b1", "amount": 500}),
        (win, "BET_WIN", WIN | {"bet_id": "b1", "amount": 501}),
        (win, "BET_WIN", WIN | {"bet_id": "b1", "amount": 500, "extra": 1}),
        (win, "BET_MAKE", placement_params("b3")),
    ]:
        refused = await refusal_of(harness, method, params, request_id=request_id)
        assert (refused.sqlstate, str(request_id) in str(refused)) == ("PD004", True), str(refused)


# What a callback is given


async def test_a_callback_expires_by_its_lane_and_a_rollback_never(harness: Harness) -> None:
    await know_operators(harness.daemon, settlement_deadline_s=3600.0)
    given = datetime.now(UTC) + timedelta(days=3)

    async def deadline_s(request_id: uuid.UUID) -> float | None:
        callback = await harness.callback(request_id)
        return (callback["expires_at"] - callback["created_at"]).total_seconds() if callback["expires_at"] else None

    assert await deadline_s(await enqueue(harness.producer, "PING", {})) == INTERACTIVE_DEADLINE_S
    assert await deadline_s(await enqueue(harness.producer, "BALANCE", BALANCE)) == INTERACTIVE_DEADLINE_S
    assert await deadline_s(await harness.place("b1")) == INTERACTIVE_DEADLINE_S
    assert await deadline_s(await harness.end("BET_WIN", "b1")) == 3600.0
    await harness.place("b2")
    assert await deadline_s(await harness.end("BET_ROLLBACK", "b2")) is None
    assert (await harness.callback(await enqueue(harness.producer, "PING", {}, expires_at=given)))[
        "expires_at"
    ] == given
    await know_operators(harness.daemon, settlement_deadline_s=0.0)
    await harness.place("b3")
    assert await deadline_s(await harness.end("BET_LOSE", "b3")) is None


async def test_an_infinite_deadline_means_none(harness: Harness) -> None:
    """Postgres before 17 cannot subtract infinity; one such row must not break every claim."""
    request_id: uuid.UUID = await harness.producer.fetchval(
        "select predictu_dispatch.enqueue_callback($1, 'BALANCE', $2, null, 'infinity')", OPERATOR, json.dumps(BALANCE)
    )
    assert [(lease["request_id"], lease["expires_in_s"]) for lease in await claim(harness.daemon)] == [
        (request_id, None)
    ]


async def test_further_keys_and_their_numbers_survive_exactly(harness: Harness) -> None:
    further = '"odds": 1.10, "big": 12345678901234567890123456789.123456789000, "small": 1E-20, "list": [0.0, -0.50]'
    request_id = await enqueue(harness.producer, "BALANCE", json.dumps(BALANCE)[:-1] + f", {further}}}")
    [lease] = await claim(harness.daemon)
    params = json.loads(lease["params"], parse_float=str)
    assert lease["request_id"] == request_id
    assert params == BALANCE | {
        "odds": "1.10",
        "big": "12345678901234567890123456789.123456789000",
        "small": "0.00000000000000000001",
        "list": ["0.0", "-0.50"],
    }


async def test_a_callback_is_claimable_only_after_its_producer_commits(harness: Harness) -> None:
    transaction = harness.producer.transaction()
    await transaction.start()
    await harness.place()
    assert await claim(harness.daemon) == []
    await transaction.rollback()
    assert await harness.everything() == []
    async with harness.producer.transaction():
        placement = await harness.place()
        win = await enqueue(harness.producer, "BET_WIN", WIN | {"bet_id": "b1"})
    assert [lease["request_id"] for lease in await claim(harness.daemon)] == [placement]
    assert await harness.state(win) == "waiting"
