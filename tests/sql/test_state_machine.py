"""Producers, two daemons, an operator with faults, a slow network and crashes, in any order, on the real schema.

Hypothesis plays; after every statement the database is looked at and held against the look before, the tables of
core/specification.py and the operator's own books (tests/support/model.py). Everything of ours is real: the SQL, the
outbox, the courier, the recorder and the reaper, each with the rights of its role. Nobody sleeps: time passes by
moving every moment that is written down into the past.

`HYPOTHESIS_PROFILE=long` plays for minutes, and differently each time.
"""

import asyncio
import faulthandler
import itertools
import json
import os
import sys
import time
import uuid
from collections.abc import Coroutine, Sequence
from contextlib import closing
from datetime import datetime, timedelta
from typing import Any, ClassVar, TypeVar
from uuid import UUID

import asyncpg
import pytest
import uvloop
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule, run_state_machine_as_test
from typing_extensions import override

from predictu_dispatch.core.attempt import Attempt, CallbackChange
from predictu_dispatch.core.callback import LEASE_MARGIN_S, Callback, Evidence
from predictu_dispatch.core.claim import ClaimRequest
from predictu_dispatch.core.lifecycle import FINAL, BetState, CallbackState
from predictu_dispatch.core.methods import TERMINALS, Lane, Method
from predictu_dispatch.core.operator_settings import INTERACTIVE, SETTLEMENT, OperatorSettings, SigningSettings
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.core.specification import BET_RULES, CALLBACK_MOVES, BetEvent, BetRule
from predictu_dispatch.edge.config.keys import new_private_pem
from predictu_dispatch.edge.postgres.database import Database as Pool
from predictu_dispatch.edge.postgres.outbox import Outbox
from predictu_dispatch.flow.courier import Courier
from predictu_dispatch.flow.reaper import Reaper
from predictu_dispatch.flow.recorder import Recorder
from tests.support.model import (
    AuditKey,
    BookedBet,
    Configured,
    Network,
    RequestFault,
    SeenCallback,
    Snapshot,
    Wallet,
    check_bets,
    check_history,
    check_operator,
    read_snapshot,
)
from tests.support.postgres import Database

IS_LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
PLAY = settings(
    max_examples=2_000 if IS_LONG else 60,
    stateful_step_count=80 if IS_LONG else 40,
    derandomize=not IS_LONG,
    deadline=None,
    database=None,
    phases=(Phase.generate, Phase.shrink),
    suppress_health_check=list(HealthCheck),
)

SHRINKING_MAX_S = 60
"""A failure is told before the run's own time limit ends it; Hypothesis' 300 s would be too long
for that."""

DAEMONS = ("host-1", "host-2")
BETS_MAX = 12
BET_MOVES = {
    (before, after)
    for (before, _), rule_of_bet in BET_RULES.items()
    if isinstance(rule_of_bet, BetRule)
    for after in (rule_of_bet.next, rule_of_bet.next_if_waiting)
}
BREACHES = ("audit", "callback", "bet", "terminal")
REWRITES = (
    "truncate predictu_dispatch.attempt",
    "update predictu_dispatch.attempt set error = 'never happened'",
    "delete from predictu_dispatch.attempt",
)
MOVE_CALLBACK = "update predictu_dispatch.callback set state = $3 where operator_id = $1 and request_id = $2"
MOVE_BET = "update predictu_dispatch.bet set state = $3 where operator_id = $1 and bet_id = $2"
ADD_TERMINAL = (
    "insert into predictu_dispatch.callback (operator_id, request_id, method, bet_id, lane, state, params)"
    " values ($1, $2, 'BET_WIN', $3, 'settlement', 'waiting', '{}')"
)
SLOTS = 100
"""Any number above what one play can enqueue: what is left for the next claim is a matter of bets,
not of slots."""
STAKE, PAYOUT = 500, 1_200
LATER_S = (4.0, 16.0, 61.0)
"""Too late to send what is leased; every lease has run out; deadlines have passed, and the recheck
is due."""
DRAIN_ROUNDS_MAX = 12
"""Three attempts, their leases, the recheck, a rollback with as many; whoever is not done by then
never will be."""

