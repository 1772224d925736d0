"""The database functions of retry, cancel, abandon, resolve, pause, resume, retire and ping."""

import uuid
from collections.abc import Awaitable
from typing import Any

import asyncpg
import pytest

from tests.support.harness import OPERATOR, Connection, Harness, delivered, exhausted

ALICE, BOB = "alice@desk-1", "bob@desk-2"


async def _call(connection: Connection, function: str, *values: object) -> Any:
    places = ", ".join(f"${n}" for n in range(1, len(values) + 1))
    return await connection.fetchrow(f"select * from predictu_dispatch.{function}({places})", *values)  # noqa: S608


async def retry(connection: Connection, request_id: uuid.UUID | None, by: str | None = ALICE) -> Any:
    return await _call(connection, "retry_callback", OPERATOR, request_id, by)


async def cancel(
    connection: Connection, request_id: uuid.UUID | None, reason: str | None = "market is void", by: str | None = ALICE
) -> Any:
    return await _call(connection, "cancel_callback", OPERATOR, request_id, reason, by)


async def abandon(
    connection: Connection, request_id: uuid.UUID | None, reason: str | None = "they are down", by: str | None = ALICE
) -> Any:
    return await _call(connection, "abandon_callback", OPERATOR, request_id, reason, by)


async def resolve(
    connection: Connection, request_id: uuid.UUID | None, reason: str | None = "paid by hand", by: str | None = ALICE
) -> Any:
    return await _call(connection, "resolve_callback", OPERATOR, request_id, reason, by)


async def pause(
    connection: Connection, operator_id: str = OPERATOR, reason: str | None = "their upgrade", by: str | None = ALICE
) -> Any:
    return await _call(connection, "pause_operator", operator_id, reason, by)


async def resume(
    connection: Connection, operator_id: str = OPERATOR, reason: str | None = None, by: str | None = ALICE
) -> Any:
    return await _call(connection, "resume_operator", operator_id, reason, by)


async def retire(
    connection: Connection, operator_id: str = OPERATOR, reason: str | None = "contract ended", by: str | None = ALICE
) -> Any:
    return await _call(connection, "retire_operator", operator_id, reason, by)


async def ping(connection: Connection, operator_id: str = OPERATOR) -> uuid.UUID:
    request_id: uuid.UUID = await connection.fetchval("select predictu_dispatch.ping_operator($1)", operator_id)
    return request_id


async def refusal(action: Awaitable[Any]) -> tuple[str, str]:
    """Returns SQLSTATE and message of the refusal; every refusal of ours has a hint."""
    with pytest.raises(asyncpg.PostgresError) as refused:
        await action
    assert refused.value.hint
    return refused.value.sqlstate, str(refused.value)


async def recorded_interventions(harness: Harness) -> list[tuple[Any, ...]]:
    """(action, request_id, reason, done_by, database_role) of each intervention, in order."""
    rows = await harness.owner.fetch(
        "select action, request_id, reason, done_by, database_role from predictu_dispatch.intervention order by done_at"
    )
    return [tuple(row) for row in rows]


async def terminal_in_review(harness: Harness, bet_id: str = "b1", method: str = "BET_WIN", **fields: Any) -> uuid.UUID:
    """Makes a terminal that is exhausted after one attempt and needs review."""
    await harness.attempt(await harness.place(bet_id), delivered)
    terminal = await harness.end(method, bet_id)
    await harness.attempt(terminal, exhausted, **fields)
    return terminal


async def operator_row(harness: Harness) -> asyncpg.Record:
    row = await harness.owner.fetchrow("select * from predictu_dispatch.operator where operator_id = $1", OPERATOR)
    assert row is not None
    return row


async def open_bet(harness: Harness, bet_id: str) -> uuid.UUID:
    placement = await harness.place(bet_id)
    await harness.attempt(placement, delivered)
    return placement


async def in_review(harness: Harness, bet_id: str, method: str = "BET_WIN", **fields: Any) -> uuid.UUID:
    """A terminal that is exhausted after one attempt."""
    await open_bet(harness, bet_id)
    terminal = await harness.end(method, bet_id, **fields)
    await harness.attempt(terminal, exhausted)
    return terminal
