"""Snapshots of the database, and checks of one against the one before and against the model.

The rules are the tables of core/specification.py.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import UUID

import asyncpg

from predictu_dispatch.core.lifecycle import FINAL, BetState, CallbackState
from predictu_dispatch.core.methods import TERMINALS, Method
from predictu_dispatch.core.specification import BET_RULES, CALLBACK_MOVES, BetEvent, BetRule, TerminalChange
from tests.support.model import Network

AuditKey = tuple[UUID, int, UUID, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenCallback:
    """One row of callback; `amount` is None if its params have none."""

    request_id: UUID
    method: Method
    bet_id: str | None
    state: CallbackState
    reason: str | None
    effect: str
    attempts: int
    retry_stopped: bool
    amount: int | None
    needs_review: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SeenBet:
    """One row of bet."""

    bet_id: str
    state: BetState
    stake: int
    placement_id: UUID
    terminal_id: UUID | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything the database holds of one operator at one time."""

    callbacks: dict[UUID, SeenCallback] = field(default_factory=dict)
    bets: dict[str, SeenBet] = field(default_factory=dict)
    # A digest of all columns, by request, attempt, report and verdict.
    audit: dict[AuditKey, str] = field(default_factory=dict)

    def placement(self, bet: SeenBet) -> SeenCallback | None:
        """None for an adopted bet."""
        return self.callbacks.get(bet.placement_id)

    def terminal(self, bet_id: str) -> SeenCallback | None:
        """Returns the bet's one terminal that is not cancelled."""
        live = [
            callback
            for callback in self.callbacks.values()
            if callback.bet_id == bet_id
            and callback.method in TERMINALS
            and callback.state is not CallbackState.CANCELLED
        ]
        assert len(live) <= 1, f"bet {bet_id} has {len(live)} terminals"
        return live[0] if live else None

    def in_review(self) -> list[SeenCallback]:
        """Returns the terminals that a person may retry."""
        return [
            c
            for c in self.callbacks.values()
            if c.state in (CallbackState.REJECTED, CallbackState.EXHAUSTED) and c.needs_review
        ]


async def read_snapshot(connection: "asyncpg.Connection[asyncpg.Record]", operator_id: str) -> Snapshot:
    """Reads everything of the operator, in a fixed order: by bet, then by time of enqueueing."""
    callbacks, bets, audit = [await connection.fetch(statement, operator_id) for statement in _LOOK]
    return Snapshot(
        callbacks={
            row["request_id"]: SeenCallback(
                **{**row, "method": Method(row["method"]), "state": CallbackState(row["state"])}
            )
            for row in callbacks
        },
        bets={row["bet_id"]: SeenBet(**{**row, "state": BetState(row["state"])}) for row in bets},
        audit={(row["request_id"], row["attempt"], row["report_id"], row["verdict"]): row["digest"] for row in audit},
    )


_LOOK = (
    """
    select request_id, method, bet_id, state, reason, effect, attempts, retry_stopped,
           (params ->> 'amount')::bigint as amount, review_since is not null as needs_review
      from predictu_dispatch.callback where operator_id = $1 order by bet_id, created_at
    """,
    """
    select bet_id, state, amount as stake, placement_request_id as placement_id, terminal_request_id as terminal_id
      from predictu_dispatch.bet where operator_id = $1 order by created_at
    """,
    """
    select request_id, attempt, report_id, verdict, md5(attempt_row::text) as digest
      from predictu_dispatch.attempt as attempt_row where operator_id = $1
    """,
)


def check_history(before: Snapshot, after: Snapshot) -> None:
    """Checks the audit, every callback's move, and that one row decides each attempt."""
    for key, row in before.audit.items():
        assert after.audit.get(key) == row, f"the audit row {key} has changed"
    for request_id, was in before.callbacks.items():
        now = after.callbacks[request_id]
        assert was.state is now.state or (was.state, now.state) in CALLBACK_MOVES, f"{was} became {now}"
        # By their rank: from none to unknown to applied, never back.
        assert _EFFECTS.index(was.effect) <= _EFFECTS.index(now.effect), f"the effect of {was} became {now.effect}"
        claimed = was.state is CallbackState.READY and now.state is CallbackState.IN_FLIGHT
        assert now.attempts == was.attempts + claimed, f"{was} became {now} without a claim"
    decided: dict[UUID, list[int]] = {}
    for request_id, attempt, _, verdict in after.audit:
        if verdict != "late":
            decided.setdefault(request_id, []).append(attempt)
    for callback in after.callbacks.values():
        ended = callback.attempts - (callback.state is CallbackState.IN_FLIGHT)
        rows = sorted(decided.get(callback.request_id, []))
        assert rows == list(range(1, ended + 1)), f"attempts {rows} of {callback} are decided"
        is_open_question = callback.method in TERMINALS and callback.state in (
            CallbackState.REJECTED,
            CallbackState.EXHAUSTED,
        )
        assert callback.needs_review or not is_open_question, f"{callback} is not in the review list"


_EFFECTS = ("none", "unknown", "applied")


def check_bets(before: Snapshot, after: Snapshot) -> None:
    """Checks every bet's state and terminal against BET_RULES and its callbacks."""
    for bet in after.bets.values():
        placement, now = after.placement(bet), after.terminal(bet.bet_id)
        if placement is None or placement.state in FINAL:
            assert now is None or now.state is not CallbackState.WAITING, f"{now} waits for no placement"
        if bet.bet_id not in before.bets:
            assert bet.state is (BetState.OPEN if placement is None else BetState.PLACING), f"a new bet is {bet}"
            continue
        was, then = before.bets[bet.bet_id], before.terminal(bet.bet_id)
        event = _event(before, after, bet)
        if event is None:
            assert (was.state, was.terminal_id) == (bet.state, bet.terminal_id), f"{was} became {bet} without an event"
            continue
        rule = BET_RULES.get((was.state, event))
        assert isinstance(rule, BetRule), f"{event} happened to {was}"
        waited = then is not None and then.state is CallbackState.WAITING
        expected = (rule.next_if_waiting if waited else None) or rule.next
        assert bet.state is expected, f"{was} became {bet} by {event}"
        _check_terminal(rule.terminal, then, now, after)