a_daemon, an_index = st.sampled_from(DAEMONS), st.integers(0, 7)
a_fault = st.sampled_from([RequestFault.ANSWERED, *[RequestFault.DELAYED] * 3, *RequestFault])
"""Often what makes lives long: a request that arrives after we have given it up."""
seldom = st.sampled_from([False] * 7 + [True])
T = TypeVar("T")


def _place(callback: Callback) -> tuple[str, datetime]:
    """Sorts what Postgres gives in any order, so that a play can be played again.

    A bet's moments follow each other.
    """
    return callback.bet_id or "", callback.created_at


def _may_move(callback: SeenCallback, state: CallbackState) -> bool:
    is_redrive = callback.state in FINAL
    return (callback.state, state) in CALLBACK_MOVES and (callback.method in TERMINALS or not is_redrive)


class World:
    """The connections that all plays share: each play has an operator of its own, so none sees another's rows."""

    def __init__(self, database: Database) -> None:
        self._runner = asyncio.Runner(loop_factory=uvloop.new_event_loop)
        self._names = itertools.count(1)
        # What the audit of each play's operator held when it was last looked at.
        self.audits: dict[str, dict[AuditKey, str]] = {}
        self.key = SigningKey.from_pem(new_private_pem("EdDSA"), "EdDSA")
        self.owner = self.wait(asyncpg.connect(database.owner))
        self.producer = self.wait(asyncpg.connect(database.producer))
        self._pools = [Pool(database.dispatcher, pool_size=1, application_name=name) for name in DAEMONS]
        for pool in self._pools:
            self.wait(pool.open())
        self.outboxes = {name: Outbox(pool, instance=name) for name, pool in zip(DAEMONS, self._pools, strict=True)}

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def new_operator(self) -> OperatorSettings:
        """Retries are due at once, three attempts are all.

        Deadlines leave time for a lease or two.
        """
        quick = {"max_attempts": 3, "initial_delay_s": 0.0, "max_delay_s": 0.0, "jitter": 0.0}
        return OperatorSettings(
            operator_id=f"op_{next(self._names)}",
            callback_url="https://wallet.example.com/predictu",
            signing=SigningSettings(key_file="unused"),
            interactive=INTERACTIVE.model_copy(update={**quick, "deadline_s": 40.0}),
            settlement=SETTLEMENT.model_copy(update={**quick, "deadline_s": 100.0}),
        )

    def close(self) -> None:
        for pool in self._pools:
            self.wait(pool.close())
        self.wait(self.owner.close())
        self.wait(self.producer.close())
        self._runner.close()


class Findings(Recorder):
    """Stands in the recorder's place: what the reaper finds is settled when the play says so, perhaps too late."""

    def __init__(self, daemon: "Daemon") -> None:
        self._daemon = daemon

    @override
    async def record(self, attempt: Attempt) -> None:
        # Plays that failed have left leases behind; they are another operator's.
        if attempt.callback.operator_id == self._daemon.operator_id:
            self._daemon.reports.append(attempt)

    @override
    def is_recording(self, callback: Callback) -> bool:
        # Of the courier's own reports the reaper shall not know, as if it were another daemon's:
        # the database must.
        return any(
            (known.callback.request_id, known.callback.attempt) == (callback.request_id, callback.attempt)
            for known in self._daemon.reports
            if known.reaped
        )


