"""The deliveries: the audit against the callbacks, and against what the operators received."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from predictu_dispatch.books_check.check import Check, by_state, money_text
from predictu_dispatch.books_check.ledgers import BetHistory, OperatorLedger, PredictuLedger

BALANCE_CHECK: Final = "answered balances equal wallets"
ORDER_CHECK: Final = "no debit came after its bet's end"
_UNFINISHED: Final = frozenset({"waiting", "ready", "in_flight"})


def delivery_checks(predictu: PredictuLedger, operators: Sequence[OperatorLedger]) -> Iterator[Check]:
    """Attempt by attempt and body by body."""
    histories = predictu.histories()
    yield _audit_check(predictu)
    yield _receipt_check(predictu, operators, histories)
    yield _order_check(histories)
    yield _balance_check(predictu, operators)
    yield _unfinished_check(predictu)
    yield _review_check(predictu)


def _audit_check(predictu: PredictuLedger) -> Check:
    by_callback = predictu.attempts_by_callback()
    faults = []
    for callback in predictu.callbacks:
        rows = by_callback.get((callback.operator_id, callback.request_id), ())
        decided = [row.attempt for row in rows if row.verdict != "late"]
        if decided != list(range(1, callback.attempts + 1)):
            faults.append(f"{callback.label} made {callback.attempts} attempts, the audit decides {decided}")
    late = sum(attempt.verdict == "late" for attempt in predictu.attempts)
    made, decided_total = sum(callback.attempts for callback in predictu.callbacks), len(predictu.attempts) - late
    if decided_total != made:
        faults.append(f"the audit has {decided_total} deciding rows for {made} attempts")
    return Check(
        name="each attempt has one audit row",
        rows=len(predictu.attempts),
        figures=f"{made} attempts, {decided_total} rows, {late} late answers",
        faults=tuple(faults),
    )


def _receipt_check(predictu: PredictuLedger, operators: Sequence[OperatorLedger], histories: list[BetHistory]) -> Check:
    """Answered ≤ received ≤ sent for each callback, the same bytes, and nothing else."""
    received = {
        (operator.operator_id, request_id): bodies
        for operator in operators
        for request_id, bodies in operator.received.items()
    }
    total = sum(map(len, received.values()))
    by_callback = predictu.attempts_by_callback()
    faults = [
        f"{operator.operator_id}: {len(operator.unverified)} requests had no valid signature"
        for operator in operators
        if operator.unverified
    ]
    for callback in predictu.callbacks:
        attempts = by_callback.get((callback.operator_id, callback.request_id), ())
        bodies = received.pop((callback.operator_id, callback.request_id), [])
        answered = sum(attempt.evidence == "answered" for attempt in attempts)
        sent = sum(attempt.evidence != "not_sent" for attempt in attempts)
        if not answered <= len(bodies) <= sent:
            faults.append(f"{callback.label} was sent {sent} times, received {len(bodies)}, answered {answered}")
        written = {attempt.request_body.encode() for attempt in attempts if attempt.request_body is not None}
        if len({*bodies, *written}) > 1:
            faults.append(f"{callback.label} did not have the same bytes on every attempt")
    adopted = {(h.bet.operator_id, h.bet.placement_request_id) for h in histories if h.placement is None}
    faults += [f"{key[0]}: request {key[1]} was received and never sent" for key in received if key not in adopted]
    answers = sum(attempt.evidence == "answered" for attempt in predictu.attempts)
    sent_total = sum(attempt.evidence != "not_sent" for attempt in predictu.attempts)
    return Check(
        name="operators received the bytes sent",
        rows=total,
        figures=f"{answers} answered <= {total - len(received)} received <= {sent_total} sent",
        faults=tuple(faults),
    )


def _order_check(histories: list[BetHistory]) -> Check:
    compared, faults = 0, []
    for history in histories:
        debits = [attempt.started_at for attempt in history.attempts if attempt.method == "BET_MAKE"]
        terminals = [attempt.started_at for attempt in history.attempts if attempt.method != "BET_MAKE"]
        if debits and terminals:
            compared += 1
            if max(debits) >= min(terminals):
                faults.append(f"{history.bet.operator_id} {history.bet.bet_id}: debit sent after the terminal")
    return Check(
        name=ORDER_CHECK,
        rows=compared,
        figures=f"{compared} bets with both",
        faults=tuple(faults),
    )


def _balance_check(predictu: PredictuLedger, operators: Sequence[OperatorLedger]) -> Check:
    """Each player's last BALANCE, enqueued after the last bet ended, has the wallet's balance."""
    bets_ended_at = max((c.finished_at for c in predictu.callbacks if c.bet_id and c.finished_at), default=None)
    answers = {
        (callback.operator_id, callback.player_id): callback.balance
        for callback in predictu.callbacks
        if callback.method == "BALANCE" and bets_ended_at is not None and callback.created_at > bets_ended_at
    }
    wallets = {
        (operator.operator_id, player_id): balance
        for operator in operators
        for player_id, balance in operator.balances.items()
    }
    differing = [key for key, balance in wallets.items() if answers.get(key) != balance]
    return Check(
        name=BALANCE_CHECK,
        rows=len(answers),
        figures=f"{len(wallets) - len(differing)} of {len(wallets)} players",
        faults=tuple(
            f"{key[0]} {key[1]}: the wallet holds {money_text(wallets[key])},"
            f" BALANCE answered {money_text(answers.get(key))}"
            for key in differing
        ),
    )


def _unfinished_check(predictu: PredictuLedger) -> Check:
    # A health check is always due again while a daemon runs.
    callbacks = [callback for callback in predictu.callbacks if callback.method != "PING"]
    faults = [f"{callback.label} is {callback.state}" for callback in callbacks if callback.state in _UNFINISHED]
    faults += [f"{b.operator_id} {b.bet_id} is {b.state}" for b in predictu.bets if b.state not in {"closed", "void"}]
    return Check(
        name="nothing is unfinished",
        rows=len(callbacks),
        figures=by_state(callback.state for callback in callbacks),
        faults=tuple(faults),
    )


def _review_check(predictu: PredictuLedger) -> Check:
    """The only expected cause is a terminal cancelled by its bet's rollback."""
    return Check(
        name="each review has a known cause",
        rows=len(predictu.reviews),
        figures=f"{len(predictu.reviews)} listed, each cancelled by a rollback",
        faults=tuple(
            f"{review.operator_id} {review.bet_id}: {review.method} {review.request_id}: {review.reason}"
            for review in predictu.reviews
            if review.state != "cancelled"
        ),
    )
