"""Heartbeats divide an operator's limits among the daemons of the fleet."""

import asyncio
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
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


async def test_a_deregistered_daemon_frees_its_share_at_once(fleet: tuple[Connection, list[Connection]]) -> None:
    owner, connections = fleet
    a, b = fleet_members(connections[:2], (30, 9, 60.0))
    await exchange_heartbeats(owner, [a, b])
    await a.connection.execute(query("deregister"), a.name, uuid.uuid4())
    assert await b.heartbeat() == (15, 4, 30.0), "another session deregisters nothing"
    await a.connection.execute(query("deregister"), a.name, a.session)
    assert await b.heartbeat() == (30, 9, 60.0)


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


async def test_a_share_is_returned_only_as_attempts_end(fleet: tuple[Connection, list[Connection]]) -> None:
    """Attempts in flight count, whichever daemon should have the slot."""
    owner, connections = fleet
    holder, joining = fleet_members(connections[:2], (30, 8, 60.0))
    await exchange_heartbeats(owner, [holder])
    assert holder.share == (30, 8, 60.0)
    assert await joining.heartbeat() == (0, 0, 0.0)
    for busy, free in ((30, 0), (22, 8), (15, 15), (0, 15)):
        share = await holder.heartbeat((busy, 4, 30.0))
        assert share == (15, 4, 30.0), "it reuses no slot above its share"
        assert (await joining.heartbeat())[0] == free
        assert (holder.is_fair, joining.is_fair) == (busy <= 15, free == 15)


async def test_attempts_older_than_a_silence_return_no_share(fleet: tuple[Connection, list[Connection]]) -> None:
    """Others have its slots now: it may finish its attempts and starts none."""
    owner, connections = fleet
    first, frozen = fleet_members(connections[:2], (30, 8, 60.0))
    await exchange_heartbeats(owner, [first, frozen])
    await exchange_heartbeats(owner, [first])
    assert first.share == (30, 8, 60.0)
    assert await frozen.heartbeat((15, 4, 30.0)) == (0, 0, 0.0)
    assert total((await shares(owner))["op_a"].values(), 0) == 30


async def test_a_live_daemons_name_is_refused_to_a_second_session_and_a_stopped_ones_is_free(
    fleet: tuple[Connection, list[Connection]],
) -> None:
    owner, connections = fleet
    first, other = fleet_members(connections[:2], (30, 9, 60.0))
    second = FleetMember(connections[2], first.name, (30, 9, 60.0))
    await exchange_heartbeats(owner, [first, other])
    before = await shares(owner)
    with pytest.raises(asyncpg.PostgresError, match="'d-0' is running on host host, process 42") as refusal:
        await second.heartbeat()
    assert refusal.value.sqlstate == "PD007"
    assert "[daemon] instance" in refusal.value.as_dict()["hint"]
    assert await shares(owner) == before
    await pass_time(owner, HEARTBEAT_TIMEOUT_S - 0.5)
    with pytest.raises(asyncpg.PostgresError, match="is running"):
        await second.heartbeat()
    await pass_time(owner, 0.5)
    started_at = await owner.fetchval("select started_at from predictu_dispatch.daemon where instance = 'd-0'")
    # It inherits the row and its share, which no other daemon could take meanwhile.
    assert await second.heartbeat() == (15, 5, 30.0)
    assert await owner.fetchval(
        "select session_id = $1 and started_at > $2 from predictu_dispatch.daemon where instance = 'd-0'",
        *(second.session, started_at),
    )
    with pytest.raises(asyncpg.PostgresError, match="is running"):
        await first.heartbeat()


@pytest.mark.parametrize(("limit", "expected"), [(1, [1, 0, 0, 0]), (3, [1, 1, 1, 0]), (6, [2, 2, 1, 1])])
async def test_a_limit_below_the_number_of_daemons_goes_to_the_first_ones(
    fleet: tuple[Connection, list[Connection]], limit: int, expected: list[int]
) -> None:
    owner, connections = fleet
    daemons = fleet_members(connections, (limit, limit, 0))
    await exchange_heartbeats(owner, daemons)
    assert [daemon.share for daemon in daemons] == [(slots, slots, None) for slots in expected]
    assert all(daemon.is_fair for daemon in daemons)


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
