"""Times that lie in the future after the clock was set back, seen from the rows.

The rows are shifted, which is the same; tests/system/test_clock_steps.py steps a real clock.
"""

import time
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.harness import OPERATOR, Harness, retried
from tests.support.heartbeats import heartbeat, pass_time, shares

DELAY_S, INTERACTIVE_BACKOFF_S, SETTLEMENT_BACKOFF_S = 300.0, 2.0, 300.0
CALM_S = 1e9
"""Due times up to the longest delay are not examined."""
HOUR = timedelta(hours=1)
LIMITS = {"op_a": (8, 8, 0.0)}


async def shift(harness: Harness, *request_ids: uuid.UUID, by: timedelta = HOUR) -> None:
    """Moves every time of these callbacks."""
    columns = ("created_at", "due_at", "expires_at", "leased_at", "lease_until", "finished_at")
    await harness.owner.execute("alter table predictu_dispatch.callback disable trigger callback_guarded")
    await harness.owner.execute(
        f"update predictu_dispatch.callback set {', '.join(f'{one} = {one} + $1' for one in columns)}"  # noqa: S608
        " where request_id = any ($2)",
        by,
        request_ids,
    )
    await harness.owner.execute("alter table predictu_dispatch.callback enable always trigger callback_guarded")


async def corrected(harness: Harness, *, ahead_s: float = 1.0, delay_s: float = DELAY_S) -> list[str]:
    rows = await harness.daemon.fetch(
        query("correct_times"),
        *([OPERATOR], [delay_s], [INTERACTIVE_BACKOFF_S], [SETTLEMENT_BACKOFF_S], ahead_s),
    )
    return [row["operator_id"] for row in rows]


async def due_in_s(harness: Harness, request_id: uuid.UUID) -> float:
    due_at: datetime = (await harness.callback(request_id))["due_at"]
    return (due_at - datetime.now(UTC)).total_seconds()


@pytest.mark.parametrize(("by", "ahead_s"), [(HOUR, 1.0), (HOUR, CALM_S), (timedelta(seconds=60), 1.0)])
async def test_a_callback_from_the_future_is_due_now_and_its_deadline_keeps_its_length(
    harness: Harness, by: timedelta, ahead_s: float
) -> None:
    bet = await harness.place()
    before = await harness.callback(bet)
    await shift(harness, bet, by=by)
    assert await corrected(harness, ahead_s=ahead_s) == [OPERATOR]
    after = await harness.callback(bet)
    assert -5.0 < await due_in_s(harness, bet) <= 0.0
    assert (after["expires_at"] - after["due_at"]).total_seconds() == pytest.approx(
        (before["expires_at"] - before["created_at"]).total_seconds(), abs=0.1
    )
    # What is sent stays the same, the timestamp included.
    assert (after["created_at"], after["params"]) == (before["created_at"] + by, before["params"])
    assert await corrected(harness, ahead_s=ahead_s) == []
    assert (await harness.lease(bet))["attempt"] == 1


async def test_a_retry_from_the_future_keeps_its_pause_at_most_the_longest_delay(harness: Harness) -> None:
    bet = await harness.place()
    await harness.attempt(bet, retried, due_in_s=7.0)
    row = await harness.callback(bet)
    pause_s = (row["due_at"] - row["leased_at"]).total_seconds()
    await shift(harness, bet)
    assert await corrected(harness) == [OPERATOR]
    assert 0.0 < await due_in_s(harness, bet) <= pause_s
    assert await corrected(harness) == []
    # Nothing else of the row is from the future, so nothing says how long the pause was.
    await harness.owner.execute(
        "update predictu_dispatch.callback set due_at = now() + interval '1 hour', leased_at = now()"
    )
    assert await corrected(harness, ahead_s=CALM_S) == [OPERATOR]
    assert DELAY_S - 5.0 < await due_in_s(harness, bet) <= DELAY_S


async def test_a_retry_that_a_longer_delay_of_another_file_explains_is_not_changed(harness: Harness) -> None:
    bet = await harness.place()
    await harness.attempt(bet, retried, due_in_s=60.0)
    for ahead_s in (1.0, CALM_S):
        assert await corrected(harness, ahead_s=ahead_s, delay_s=2.0) == []
    assert await due_in_s(harness, bet) > 50.0


async def test_a_usual_retry_and_a_usual_backoff_are_not_changed(harness: Harness) -> None:
    bet = await harness.place()
    await harness.attempt(bet, retried, due_in_s=DELAY_S - 1.0)
    await harness.owner.execute(
        "update predictu_dispatch.operator set circuit_since = now(), interactive_backoff_until = now() + $1,"
        " settlement_backoff_until = now() + $2",
        timedelta(seconds=INTERACTIVE_BACKOFF_S),
        timedelta(seconds=SETTLEMENT_BACKOFF_S),
    )
    before = await harness.everything()
    assert await corrected(harness) == await corrected(harness, ahead_s=CALM_S) == []
    assert await harness.everything() == before


