"""Pauses, pings, and the record of interventions."""

import asyncio
import json
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import pytest

from tests.support.harness import DISABLED, OPERATOR, WAIT_S, Harness, claim, connected, delivered, retried
from tests.support.interventions import (
    ALICE,
    BOB,
    abandon,
    cancel,
    operator_row,
    pause,
    ping,
    recorded_interventions,
    refusal,
    resolve,
    resume,
    retire,
    retry,
    terminal_in_review,
)
from tests.support.postgres import Database, Server


async def test_a_pause_lasts_until_resume_and_records_time_person_and_reason(
    harness: Harness, database: Database
) -> None:
    notifications = asyncio.Queue[str]()
    async with connected(database.dispatcher, 1) as [listener]:
        await listener.add_listener("predictu_dispatch_operator", lambda *args: notifications.put_nowait(args[-1]))
        await pause(harness.person)
        assert await asyncio.wait_for(notifications.get(), WAIT_S) == OPERATOR
        paused = await operator_row(harness)
        assert (paused["paused_by"], paused["pause_reason"]) == (ALICE, "their upgrade")

        sqlstate, message = await refusal(pause(harness.person, reason="another one", by=BOB))
        assert sqlstate == "PD005"
        assert f"{paused['paused_at']:%Y-%m-%dT%H:%M:%S.%f}"[:-3] + f"Z by {ALICE}: their upgrade" in message
        assert await operator_row(harness) == paused

        await resume(harness.person, by=BOB)
        assert await asyncio.wait_for(notifications.get(), WAIT_S) == OPERATOR
    resumed = await operator_row(harness)
    assert [resumed[key] for key in ("paused_at", "paused_by", "pause_reason")] == [None] * 3
    # A daemon that decided on an older revision writes nothing.
    assert (paused["revision"], resumed["revision"]) == (1, 2)
    assert (await refusal(resume(harness.person)))[0] == "PD005"
    assert await operator_row(harness) == resumed
    assert await recorded_interventions(harness) == [
        ("pause", None, "their upgrade", ALICE, "test_operations"),
        ("resume", None, None, BOB, "test_operations"),
    ]


async def test_the_database_itself_records_login_address_and_what_changed(
    harness: Harness, database: Database, postgres: Server
) -> None:
    """Whatever name is given, and whatever role the session has set."""
    win = await terminal_in_review(harness)
    login = "predictu_test_two_roles"
    await harness.owner.execute(
        f"create role {login} login password '{postgres.password}'; grant test_operations to {login}"
    )
    try:
        async with connected(postgres.dsn(database.name, login), 1) as [person]:
            await person.execute("set role test_operations")
            await retry(person, win, by=f"{login} from 10.1.2.3")
            await pause(person)
            await resume(person)
            address = await person.fetchval("select inet_client_addr()")
    finally:
        await harness.owner.execute(f"drop role {login}")
    rows = await harness.owner.fetch("select * from predictu_dispatch.intervention order by done_at")
    assert {(row["database_role"], row["client_addr"]) for row in rows} == {(login, address)}
    retried, paused, resumed = ((json.loads(row["before"]), json.loads(row["after"])) for row in rows)
    assert rows[0]["bet_id"] == "b1"
    assert [one["state"] for one in retried] == ["exhausted", "ready"]
    assert [one["reason"] for one in retried] == ["max_attempts", None]
    assert [one["review_since"] is None for one in retried] == [False, True]
    assert retried[0].keys() == retried[1].keys() == {"state", "reason", "effect", "attempts", "review_since"}
    assert [one["pause_reason"] for one in (*paused, *resumed)] == [None, "their upgrade", "their upgrade", None]


