"""settle_one() does what settle() does to one delivered attempt, or nothing."""

import asyncio
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest

from tests.support.harness import (
    Harness,
    Lease,
    Report,
    delivered,
    enqueue,
    exhausted,
    reaped,
    rejected,
    retried,
    rollback,
    settle_one,
    terminal_params,
    until_blocked,
)

METHODS = ("PING", "BALANCE", "BET_MAKE")
OWN = {
    "callback": ("request_id", "bet_id", "params", "created_at", "due_at", "expires_at", "leased_at", "finished_at"),
    "bet": ("bet_id", "placement_request_id", "created_at", "updated_at"),
    "attempt_record": ("request_id", "report_id", "started_at", "finished_at", "written_in"),
}
"""Columns that differ between two callbacks with one history."""


AT = {"started_at": datetime(2026, 1, 2, 3, tzinfo=UTC), "finished_at": datetime(2026, 1, 2, 4, tzinfo=UTC)}
TEXTS = """
    state_reason operator_status operator_transaction_id anomaly reason instance url key_id request_body error peer
"""
NUMBERS = "balance response_status connect_ms first_byte_ms total_ms"


def complete(lease: Lease) -> Report:
    """A report with another value in each field."""
    return delivered(
        lease,
        **AT,
        **{name: f"a {name}" for name in TEXTS.split()},
        **{name: number for number, name in enumerate(NUMBERS.split(), start=1)},
        request_headers='{"X-A": "sent"}',
        response_headers='[["X-A", "received"]]',
        response_body=b"\x00\xff",
        response_truncated=True,
        peer_certificate_sha256=b"certificate",
        token_signature=b"signature",
        response_body_sha256=b"whole",
        response_body_repeats=lease["attempt"] - 1,
    )


async def enqueued(harness: Harness, method: str, bet_id: str) -> uuid.UUID:
    if method == "BET_MAKE":
        return await harness.place(bet_id)
    params = {"player_id": "p1", "currency": "EUR"} if method == "BALANCE" else {}
    return await enqueue(harness.producer, method, params)


async def stored(harness: Harness, request_id: uuid.UUID) -> dict[str, list[dict[str, Any]]]:
    """The callback, its bet and its audit, without the columns that are its own."""
    of_callback = "where request_id = $1"
    rows = {
        "callback": of_callback,
        "bet": "where placement_request_id = $1",
        "attempt_record": of_callback + " order by attempt",
    }
    return {
        table: [
            {name: value for name, value in row.items() if name not in OWN[table]}
            for row in await harness.owner.fetch(f"select * from predictu_dispatch.{table} {where}", request_id)  # noqa: S608
        ]
        for table, where in rows.items()
    }


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("earlier", [(), (retried,), (reaped, retried)], ids=len)
async def test_settle_one_stores_what_settle_stores(
    harness: Harness, method: str, earlier: tuple[Callable[..., Report], ...]
) -> None:
    after = []
    for bet_id in ("b1", "b2"):
        request_id = await enqueued(harness, method, bet_id)
        for came_to in earlier:
            await harness.attempt(request_id, came_to, **AT, operator_status="BUSY", report_id=uuid.uuid4())
        report = complete(await harness.lease(request_id))
        if bet_id == "b1":
            assert [change["cause"] for change in await harness.settle(report)] == ["settled"]
        else:
            assert await settle_one(harness.daemon, report)
            assert [change["cause"] for change in await harness.settle(report)] == ["repeated"]
        after.append(await stored(harness, request_id))
    by_settle, alone = after
    assert alone == by_settle
    assert len(alone["attempt_record"]) == 1 + len(earlier)
    assert [row["state"] for row in (*alone["callback"], *alone["bet"])] == ["delivered", "open"][
        : 1 + (method == "BET_MAKE")
    ]


async def settled_already(harness: Harness, lease: Lease) -> Report:
    report = delivered(lease)
    await harness.settle(report)
    return report


async def of_a_later_attempt(harness: Harness, lease: Lease) -> Report:
    await harness.settle(reaped(lease))
    await harness.lease(lease["request_id"])
    return delivered(lease)


async def reaped_already(harness: Harness, lease: Lease) -> Report:
    await harness.settle(reaped(lease))
    return delivered(lease)