async def test_an_operators_circuit_and_backoff_from_the_future_are_brought_back(harness: Harness) -> None:
    await harness.owner.execute(
        "update predictu_dispatch.operator set circuit_since = now() + $1, last_failure_at = now() + $1,"
        " interactive_backoff_until = now() + $1 + interval '9 seconds',"
        " settlement_backoff_until = now() + $1 + interval '9 seconds'",
        HOUR,
    )
    assert await corrected(harness) == [OPERATOR]
    row = await harness.owner.fetchrow(
        "select revision, circuit_since <= now() as is_past, last_failure_at <= now() as has_failed,"
        " extract(epoch from interactive_backoff_until - now()) as interactive_s,"
        " extract(epoch from settlement_backoff_until - now()) as settlement_s"
        " from predictu_dispatch.operator where operator_id = $1",
        OPERATOR,
    )
    assert row is not None
    # The revision tells the monitors that the row is not the one that they decided on.
    assert (row["revision"], row["is_past"], row["has_failed"]) == (1, True, True)
    assert row["interactive_s"] <= INTERACTIVE_BACKOFF_S
    # What was left of it, because the operator's last failure was at the same time.
    assert 5.0 < row["settlement_s"] <= 9.0


async def test_a_lease_from_the_future_is_named_and_one_of_now_is_not(harness: Harness) -> None:
    ahead, usual = await harness.place("b1"), await harness.place("b2")
    await harness.lease(ahead)
    assert await harness.daemon.fetch(query("leases_ahead"), 10) == []
    await shift(harness, ahead)
    [lease] = await harness.daemon.fetch(query("leases_ahead"), 10)
    assert lease["request_id"] == ahead
    # A microsecond longer, because each lease of a claim ends at its own time.
    assert lease["lease_s"] == pytest.approx(60.0, abs=0.001)
    assert await harness.state(usual) == "in_flight"


async def test_only_a_daemon_that_sees_a_steady_clock_takes_the_shares_of_one_from_the_future(
    harness: Harness,
) -> None:
    stopped, running = uuid.uuid4(), uuid.uuid4()
    await heartbeat(harness.daemon, "d-0", stopped, LIMITS, {})
    for _ in range(4):
        await pass_time(harness.owner, 1.0)
        await heartbeat(harness.daemon, "d-1", running, LIMITS, {}, clock_at_s=0.0)
        await harness.owner.execute(
            "update predictu_dispatch.daemon set seen_at = clock_timestamp() + interval '1 hour' where instance = 'd-0'"
        )
    for clock_at_s in (0.0, time.time() - 5.0, time.time() + 5.0):
        await heartbeat(harness.daemon, "d-1", running, LIMITS, {}, clock_at_s=clock_at_s)
        assert (await shares(harness.owner))["op_a"]["d-0"][0] == 8
    answer = await heartbeat(harness.daemon, "d-1", running, LIMITS, {}, clock_at_s=time.time())
    assert answer["op_a"] == ((8, 8, None), True)
    [stopped_row] = [row for row in await harness.daemon.fetch(query("status_daemons")) if row["instance"] == "d-0"]
    assert not stopped_row["is_live"]
    assert stopped_row["seen_s_ago"] >= 3.0


async def test_after_a_step_back_a_daemon_must_be_present_again_before_it_takes_shares(harness: Harness) -> None:
    """Its own last heartbeat lies in the future."""
    session = uuid.uuid4()
    await heartbeat(harness.daemon, "d-1", session, LIMITS, {})
    await pass_time(harness.owner, -3600.0)
    await heartbeat(harness.daemon, "d-1", session, LIMITS, {}, clock_at_s=time.time())
    present_for_s = await harness.owner.fetchval(
        "select extract(epoch from clock_timestamp() - present_since)::float8 from predictu_dispatch.daemon"
    )
    assert 0.0 <= present_for_s < 3.0


async def test_a_name_from_the_future_is_taken_unless_its_daemon_was_seen_silent(harness: Harness) -> None:
    await heartbeat(harness.daemon, "d-0", uuid.uuid4(), LIMITS, {})
    await pass_time(harness.owner, -3600.0)
    seen_at = await harness.daemon.fetchval(query("daemon_seen_at"), "d-0")
    usual: list[Any] = ["d-0", uuid.uuid4(), "host", 42, "1.0", *[[]] * 7, 1, 0.0, None]
    for wrong in (None, seen_at - HOUR):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await harness.daemon.fetch(query("heartbeat"), *usual, wrong)
        assert refused.value.sqlstate == "PD007"
    assert await harness.daemon.fetch(query("heartbeat"), *usual, seen_at) == []


async def test_a_daemon_of_an_earlier_release_sends_its_heartbeat_as_before(harness: Harness) -> None:
    rows = await harness.daemon.fetch(
        "select operator_id, interactive_slots, settlement_slots, requests_per_s, is_fair"
        " from predictu_dispatch.heartbeat($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
        *("d-0", uuid.uuid4(), "host", 42, "1.0", ["op_a"], [8], [8], [0.0], [0], [0], [None], 2),
    )
    assert [tuple(row) for row in rows] == [("op_a", 8, 8, None, True)]
