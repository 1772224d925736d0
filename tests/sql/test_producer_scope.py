"""producer_scope: a login that has rows there acts for those operators only."""

import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import asyncpg
import pytest

from tests.support.harness import (
    DISABLED,
    OPERATOR,
    Connection,
    Harness,
    delivered,
    enqueue,
    placement_params,
    rollback,
    terminal_params,
)

BALANCE = {"player_id": "p1", "currency": "EUR"}
OTHER = "op_of_somebody_else"
PLACED = uuid.UUID(int=1)
STRANGERS = {f"'{OTHER}'": OTHER, f"'{DISABLED}'": DISABLED, "'op_unknown'": "op_unknown", "NULL": None}
"""Operators that the login may not act for, as messages name them."""


async def adopt(producer: Connection, operator_id: str | None, bet_id: str) -> None:
    await producer.execute(
        "select predictu_dispatch.adopt_bet($1, $2, 'p1', 'EUR', 500, gen_random_uuid())", operator_id, bet_id
    )


async def outcome(producer: Connection, operator_id: str | None, request_id: uuid.UUID) -> Any:
    return await producer.fetchval("select state from predictu_dispatch.outcome($1, $2)", operator_id, request_id)


Call = Callable[[Connection, str | None], Coroutine[Any, Any, Any]]
CALLS: dict[str, Call] = {
    "enqueue": lambda producer, operator: enqueue(producer, "BALANCE", BALANCE, operator_id=operator),
    # A repeated request, which needs neither an enabled operator nor valid params.
    "enqueue again": lambda producer, operator: enqueue(
        producer, "BET_MAKE", placement_params("placed"), request_id=PLACED, operator_id=operator
    ),
    "roll back": lambda producer, operator: rollback(producer, "placed", operator),
    "adopt": lambda producer, operator: adopt(producer, operator, "adopted"),
    "read an outcome": lambda producer, operator: outcome(producer, operator, PLACED),
    "read a bet's outcome": lambda producer, operator: producer.fetch(
        "select * from predictu_dispatch.outcome_of_bet($1, 'placed')", operator
    ),
}


async def scope(harness: Harness, operator_id: str, login: str = "test_producer") -> None:
    await harness.owner.execute("insert into predictu_dispatch.producer_scope values ($1, $2)", operator_id, login)


@pytest.mark.parametrize("call", CALLS)
async def test_a_scoped_login_may_act_for_its_operators_only(harness: Harness, call: str) -> None:
    await harness.owner.execute(
        "insert into predictu_dispatch.operator (operator_id, enabled, interactive_deadline_s, settlement_deadline_s,"
        " config_fingerprint) values ($1, true, 100, 0, 'f')",
        OTHER,
    )
    for operator in (OPERATOR, OTHER):
        params = placement_params("placed")
        await enqueue(harness.producer, "BET_MAKE", params, request_id=PLACED, operator_id=operator)
    before = await harness.everything()
    await scope(harness, OPERATOR)
    for named, stranger in STRANGERS.items():
        with pytest.raises(asyncpg.PostgresError) as refused:
            await CALLS[call](harness.producer, stranger)
        assert refused.value.sqlstate == "PD008"
        assert refused.value.args[0] == f"test_producer may not act for operator {named}"
        assert "producer_scope" in str(refused.value.hint)
    assert await harness.everything() == before
    await CALLS[call](harness.producer, OPERATOR)
    await scope(harness, OTHER)
    await CALLS[call](harness.producer, OTHER)


async def test_a_scope_restricts_no_other_login_and_delivers_what_was_enqueued(harness: Harness) -> None:
    await scope(harness, OPERATOR)
    await scope(harness, OTHER, "test_dispatcher")
    await harness.attempt(await harness.place(), delivered)
    await enqueue(harness.owner, "BET_WIN", terminal_params("BET_WIN", await harness.bet()))


async def test_a_misspelt_login_is_refused_because_it_would_restrict_nobody(harness: Harness) -> None:
    with pytest.raises(asyncpg.PostgresError, match=r"names the role test_producr, which does not exist"):
        await scope(harness, OPERATOR, "test_producr")