async def with_a_waiting_win(harness: Harness, lease: Lease) -> Report:
    await harness.end("BET_WIN")
    return delivered(lease)


async def with_a_waiting_rollback(harness: Harness, lease: Lease) -> Report:
    await harness.rollback()
    return delivered(lease)


async def of_another_bet(harness: Harness, lease: Lease) -> Report:
    await harness.place("another")
    return delivered(lease, bet_id="another")


async def of_another_method(harness: Harness, lease: Lease) -> Report:
    """As a BALANCE, a bet's end would be settled without its bet."""
    await harness.settle(delivered(lease))
    return delivered(await harness.lease(await harness.end("BET_WIN")), method="BALANCE")


async def of_an_unknown_callback(_: Harness, lease: Lease) -> Report:
    return delivered(lease, request_id=uuid.uuid4())


async def of_another_result(_: Harness, lease: Lease) -> Report:
    return rejected(lease)


async def to_be_retried(_: Harness, lease: Lease) -> Report:
    return retried(lease)


async def of_no_further_attempt(_: Harness, lease: Lease) -> Report:
    return exhausted(lease)


async def of_a_win(harness: Harness, lease: Lease) -> Report:
    await harness.settle(delivered(lease))
    return delivered(await harness.lease(await harness.end("BET_WIN")))


async def of_a_rollback(harness: Harness, lease: Lease) -> Report:
    await harness.settle(delivered(lease))
    rollback_id = await harness.rollback()
    assert rollback_id is not None
    return delivered(await harness.lease(rollback_id), state_reason="nothing_to_reverse")


@pytest.mark.parametrize(
    "reported",
    [
        settled_already,
        of_a_later_attempt,
        reaped_already,
        with_a_waiting_win,
        with_a_waiting_rollback,
        of_another_bet,
        of_another_method,
        of_an_unknown_callback,
        of_another_result,
        to_be_retried,
        of_no_further_attempt,
        of_a_win,
        of_a_rollback,
    ],
)
async def test_settle_one_changes_nothing_where_settle_must_decide(
    harness: Harness, reported: Callable[[Harness, Lease], Awaitable[Report]]
) -> None:
    report = await reported(harness, await harness.lease(await harness.place()))
    audit = "select * from predictu_dispatch.attempt_record order by request_id, report_id"
    before = (await harness.everything(), await harness.owner.fetch(audit))
    assert not await settle_one(harness.daemon, report)
    assert (await harness.everything(), await harness.owner.fetch(audit)) == before


@pytest.mark.parametrize("table", ["bet", "callback"])
async def test_settle_one_waits_for_no_lock(harness: Harness, table: str) -> None:
    report = delivered(await harness.lease(await harness.place()))
    async with harness.owner.transaction():
        await harness.owner.execute(f"select from predictu_dispatch.{table} for no key update")
        assert not await settle_one(harness.daemon, report)
    assert await settle_one(harness.daemon, report)


@pytest.mark.parametrize("ends", ["BET_WIN", "rollback"])
async def test_what_ends_a_bet_concurrently_is_never_left_waiting(harness: Harness, ends: str) -> None:
    """It waits for the lock of settle_one(), or settle_one() leaves the report to settle()."""

    async def end(bet: asyncpg.Record) -> uuid.UUID | None:
        if ends == "rollback":
            return await rollback(harness.producer, bet["bet_id"])
        return await enqueue(harness.producer, ends, terminal_params(ends, bet))

    lease = await harness.lease(await harness.place("b1"))
    bet = await harness.bet("b1")
    async with asyncio.TaskGroup() as group, harness.daemon.transaction():
        assert await settle_one(harness.daemon, delivered(lease))
        ending = group.create_task(end(bet))
        await until_blocked(harness.owner, harness.producer)
    assert await harness.state(ending.result()) == "ready"

    lease = await harness.lease(await harness.place("b2"))
    bet = await harness.bet("b2")
    async with harness.producer.transaction():
        terminal = await end(bet)
        assert not await settle_one(harness.daemon, delivered(lease))
    assert not await settle_one(harness.daemon, delivered(lease))
    await harness.settle(delivered(lease))
    assert await harness.state(terminal) == "ready"
