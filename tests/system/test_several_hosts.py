"""Two hosts, each with a daemon: one is cut off from Postgres, or from the operator, and recovers.

A cut is silent: what is sent is lost, as with a pulled cable. See tests/support/hosts.py for the
hosts.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import UUID

import pytest

from predictu_dispatch.core.callback import LEASE_MARGIN_S
from predictu_dispatch.core.fleet import HEARTBEAT_INTERVAL_S, HEARTBEAT_TIMEOUT_S, SHARE_VALID_S
from tests.support.bulk import STAKE, place_many, until_heartbeats, until_slots
from tests.support.circuits import print_figures
from tests.support.daemons import Daemon, until
from tests.support.environment import Environment, open_environment
from tests.support.hosts import Cable, HostNetwork, open_network, why_no_hosts
from tests.support.postgres import Database
from tests.support.postgres_proxy import Trick

A, B = "host-a", "host-b"
LIMIT, HALF = 12, 6
BETS, ATTEMPT_S = 300, 4.0
HEARTBEAT, NO_STATEMENT = "predictu_dispatch.heartbeat(", "\0"
DELIVERED = ("delivered", "answered", None)
LATE_MACHINE_S = 4.0
"""What a loaded machine may add to any duration below."""


@pytest.fixture
async def network(tmp_path: Path, database: Database) -> AsyncIterator[HostNetwork]:
    if reason := why_no_hosts():
        pytest.skip(reason)
    async with open_environment(tmp_path, database) as environment, open_network(environment, A, B) as network:
        yield network


async def leased(environment: Environment, instance: str) -> list[UUID]:
    """Returns the callbacks that this daemon has leased, from the database."""
    rows = await environment.harness.owner.fetch(
        "select request_id from predictu_dispatch.callback where state = 'in_flight' and leased_by = $1"
        " order by request_id",
        instance,
    )
    return [row["request_id"] for row in rows]


async def until_leased(environment: Environment, instance: str, count: int) -> None:
    """Waits until this daemon has `count` leases."""

    async def so_many() -> bool:
        return len(await leased(environment, instance)) == count

    await until(f"{instance} has {count} under way", so_many)


async def rows(environment: Environment, instance: str, verdict: str, evidence: str, reason: str | None) -> int:
    """Returns the number of audit rows of this daemon with these values."""
    count: int = await environment.harness.owner.fetchval(
        "select count(*) from predictu_dispatch.attempt"
        " where instance = $1 and verdict = $2 and evidence = $3 and reason is not distinct from $4",
        *(instance, verdict, evidence, reason),
    )
    return count


async def all_placed(environment: Environment, count: int) -> None:
    """Checks that every bet is open, booked once and audited, without a fault seen."""
    await environment.until_all_final()
    assert await environment.states() == {"delivered": count}
    assert await environment.bets() == {"open": count}
    assert sum(environment.operator.balance.values()) == -STAKE * count
    assert environment.operator.faults == await environment.audit_faults() == []


async def test_a_host_cut_off_from_postgres_stops_is_replaced_reports_late_and_comes_back(network: HostNetwork) -> None:
    """Its requests continue: some are answered while it cannot settle, some time out."""
    environment, operator, cut_off = network.environment, network.environment.operator, network.hosts[A]
    network.write_operator(interactive={"max_in_flight": LIMIT, "attempt_timeout_s": ATTEMPT_S})
    a, b = await network.start()
    await until_slots(environment, host_a=HALF, host_b=HALF)
    operator.hold()
    await place_many(environment, BETS)
    await until("all slots are busy", lambda: operator.busy["interactive"] == LIMIT)
    own, others = await leased(environment, A), await leased(environment, B)
    answered, hanging = own[:3], own[3:]

    cut_off.pull(Cable.POSTGRES)
    cut_at_s = time.monotonic()
    # Slow answers from here on keep all slots busy until the end.
    operator.answers_in_s = 0.5
    operator.stop_holding()
    operator.release_only([*answered, *others])
    await is_replaced(network, a, cut_at_s)
    assert operator.busiest["interactive"] <= LIMIT + len(hanging)
    await a.until_logged("database.lost")
    assert (await a.get("/healthz"))[0] == 200
    assert await late_reports(environment) == [0, 0]
    await heal_without_a_share(network)
    await until_slots(environment, host_a=HALF, host_b=HALF)
    await until_leased(environment, A, HALF)
    operator.answers_in_s = 0.0
    await all_placed(environment, 2 * BETS)

    assert operator.busiest["interactive"] <= LIMIT
    for request_ids, expected in ((answered, ("answered", None)), (hanging, ("unanswered", "timeout"))):
        for request_id in request_ids:
            interrupted, late, delivered = await environment.audit(request_id)
            assert interrupted == (1, "retry", "unanswered", "interrupted", A)
            assert late == (1, "late", *expected, A)
            assert delivered[:4] == (2, *DELIVERED)
            first, second = operator.sent(request_id)
            assert first.body == second.body
    assert len(operator.requests) == 2 * BETS + len(own), "nothing else was sent twice"
    assert await a.metric("leases_lost_total") == len(own)
    assert await a.is_ready()
    assert [daemon.process.poll() for daemon in (a, b)] == [None, None]


async def is_replaced(network: HostNetwork, a: Daemon, cut_at_s: float) -> None:
    """Checks that it stops sending, and that the other host gets its slots, then its leases."""
    no_share = "no heartbeat succeeded, so this daemon has no share of any operator's limits\n"

    async def it_knows() -> bool:
        return await a.get("/readyz") == (503, no_share)

    await until("it knows that its share is over", it_knows)
    assert time.monotonic() - cut_at_s < SHARE_VALID_S + LATE_MACHINE_S
    await until_slots(network.environment, host_b=LIMIT)
    await until_leased(network.environment, B, LIMIT)
    replaced_after_s = time.monotonic() - cut_at_s
    assert replaced_after_s < HEARTBEAT_TIMEOUT_S + 2 * HEARTBEAT_INTERVAL_S + LATE_MACHINE_S
    await until_leased(network.environment, A, 0)
    reaped_after_s = time.monotonic() - cut_at_s
    assert reaped_after_s < ATTEMPT_S + LEASE_MARGIN_S + LATE_MACHINE_S
    print_figures(
        f"the other host has its slots after {replaced_after_s:.1f} s, and its leases after {reaped_after_s:.1f} s"
    )


async def heal_without_a_share(network: HostNetwork) -> None:
    """Reconnects it to Postgres but holds its heartbeats' answers: it sends nothing.

    The other host has all slots; its own are free once its late reports are settled.
    """
    environment, cut_off = network.environment, network.hosts[A]
    await place_many(environment, BETS)
    cut_off.proxy.on_next(HEARTBEAT, Trick.KEEP_ANSWER, times=10_000)
    environment.operator.busiest.clear()
    cut_off.plug(Cable.POSTGRES)
    healed_at_s = time.monotonic()

    async def has_settled_everything() -> bool:
        return await late_reports(environment) == [3, 3]

    await until("it has settled everything", has_settled_everything)
    print_figures(f"healed, it has settled everything after {time.monotonic() - healed_at_s:.1f} s")
    await until_heartbeats(environment, B, times=1)
    assert await leased(environment, A) == []
    assert environment.operator.busiest["interactive"] <= LIMIT
    cut_off.proxy.on_next(NO_STATEMENT, Trick.KEEP_ANSWER)
    cut_off.proxy.release_answers()


async def late_reports(environment: Environment) -> list[int]:
    """Returns the numbers of answers and timeouts that the cut-off host reported late."""
    return [await rows(environment, A, "late", *what) for what in (("answered", None), ("unanswered", "timeout"))]


async def test_a_host_cut_off_from_the_operator_loses_no_bet_and_no_timed_out_request_arrives_later(
    network: HostNetwork,
) -> None:
    """Three answers are lost, three requests go out on dead connections, then it cannot connect."""
    environment, operator, cut_off = network.environment, network.environment.operator, network.hosts[A]
    network.write_operator(
        interactive={"max_in_flight": LIMIT, "attempt_timeout_s": 2.5, "connect_timeout_s": 0.3, "max_attempts": 100}
    )
    await network.start()
    await until_slots(environment, host_a=HALF, host_b=HALF)
    operator.hold()
    await place_many(environment, LIMIT)
    await until("all slots are busy", lambda: operator.busy["interactive"] == LIMIT)
    own = await leased(environment, A)
    operator.release_only([*own[3:], *await leased(environment, B)])
    await until_leased(environment, A, 3)
    await until_leased(environment, B, 0)

    cut_off.pull(Cable.OPERATOR)
    cut_at_s = time.monotonic()
    # Slow answers leave enough work for this host to try.
    operator.answers_in_s = 0.3
    operator.release()
    await place_many(environment, 120)

    async def all_attempts_have_failed() -> bool:
        timeouts = await rows(environment, A, "retry", "unanswered", "timeout")
        return timeouts >= 6 and await rows(environment, A, "retry", "not_sent", "connect_timeout") >= HALF

    await until("three answers, three requests and some connections have failed", all_attempts_have_failed)
    assert await rows(environment, B, *DELIVERED) > HALF, "the other host goes on"
    healed_at_s = time.monotonic()
    cut_off.plug(Cable.OPERATOR)
    operator.answers_in_s = 0.0
    await all_placed(environment, 120 + LIMIT)
    # A kernel retransmits after twice the time it has tried so far, see tcp(7). Nothing may arrive
    # any more.
    twice_s = cut_at_s + 2 * (healed_at_s - cut_at_s) + 0.5
    await until("a kernel would have sent it again", lambda: time.monotonic() > twice_s)
    answered = await environment.harness.owner.fetch(
        "select request_id from predictu_dispatch.attempt where evidence = 'answered'"
    )
    arrived = Counter(UUID(request.request_id) for request in operator.requests)
    assert arrived - Counter(row["request_id"] for row in answered) == Counter(own[:3])
    assert operator.faults == []
