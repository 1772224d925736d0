"""The steps of a simulated run; its rules are in tests/sql/test_state_machine.py."""

import json
import time
import uuid
from collections.abc import Sequence
from typing import ClassVar
from uuid import UUID

import asyncpg
from hypothesis.stateful import RuleBasedStateMachine

from predictu_dispatch.core.callback import LEASE_MARGIN_S, Callback, Evidence
from predictu_dispatch.core.claim import ClaimRequest
from predictu_dispatch.core.lifecycle import FINAL, Attempt, BetState, CallbackState
from predictu_dispatch.core.methods import TERMINALS, Lane, Method
from predictu_dispatch.core.specification import BET_RULES, CALLBACK_MOVES, BetEvent, BetRule
from tests.support.model import BookedBet, Configured, Network, RequestFault, Wallet
from tests.support.simulation import DAEMONS, Daemon, Simulation, T, sort_key
from tests.support.snapshot import SeenCallback, Snapshot, check_bets, check_history, check_operator, read_snapshot

BETS_MAX = 12
BET_MOVES = {
    (before, after)
    for (before, _), rule_of_bet in BET_RULES.items()
    if isinstance(rule_of_bet, BetRule)
    for after in (rule_of_bet.next, rule_of_bet.next_if_waiting)
}
REWRITES = (
    "truncate predictu_dispatch.attempt_record",
    "update predictu_dispatch.attempt_record set error = 'never happened'",
    "delete from predictu_dispatch.attempt_record",
)
MOVE_CALLBACK = "update predictu_dispatch.callback set state = $3 where operator_id = $1 and request_id = $2"
MOVE_BET = "update predictu_dispatch.bet set state = $3 where operator_id = $1 and bet_id = $2"
ADD_TERMINAL = (
    "insert into predictu_dispatch.callback (operator_id, request_id, method, bet_id, lane, state, params)"
    " values ($1, $2, 'BET_WIN', $3, 'settlement', 'waiting', '{}')"
)
SLOTS = 100
"""More than one run can enqueue, so that slots never limit a claim."""
STAKE, PAYOUT = 500, 1_200


def may_move(callback: SeenCallback, state: CallbackState) -> bool:
    is_retry = callback.state in FINAL
    return (callback.state, state) in CALLBACK_MOVES and (callback.method in TERMINALS or not is_retry)


