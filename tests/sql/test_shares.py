"""Heartbeats on a real Postgres: whatever daemons do, the fleet keeps each operator's limits.

Hypothesis drives daemons that start, crash, freeze, return slots slowly, lose answers and reload
other limits. tests/support/heartbeats.py says what each may use, and the split that is expected in
the end. Time passes by moving the database's timestamps into the past.
"""

import asyncio
import faulthandler
import itertools
import os
import uuid
from collections.abc import AsyncIterator, Coroutine
from contextlib import closing
from typing import Any, ClassVar, TypeVar

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from typing_extensions import override

from predictu_dispatch.core.fleet import HEARTBEAT_INTERVAL_S, HEARTBEAT_TIMEOUT_S, SHARE_VALID_S
from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.harness import Connection, connected
from tests.support.heartbeats import (
    NAMES,
    NO_SHARE,
    OPERATORS,
    Amounts,
    FleetMember,
    Limits,
    SimulatedDaemon,
    exchange_heartbeats,
    expected_split,
    fleet_members,
    heartbeat,
    pass_time,
    shares,
    total,
)
from tests.support.postgres import Database

IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
PLAY = settings(
    max_examples=2_000 if IS_LONG else 25,
    stateful_step_count=100 if IS_LONG else 40,
    derandomize=not IS_LONG,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
SHRINKING_MAX_S = 60
"""A failure is told before the run's own time limit ends it; Hypothesis' 300 s would be too long
for that."""
LIMITS: tuple[Limits, ...] = ((10, 7, 0.0), (32, 16, 60.0), (3, 1, 7.5), (1, 2, 1.0), (5, 5, 0.3), (2, 40, 14.0))
T = TypeVar("T")


class World:
    """The connections that all plays share."""

    def __init__(self, database: Database) -> None:
        self._runner = asyncio.Runner()
        self.owner = self.wait(asyncpg.connect(database.owner))
        self.daemon = self.wait(asyncpg.connect(database.dispatcher))

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def close(self) -> None:
        for connection in (self.owner, self.daemon):
            connection.terminate()
        self._runner.close()


class Play(RuleBasedStateMachine):
    """Four names, two operators of which some daemons know one only, and time in halves of a second."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.processes: dict[str, SimulatedDaemon] = {}
        # By name: whose row it is, when it was last seen.
        self.rows: dict[str, tuple[uuid.UUID, float]] = {}
        self.world.wait(
            self.world.owner.execute("delete from predictu_dispatch.share; delete from predictu_dispatch.daemon")
        )

    def _shares(self) -> dict[str, dict[str, Amounts]]:
        return self.world.wait(shares(self.world.owner))

    def _arrive(self, process: SimulatedDaemon) -> None:
        """Sends the pending heartbeat to the database and checks the shares it grants."""
        pending = process.pending
        assert pending is not None
        before = self._shares()
        session, seen_at_s = self.rows.get(process.name, (process.session, 0.0))
        is_taken = session != process.session and self.now_s - seen_at_s < HEARTBEAT_TIMEOUT_S
        try:
            pending.answer = self.world.wait(
                heartbeat(self.world.daemon, process.name, process.session, pending.limits, pending.used)
            )
        except asyncpg.PostgresError as error:
            if (error.sqlstate, is_taken) != ("PD007", True):
                raise
            return
        assert not is_taken, "two live daemons share one name"
        assert pending.answer.keys() == pending.limits.keys()
        self.rows[process.name] = process.session, self.now_s
        after = self._shares()
        for operator_id, limits in pending.limits.items():
            others = after[operator_id].keys() - {process.name}
            assert all(after[operator_id][name] == before[operator_id][name] for name in others)
            for kind in range(3):
                if limits[kind] or kind < 2:
                    most = max(limits[kind], total(before[operator_id].values(), kind))
                    assert total(after[operator_id].values(), kind) <= most

    @initialize(limits=st.sampled_from(LIMITS), count=st.integers(1, 4))
    def begin(self, limits: Limits, count: int) -> None:
        for name in NAMES[:count]:
            self.start(name, limits, knows_both=True)
            self.heartbeat(name)

    @rule(name=st.sampled_from(NAMES), limits=st.sampled_from(LIMITS), knows_both=st.booleans())
    def start(self, name: str, limits: Limits, *, knows_both: bool) -> None:
        """A process of this name begins.

        The one before, if there was one, died of it, and its requests are lost.
        """
        known = OPERATORS if knows_both else OPERATORS[:1]
        self.processes[name] = SimulatedDaemon(name, uuid.uuid4(), dict.fromkeys(known, limits))

    @rule(name=st.sampled_from(NAMES), limits=st.sampled_from(LIMITS), knows_both=st.booleans())
    def reload(self, name: str, limits: Limits, *, knows_both: bool) -> None:
        if process := self.processes.get(name):
            known = [one for one in OPERATORS if knows_both or one == OPERATORS[0] or any(process.in_flight[one])]
            process.limits = dict.fromkeys(known, limits)

    @rule(limits=st.sampled_from(LIMITS))
    def reload_all(self, limits: Limits) -> None:
        for process in self.processes.values():
            process.limits = dict.fromkeys(process.limits, limits)

    @rule(name=st.sampled_from(NAMES))
    def send(self, name: str) -> None:
        if (process := self.processes.get(name)) and process.pending is None:
            process.send(self.now_s)

    @rule(name=st.sampled_from(NAMES), is_answered=st.booleans())
    def arrive(self, name: str, *, is_answered: bool) -> None:
        """A heartbeat sent earlier reaches the database now; its answer may be lost."""
        process = self.processes.get(name)
        if process and process.pending and process.pending.answer is None:
            self._arrive(process)
            if not is_answered:
                process.pending = None

    @rule(name=st.sampled_from(NAMES))
    def receive(self, name: str) -> None:
        if (process := self.processes.get(name)) and process.pending:
            process.receive()

    @rule(name=st.sampled_from(NAMES))
    def heartbeat(self, name: str) -> None:
        if (process := self.processes.get(name)) and process.pending is None:
            process.send(self.now_s)
            self._arrive(process)
            process.receive()

    @rule(name=st.sampled_from(NAMES), operator_id=st.sampled_from(OPERATORS), lane=st.integers(0, 1))
    def fill(self, name: str, operator_id: str, lane: int) -> None:
        """Every slot it may use gets an attempt."""
        if process := self.processes.get(name):
            busy, share = process.in_flight[operator_id], process.usable(operator_id, self.now_s)
            busy[lane] = max(busy[lane], int(share[lane] or 0))

    @rule(name=st.sampled_from(NAMES), most=st.integers(0, 40))
    def finish(self, name: str, most: int) -> None:
        """Of each kind no more than so many attempts are still under way."""
        if process := self.processes.get(name):
            for operator_id, lane in itertools.product(OPERATORS, range(2)):
                busy = process.in_flight[operator_id]
                busy[lane] = min(busy[lane], most)
                process.lost[operator_id][lane] = min(process.lost[operator_id][lane], busy[lane])

    @rule(name=st.sampled_from(NAMES))
    def leave(self, name: str) -> None:
        if process := self.processes.pop(name, None):
            self.world.wait(self.world.daemon.execute(query("deregister"), process.name, process.session))
            is_its_own = self.rows.get(name, (None, 0.0))[0] == process.session
            if is_its_own:
                assert not any(name in table for table in self._shares().values())
                del self.rows[name]

    @rule(name=st.sampled_from(NAMES))
    def kill(self, name: str) -> None:
        self.processes.pop(name, None)

    @rule(halves=st.integers(1, 8))
    def wait(self, halves: int) -> None:
        self.now_s += halves / 2
        self.world.wait(pass_time(self.world.owner, halves / 2))
        for name, process in self.processes.items():
            session, seen_at_s = self.rows.get(name, (None, 0.0))
            if session != process.session or self.now_s - seen_at_s >= HEARTBEAT_TIMEOUT_S:
                process.lost = {one: list(busy) for one, busy in process.in_flight.items()}

    @rule(turns=st.integers(1, 6), silent=st.none() | st.sampled_from(NAMES))
    def exchange_heartbeats(self, turns: int, silent: str | None = None) -> None:
        """All daemons, or all but one, send a heartbeat per second, not in the order of their names."""
        for _ in range(turns):
            self.wait(2)
            for name in sorted(self.processes.keys() - {silent}, key=lambda one: (one[-1] in "13", one)):
                self.heartbeat(name)

    @invariant()
    def nobody_uses_more_than_the_database_holds_for_him(self) -> None:
        tables = self._shares()
        for (name, process), operator_id in itertools.product(self.processes.items(), OPERATORS):
            has, may = tables[operator_id].get(name, NO_SHARE), process.usable(operator_id, self.now_s)
            for kind in range(2):
                under_way = process.in_flight[operator_id][kind] - process.lost[operator_id][kind]
                assert max(may[kind] or 0, under_way) <= (has[kind] or 0)
            assert (may[2] or 0) <= (has[2] or 0) or may[2] is None

    @override
    def teardown(self) -> None:
        """All is quiet: the living have their fair shares within seconds, which add up to the limit."""
        limits = LIMITS[int(self.now_s * 2) % len(LIMITS)]
        self.reload_all(limits)
        for process in self.processes.values():
            process.pending = None
            process.in_flight = {one: [0, 0] for one in OPERATORS}
        self.exchange_heartbeats(2 + int(HEARTBEAT_TIMEOUT_S / HEARTBEAT_INTERVAL_S) * 2)
        for operator_id in OPERATORS:
            living = [name for name, process in self.processes.items() if operator_id in process.limits]
            for kind in range(3) if living else ():
                is_none = kind == 2 and not limits[2]
                hands = dict.fromkeys(living) if is_none else expected_split(limits[kind], living, rate=limits[2])
                assert {name: share[kind] for name, share in self._shares()[operator_id].items()} == hands
        for process in self.processes.values():
            process.send(self.now_s)
            self._arrive(process)
            assert process.pending is not None
            assert process.pending.answer is not None
            assert all(is_fair for _, is_fair in process.pending.answer.values())


def test_nobody_ever_uses_what_is_not_his_and_in_the_end_each_has_his_fair_share(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    if IS_LONG:
        # The limit is for tests that hang; minutes are what was asked for.
        faulthandler.cancel_dump_traceback_later()
    monkeypatch.setattr("hypothesis.internal.conjecture.engine.MAX_SHRINKING_SECONDS", SHRINKING_MAX_S)
    with closing(World(database)) as world:
        Play.world = world
        run_state_machine_as_test(Play, settings=PLAY)


@pytest.fixture
async def fleet(database: Database) -> AsyncIterator[tuple[Connection, list[Connection]]]:
    """The owner, and as many daemons' connections as there are names."""
    async with (
        connected(database.owner, 1) as [owner],
        connected(database.dispatcher, len(NAMES)) as daemons,
    ):
        yield owner, daemons


async def test_the_two_sides_agree_on_how_long_a_silence_may_be(fleet: tuple[Connection, list[Connection]]) -> None:
    """A daemon stops by its own clock.

    How long a claim and a request take until they arrive comes on top.
    """
    owner, _ = fleet
    allowed = await owner.fetchval("select extract(epoch from predictu_dispatch.heartbeat_timeout())::float8")
    assert allowed == HEARTBEAT_TIMEOUT_S
    assert HEARTBEAT_INTERVAL_S < SHARE_VALID_S < HEARTBEAT_TIMEOUT_S


async def test_what_a_dead_one_had_is_the_others_once_its_silence_is_too_long_and_not_before(
    fleet: tuple[Connection, list[Connection]],
) -> None:
    owner, connections = fleet
    a, b, dead = fleet_members(connections[:3], (30, 9, 60.0))
    await exchange_heartbeats(owner, [a, b, dead])
    assert [daemon.share for daemon in (a, b, dead)] == [(10, 3, 20.0)] * 3
    for _ in range(2):
        await exchange_heartbeats(owner, [a, b], rounds=1)
        assert [await a.heartbeat(), await b.heartbeat()] == [(10, 3, 20.0)] * 2
    # Half a second before the end of its patience nothing has changed, half a second later
    # everything.
    await pass_time(owner, 0.5)
    assert await a.heartbeat() == (10, 3, 20.0)
    await pass_time(owner, 0.5)
    assert [await a.heartbeat(), await b.heartbeat()] == [(15, 5, 30.0), (15, 4, 30.0)]
    assert a.is_fair
    assert b.is_fair
    assert set((await shares(owner))["op_a"]) == {a.name, b.name}


async def test_a_daemon_that_leaves_gives_everything_to_the_next_that_asks(
    fleet: tuple[Connection, list[Connection]],
) -> None:
    owner, connections = fleet
    a, b = fleet_members(connections[:2], (30, 9, 60.0))
    await exchange_heartbeats(owner, [a, b])
    await a.connection.execute(query("deregister"), a.name, uuid.uuid4())
    assert await b.heartbeat() == (15, 4, 30.0), "who is not who he says he is leaves nothing"
    await a.connection.execute(query("deregister"), a.name, a.session)
    assert await b.heartbeat() == (30, 9, 60.0)


async def test_after_an_outage_of_the_database_whoever_comes_first_waits_for_the_others(
    fleet: tuple[Connection, list[Connection]],
) -> None:
    """All were silent for a minute.

    The others go on with what they had, as soon as they come through.
    """
    owner, connections = fleet
    daemons = fleet_members(connections[:3], (30, 9, 60.0))
    first, second, gone = daemons
    await exchange_heartbeats(owner, daemons)
    await pass_time(owner, 60)
    for _ in range(2):
        assert await first.heartbeat() == (10, 3, 20.0)
        assert not first.is_fair, "it would be its own by half, were the others known to be gone"
        await pass_time(owner, HEARTBEAT_INTERVAL_S)
    assert await second.heartbeat() == (10, 3, 20.0)
    # Whoever has not come in the time in which it would have been missed is gone.
    await exchange_heartbeats(owner, [first, second], rounds=3)
    assert [first.share, second.share] == [(15, 5, 30.0), (15, 4, 30.0)]
    assert gone.name not in (await shares(owner))["op_a"]


async def test_a_share_is_given_back_only_as_attempts_end(fleet: tuple[Connection, list[Connection]]) -> None:
    """What hangs at the operator counts, whoever would be entitled to its slot."""
    owner, connections = fleet
    holder, joining = fleet_members(connections[:2], (30, 8, 60.0))
    await exchange_heartbeats(owner, [holder])
    assert holder.share == (30, 8, 60.0)
    assert await joining.heartbeat() == (0, 0, 0.0)
    for busy, free in ((30, 0), (22, 8), (15, 15), (0, 15)):
        share = await holder.heartbeat((busy, 4, 30.0))
        assert share == (15, 4, 30.0), "of what it has above its share it fills nothing again"
        assert (await joining.heartbeat())[0] == free
        assert (holder.is_fair, joining.is_fair) == (busy <= 15, free == 15)


async def test_what_hangs_since_before_a_silence_brings_no_share_back(
    fleet: tuple[Connection, list[Connection]],
) -> None:
    """Others have taken its slots meanwhile: it may end what it has under way, and begins nothing."""
    owner, connections = fleet
    first, frozen = fleet_members(connections[:2], (30, 8, 60.0))
    await exchange_heartbeats(owner, [first, frozen])
    await exchange_heartbeats(owner, [first])
    assert first.share == (30, 8, 60.0)
    assert await frozen.heartbeat((15, 4, 30.0)) == (0, 0, 0.0)
    assert total((await shares(owner))["op_a"].values(), 0) == 30


async def test_a_second_session_with_a_live_ones_name_is_refused_and_a_dead_ones_name_is_free(
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
    # It has the row and with it the share: nobody else could have taken that meanwhile.
    assert await second.heartbeat() == (15, 5, 30.0)
    assert await owner.fetchval(
        "select session_id = $1 and started_at > $2 from predictu_dispatch.daemon where instance = 'd-0'",
        *(second.session, started_at),
    )
    with pytest.raises(asyncpg.PostgresError, match="is running"):
        await first.heartbeat()


@pytest.mark.parametrize(("limit", "expected"), [(1, [1, 0, 0, 0]), (3, [1, 1, 1, 0]), (6, [2, 2, 1, 1])])
async def test_a_limit_below_the_number_of_daemons_is_the_first_ones(
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
async def test_an_operator_with_a_small_rate_is_served_by_few_daemons_and_they_have_all_its_slots(
    fleet: tuple[Connection, list[Connection]], rate: float, expected: list[float]
) -> None:
    """Each may be one request ahead of its rate: four daemons with half a request a second could send four at once."""
    owner, connections = fleet
    daemons = fleet_members(connections, (12, 12, rate))
    await exchange_heartbeats(owner, daemons)
    assert [daemon.share[2] for daemon in daemons] == expected
    serving = sum(share > 0 for share in expected)
    assert [daemon.share[0] for daemon in daemons] == [12 // serving] * serving + [0] * (4 - serving)
    assert all(daemon.is_fair for daemon in daemons)
    assert sum(int(1 + 1.05 * share) for share in expected if share) <= max(1.2 * rate, 1 + 1.05 * rate)


async def test_daemons_that_announce_themselves_at_the_same_moment_never_take_the_same_slot(
    fleet: tuple[Connection, list[Connection]],
) -> None:
    """Really at once, each on its own connection and without a pause, while somebody looks all the time."""
    owner, connections = fleet
    limits: Limits = (10, 3, 60.0)
    daemons = fleet_members(connections, limits)
    looks = 0

    async def come_and_go(daemon: FleetMember, seed: int) -> None:
        for turn in range(40):
            await daemon.heartbeat((daemon.share[0] * (turn % 3) // 2, daemon.share[1], daemon.share[2]))
            if (turn + seed) % 13 == 0:
                await daemon.connection.execute(query("deregister"), daemon.name, daemon.session)
                daemon.share = NO_SHARE

    async def look(work: asyncio.Future[Any]) -> None:
        nonlocal looks
        while not work.done():
            table = (await shares(owner))["op_a"]
            assert all(total(table.values(), kind) <= limits[kind] for kind in range(3)), table
            looks += 1

    work = asyncio.gather(*(come_and_go(daemon, seed) for seed, daemon in enumerate(daemons)))
    await asyncio.gather(work, look(work))
    assert looks > 20
    for daemon in daemons * 3:
        await daemon.heartbeat()
    assert sorted(daemon.share[0] for daemon in daemons) == [2, 2, 3, 3]
