"""Whatever daemons do, the fleet keeps each operator's limits.

Hypothesis drives daemons that start, crash, freeze, return slots slowly, lose answers and reload
other limits. tests/support/heartbeats.py says what each may use, and the split that is expected in
the end. Time passes by moving
the database's timestamps into the past.
"""

import asyncio
import faulthandler
import itertools
import os
import uuid
from collections.abc import Coroutine
from contextlib import closing
from typing import Any, ClassVar, TypeVar

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test
from typing_extensions import override

from predictu_dispatch.core.fleet import HEARTBEAT_INTERVAL_S, HEARTBEAT_TIMEOUT_S
from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.heartbeats import (
    NAMES,
    NO_SHARE,
    OPERATORS,
    Amounts,
    Limits,
    SimulatedDaemon,
    expected_split,
    heartbeat,
    pass_time,
    shares,
    total,
)
from tests.support.postgres import Database

IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
SETTINGS = settings(
    max_examples=2_000 if IS_LONG else 25,
    stateful_step_count=100 if IS_LONG else 40,
    derandomize=not IS_LONG,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)
SHRINKING_MAX_S = 60
"""Less than the run's time limit, so that a failure is reported; Hypothesis' own limit is 300 s."""
LIMITS: tuple[Limits, ...] = ((10, 7, 0.0), (32, 16, 60.0), (3, 1, 7.5), (1, 2, 1.0), (5, 5, 0.3), (2, 40, 14.0))
T = TypeVar("T")


class Simulation:
    """The connections that all runs share."""

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


class HeartbeatRules(RuleBasedStateMachine):
    """Four names, two operators (some daemons know only one), time in steps of half a second."""

    simulation: ClassVar[Simulation]

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 0.0
        self.processes: dict[str, SimulatedDaemon] = {}
        # By name: whose row it is, when it was last seen.
        self.rows: dict[str, tuple[uuid.UUID, float]] = {}
        self.simulation.wait(
            self.simulation.owner.execute("delete from predictu_dispatch.share; delete from predictu_dispatch.daemon")
        )

    def _shares(self) -> dict[str, dict[str, Amounts]]:
        return self.simulation.wait(shares(self.simulation.owner))

    def _arrive(self, process: SimulatedDaemon) -> None:
        """Sends the pending heartbeat to the database and checks the shares it grants."""
        pending = process.pending
        assert pending is not None
        before = self._shares()
        session, seen_at_s = self.rows.get(process.name, (process.session, 0.0))
        is_taken = session != process.session and self.now_s - seen_at_s < HEARTBEAT_TIMEOUT_S
        try:
            pending.answer = self.simulation.wait(
                heartbeat(self.simulation.daemon, process.name, process.session, pending.limits, pending.used)
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
        """Starts a process of this name; the one before it is killed and its requests are lost."""
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
        """Starts an attempt in every slot that it may use."""
        if process := self.processes.get(name):
            busy, share = process.in_flight[operator_id], process.usable(operator_id, self.now_s)
            busy[lane] = max(busy[lane], int(share[lane] or 0))

    @rule(name=st.sampled_from(NAMES), most=st.integers(0, 40))
    def finish(self, name: str, most: int) -> None:
        """Ends attempts until at most `most` of each kind are in flight."""
        if process := self.processes.get(name):
            for operator_id, lane in itertools.product(OPERATORS, range(2)):
                busy = process.in_flight[operator_id]
                busy[lane] = min(busy[lane], most)
                process.lost[operator_id][lane] = min(process.lost[operator_id][lane], busy[lane])

    @rule(name=st.sampled_from(NAMES))
    def deregister(self, name: str) -> None:
        if process := self.processes.pop(name, None):
            self.simulation.wait(self.simulation.daemon.execute(query("deregister"), process.name, process.session))
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
        self.simulation.wait(pass_time(self.simulation.owner, halves / 2))
        for name, process in self.processes.items():
            session, seen_at_s = self.rows.get(name, (None, 0.0))
            if session != process.session or self.now_s - seen_at_s >= HEARTBEAT_TIMEOUT_S:
                process.lost = {one: list(busy) for one, busy in process.in_flight.items()}

    @rule(turns=st.integers(1, 6), silent=st.none() | st.sampled_from(NAMES))
    def exchange_heartbeats(self, turns: int, silent: str | None = None) -> None:
        """All daemons, or all but one, send a heartbeat per second, not ordered by name."""
        for _ in range(turns):
            self.wait(2)
            for name in sorted(self.processes.keys() - {silent}, key=lambda one: (one[-1] in "13", one)):
                self.heartbeat(name)

    @invariant()
    def no_daemon_uses_more_than_its_share(self) -> None:
        tables = self._shares()
        for (name, process), operator_id in itertools.product(self.processes.items(), OPERATORS):
            has, may = tables[operator_id].get(name, NO_SHARE), process.usable(operator_id, self.now_s)
            for kind in range(2):
                in_use = process.in_flight[operator_id][kind] - process.lost[operator_id][kind]
                assert max(may[kind] or 0, in_use) <= (has[kind] or 0)
            assert (may[2] or 0) <= (has[2] or 0) or may[2] is None

    @override
    def teardown(self) -> None:
        """Without further changes the live daemons get their fair shares within seconds."""
        limits = LIMITS[int(self.now_s * 2) % len(LIMITS)]
        self.reload_all(limits)
        for process in self.processes.values():
            process.pending = None
            process.in_flight = {one: [0, 0] for one in OPERATORS}
        self.exchange_heartbeats(2 + int(HEARTBEAT_TIMEOUT_S / HEARTBEAT_INTERVAL_S) * 2)
        for operator_id in OPERATORS:
            live = [name for name, process in self.processes.items() if operator_id in process.limits]
            for kind in range(3) if live else ():
                is_none = kind == 2 and not limits[2]
                fair = dict.fromkeys(live) if is_none else expected_split(limits[kind], live, rate=limits[2])
                assert {name: share[kind] for name, share in self._shares()[operator_id].items()} == fair
        for process in self.processes.values():
            process.send(self.now_s)
            self._arrive(process)
            assert process.pending is not None
            assert process.pending.answer is not None
            assert all(is_fair for _, is_fair in process.pending.answer.values())


def test_no_daemon_exceeds_its_share_and_in_the_end_each_has_its_fair_share(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    if IS_LONG:
        # The time limit is for tests that hang; this profile runs for minutes.
        faulthandler.cancel_dump_traceback_later()
    monkeypatch.setattr("hypothesis.internal.conjecture.engine.MAX_SHRINKING_SECONDS", SHRINKING_MAX_S)
    with closing(Simulation(database)) as simulation:
        HeartbeatRules.simulation = simulation
        run_state_machine_as_test(HeartbeatRules, settings=SETTINGS)
