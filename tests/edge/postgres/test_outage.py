"""Postgres outages, lost answers, missing notifications, and deadlines without a daemon."""

import asyncio
import dataclasses
import time
from pathlib import Path

import pytest

from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.support.daemons import until
from tests.support.environment import Environment, open_environment
from tests.support.harness import enqueue, open_harness, retried
from tests.support.postgres import Server, cloned_database, create_template, server_of
from tests.support.postgres_proxy import proxied

DELIVERED_AT_ONCE = [(1, "delivered", "answered", None, "host-1")]


async def test_postgres_killed_with_answers_in_flight_loses_and_doubles_nothing(
    tmp_path: Path, embedded: EmbeddedPostgres
) -> None:
    """The daemon keeps answers until the database is back, then continues."""
    count = 20
    server = server_of(embedded)
    async with (
        cloned_database(server, await create_template(server)) as database,
        open_environment(tmp_path, database) as environment,
    ):
        daemon = await environment.fleet.start("host-1")
        environment.operator.hold()
        placements = [await environment.harness.place(f"b-{n}") for n in range(count)]
        await environment.until_in_flight(count)

        await asyncio.to_thread(embedded.kill)

        async def it_says_so() -> bool:
            return await daemon.get("/readyz") == (503, "the database cannot be reached\n")

        await until("readyz reports the outage", it_says_so)
        assert await daemon.metric("database_up") == 0
        assert (await daemon.get("/healthz"))[0] == 200
        environment.operator.release()
        await until("every answer is on its way", lambda: environment.operator.live.total() == 0)

        await asyncio.to_thread(embedded.restart)
        await until("the daemon is ready again", daemon.is_ready)
        assert await daemon.metric("database_up") == 1
        # The producer's connections are lost too.
        async with open_harness(database) as harness:
            restored = dataclasses.replace(environment, harness=harness)
            await restored.until_all_final()
            assert await restored.bets() == {"open": count}
            assert [await restored.audit(placement) for placement in placements] == [DELIVERED_AT_ONCE] * count
            # It also receives notifications again.
            await harness.end("BET_WIN", "b-0")
            await restored.until_all_final()
        assert len(environment.operator.requests) == count + 1
        assert environment.operator.faults == []
        assert [line["event"] for line in daemon.lines() if line["event"].startswith("database.")][
            -1
        ] == "database.recovered"
        causes = [line["sqlstate"] for line in daemon.lines("database.lost")]
        assert len(causes) == len(set(causes)), "one line for each cause"


@pytest.mark.parametrize("listening", ["at a dead address", "in another database", "where there is no database"])
async def test_without_notifications_polling_does_the_same_work_later(
    environment: Environment, postgres: Server, listening: str
) -> None:
    listen_dsn = {
        "at a dead address": "postgresql://test_dispatcher@127.0.0.1:1/nowhere",
        "in another database": postgres.dsn("postgres", "test_dispatcher"),
        "where there is no database": postgres.dsn("there_is_no_such_database", "test_dispatcher"),
    }[listening]
    daemon = await environment.fleet.start("host-1", database={"listen_dsn": listen_dsn})
    await environment.harness.place()
    await environment.harness.end()
    await environment.until_all_final()
    assert await environment.bets() == {"closed": 1}
    assert daemon.process.poll() is None


async def test_a_notification_wakes_a_daemon_that_polls_once_a_minute(environment: Environment) -> None:
    await environment.fleet.start("host-1", daemon={"poll_interval_s": 60.0})
    await environment.harness.place()
    await environment.until_all_final(within_s=10.0)
    assert await environment.bets() == {"open": 1}


async def test_callbacks_that_expired_while_no_daemon_ran_are_never_sent(environment: Environment) -> None:
    """A debit with effect none voids its bet; one with an unknown outcome is rolled back."""
    harness = environment.harness
    between_attempts = await harness.place("b-between-attempts")
    await harness.attempt(between_attempts, retried, due_in_s=3600.0)
    reviewed = await harness.end("BET_WIN", "b-between-attempts")
    in_flight = await harness.place("b-in-flight")
    await harness.lease(in_flight)
    await environment.expire_leases("host-1")
    never_tried = await harness.place("b-never-tried")
    its_win = await harness.end("BET_WIN", "b-never-tried")
    balance = await enqueue(harness.producer, "BALANCE", {"player_id": "p1", "currency": "EUR"})
    for request_id in (never_tried, balance, between_attempts, in_flight):
        await harness.let_deadline_pass(request_id)
    # The operator has applied one of the two debits with an unknown outcome.
    environment.operator.book("b-in-flight", str(in_flight), "p1", 500)

    await environment.fleet.start("host-2")
    await environment.until_all_final()

    assert await environment.bets() == {"void": 1, "closed": 2}
    assert sorted((r.method, r.envelope["params"]["bet_id"]) for r in environment.operator.requests) == [
        ("BET_ROLLBACK", "b-between-attempts"),
        ("BET_ROLLBACK", "b-in-flight"),
    ]
    assert [await harness.state(r) for r in (never_tried, balance, between_attempts, in_flight)] == ["exhausted"] * 4
    assert [await harness.state(r) for r in (its_win, reviewed)] == ["cancelled"] * 2
    assert (await harness.callback(reviewed))["review_since"] is not None
    assert environment.operator.balance["p1"] == 0
    assert environment.operator.faults == await environment.audit_faults() == []


@pytest.mark.parametrize("lost", ["refuses", "is silent"])
async def test_a_daemon_without_its_database_stops_in_time(environment: Environment, lost: str) -> None:
    """Unsettled attempts are left to the reaper and retried with the same bytes.

    Releasing a silent connection ends in a timeout, which must not replace the cancellation.
    """
    drain_s = 0.3
    async with proxied(environment.fleet.dsn) as proxy:
        environment.operator.hold()
        daemon = await environment.fleet.start("host-1", database={"dsn": proxy.dsn()}, daemon={"drain_s": drain_s})
        placement = await environment.harness.place()
        await environment.until_in_flight(1)
        if lost == "refuses":
            proxy.refuse_connections()
        else:
            proxy.fall_silent()
        environment.operator.release()
        await until("the answer is on its way", lambda: environment.operator.live.total() == 0)
        asked_at_s = time.monotonic()
        daemon.terminate()
        assert await daemon.exited() == 0
        # 5 s for settling after the drain, and up to 2 s each to give silent connections back and
        # to close them.
        assert time.monotonic() - asked_at_s < drain_s + 11.0
        assert daemon.lines("drain.timed_out")[0]["in_flight"] == 1
        [answer] = daemon.lines("answer.lost")
        assert (answer["request_id"], answer["verdict"]) == (str(placement), "delivered")
    assert await environment.harness.state(placement) == "in_flight"
    await environment.expire_leases("host-1")
    await environment.fleet.start("host-2")
    await environment.until_all_final()
    assert [row[1:4] for row in await environment.audit(placement)] == [
        ("retry", "unanswered", "interrupted"),
        ("delivered", "answered", None),
    ]
    assert environment.operator.balance["p1"] == -500
    assert environment.operator.faults == []