class Daemon:
    """One daemon with its memory; a crash is to be forgotten."""

    def __init__(self, outbox: Outbox, configured: Configured, network: Network, *, name: str) -> None:
        self.name = name
        self.operator_id = configured.settings.operator_id
        self.outbox = outbox
        self.leased: list[Callback] = []
        self.reports: list[Attempt] = []
        self.settled: list[Attempt] = []
        self.refused: list[Exception] = []
        self.courier = Courier(configured, network, lane=Lane.INTERACTIVE, instance=name)
        self.reaper = Reaper(
            outbox,
            dict.fromkeys(Lane, Findings(self)),
            self,
            lambda: {self.operator_id: configured},
            instance=name,
            wake=self.wake,
        )

    async def reap(self) -> None:
        """What is found is among the reports."""
        async with asyncio.TaskGroup() as found:
            await self.reaper.reap_leases(found)
        self.reports.sort(key=lambda report: _place(report.callback))

    async def settle(self, reports: Sequence[Attempt]) -> None:
        """All reports at once, by the real recorder, which settles them one by one where the batch is refused."""
        recorder = Recorder(self.outbox, self, self.wake)
        running = asyncio.create_task(recorder.run())
        await asyncio.gather(*(recorder.record(report) for report in reports))
        running.cancel()
        await asyncio.wait([running])
        assert not self.refused, self.refused

    def wake(self, lane: Lane, delay_s: float, operator_id: str) -> None: ...

    def attempt_began(self, callback: Callback) -> None: ...

    def attempt_settled(self, attempt: Attempt, change: CallbackChange) -> None: ...

    def callback_changed(self, change: CallbackChange) -> None: ...

    def chore_failed(self, chore: str, error: Exception) -> None:  # noqa: ARG002 - the port's own signature
        self.refused.append(error)

    def report_refused(self, attempt: Attempt, error: Exception) -> None:  # noqa: ARG002 - the port's own signature
        self.refused.append(error)


