"""Producers, two daemons, a faulty operator, a slow network and crashes, in any order.

Hypothesis chooses. After every statement the database is compared with its state before, with
core/specification.py and with the operator's wallet (tests/support/model.py). Our SQL, outbox,
courier, recorder and reaper are real. Nothing sleeps: time passes by moving every stored timestamp
into the past.

`HYPOTHESIS_PROFILE=long` runs for minutes, differently each time.
"""

import faulthandler
import json
import os
import sys
from contextlib import closing
from datetime import timedelta

import asyncpg
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule, run_state_machine_as_test
from typing_extensions import override

from predictu_dispatch.core.lifecycle import FINAL, BetState, CallbackState
from predictu_dispatch.core.methods import TERMINALS, Method
from tests.support.model import RequestFault
from tests.support.postgres import Database
from tests.support.simulation import DAEMONS, Simulation
from tests.support.simulation_steps import BETS_MAX, REWRITES, SimulationSteps
from tests.support.snapshot import check_operator, read_snapshot

IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"

SETTINGS = settings(
    max_examples=2_000 if IS_LONG else 60,
    stateful_step_count=80 if IS_LONG else 40,
    derandomize=not IS_LONG,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)

SHRINKING_MAX_S = 60
"""Less than the run's time limit, so that a failure is reported; Hypothesis' own limit is 300 s."""

BREACHES = ("audit", "callback", "bet", "terminal")

LATER_S = (4.0, 16.0, 61.0)
"""Too late to send what is leased; all leases expired; deadlines passed and the recheck due."""

DRAIN_ROUNDS_MAX = 12
"""Enough for three attempts, their leases, the recheck, and a rollback with as many."""

a_daemon, an_index = st.sampled_from(DAEMONS), st.integers(0, 7)

a_fault = st.sampled_from([RequestFault.ANSWERED, *[RequestFault.DELAYED] * 3, *RequestFault])
"""Mostly a request that arrives after its timeout, because that makes lives long."""

seldom = st.sampled_from([False] * 7 + [True])


