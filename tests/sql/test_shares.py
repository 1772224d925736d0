"""Heartbeats divide an operator's limits among the daemons of the fleet."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from predictu_dispatch.core.fleet import HEARTBEAT_INTERVAL_S, HEARTBEAT_TIMEOUT_S, SHARE_VALID_S
from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.harness import Connection, connected
from tests.support.heartbeats import (
    NAMES,
    NO_SHARE,
    FleetMember,
    Limits,
    exchange_heartbeats,
    fleet_members,
    pass_time,
    shares,
    total,
)
from tests.support.postgres import Database


@pytest.fixture
async def fleet(database: Database) -> AsyncIterator[tuple[Connection, list[Connection]]]:
    """The owner, and as many daemons' connections as there are names."""
    async with connected(database.owner, 1) as [owner], connected(database.dispatcher, len(NAMES)) as daemons:
        yield owner, daemons


async def test_python_and_sql_have_the_same_heartbeat_timeout(fleet: tuple[Connection, list[Connection]]) -> None:
    """A daemon stops using its share before the others may get it."""
    owner, _ = fleet
    allowed = await owner.fetchval("select extract(epoch from predictu_dispatch.heartbeat_timeout())::float8")
    assert allowed == HEARTBEAT_TIMEOUT_S
    assert HEARTBEAT_INTERVAL_S < SHARE_VALID_S < HEARTBEAT_TIMEOUT_S


async def test_a_killed_daemons_share_goes_to_the_others_after_the_timeout_and_not_before(
    fleet: tuple[Connection, list[Connection]],
) -> None:
    owner, connections = fleet
    a, b, killed = fleet_members(connections[:3], (30, 9, 60.0))
    await exchange_heartbeats(owner, [a, b, killed])
    assert [daemon.share for daemon in (a, b, killed)] == [(10, 3, 20.0)] * 3
    for _ in range(2):
        await exchange_heartbeats(owner, [a, b], rounds=1)
        assert [await a.heartbeat(), await b.heartbeat()] == [(10, 3, 20.0)] * 2
    # The share moves between half a second before the timeout and the timeout.
    await pass_time(owner, 0.5)
    assert await a.heartbeat() == (10, 3, 20.0)
    await pass_time(owner, 0.5)
    assert [await a.heartbeat(), await b.heartbeat()] == [(15, 5, 30.0), (15, 4, 30.0)]
    assert a.is_fair
    assert b.is_fair
    assert set((await shares(owner))["op_a"]) == {a.name, b.name}


async def test_after_an_outage_the_first_daemon_waits_for_the_others(
    fleet: tuple[Connection, list[Connection]],
) -> None:
    """All were silent for a minute. The others keep their shares when they return."""
    owner, connections = fleet
    daemons = fleet_members(connections[:3], (30, 9, 60.0))
    first, second, stopped = daemons
    await exchange_heartbeats(owner, daemons)
    await pass_time(owner, 60)
    for _ in range(2):
        assert await first.heartbeat() == (10, 3, 20.0)
        assert not first.is_fair, "it would have more if the others were known to have stopped"
        await pass_time(owner, HEARTBEAT_INTERVAL_S)
    assert await second.heartbeat() == (10, 3, 20.0)
    # A daemon that has not returned within the timeout has stopped.
    await exchange_heartbeats(owner, [first, second], rounds=3)
    assert [first.share, second.share] == [(15, 5, 30.0), (15, 4, 30.0)]
    assert stopped.name not in (await shares(owner))["op_a"]


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (0.3, [0.3, 0, 0, 0]),
        (13, [13, 0, 0, 0]),
        (13.5, [7.5, 6, 0, 0]),
        (14, [7, 7, 0, 0]),
        (20, [7, 7, 6, 0]),
        (26.5, [9.5, 9, 8, 0]),
        (27, [7, 7, 7, 6]),
        (1000, [250, 250, 250, 250]),
    ],
)
async def test_few_daemons_serve_an_operator_with_a_small_rate_and_have_all_its_slots(
    fleet: tuple[Connection, list[Connection]], rate: float, expected: list[float]
) -> None:
    """Each may be one request ahead: with half a request a second, four could send four at once."""
    owner, connections = fleet
    daemons = fleet_members(connections, (12, 12, rate))
    await exchange_heartbeats(owner, daemons)
    assert [daemon.share[2] for daemon in daemons] == expected
    serving = sum(share > 0 for share in expected)
    assert [daemon.share[0] for daemon in daemons] == [12 // serving] * serving + [0] * (4 - serving)
    assert all(daemon.is_fair for daemon in daemons)
    assert sum(int(1 + 1.05 * share) for share in expected if share) <= max(1.2 * rate, 1 + 1.05 * rate)


async def test_concurrent_heartbeats_never_take_the_same_slot(fleet: tuple[Connection, list[Connection]]) -> None:
    """Daemons make no pause while the shares are read all the time."""
    owner, connections = fleet
    limits: Limits = (10, 3, 60.0)
    daemons = fleet_members(connections, limits)
    checks = 0

    async def send_heartbeats(daemon: FleetMember, seed: int) -> None:
        for turn in range(40):
            await daemon.heartbeat((daemon.share[0] * (turn % 3) // 2, daemon.share[1], daemon.share[2]))
            if (turn + seed) % 13 == 0:
                await daemon.connection.execute(query("deregister"), daemon.name, daemon.session)
                daemon.share = NO_SHARE

    async def check_shares(work: asyncio.Future[Any]) -> None:
        nonlocal checks
        while not work.done():
            table = (await shares(owner))["op_a"]
            assert all(total(table.values(), kind) <= limits[kind] for kind in range(3)), table
            checks += 1

    work = asyncio.gather(*(send_heartbeats(daemon, seed) for seed, daemon in enumerate(daemons)))
    await asyncio.gather(work, check_shares(work))
    assert checks > 20
    for daemon in daemons * 3:
        await daemon.heartbeat()
    assert sorted(daemon.share[0] for daemon in daemons) == [2, 2, 3, 3]