class Play(RuleBasedStateMachine):
    """One operator, its bets, two daemons. `seen` is the last look at the database."""

    world: ClassVar[World]

    def __init__(self) -> None:
        super().__init__()
        self.wait = self.world.wait
        self.settings = self.world.new_operator()
        self.operator_id = self.settings.operator_id
        self.network = Network(wallet=Wallet(keeps_tombstones=True))
        self.daemons: dict[str, Daemon] = {}
        for name in DAEMONS:
            self.start(name)
        self.seen = Snapshot()
        # When the last lease of a request ends, on our monotonic clock, unless its attempt is
        # settled.
        self.leases: dict[UUID, float] = {}
        self.is_left_alone = False
        self.enqueued: list[tuple[Method, dict[str, object], UUID]] = []
        self.wait(self.daemons[DAEMONS[0]].outbox.sync_operators([(self.settings, "fingerprint")]))

    def start(self, name: str) -> None:
        """A daemon that knows nothing has taken the place of the one that had the name."""
        configured = Configured(settings=self.settings, signing_key=self.world.key)
        self.daemons[name] = Daemon(self.world.outboxes[name], configured, self.network, name=name)

    def look(self) -> None:
        """The database was looked at, and everything promised holds."""
        before, self.seen = self.seen, self.wait(read_snapshot(self.world.owner, self.operator_id))
        check_history(before, self.seen)
        check_bets(before, self.seen)
        check_operator(self.seen, self.network)
        self.world.audits[self.operator_id] = self.seen.audit

    def ask(self, refusal: str | None, call: str, *args: object, commits: bool = True) -> object:
        """A producer's transaction.

        Where it is refused, or does not commit, it has changed nothing.
        """
        before = self.seen
        sqlstate, answer = self.wait(self._transaction(call, args, commits=commits))
        assert sqlstate == refusal, f"{call} with {args} raised {sqlstate}, not {refusal}"
        self.look()
        assert self.seen == before or (commits and refusal is None)
        return answer

    async def _transaction(self, call: str, args: Sequence[object], *, commits: bool) -> tuple[str | None, object]:
        transaction = self.world.producer.transaction()
        await transaction.start()
        try:
            places = ", ".join(f"${n}" for n in range(1, len(args) + 2))
            answer = await self.world.producer.fetchval(
                f"select predictu_dispatch.{call}({places})", self.operator_id, *args
            )
        except asyncpg.PostgresError as error:
            await transaction.rollback()
            return error.sqlstate, None
        await (transaction.commit() if commits else transaction.rollback())
        return None, answer

    def enqueue(self, method: Method, params: dict[str, object], refusal: str | None, *, commits: bool = True) -> None:
        # Named by their number and not by chance, so that a play can be played again.
        request_id = UUID(int=len(self.enqueued) + 1)
        self.ask(refusal, "enqueue_callback", method, json.dumps(params), request_id, commits=commits)
        if refusal is None and commits:
            self.enqueued.append((method, params, request_id))

    def a_bet(self, index: int, *, astray: bool) -> str:
        """A bet that still lives.

        Where there is none, or astray, one that has ended or never was.
        """
        living = [bet.bet_id for bet in self.seen.bets.values() if bet.state not in (BetState.CLOSED, BetState.VOID)]
        return self.any_of([*self.seen.bets, "bet-0"] if astray or not living else living, index)

    def any_of(self, choice: Sequence[T], index: int) -> T:
        return choice[index % len(choice)]

    def is_in(self, *states: CallbackState) -> bool:
        return any(callback.state in states for callback in self.seen.callbacks.values())

    def awaits_recheck(self) -> bool:
        return any(
            callback.reason == "nothing_to_reverse" and callback.state is CallbackState.READY
            for callback in self.seen.callbacks.values()
        )

    @initialize(keeps_tombstones=st.booleans(), adopted=st.lists(seldom, min_size=2, max_size=5))
    def begins(self, *, keeps_tombstones: bool, adopted: list[bool]) -> None:
        self.network.wallet.keeps_tombstones = keeps_tombstones
        for number, is_adopted in enumerate(adopted, start=1):
            self.adopt(f"bet-{number}") if is_adopted else self.place(f"bet-{number}")

    @precondition(lambda self: len(self.seen.bets) < BETS_MAX)
    @rule(
        kind=st.sampled_from(["placed", "placed", "placed", "adopted", "aborted", "astray", "adopted astray"]),
        index=an_index,
    )
    def opens(self, kind: str, index: int) -> None:
        bet_id = self.a_bet(index, astray=True) if "astray" in kind else f"bet-{len(self.seen.bets) + 1}"
        if "adopted" in kind:
            self.adopt(bet_id)
        else:
            self.place(bet_id, commits=kind != "aborted")

    def place(self, bet_id: str, *, commits: bool = True) -> None:
        context = {"market_id": "m-1", "outcome": "yes", "odds": 1.9, "shares": 10, "price": 50}
        params = {"player_id": "p-1", "currency": "EUR", "amount": STAKE, "bet_id": bet_id, "bet": context}
        self.enqueue(Method.BET_MAKE, params, "PD005" if bet_id in self.seen.bets else None, commits=commits)

    def adopt(self, bet_id: str) -> None:
        bet, placement_id = self.seen.bets.get(bet_id), uuid.uuid5(uuid.NAMESPACE_OID, bet_id)
        if bet is None:
            self.network.wallet.bets[bet_id] = BookedBet(stake=STAKE, gained=-STAKE)
        refusal = None if bet is None or bet.placement_id == placement_id else "PD005"
        self.ask(refusal, "adopt_bet", bet_id, "p-1", "EUR", STAKE, placement_id)

    @rule(index=an_index, astray=seldom, method=st.sampled_from(sorted(TERMINALS)))
    def ends(self, *, index: int, astray: bool, method: Method) -> None:
        self.end(self.a_bet(index, astray=astray), method)

    def end(self, bet_id: str, method: Method) -> None:
        bet = self.seen.bets.get(bet_id)
        params: dict[str, object] = {"player_id": "p-1", "bet_id": bet_id}
        if method is not Method.BET_LOSE:
            params |= {"currency": "EUR", "amount": PAYOUT if method in (Method.BET_WIN, Method.BET_SELL) else STAKE}
        if method is Method.BET_ROLLBACK:
            params["rollback_of"] = str(bet.placement_id if bet else UUID(int=0))
        is_free = bet is not None and isinstance(BET_RULES[bet.state, BetEvent.TERMINAL_ENQUEUED], BetRule)
        self.enqueue(method, params, None if is_free and self.seen.terminal(bet_id) is None else "PD005")

    @rule(index=an_index, astray=seldom)
    def rolls_back(self, *, index: int, astray: bool) -> None:
        self.roll_back(self.a_bet(index, astray=astray))

    def roll_back(self, bet_id: str) -> None:
        bet, terminal = self.seen.bets.get(bet_id), self.seen.terminal(bet_id)
        ends_otherwise = terminal is not None and terminal.method is not Method.BET_ROLLBACK
        too_late = bet is None or (bet.state in (BetState.CLOSING, BetState.CLOSED) and ends_otherwise)
        answer = self.ask("PD005" if too_late else None, "rollback_bet", bet_id, "the trade failed")
        left = self.seen.terminal(bet_id)
        # A rollback that was taken back with its void bet is still the bet's own, and may be named
        # again.
        taken_back = bet.terminal_id if bet is not None and bet.state is BetState.VOID else None
        assert too_late or answer in ({taken_back, None} if left is None else {left.request_id})

    @rule(index=an_index, twist=st.sampled_from(["new", "same", "other method", "other params"]))
    def asks_for_a_balance_or_repeats_itself(self, index: int, twist: str) -> None:
        if twist == "new" or not self.enqueued:
            self.enqueue(Method.BALANCE, {"player_id": "p-1", "currency": "EUR"}, None)
            return
        method, params, request_id = self.any_of(self.enqueued, index)
        if twist == "other method":
            method = Method.BET_LOSE if method is Method.BALANCE else Method.BALANCE
            params = {"player_id": "p-1", "currency": "EUR", "bet_id": "bet-1"}
        elif twist == "other params":
            params = params | {"trace": "another"}
        before, refusal = self.seen, None if twist == "same" else "PD004"
        self.ask(refusal, "enqueue_callback", method, json.dumps(params), request_id)
        assert self.seen == before

    @rule(kind=st.sampled_from(BREACHES), index=st.integers(0, 99))
    def errs(self, kind: str, index: int) -> None:
        """The owner's own hand, which may write every table, is stopped before it breaks what the tables promise."""
        breaches = self.breaches(kind)
        if breaches:
            sqlstate, statement, args = self.any_of(breaches, index)
            with pytest.raises(asyncpg.PostgresError) as refused:
                self.wait(self.world.owner.execute(statement, *args))
            assert refused.value.sqlstate == sqlstate, f"{statement} with {args} raised {refused.value!r}"

    def breaches(self, kind: str) -> list[tuple[str, str, tuple[object, ...]]]:
        """The SQLSTATE that stops a statement, the statement, its parameters."""
        seen, operator_id = self.seen, self.operator_id
        if kind == "audit":
            # A row trigger has nothing to refuse where there is no row.
            return [("PD900", statement, ()) for statement in REWRITES[: 3 if seen.audit else 1]]
        if kind == "callback":
            return [
                ("PD900", MOVE_CALLBACK, (operator_id, callback.request_id, state))
                for callback in seen.callbacks.values()
                for state in CallbackState
                if state is not callback.state and not _may_move(callback, state)
            ]
        if kind == "bet":
            return [
                ("PD900", MOVE_BET, (operator_id, bet.bet_id, state))
                for bet in seen.bets.values()
                for state in BetState
                if state is not bet.state and (bet.state, state) not in BET_MOVES
            ]
        ended = [bet_id for bet_id in seen.bets if seen.terminal(bet_id) is not None]
        return [("23505", ADD_TERMINAL, (operator_id, UUID(int=2**64), bet_id)) for bet_id in ended]

    def claim(self, daemon: Daemon) -> None:
        before = self.seen
        claimed = self.wait(daemon.outbox.claim([self._want(lane) for lane in Lane]))
        assert not (self.is_left_alone and claimed), f"claimed of an operator that is to be left alone: {claimed}"
        daemon.leased += sorted(claimed, key=_place)
        self.look()
        for callback in claimed:
            assert self.leases.get(callback.request_id, 0.0) <= time.monotonic(), f"two live leases for {callback}"
            self.leases[callback.request_id] = callback.leased_at_s + callback.lease_s
            if callback.bet_id is not None:
                sendable = BetState.PLACING if callback.method is Method.BET_MAKE else BetState.CLOSING
                assert before.bets[callback.bet_id].state is sendable, f"{callback} was claimed"

    def _want(self, lane: Lane) -> ClaimRequest:
        policy = self.settings.lane(lane)
        return ClaimRequest(
            operator_id=self.operator_id,
            lane=lane,
            free_slots=SLOTS,
            lease_s=policy.attempt_timeout_s + LEASE_MARGIN_S,
            rollback_lease_s=self.settings.settlement.attempt_timeout_s + LEASE_MARGIN_S,
            amount_format=self.settings.amount_format,
        )

    def holding(self, *what: str) -> list[Daemon]:
        """The daemons that have some of it: leased, reports, settled."""
        return [daemon for daemon in self.daemons.values() if any(getattr(daemon, kind) for kind in what)]

    @precondition(lambda self: self.holding("leased"))
    @rule(index=an_index, fault=a_fault)
    def delivers(self, index: int, fault: RequestFault) -> None:
        callback, daemon = self.any_of([(c, daemon) for daemon in self.holding("leased") for c in daemon.leased], index)
        self.deliver(daemon, callback, fault)

    def deliver(self, daemon: Daemon, callback: Callback, fault: RequestFault) -> None:
        self.network.fault = fault
        daemon.leased.remove(callback)
        report = self.wait(daemon.courier.deliver(callback))
        daemon.reports.append(report)
        if report.exchange.evidence is not Evidence.NOT_SENT:
            sendable_s = min(callback.lease_s, callback.expires_in_s or callback.lease_s)
            assert time.monotonic() < callback.leased_at_s + sendable_s, f"sent without a right to: {callback}"
        # Nothing was written; what the operator did is held against the last look.
        check_operator(self.seen, self.network)

    def deliver_all(self, daemon: Daemon, faults: Sequence[RequestFault]) -> None:
        for number, callback in enumerate(tuple(daemon.leased)):
            self.deliver(daemon, callback, faults[number % len(faults)])

    @precondition(lambda self: self.holding("reports", "settled"))
    @rule(index=an_index, again=st.booleans())
    def settles(self, *, index: int, again: bool) -> None:
        """`again`: as after a commit whose answer was lost."""
        daemon = self.any_of(self.holding("reports", "settled"), index)
        self.settle(daemon, daemon.reports + (daemon.settled[-2:] if again else []))

    def settle(self, daemon: Daemon, batch: Sequence[Attempt]) -> None:
        """One report has decided each attempt in flight, a daemon's before a reaper's.

        The others are late at most.
        """
        before = self.seen
        self.wait(daemon.settle(batch))
        daemon.settled, daemon.reports = daemon.settled + daemon.reports, []
        self.look()
        decided: set[UUID] = set()
        written = set()
        for report in sorted(batch, key=lambda report: report.reaped):
            request_id, attempt, outcome = report.callback.request_id, report.callback.attempt, report.outcome
            was, now = before.callbacks[request_id], self.seen.callbacks[request_id]
            key = (request_id, attempt, report.report_id)
            is_written = any(row[:3] == key for row in before.audit)
            if was.state is CallbackState.IN_FLIGHT and was.attempts == attempt and request_id not in decided:
                decided.add(request_id)
                written.add((*key, str(outcome.verdict)))
                ended_s = self.leases.pop(request_id)
                assert not report.reaped or ended_s <= time.monotonic(), f"reaped while its lease lives: {was}"
                stopped = was.retry_stopped and outcome.state is CallbackState.READY
                assert (now.state, now.effect) == (
                    CallbackState.EXHAUSTED if stopped else outcome.state,
                    outcome.effect,
                )
            elif not report.reaped and not is_written:
                written.add((*key, "late"))
        assert self.seen.audit.keys() - before.audit.keys() == written
        late = {report.callback.request_id for report in batch} - decided
        assert all(self.seen.callbacks[request_id] == before.callbacks[request_id] for request_id in late)

    @precondition(lambda self: self.is_in(CallbackState.READY))
    @rule(name=a_daemon, faults=st.lists(a_fault, min_size=1, max_size=3), stops=st.integers(0, 3))
    def works(self, name: str, faults: list[RequestFault], stops: int) -> None:
        """A daemon claims, delivers and settles, unless it stops after the first or the second."""
        daemon = self.daemons[name]
        self.claim(daemon)
        if stops != 1:
            self.deliver_all(daemon, faults)
        if stops not in (1, 2):
            self.settle(daemon, daemon.reports)

    @precondition(lambda self: self.is_in(CallbackState.READY))
    @rule(name=a_daemon, fault=a_fault, sends=st.booleans(), stops=st.integers(0, 3))
    def freezes(self, *, name: str, fault: RequestFault, sends: bool, stops: int) -> None:
        """A daemon claims, and perhaps sends, and goes on only when another has reaped its leases and moved on."""
        frozen = self.daemons[name]
        self.claim(frozen)
        if sends:
            self.deliver_all(frozen, [fault])
        self.lets_time_pass(LATER_S[1])
        other = next(other for other in DAEMONS if other != name)
        self.reaps(name=other, at_once=True)
        self.works(other, [RequestFault.ANSWERED], stops)
        self.deliver_all(frozen, [fault])
        self.settle(frozen, frozen.reports)

    @precondition(lambda self: len(self.seen.bets) < BETS_MAX)
    @rule(name=a_daemon, fault=a_fault, fails=st.sampled_from(["in flight", "later", "never"]), ends=st.booleans())
    def trades(self, *, name: str, fault: RequestFault, fails: str, ends: bool) -> None:
        """A bet whose market may resolve before its debit is confirmed, and whose trade may fail downstream."""
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
    def is_too_busy(self, name: str) -> None:
        """Deadlines pass while nobody claims."""
        self.lets_time_pass(LATER_S[-1])
        self.reaps(name=name, at_once=True)

    @precondition(lambda self: self.holding("leased", "reports"))
    @rule(index=an_index)
    def crashes(self, index: int) -> None:
        self.start(self.any_of(self.holding("leased", "reports"), index).name)

    @precondition(lambda self: self.is_in(CallbackState.READY, CallbackState.IN_FLIGHT))
    @rule(name=a_daemon, at_once=st.booleans())
    def reaps(self, *, name: str, at_once: bool) -> None:
        daemon = self.daemons[name]
        # Real time barely passes here, so the chore's interval is ended by hand.
        self.wait(self.world.owner.execute("update predictu_dispatch.maintenance_chore set due_at = now()"))
        self.wait(daemon.reap())
        if at_once:
            self.settle(daemon, daemon.reports)
        self.wait(daemon.outbox.expire(100))
        self.look()

    @precondition(lambda self: self.network.delayed or self.is_in(CallbackState.IN_FLIGHT) or self.awaits_recheck())
    @rule(seconds=st.sampled_from(LATER_S))
    def lets_time_pass(self, seconds: float) -> None:
        # leased_at stays, because it names the attempt; what is reckoned from it uses moments that
        # move alike.
        self.wait(
            self.world.owner.execute(
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
        self.look()

    @rule(name=a_daemon, how=st.sampled_from(["paused", "broken", "well", "well"]))
    def is_paused_or_broken(self, *, name: str, how: str) -> None:
        """While an operator is left alone nothing of it is claimed, and nobody is kept waiting."""
        self.wait(
            self.world.owner.execute(
                "update predictu_dispatch.operator set circuit = case $2 when 'broken' then 'open' else 'closed' end,"
                " paused_at = case $2 when 'paused' then now() end, paused_by = case $2 when 'paused' then 'test' end,"
                " pause_reason = case $2 when 'paused' then 'test' end where operator_id = $1",
                self.operator_id,
                how,
            )
        )
        self.is_left_alone = how != "well"
        self.wait(self.daemons[name].outbox.expire(100))
        self.look()
        awaited = [
            callback
            for callback in self.seen.callbacks.values()
            if callback.state is CallbackState.READY and callback.method in (Method.BALANCE, Method.BET_MAKE)
        ]
        assert not (self.is_left_alone and awaited)

    @precondition(lambda self: self.network.delayed)
    @rule(index=an_index)
    def a_late_request_arrives(self, index: int) -> None:
        self.network.deliver_delayed(index)
        check_operator(self.seen, self.network)

    @precondition(lambda self: self.seen.in_review())
    @rule(index=an_index)
    def a_person_redrives(self, index: int) -> None:
        redriven = self.any_of(self.seen.in_review(), index)
        self.intervene("retry_callback", redriven.request_id, "test")
        # Its deadline has the span it had at first, reckoned from a moment that the plays' time
        # does not move.
        clear = "update predictu_dispatch.callback set expires_at = null where operator_id = $1 and request_id = $2"
        self.wait(self.world.owner.execute(clear, self.operator_id, redriven.request_id))
        assert self.seen.callbacks[redriven.request_id].state is CallbackState.READY

    @precondition(lambda self: self.seen.callbacks)
    @rule(index=an_index)
    def a_person_takes_back(self, index: int) -> None:
        """What was never attempted, and no rollback.

        A bet whose terminal is taken back may be ended by another.
        """
        taken = self.any_of(list(self.seen.callbacks.values()), index)
        may_go = taken.state in (CallbackState.WAITING, CallbackState.READY) and taken.attempts == 0
        is_allowed = may_go and taken.method is not Method.BET_ROLLBACK
        before = self.seen
        sqlstate = self.intervene("cancel_callback", taken.request_id, "wrong", "test", refusal=not is_allowed)
        assert sqlstate == (None if is_allowed else "PD005")
        if is_allowed:
            assert self.seen.callbacks[taken.request_id].state is CallbackState.CANCELLED
        else:
            assert self.seen == before

    def intervene(self, function: str, *args: object, refusal: bool = False) -> str | None:
        """What a person's command does, with the daemon's own rights.

        Returns the SQLSTATE where it was refused.
        """
        places = ", ".join(f"${n}" for n in range(1, len(args) + 2))
        call = f"select predictu_dispatch.{function}({places})"
        try:
            self.wait(self.world.owner.fetchval(call, self.operator_id, *args))
        except asyncpg.PostgresError as error:
            if not refusal:
                raise
            return str(error.sqlstate)
        finally:
            self.look()
        return None

    @override
    def teardown(self) -> None:
        """A play that went well is played to its end: the operator is healthy, and a person re-drives what is left."""
        if sys.exc_info()[0] is None:
            for name in DAEMONS:
                self.start(name)
            self.is_paused_or_broken(name=DAEMONS[0], how="well")
            self._drain()
            while self.seen.in_review():
                self.a_person_redrives(0)
            self._drain()
            while self.network.delayed:
                self.a_late_request_arrives(0)
            for kind in BREACHES:
                for index in range(len(REWRITES)):
                    self.errs(kind, index)
            self.look()
            ends = {BetState.OPEN, BetState.CLOSED, BetState.VOID}
            assert {bet.state for bet in self.seen.bets.values()} <= ends, self.seen.bets

    def _drain(self) -> None:
        for _ in range(DRAIN_ROUNDS_MAX):
            for name in DAEMONS:
                self.reaps(name=name, at_once=True)
                self.works(name, [RequestFault.ANSWERED], 0)
            if all(callback.state in FINAL for callback in self.seen.callbacks.values()):
                return
            self.lets_time_pass(LATER_S[-1])
        pytest.fail(f"unfinished: {self.seen.callbacks}")


def test_whatever_happens_no_money_is_lost_doubled_or_invented_and_the_audit_tells_it_all(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    if IS_LONG:
        # The limit is for tests that hang; minutes are what was asked for.
        faulthandler.cancel_dump_traceback_later()
    monkeypatch.setattr("hypothesis.internal.conjecture.engine.MAX_SHRINKING_SECONDS", SHRINKING_MAX_S)
    with closing(World(database)) as world:
        Play.world = world
        run_state_machine_as_test(Play, settings=PLAY)
        assert world.audits
        for operator_id, audit in world.audits.items():
            assert world.wait(read_snapshot(world.owner, operator_id)).audit == audit