class SimulationRules(SimulationSteps):
    """The rules that Hypothesis chooses from."""

    @initialize(keeps_tombstones=st.booleans(), adopted=st.lists(seldom, min_size=2, max_size=5))
    def begin(self, *, keeps_tombstones: bool, adopted: list[bool]) -> None:
        self.network.wallet.keeps_tombstones = keeps_tombstones
        for number, is_adopted in enumerate(adopted, start=1):
            self.adopt(f"bet-{number}") if is_adopted else self.place(f"bet-{number}")

    @precondition(lambda self: len(self.seen.bets) < BETS_MAX)
    @rule(
        kind=st.sampled_from(["placed", "placed", "placed", "adopted", "aborted", "astray", "adopted astray"]),
        index=an_index,
    )
    def open_bet(self, kind: str, index: int) -> None:
        bet_id = self.choose_bet(index, astray=True) if "astray" in kind else f"bet-{len(self.seen.bets) + 1}"
        if "adopted" in kind:
            self.adopt(bet_id)
        else:
            self.place(bet_id, commits=kind != "aborted")

    @rule(index=an_index, astray=seldom, method=st.sampled_from(sorted(TERMINALS)))
    def end_bet(self, *, index: int, astray: bool, method: Method) -> None:
        self.end(self.choose_bet(index, astray=astray), method)

    @rule(index=an_index, astray=seldom)
    def roll_back_bet(self, *, index: int, astray: bool) -> None:
        self.roll_back(self.choose_bet(index, astray=astray))

    @rule(index=an_index, twist=st.sampled_from(["new", "same", "other method", "other params"]))
    def request_balance_or_repeat(self, index: int, twist: str) -> None:
        if twist == "new" or not self.enqueued:
            self.enqueue(Method.BALANCE, {"player_id": "p-1", "currency": "EUR"}, None)
            return
        method, params, request_id = self.choose(self.enqueued, index)
        if twist == "other method":
            method = Method.BET_LOSE if method is Method.BALANCE else Method.BALANCE
            params = {"player_id": "p-1", "currency": "EUR", "bet_id": "bet-1"}
        elif twist == "other params":
            params = params | {"trace": "another"}
        before, refusal = self.seen, None if twist == "same" else "PD004"
        self.call(refusal, "enqueue_callback", method, json.dumps(params), request_id)
        assert self.seen == before

    @rule(kind=st.sampled_from(BREACHES), index=st.integers(0, 99))
    def break_a_rule(self, kind: str, index: int) -> None:
        """The database refuses even the owner's statements that break a rule."""
        breaches = self.breaches(kind)
        if breaches:
            sqlstate, statement, args = self.choose(breaches, index)
            with pytest.raises(asyncpg.PostgresError) as refused:
                self.wait(self.simulation.owner.execute(statement, *args))
            assert refused.value.sqlstate == sqlstate, f"{statement} with {args} raised {refused.value!r}"

    @precondition(lambda self: self.daemons_with("leased"))
    @rule(index=an_index, fault=a_fault)
    def deliver_one(self, index: int, fault: RequestFault) -> None:
        callback, daemon = self.choose(
            [(c, daemon) for daemon in self.daemons_with("leased") for c in daemon.leased], index
        )
        self.deliver(daemon, callback, fault)

    @precondition(lambda self: self.daemons_with("reports", "settled"))
    @rule(index=an_index, again=st.booleans())
    def settle_reports(self, *, index: int, again: bool) -> None:
        """`again` repeats reports, as after a commit without an answer."""
        daemon = self.choose(self.daemons_with("reports", "settled"), index)
        self.settle(daemon, daemon.reports + (daemon.settled[-2:] if again else []))

    @precondition(lambda self: self.is_in(CallbackState.READY))
    @rule(name=a_daemon, faults=st.lists(a_fault, min_size=1, max_size=3), stops=st.integers(0, 3))
    def work(self, name: str, faults: list[RequestFault], stops: int) -> None:
        """A daemon claims, delivers and settles; it may stop after the first or the second step."""
        daemon = self.daemons[name]
        self.claim(daemon)
        if stops != 1:
            self.deliver_all(daemon, faults)
        if stops not in (1, 2):
            self.settle(daemon, daemon.reports)

    @precondition(lambda self: self.is_in(CallbackState.READY))
    @rule(name=a_daemon, fault=a_fault, sends=st.booleans(), stops=st.integers(0, 3))
    def freeze(self, *, name: str, fault: RequestFault, sends: bool, stops: int) -> None:
        """A daemon claims, perhaps sends, and continues after another one has reaped its leases."""
        frozen = self.daemons[name]
        self.claim(frozen)
        if sends:
            self.deliver_all(frozen, [fault])
        self.pass_time(LATER_S[1])
        other = next(other for other in DAEMONS if other != name)
        self.reap(name=other, at_once=True)
        self.work(other, [RequestFault.ANSWERED], stops)
        self.deliver_all(frozen, [fault])
        self.settle(frozen, frozen.reports)

    @precondition(lambda self: len(self.seen.bets) < BETS_MAX)
    @rule(name=a_daemon, fault=a_fault, fails=st.sampled_from(["in flight", "later", "never"]), ends=st.booleans())
    def trade(self, *, name: str, fault: RequestFault, fails: str, ends: bool) -> None:
        """A bet may be ended before its debit is confirmed, and its trade may fail."""
        daemon, bet_id = self.daemons[name], f"bet-{len(self.seen.bets) + 1}"
        self.place(bet_id)
        if ends:
            self.end(bet_id, Method.BET_WIN)
        self.claim(daemon)
        if fails == "in flight":
            self.roll_back(bet_id)
        self.deliver_all(daemon, [fault])
        self.settle(daemon, daemon.reports)
        if fails == "later":
            self.roll_back(bet_id)
        self.claim(daemon)
        self.deliver_all(daemon, [RequestFault.ANSWERED if fails != "never" else fault])
        self.settle(daemon, daemon.reports)

    @precondition(lambda self: self.is_in(CallbackState.READY))
    @rule(name=a_daemon)
    def miss_deadlines(self, name: str) -> None:
        """Deadlines pass while no daemon claims."""
        self.pass_time(LATER_S[-1])
        self.reap(name=name, at_once=True)

    @precondition(lambda self: self.daemons_with("leased", "reports"))
    @rule(index=an_index)
    def crash(self, index: int) -> None:
        self.start(self.choose(self.daemons_with("leased", "reports"), index).name)

    @precondition(lambda self: self.is_in(CallbackState.READY, CallbackState.IN_FLIGHT))
    @rule(name=a_daemon, at_once=st.booleans())
    def reap(self, *, name: str, at_once: bool) -> None:
        daemon = self.daemons[name]
        # Chores are due by the real clock, which simulated time does not move.
        self.wait(self.simulation.owner.execute("update predictu_dispatch.maintenance_chore set due_at = now()"))
        self.wait(daemon.reap())
        if at_once:
            self.settle(daemon, daemon.reports)
        self.wait(daemon.outbox.expire(100))
        self.observe()

    @precondition(lambda self: self.network.delayed or self.is_in(CallbackState.IN_FLIGHT) or self.awaits_recheck())
    @rule(seconds=st.sampled_from(LATER_S))
    def pass_time(self, seconds: float) -> None:
        # leased_at stays, because it identifies the attempt.
        self.wait(
            self.simulation.owner.execute(
                "update predictu_dispatch.callback set due_at = due_at - $2::interval,"
                " expires_at = expires_at - $2::interval, lease_until = lease_until - $2::interval,"
                " finished_at = finished_at - $2::interval where operator_id = $1",
                self.operator_id,
                timedelta(seconds=seconds),
            )
        )
        self.network.pass_time(seconds)
        self.leases = {request_id: until_s - seconds for request_id, until_s in self.leases.items()}
        for daemon in self.daemons.values():
            daemon.leased = [
                callback._replace(leased_at_s=callback.leased_at_s - seconds) for callback in daemon.leased
            ]
        self.observe()

    @rule(name=a_daemon, how=st.sampled_from(["paused", "broken", "well", "well"]))
    def pause_or_break(self, *, name: str, how: str) -> None:
        """Nothing of a paused or broken operator is claimed, and no caller is kept waiting."""
        self.wait(
            self.simulation.owner.execute(
                "update predictu_dispatch.operator set circuit = case $2 when 'broken' then 'open' else 'closed' end,"
                " paused_at = case $2 when 'paused' then now() end, paused_by = case $2 when 'paused' then 'test' end,"
                " pause_reason = case $2 when 'paused' then 'test' end where operator_id = $1",
                self.operator_id,
                how,
            )
        )
        self.is_blocked = how != "well"
        self.wait(self.daemons[name].outbox.expire(100))
        self.observe()
        awaited = [
            callback
            for callback in self.seen.callbacks.values()
            if callback.state is CallbackState.READY and callback.method in (Method.BALANCE, Method.BET_MAKE)
        ]
        assert not (self.is_blocked and awaited)

    @precondition(lambda self: self.network.delayed)
    @rule(index=an_index)
    def deliver_late_request(self, index: int) -> None:
        self.network.deliver_delayed(index)
        check_operator(self.seen, self.network)

    @precondition(lambda self: self.seen.in_review())
    @rule(index=an_index)
    def retry_by_a_person(self, index: int) -> None:
        retried = self.choose(self.seen.in_review(), index)
        self.intervene("retry_callback", retried.request_id, "test")
        # Its deadline counts from a timestamp that pass_time() does not move.
        clear = "update predictu_dispatch.callback set expires_at = null where operator_id = $1 and request_id = $2"
        self.wait(self.simulation.owner.execute(clear, self.operator_id, retried.request_id))
        assert self.seen.callbacks[retried.request_id].state is CallbackState.READY

    @precondition(lambda self: self.seen.callbacks)
    @rule(index=an_index)
    def cancel_by_a_person(self, index: int) -> None:
        """Only a callback that was never attempted, and no rollback, can be cancelled."""
        chosen = self.choose(list(self.seen.callbacks.values()), index)
        may_go = chosen.state in (CallbackState.WAITING, CallbackState.READY) and chosen.attempts == 0
        is_allowed = may_go and chosen.method is not Method.BET_ROLLBACK
        before = self.seen
        sqlstate = self.intervene("cancel_callback", chosen.request_id, "wrong", "test", refusal=not is_allowed)
        assert sqlstate == (None if is_allowed else "PD005")
        if is_allowed:
            assert self.seen.callbacks[chosen.request_id].state is CallbackState.CANCELLED
        else:
            assert self.seen == before

    @precondition(lambda self: self.seen.callbacks)
    @rule(index=an_index)
    def abandon_by_a_person(self, index: int) -> None:
        """Only a callback that waits for a retry, or a rollback that is due, can be abandoned."""
        chosen = self.choose(list(self.seen.callbacks.values()), index)
        is_retried = chosen.attempts > 0 or chosen.method is Method.BET_ROLLBACK
        may_go = chosen.state is CallbackState.READY and is_retried
        is_repeated = chosen.state is CallbackState.EXHAUSTED and chosen.reason == "abandoned"
        before = self.seen
        is_allowed = may_go or is_repeated
        sqlstate = self.intervene("abandon_callback", chosen.request_id, "down", "test", refusal=not is_allowed)
        assert sqlstate == (None if is_allowed else "PD005")
        if may_go:
            now = self.seen.callbacks[chosen.request_id]
            assert (now.state, now.reason, now.effect) == (CallbackState.EXHAUSTED, "abandoned", chosen.effect)
        else:
            assert self.seen == before

    @precondition(lambda self: self.is_in(CallbackState.READY))
    @rule(index=an_index)
    def abandon_what_is_due(self, index: int) -> None:
        """As abandon_by_a_person(), which seldom chooses one."""
        due = [n for n, one in enumerate(self.seen.callbacks.values()) if one.state is CallbackState.READY]
        self.abandon_by_a_person(self.choose(due, index))

    @override
    def teardown(self) -> None:
        """Finishes a run without a fault: the operator is healthy, a person retries the rest."""
        if sys.exc_info()[0] is None:
            for name in DAEMONS:
                self.start(name)
            self.pause_or_break(name=DAEMONS[0], how="well")
            self._drain()
            while self.seen.in_review():
                self.retry_by_a_person(0)
            self._drain()
            while self.network.delayed:
                self.deliver_late_request(0)
            for kind in BREACHES:
                for index in range(len(REWRITES)):
                    self.break_a_rule(kind, index)
            self.observe()
            ends = {BetState.OPEN, BetState.CLOSED, BetState.VOID}
            assert {bet.state for bet in self.seen.bets.values()} <= ends, self.seen.bets

    def _drain(self) -> None:
        for _ in range(DRAIN_ROUNDS_MAX):
            for name in DAEMONS:
                self.reap(name=name, at_once=True)
                self.work(name, [RequestFault.ANSWERED], 0)
            if all(callback.state in FINAL for callback in self.seen.callbacks.values()):
                return
            self.pass_time(LATER_S[-1])
        pytest.fail(f"unfinished: {self.seen.callbacks}")


def test_no_money_is_lost_doubled_or_invented_and_the_audit_is_complete(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    if IS_LONG:
        # The time limit is for tests that hang; this profile runs for minutes.
        faulthandler.cancel_dump_traceback_later()
    monkeypatch.setattr("hypothesis.internal.conjecture.engine.MAX_SHRINKING_SECONDS", SHRINKING_MAX_S)
    with closing(Simulation(database)) as simulation:
        SimulationRules.simulation = simulation
        run_state_machine_as_test(SimulationRules, settings=SETTINGS)
        assert simulation.audits
        for operator_id, audit in simulation.audits.items():
            assert simulation.wait(read_snapshot(simulation.owner, operator_id)).audit == audit
