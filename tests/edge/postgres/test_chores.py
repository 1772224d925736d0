"""Chores: the database gives each to one daemon per interval."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from predictu_dispatch.core.claim import ClaimRequest
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.edge.postgres.database import Database as Pool
from predictu_dispatch.edge.postgres.outbox import Outbox
from predictu_dispatch.edge.telemetry.families import ProcessStats
from predictu_dispatch.edge.telemetry.observer import Telemetry
from predictu_dispatch.flow.reaper import Reaper
from predictu_dispatch.flow.recorder import Recorder
from tests.support.daemons import until
from tests.support.harness import OPERATOR, Harness
from tests.support.postgres import Database
from tests.support.stepped_clock import steady_clock

_LEASE_S = 0.05


@asynccontextmanager
async def two_outboxes(database: Database) -> AsyncIterator[tuple[Outbox, Outbox]]:
    pool = Pool(database.dispatcher, pool_size=4, application_name="test")
    await pool.open()
    try:
        yield Outbox(pool, instance="host-1"), Outbox(pool, instance="host-2")
    finally:
        await pool.close()


async def lease_that_expires(harness: Harness, outbox: Outbox) -> None:
    await harness.place()
    request = ClaimRequest(
        operator_id=OPERATOR,
        lane=Lane.INTERACTIVE,
        free_slots=1,
        lease_s=_LEASE_S,
        rollback_lease_s=_LEASE_S,
        amount_format="subunits",
    )
    assert len(await outbox.claim([request])) == 1

    async def has_expired() -> bool:
        expired: bool = await harness.owner.fetchval(
            "select lease_until < now() from predictu_dispatch.callback where state = 'in_flight'"
        )
        return expired

    await until("the lease has expired", has_expired)


async def claimed_by(harness: Harness, chore: str) -> str | None:
    name: str | None = await harness.owner.fetchval(
        "select claimed_by from predictu_dispatch.maintenance_chore where chore = $1", chore
    )
    return name


async def test_one_daemon_per_interval_reaps_and_the_next_interval_is_open_to_all(
    harness: Harness, database: Database
) -> None:
    async with two_outboxes(database) as (one, other):
        await lease_that_expires(harness, one)
        both = await asyncio.gather(one.expired_leases(every_s=60), other.expired_leases(every_s=60))
        assert sorted(map(len, both)) == [0, 1]
        # The interval is over: the first daemon to ask reaps, even if the other one never reported.
        assert len(await other.expired_leases(every_s=0)) == 1


async def test_a_daemon_that_cannot_settle_leaves_the_chore_to_others(harness: Harness, database: Database) -> None:
    telemetry = Telemetry(process_stats=lambda: ProcessStats(in_flight={}, is_database_up=True, is_ready=True))

    def wake(_lane: Lane, _delay_s: float, _operator_id: str) -> None: ...

    async with two_outboxes(database) as (one, _):
        await lease_that_expires(harness, one)
        stuck = Recorder(Lane.INTERACTIVE, one, telemetry, wake)
        reaper = Reaper(
            one, dict.fromkeys(Lane, stuck), telemetry, dict, instance="host-1", wake=wake, clock=steady_clock()
        )
        assert await reaper.reap_leases() is False
        # The chore's interval is over only a while later.
        await until("the attempt is left to the report that the recorder does not settle", reaper.reap_leases)


async def test_without_expired_leases_nobody_claims_the_chore(harness: Harness, database: Database) -> None:
    async with two_outboxes(database) as (one, other):
        assert await one.expired_leases(every_s=60) == []
        assert await claimed_by(harness, "reap") is None
        await lease_that_expires(harness, one)
        assert len(await other.expired_leases(every_s=60)) == 1
        assert await claimed_by(harness, "reap") == "host-2"


async def test_one_daemon_counts_and_every_daemon_has_the_figures(harness: Harness, database: Database) -> None:
    await harness.place()
    async with two_outboxes(database) as (one, other):
        counted = await one.fleet_figures()
        assert counted is not None
        assert [(row["state"], row["callbacks"]) for row in counted.backlog] == [("ready", 1)]
        await harness.place("b2")
        stored = await other.fleet_figures()
        assert stored is not None
        assert (stored.backlog, stored.review) == (counted.backlog, counted.review)
        assert stored.age_s > counted.age_s
        assert await claimed_by(harness, "backlog") == "host-1"


async def test_a_count_that_fails_is_done_again_in_the_next_interval(harness: Harness, database: Database) -> None:
    await harness.owner.execute("alter function predictu_dispatch.backlog() rename to hidden")
    async with two_outboxes(database) as (one, other):
        assert await one.fleet_figures() is None
        await harness.owner.execute("alter function predictu_dispatch.hidden() rename to backlog")
        assert await other.fleet_figures() is None
        await harness.owner.execute("update predictu_dispatch.maintenance_chore set due_at = now()")
        assert await other.fleet_figures() is not None
        assert await claimed_by(harness, "backlog") == "host-2"


async def test_partitions_are_prepared_once_per_interval(harness: Harness, database: Database) -> None:
    async with two_outboxes(database) as (one, other):
        await one.prepare_partitions(every_s=60)
        await other.prepare_partitions(every_s=60)
    assert await claimed_by(harness, "partitions") == "host-1"