class SimulationSteps(RuleBasedStateMachine):
    """One operator, its bets and two daemons; `seen` is the database as last observed."""

    simulation: ClassVar[Simulation]

    def __init__(self) -> None:
        super().__init__()
        self.wait = self.simulation.wait
        self.settings = self.simulation.new_operator()
        self.operator_id = self.settings.operator_id
        self.network = Network(wallet=Wallet(keeps_tombstones=True))
        self.daemons: dict[str, Daemon] = {}
        for name in DAEMONS:
            self.start(name)
        self.seen = Snapshot()
        # When the last lease of a request ends, on our monotonic clock, unless it is settled.
        self.leases: dict[UUID, float] = {}
        self.is_blocked = False
        self.enqueued: list[tuple[Method, dict[str, object], UUID]] = []
        self.wait(self.daemons[DAEMONS[0]].outbox.sync_operators([(self.settings, "fingerprint")]))

    def start(self, name: str) -> None:
        """Replaces the daemon of this name by a new one."""
        configured = Configured(settings=self.settings, signing_key=self.simulation.key)
        self.daemons[name] = Daemon(self.simulation.outboxes[name], configured, self.network, name=name)

    def observe(self) -> None:
        """Reads the database and checks every invariant."""
        before, self.seen = self.seen, self.wait(read_snapshot(self.simulation.owner, self.operator_id))
        check_history(before, self.seen)
        check_bets(before, self.seen)
        check_operator(self.seen, self.network)
        self.simulation.audits[self.operator_id] = self.seen.audit

    def call(self, refusal: str | None, call: str, *args: object, commits: bool = True) -> object:
        """Runs a producer's transaction; if it is refused or rolls back, it has changed nothing."""
        before = self.seen
        sqlstate, answer = self.wait(self._transaction(call, args, commits=commits))
        assert sqlstate == refusal, f"{call} with {args} raised {sqlstate}, not {refusal}"
        self.observe()
        assert self.seen == before or (commits and refusal is None)
        return answer

    async def _transaction(self, call: str, args: Sequence[object], *, commits: bool) -> tuple[str | None, object]:
        transaction = self.simulation.producer.transaction()
        await transaction.start()
        try:
            places = ", ".join(f"${n}" for n in range(1, len(args) + 2))
            answer = await self.simulation.producer.fetchval(
                f"select predictu_dispatch.{call}({places})", self.operator_id, *args
            )
        except asyncpg.PostgresError as error:
            await transaction.rollback()
            return error.sqlstate, None
        await (transaction.commit() if commits else transaction.rollback())
        return None, answer

    def enqueue(self, method: Method, params: dict[str, object], refusal: str | None, *, commits: bool = True) -> None:
        # Numbered, so that a run can be repeated.
        request_id = UUID(int=len(self.enqueued) + 1)
        self.call(refusal, "enqueue_callback", method, json.dumps(params), request_id, commits=commits)
        if refusal is None and commits:
            self.enqueued.append((method, params, request_id))

    def choose_bet(self, index: int, *, astray: bool) -> str:
        """Chooses an unfinished bet; if there is none, or astray, any bet or a missing one."""
        living = [bet.bet_id for bet in self.seen.bets.values() if bet.state not in (BetState.CLOSED, BetState.VOID)]
        return self.choose([*self.seen.bets, "bet-0"] if astray or not living else living, index)

    def choose(self, choice: Sequence[T], index: int) -> T:
        return choice[index % len(choice)]

    def is_in(self, *states: CallbackState) -> bool:
        return any(callback.state in states for callback in self.seen.callbacks.values())

    def awaits_recheck(self) -> bool:
        return any(
            callback.reason == "nothing_to_reverse" and callback.state is CallbackState.READY
            for callback in self.seen.callbacks.values()
        )

    def place(self, bet_id: str, *, commits: bool = True) -> None:
        context = {"market_id": "m-1", "outcome": "yes", "odds": 1.9, "shares": 10, "price": 50}
        params = {"player_id": "p-1", "currency": "EUR", "amount": STAKE, "bet_id": bet_id, "bet": context}
        self.enqueue(Method.BET_MAKE, params, "PD005" if bet_id in self.seen.bets else None, commits=commits)

    def adopt(self, bet_id: str) -> None:
        bet, placement_id = self.seen.bets.get(bet_id), uuid.uuid5(uuid.NAMESPACE_OID, bet_id)
        if bet is None:
            self.network.wallet.bets[bet_id] = BookedBet(stake=STAKE, gained=-STAKE)
        refusal = None if bet is None or bet.placement_id == placement_id else "PD005"
        self.call(refusal, "adopt_bet", bet_id, "p-1", "EUR", STAKE, placement_id)

    def end(self, bet_id: str, method: Method) -> None:
        bet = self.seen.bets.get(bet_id)
        params: dict[str, object] = {"player_id": "p-1", "bet_id": bet_id}
        if method is not Method.BET_LOSE:
            params |= {"currency": "EUR", "amount": PAYOUT if method in (Method.BET_WIN, Method.BET_SELL) else STAKE}
        if method is Method.BET_ROLLBACK:
            params["rollback_of"] = str(bet.placement_id if bet else UUID(int=0))
        is_free = bet is not None and isinstance(BET_RULES[bet.state, BetEvent.TERMINAL_ENQUEUED], BetRule)
        self.enqueue(method, params, None if is_free and self.seen.terminal(bet_id) is None else "PD005")

    def roll_back(self, bet_id: str) -> None:
        bet, terminal = self.seen.bets.get(bet_id), self.seen.terminal(bet_id)
        ends_otherwise = terminal is not None and terminal.method is not Method.BET_ROLLBACK
        too_late = bet is None or (bet.state in (BetState.CLOSING, BetState.CLOSED) and ends_otherwise)
        answer = self.call("PD005" if too_late else None, "rollback_bet", bet_id, "the trade failed")
        left = self.seen.terminal(bet_id)
        # A void bet's cancelled rollback may be returned again.
        cancelled_id = bet.terminal_id if bet is not None and bet.state is BetState.VOID else None
        assert too_late or answer in ({cancelled_id, None} if left is None else {left.request_id})

    def breaches(self, kind: str) -> list[tuple[str, str, tuple[object, ...]]]:
        """Returns the expected SQLSTATE, the statement and its parameters."""
        seen, operator_id = self.seen, self.operator_id
        if kind == "audit":
            # A row trigger refuses nothing if there is no row.
            return [("PD900", statement, ()) for statement in REWRITES[: 3 if seen.audit else 1]]
        if kind == "callback":
            return [
                ("PD900", MOVE_CALLBACK, (operator_id, callback.request_id, state))
                for callback in seen.callbacks.values()
                for state in CallbackState
                if state is not callback.state and not may_move(callback, state)
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
        claimed = self.wait(daemon.outbox.claim([self._request(lane) for lane in Lane]))
        assert not (self.is_blocked and claimed), f"claimed of an operator that is paused or broken: {claimed}"
        daemon.leased += sorted(claimed, key=sort_key)
        self.observe()
        for callback in claimed:
            assert self.leases.get(callback.request_id, 0.0) <= time.monotonic(), f"two live leases for {callback}"
            self.leases[callback.request_id] = callback.leased_at_s + callback.lease_s
            if callback.bet_id is not None:
                sendable = BetState.PLACING if callback.method is Method.BET_MAKE else BetState.CLOSING
                assert before.bets[callback.bet_id].state is sendable, f"{callback} was claimed"

    def _request(self, lane: Lane) -> ClaimRequest:
        policy = self.settings.lane(lane)
        return ClaimRequest(
            operator_id=self.operator_id,
            lane=lane,
            free_slots=SLOTS,
            lease_s=policy.attempt_timeout_s + LEASE_MARGIN_S,
            rollback_lease_s=self.settings.settlement.attempt_timeout_s + LEASE_MARGIN_S,
            amount_format=self.settings.amount_format,
        )

    def daemons_with(self, *what: str) -> list[Daemon]:
        """Returns the daemons that have leased callbacks, reports or settled reports."""
        return [daemon for daemon in self.daemons.values() if any(getattr(daemon, kind) for kind in what)]

    def deliver(self, daemon: Daemon, callback: Callback, fault: RequestFault) -> None:
        self.network.fault = fault
        daemon.leased.remove(callback)
        report = self.wait(daemon.courier.deliver(callback))
        daemon.reports.append(report)
        if report.exchange.evidence is not Evidence.NOT_SENT:
            sendable_s = min(callback.lease_s, callback.expires_in_s or callback.lease_s)
            assert time.monotonic() < callback.leased_at_s + sendable_s, f"sent without a right to: {callback}"
        # Nothing was written, so the last observation still holds.
        check_operator(self.seen, self.network)

    def deliver_all(self, daemon: Daemon, faults: Sequence[RequestFault]) -> None:
        for number, callback in enumerate(tuple(daemon.leased)):
            self.deliver(daemon, callback, faults[number % len(faults)])

    def settle(self, daemon: Daemon, batch: Sequence[Attempt]) -> None:
        """One report decides each attempt, a daemon's before a reaper's; the others are late."""
        before = self.seen
        self.wait(daemon.settle(batch))
        daemon.settled, daemon.reports = daemon.settled + daemon.reports, []
        self.observe()
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

    def intervene(self, function: str, *args: object, refusal: bool = False) -> str | None:
        """Calls a function for people; returns the SQLSTATE if it was refused."""
        places = ", ".join(f"${n}" for n in range(1, len(args) + 2))
        call = f"select predictu_dispatch.{function}({places})"
        try:
            self.wait(self.simulation.owner.fetchval(call, self.operator_id, *args))
        except asyncpg.PostgresError as error:
            if not refusal:
                raise
            return str(error.sqlstate)
        finally:
            self.observe()
        return None
