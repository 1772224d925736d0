"""Hosts that cannot reach an operator: one of two, the only one, both; cut silently, then healed.

See tests/support/hosts.py for the hosts.
"""

import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.bulk import place_many, until_heartbeats, until_slots
from tests.support.circuits import operator_row, print_figures, until_operator_is
from tests.support.command_line import command_line_for
from tests.support.daemons import Daemon, until
from tests.support.environment import Environment, open_environment
from tests.support.harness import OPERATOR
from tests.support.hosts import Cable, HostNetwork, open_network, why_no_hosts
from tests.support.postgres import Database

A, B = "host-a", "host-b"
LIMIT, HALF = 32, 16
THRESHOLD, OPEN_S = 10, 1.0
LANE = {
    "max_in_flight": LIMIT,
    "deadline_s": 15.0,
    "attempt_timeout_s": 2.0,
    "connect_timeout_s": 0.5,
    "max_attempts": 3,
    "initial_delay_s": 0.2,
    "max_delay_s": 2.0,
}
"""A producer's usual settings; only the timeouts are shorter."""
BETS, ROUNDS = 300, 10
BACK_S = 6.0
"""A few seconds: a try every OPEN_S, a heartbeat of each daemon, and a loaded machine."""


@pytest.fixture
async def environment(tmp_path: Path, database: Database) -> AsyncIterator[Environment]:
    if reason := why_no_hosts():
        pytest.skip(reason)
    async with open_environment(tmp_path, database) as environment:
        yield environment


def write_operator(network: HostNetwork, **circuit: float) -> None:
    network.write_operator(interactive=LANE, circuit={"failure_threshold": THRESHOLD, "open_s": OPEN_S, **circuit})


async def ended(environment: Environment) -> Counter[tuple[str, str | None]]:
    rows = await environment.harness.owner.fetch(
        "select state, reason, count(*) from predictu_dispatch.callback where method = 'BET_MAKE' group by 1, 2"
    )
    return Counter({(row["state"], row["reason"]): row["count"] for row in rows})


async def until_bets_ended(environment: Environment) -> None:
    """Wait until every placement is final; rollbacks may wait for the operator."""

    async def have_ended() -> bool:
        return not {"ready", "in_flight"} & {state for state, _ in await ended(environment)}

    await until("every placement is final", have_ended)


async def until_lost(environment: Environment, *instances: str) -> None:
    """Wait until exactly these daemons have reported that they cannot connect."""

    async def are_lost() -> bool:
        rows = await environment.harness.owner.fetch(
            "select instance from predictu_dispatch.share where unreachable_since is not null"
        )
        return {row["instance"] for row in rows} == set(instances)

    await until(f"{instances} cannot connect", are_lost)


