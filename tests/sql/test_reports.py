"""What settle() takes from a report, and what from the lease."""

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.harness import Harness, Lease, Report, claim, delivered, reaped, report, settle_one

IN_2027 = datetime(2027, 6, 1, tzinfo=UTC)
FORGED = {"started_at": IN_2027, "finished_at": IN_2027, "instance": "another-host"}


async def audited(harness: Harness) -> list[tuple[Any, ...]]:
    rows = await harness.owner.fetch(
        "select attempt, verdict, instance, method, started_at, finished_at from predictu_dispatch.attempt"
        " order by started_at, verdict = 'late', report_id"
    )
    return [tuple(row) for row in rows]


async def causes(harness: Harness, *reports: Report) -> list[str]:
    return sorted(change["cause"] for change in await harness.settle(*reports))


@pytest.mark.parametrize("function", ["settle", "settle_one"])
async def test_a_stolen_login_of_a_daemon_writes_no_row_of_another_time_or_daemon(
    harness: Harness, function: str
) -> None:
    """A row of 2027 would stand in the default partition, and that month could not be created."""
    lease = await harness.lease(await harness.place())
    forged = delivered(lease, **FORGED)
    if function == "settle_one":
        assert await settle_one(harness.daemon, forged)
    else:
        assert await causes(harness, forged) == ["settled"]
    [(attempt, verdict, instance, method, started_at, finished_at)] = await audited(harness)
    assert (attempt, verdict, instance, method, started_at) == (
        1,
        "delivered",
        "host-1",
        "BET_MAKE",
        lease["leased_at"],
    )
    now = await harness.owner.fetchval("select clock_timestamp()")
    assert started_at <= finished_at <= now + timedelta(seconds=1)
    # Nor as a late answer, of this attempt or of others.
    for number in (0, 2, 2**31 - 1):
        assert await causes(harness, delivered(lease, **FORGED, attempt=number)) == ["unknown_attempt"]
    assert await causes(harness, delivered(lease, **FORGED)) == ["late"]
    assert {row[2:5] for row in await audited(harness)} == {("host-1", "BET_MAKE", lease["leased_at"])}
    await harness.owner.execute("select predictu_dispatch.prepare_partitions(12)")
    assert await harness.owner.fetchval("select count(*) from predictu_dispatch.attempt_default") == 0


async def test_a_late_answer_has_the_times_and_the_daemon_of_its_attempt(harness: Harness) -> None:
    lease = await harness.lease(await harness.place())
    await harness.settle(reaped(lease))
    early = lease["leased_at"] - timedelta(days=400)
    late = delivered(lease, instance="another-host", finished_at=early, method="BET_WIN")
    assert await causes(harness, late) == ["late"]
    assert await causes(harness, late) == ["repeated"]
    at = lease["leased_at"]
    assert (await audited(harness))[1] == (1, "late", "host-1", "BET_MAKE", at, at)


def of_an_unknown_callback(lease: Lease) -> Report:
    return delivered(lease, request_id=uuid.uuid4())


def of_another_bet(lease: Lease) -> Report:
    return delivered(lease, bet_id="another")


def of_a_future_attempt(lease: Lease) -> Report:
    return report(lease, attempt=7, state="ready", verdict="retry", due_in_s=0.0)


def of_an_unknown_operator(lease: Lease) -> Report:
    return delivered(lease, operator_id="op_nobody")


@pytest.mark.parametrize(
    "unknown", [of_an_unknown_callback, of_another_bet, of_a_future_attempt, of_an_unknown_operator]
)
async def test_a_report_of_an_attempt_that_was_never_claimed_fails_no_batch(harness: Harness, unknown: Any) -> None:
    await harness.place("b1")
    await harness.place("b2")
    first, second = await claim(harness.daemon)
    bad = unknown(first)
    before = await harness.everything()
    assert await causes(harness, bad) == ["unknown_attempt"]
    assert await harness.everything() == before
    assert await audited(harness) == []
    assert await causes(harness, bad, delivered(second)) == ["settled", "unknown_attempt"]
    assert [row[:2] for row in await audited(harness)] == [(1, "delivered")]
