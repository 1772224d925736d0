"""The gauges of reconciliation: what is open, since when, and until when all is reconciled."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, time, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from predictu_dispatch.core.fleet import ReconciliationFigures
from predictu_dispatch.edge.postgres.database import Database as Pool
from predictu_dispatch.edge.postgres.outbox import Outbox
from predictu_dispatch.edge.telemetry.reconciliation import ReconciliationGauges
from tests.support.daemons import until
from tests.support.differences import DAY, finished_run, item
from tests.support.environment import Environment
from tests.support.harness import OPERATOR, Connection, Harness
from tests.support.postgres import Database

HOUR_S = 3600.0


async def run_of(owner: Connection, *items: dict[str, Any], hours_ago: float, **fields: Any) -> None:
    run_id = await finished_run(owner, *items, **fields)
    await owner.execute(
        "update predictu_dispatch.reconciliation_run set finished_at = clock_timestamp() - $2::interval"
        " where run_id = $1",
        *(run_id, timedelta(hours=hours_ago)),
    )


@asynccontextmanager
async def two_outboxes(database: Database) -> AsyncIterator[tuple[Outbox, Outbox]]:
    pool = Pool(database.dispatcher, pool_size=2, application_name="test")
    await pool.open()
    try:
        yield Outbox(pool, instance="host-1"), Outbox(pool, instance="host-2")
    finally:
        await pool.close()


def series(figures: ReconciliationFigures) -> dict[str, dict[tuple[str, ...], float]]:
    """Series of each gauge by its labels but the operator, for the only operator."""
    registry = CollectorRegistry()
    ReconciliationGauges(registry).figures_read(figures)
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in registry.collect():
        name = family.name.removeprefix("predictu_dispatch_reconciliation_")
        found[name] = {}
        for sample in family.samples:
            assert sample.labels["operator"] == OPERATOR
            found[name][tuple(value for label, value in sample.labels.items() if label != "operator")] = sample.value
    return found


async def test_open_differences_and_complete_runs_are_counted_once_for_the_fleet(
    harness: Harness, database: Database
) -> None:
    owner = harness.owner
    async with two_outboxes(database) as (one, other):
        empty = await one.reconciliation_figures()
        assert empty is not None
        assert all(not found for found in series(empty).values()), "an operator without runs has no series"

        old = item("transaction:1")
        await run_of(owner, old, item("transaction:closed"), hours_ago=30)
        await run_of(
            owner,
            old,
            item("transaction:2"),
            item("transaction:3", currency="JPY", ours=7),
            item("transaction:4", "ours", disputed=0),
            item("transaction:5", "day_differs", disputed=0),
            hours_ago=2,
        )
        await run_of(owner, first=DAY + timedelta(days=5), hours_ago=1, is_complete=False)
        stored = await other.reconciliation_figures()
        assert stored is not None
        assert stored.runs == empty.runs, "read once a minute, by one daemon"
        await owner.execute("update predictu_dispatch.maintenance_chore set due_at = now()")
        read = await other.reconciliation_figures()
        assert read is not None

    found = series(read)
    assert {key: count for key, count in found["differences"].items() if count} == {
        ("missing_there",): 3,
        ("ours",): 1,
    }
    assert found["differences"]["booked_twice",] == 0, "nothing open is 0, not absent"
    assert ("agreed",) not in found["differences"]
    assert found["disputed_subunits"] == {
        ("missing_there", "EUR"): 2500,
        ("missing_there", "JPY"): 7,
        ("ours", "EUR"): 0,
    }
    assert found["difference_oldest_seconds"]["missing_there",] == pytest.approx(30 * HOUR_S, abs=120)
    assert found["difference_oldest_seconds"]["ours",] == pytest.approx(2 * HOUR_S, abs=120)
    now_s = datetime.now(UTC).timestamp()
    assert found["last_run_complete"] == {(): 0}
    assert found["last_complete_timestamp_seconds"][()] == pytest.approx(now_s - 2 * HOUR_S, abs=120)
    covered = datetime.combine(DAY + timedelta(days=1), time(), UTC).timestamp()
    assert found["covered_until_timestamp_seconds"] == {(): covered}


async def test_a_reading_that_fails_is_an_error_and_old_figures_are_absent(
    harness: Harness, database: Database
) -> None:
    await run_of(harness.owner, hours_ago=9, is_complete=False)
    await run_of(harness.owner, hours_ago=3, is_complete=False)
    async with two_outboxes(database) as (one, _):
        figures = await one.reconciliation_figures()
        assert figures is not None
        found = series(figures)
        first_s = datetime.now(UTC).timestamp() - 9 * HOUR_S
        assert found["last_complete_timestamp_seconds"] == {(): pytest.approx(first_s, abs=120)}, "as long as none is"
        assert found["last_run_complete"] == {(): 0}
        assert found["covered_until_timestamp_seconds"] == {}, "never complete is absent, not 1970"
        assert all(not one for one in series(figures._replace(age_s=1000.0)).values())

        await harness.owner.execute("alter table predictu_dispatch.reconciliation_run rename to hidden")
        await harness.owner.execute("update predictu_dispatch.maintenance_chore set due_at = now()")
        with pytest.raises(Exception, match="reconciliation_run"):
            await one.reconciliation_figures()


async def test_a_daemon_exports_them(environment: Environment) -> None:
    await run_of(environment.harness.owner, item("transaction:1", "amount_differs"), hours_ago=1)
    daemon = await environment.fleet.start("host-1")

    async def they_are_there() -> bool:
        return await daemon.metric("reconciliation_differences", "amount_differs", OPERATOR) == 1

    await until("the difference is there", they_are_there)
    assert daemon.lines("chore.failed") == []