async def test_of_two_hosts_the_one_that_is_cut_off_leaves_every_bet_to_the_other(environment: Environment) -> None:
    """Of 300 bets 163 ended `circuit_open`, although the other host reached the operator."""
    async with open_network(environment, A, B) as network:
        write_operator(network)
        daemons = dict(zip((A, B), await network.start(), strict=True))
        await until_slots(environment, host_a=HALF, host_b=HALF)
        await place_many(environment, 200)
        await environment.until_all_final()
        before = await ended(environment)
        network.hosts[A].pull(Cable.OPERATOR)
        cut_at_s = time.monotonic()
        for _ in range(ROUNDS):
            await place_many(environment, BETS // ROUNDS)
            await until_heartbeats(environment, B, times=1)
        await environment.until_all_final()
        during = await ended(environment) - before
        print_figures(f"cut off for {time.monotonic() - cut_at_s:.1f} s, the bets ended: {dict(during)}")
        assert during[("delivered", None)] >= BETS - 3
        assert during[("exhausted", "circuit_open")] == 0
        assert all(daemon.lines("circuit.opened") == [] for daemon in daemons.values())
        await assert_the_loss_is_shown(environment, daemons[A])
        assert await daemons[B].metric("operator_unreachable", OPERATOR) == 0
        await until_slots(environment, host_a=0, host_b=LIMIT)

        network.hosts[A].plug(Cable.OPERATOR)
        healed_at_s = time.monotonic()
        await until_slots(environment, host_a=HALF, host_b=HALF)
        back_s = time.monotonic() - healed_at_s
        print_figures(f"healed, it has its share again after {back_s:.1f} s")
        assert back_s < BACK_S
        assert len(daemons[A].lines("operator.recovered")) == 1
        assert await daemons[A].metric("operator_unreachable", OPERATOR) == 0
        assert environment.operator.faults == await environment.audit_faults() == []


async def assert_the_loss_is_shown(environment: Environment, daemon: Daemon) -> None:
    """In the daemon's log and metrics, and in `status`."""
    [lost] = daemon.lines("operator.unreachable")
    assert (lost["operator_id"], lost["reason"]) == (OPERATOR, "connect_timeout")
    assert await daemon.metric("operator_unreachable", OPERATOR) == 1
    _, stdout, _ = await command_line_for(environment.fleet.folder, environment.fleet.dsn).run("status")
    assert f"cannot be reached by daemon {daemon.instance}" in " ".join(stdout.split())


async def test_the_only_host_opens_the_circuit_and_closes_it_within_seconds_of_the_heal(
    environment: Environment,
) -> None:
    async with open_network(environment, A) as network:
        write_operator(network)
        [daemon] = await network.start()
        await place_many(environment, 1)
        await environment.until_all_final()
        network.hosts[A].pull(Cable.OPERATOR)
        await place_many(environment, 2 * THRESHOLD)
        await until_operator_is(environment, circuit="open", health="down")
        await daemon.until_logged("circuit.opened")
        assert (await operator_row(environment))["consecutive_failures"] >= THRESHOLD
        await until_bets_ended(environment)
        network.hosts[A].plug(Cable.OPERATOR)
        healed_at_s = time.monotonic()
        await until_operator_is(environment, circuit="closed", health="healthy")
        assert time.monotonic() - healed_at_s < BACK_S
        await place_many(environment, 1)
        await until_delivered_since(environment)


async def until_delivered_since(environment: Environment) -> None:
    """Wait until the newest bet is delivered."""

    async def is_delivered() -> bool:
        newest = await environment.harness.owner.fetchval(
            "select state from predictu_dispatch.callback where method = 'BET_MAKE' order by created_at desc limit 1"
        )
        return bool(newest == "delivered")

    await until("the newest bet is delivered", is_delivered)


async def test_two_hosts_that_both_cannot_connect_open_the_circuit_and_each_comes_back(
    environment: Environment,
) -> None:
    async with open_network(environment, A, B) as network:
        write_operator(network)
        await network.start()
        await until_slots(environment, host_a=HALF, host_b=HALF)
        for host in network.hosts.values():
            host.pull(Cable.OPERATOR)
        await place_many(environment, 8 * THRESHOLD)
        await until_operator_is(environment, circuit="open", health="down")
        await until_bets_ended(environment)
        # Only one comes back: its PING closes the circuit, and the other one opens it no more.
        network.hosts[B].plug(Cable.OPERATOR)
        healed_at_s = time.monotonic()
        await until_operator_is(environment, circuit="closed", health="healthy")
        back_s = time.monotonic() - healed_at_s
        print_figures(f"one of two healed, the circuit closed after {back_s:.1f} s")
        assert back_s < BACK_S
        await until_slots(environment, host_a=0, host_b=LIMIT)
        opened_before = (await operator_row(environment))["circuit_since"]
        await place_many(environment, 60)
        await environment.until_all_final()
        row = await operator_row(environment)
        assert (row["circuit"], row["circuit_since"]) == ("closed", opened_before)
        assert (await ended(environment))[("delivered", None)] >= 58
        network.hosts[A].plug(Cable.OPERATOR)
        await until_lost(environment)
        await until_slots(environment, host_a=HALF, host_b=HALF)
        assert environment.operator.faults == await environment.audit_faults() == []


async def test_a_host_that_is_cut_off_opens_the_circuit_once_the_other_one_stops(environment: Environment) -> None:
    async with open_network(environment, A, B) as network:
        write_operator(network)
        daemons = dict(zip((A, B), await network.start(), strict=True))
        await until_slots(environment, host_a=HALF, host_b=HALF)
        network.hosts[A].pull(Cable.OPERATOR)
        await place_many(environment, 8 * THRESHOLD)
        await until_lost(environment, A)
        await environment.until_all_final()
        daemons[B].kill()
        await until_operator_is(environment, circuit="open", health="down", within_s=15.0)