def _event(before: Snapshot, after: Snapshot, bet: SeenBet) -> BetEvent | None:
    """Returns what happened to the bet, read from its callbacks."""
    was, now = (snapshot.callbacks.get(bet.placement_id) for snapshot in (before, after))
    then, terminal = before.terminal(bet.bet_id), after.terminal(bet.bet_id)
    if was is not None and now is not None and was.state not in FINAL and now.state in FINAL:
        if now.state is CallbackState.DELIVERED:
            return BetEvent.PLACEMENT_DELIVERED
        if now.reason == "withdrawn":
            return BetEvent.PLACEMENT_CANCELLED
        if now.reason == "rolled_back" and was.state is CallbackState.READY:
            return BetEvent.ROLLBACK_UNAPPLIED if now.effect == "none" else BetEvent.ROLLBACK_UNKNOWN
        return BetEvent.PLACEMENT_ENDED_NONE if now.effect == "none" else BetEvent.PLACEMENT_ENDED_UNKNOWN
    if was is not None and now is not None and now.retry_stopped and not was.retry_stopped:
        return BetEvent.ROLLBACK_IN_FLIGHT
    if then is not None and terminal is None and after.callbacks[then.request_id].reason == "withdrawn":
        return BetEvent.TERMINAL_CANCELLED
    if terminal is not None and terminal.request_id not in before.callbacks:
        return BetEvent.ROLLBACK_REQUESTED if terminal.reason == "requested" else BetEvent.TERMINAL_ENQUEUED
    if terminal is not None and then is not None and terminal.state is not then.state is not CallbackState.DELIVERED:
        return BetEvent.TERMINAL_DELIVERED if terminal.state is CallbackState.DELIVERED else None
    return None


_LEFT: dict[TerminalChange, CallbackState | None] = {
    TerminalChange.RELEASED: CallbackState.READY,
    TerminalChange.CANCELLED: None,
    TerminalChange.WITHDRAWN: None,
    TerminalChange.SENT_TO_REVIEW: CallbackState.READY,
    TerminalChange.REPLACED: CallbackState.WAITING,
    TerminalChange.REPLACED_READY: CallbackState.READY,
    TerminalChange.ENQUEUED_WAITING: CallbackState.WAITING,
    TerminalChange.ENQUEUED_READY: CallbackState.READY,
    TerminalChange.ROLLBACK_READY: CallbackState.READY,
}
_BY_ROLLBACK = (
    TerminalChange.SENT_TO_REVIEW,
    TerminalChange.REPLACED,
    TerminalChange.REPLACED_READY,
    TerminalChange.ROLLBACK_READY,
)


def _check_terminal(rule: TerminalChange, then: SeenCallback | None, now: SeenCallback | None, after: Snapshot) -> None:
    """Checks that the bet's terminal became what the rule says."""
    if rule is TerminalChange.NONE or (rule is TerminalChange.RELEASED and then is None):
        assert (then is None) == (now is None), f"{then} became {now}"
        return
    assert (None if now is None else now.state) is _LEFT[rule], f"{rule}, but it is {now}"
    assert rule not in _BY_ROLLBACK or (now is not None and now.method is Method.BET_ROLLBACK), (
        f"{rule}, but it is {now}"
    )
    replaced = then is not None and (now is None or now.request_id != then.request_id)
    if replaced and then is not None:
        left = after.callbacks[then.request_id]
        assert left.state is CallbackState.CANCELLED, f"{rule}, but {left}"
        assert left.needs_review == (rule is TerminalChange.SENT_TO_REVIEW), f"{rule}, but {left}"


def check_operator(snapshot: Snapshot, network: Network) -> None:
    """Checks the recorded effects and the bets' states against the operator's wallet."""
    for callback in snapshot.callbacks.values():
        applied = str(callback.request_id) in network.wallet.applied
        if callback.effect == "none" and callback.state is not CallbackState.IN_FLIGHT:
            assert not applied, f"the operator applied {callback}"
            assert not network.carries(callback.request_id), f"the operator may still receive {callback}"
        assert applied or callback.effect != "applied", f"the operator never applied {callback}"
        confirmed = callback.effect == "applied" or callback.reason == "nothing_to_reverse"
        assert confirmed or callback.state is not CallbackState.DELIVERED, f"the operator never confirmed {callback}"
    for bet in snapshot.bets.values():
        gained = network.wallet.gained(bet.bet_id)
        assert gained in _gains(snapshot, bet), (
            f"the player has {gained} of {bet}, which should be in {list(_gains(snapshot, bet))}"
        )


def _gains(snapshot: Snapshot, bet: SeenBet) -> Iterator[int]:
    """Yields the gains that are possible for the bet; one value once it is open, void or closed."""
    terminal = snapshot.terminal(bet.bet_id)
    if bet.state in (BetState.PLACING, BetState.VOID):
        yield 0
    if bet.state in (BetState.PLACING, BetState.OPEN, BetState.CLOSING):
        yield -bet.stake
    if bet.state in (BetState.CLOSING, BetState.CLOSED) and terminal is not None:
        yield (terminal.amount or 0) - bet.stake