async def test_person_and_reason_are_required_and_unknown_ids_are_refused(harness: Harness) -> None:
    win, unknown = await terminal_in_review(harness), uuid.uuid4()
    before = await harness.everything()
    for action, sqlstate, text in (
        (retry(harness.person, win, by=" "), "PD003", "by is ' '"),
        (retry(harness.person, win, by=None), "PD003", "by is NULL"),
        (cancel(harness.person, win, reason=""), "PD003", "reason is ''"),
        (cancel(harness.person, win, reason=None), "PD003", "reason is NULL"),
        (abandon(harness.person, win, reason=" "), "PD003", "reason is ' '"),
        (retire(harness.person, reason=None), "PD003", "reason is NULL"),
        (resolve(harness.person, win, reason="x" * 501), "PD003", "reason is 'xxx"),
        (pause(harness.person, reason="\t "), "PD003", "reason is"),
        (resume(harness.person, reason=""), "PD003", "reason is ''"),
        (pause(harness.person, "op_new"), "PD002", "unknown operator 'op_new'"),
        (resume(harness.person, "op_new"), "PD002", "unknown operator 'op_new'"),
        (retire(harness.person, "op_new"), "PD002", "unknown operator 'op_new'"),
        (ping(harness.person, "op_new"), "PD002", "unknown operator 'op_new'"),
        (ping(harness.person, DISABLED), "PD002", f"operator '{DISABLED}' is disabled"),
        (retry(harness.person, unknown), "PD005", f"operator '{OPERATOR}' has no such callback"),
        (cancel(harness.person, unknown), "PD005", str(unknown)),
        (abandon(harness.person, unknown), "PD005", str(unknown)),
        (resolve(harness.person, None), "PD005", "resolve of NULL is refused"),
    ):
        code, message = await refusal(action)
        assert code == sqlstate, message
        assert text in message
    assert (await harness.everything(), await recorded_interventions(harness)) == (before, [])


async def test_interventions_are_append_only(harness: Harness) -> None:
    await pause(harness.person)
    for statement in (
        "update predictu_dispatch.intervention set done_by = 'nobody'",
        "delete from predictu_dispatch.intervention",
        "truncate predictu_dispatch.intervention",
    ):
        for role in ("origin", "replica"):
            async with harness.owner.transaction():
                await harness.owner.execute(f"set local session_replication_role = {role}")
                with pytest.raises(asyncpg.PostgresError, match="is append-only") as refused:
                    async with harness.owner.transaction():
                        await harness.owner.execute(statement)
                assert refused.value.sqlstate == "PD900"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await harness.daemon.execute(statement)
    assert len(await recorded_interventions(harness)) == 1


@pytest.mark.parametrize("action", [retry, cancel, abandon, resolve, pause, resume, retire])
async def test_an_interventions_commit_is_durable(harness: Harness, action: Callable[..., Awaitable[Any]]) -> None:
    """Otherwise a crash of Postgres could send a callback that a person cancelled."""
    named: tuple[uuid.UUID, ...] = ()
    if action in (cancel, abandon):
        named = (await harness.place(),)
    elif action in (retry, resolve):
        named = (await terminal_in_review(harness),)
    if action is abandon:
        await harness.attempt(named[0], retried)
    if action is resume:
        await pause(harness.person)
    async with harness.person.transaction():
        await harness.person.execute("set local synchronous_commit = off")
        await action(harness.person, *named)
        assert await harness.person.fetchval("show synchronous_commit") == "on"


async def test_one_ping_at_a_time_none_while_paused_and_it_decides_an_open_circuit(harness: Harness) -> None:
    first = await ping(harness.person)
    assert await ping(harness.person) == first
    assert (await operator_row(harness))["circuit"] == "closed"
    await harness.attempt(first, delivered)
    await harness.owner.execute("update predictu_dispatch.operator set circuit = 'open'")
    second = await ping(harness.person)
    operator = await operator_row(harness)
    assert (operator["circuit"], operator["ping_request_id"]) == ("half_open", second)
    assert [lease["request_id"] for lease in await claim(harness.daemon)] == [second]
    await pause(harness.person)
    sqlstate, message = await refusal(ping(harness.person))
    assert sqlstate == "PD005"
    assert f"by {ALICE}: their upgrade" in message
