"""The deliveries: the audit against the callbacks, and against what really arrived at the operators."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from predictu_dispatch.demo.books import CallbackRow, OperatorBook, PredictuBooks
from predictu_dispatch.demo.check import Check, units
from predictu_dispatch.demo.paths import stories

_UNFINISHED = frozenset({"waiting", "ready", "in_flight"})


def delivery_checks(predictu: PredictuBooks, operators: Sequence[OperatorBook]) -> Iterator[Check]:
    """Attempt by attempt and body by body."""
    yield _audit_check(predictu)
    yield _arrival_check(predictu, operators)
    yield _order_check(predictu)
    yield _balance_check(predictu, operators)
    yield _end_check(predictu)
    yield _review_check(predictu)


def _named(callback: CallbackRow) -> str:
    return f"{callback.operator_id} {callback.bet_id or callback.player_id}: {callback.method} {callback.request_id}"


def _audit_check(predictu: PredictuBooks) -> Check:
    """Attempts 1 to n of every callback have one row each that decided."""
    faults = []
    for callback in predictu.callbacks:
        decided = [a.attempt for a in predictu.attempts_of(callback) if a.verdict != "late"]
        if decided != list(range(1, callback.attempts + 1)):
            faults.append(f"{_named(callback)} made {callback.attempts} attempts, the audit decides {decided}")
    late = sum(attempt.verdict == "late" for attempt in predictu.attempts)
    made = sum(callback.attempts for callback in predictu.callbacks)
    if len(predictu.attempts) - late != made:
        faults.append(f"the audit has {len(predictu.attempts) - late} deciding rows for {made} attempts")
    return Check(
        name="every attempt has exactly one audit row that decided",
        rows=len(predictu.attempts),
        figures=f"{made} attempts, {len(predictu.attempts) - late} rows, and {late} late answers beside them",
        faults=tuple(faults),
    )


def _arrival_check(predictu: PredictuBooks, operators: Sequence[OperatorBook]) -> Check:
    """Answered ≤ arrived ≤ sent for every callback, always the same bytes, and nothing arrived that was not sent."""
    arrived = {
        (operator.operator_id, key): bodies for operator in operators for key, bodies in operator.arrivals.items()
    }
    total = sum(map(len, arrived.values()))
    faults = [
        f"{operator.operator_id}: {operator.unverified} arrivals had no valid signature"
        for operator in operators
        if operator.unverified
    ]
    for callback in predictu.callbacks:
        attempts = predictu.attempts_of(callback)
        bodies = arrived.pop((callback.operator_id, callback.request_id), [])
        answered = sum(attempt.evidence == "answered" for attempt in attempts)
        sent = sum(attempt.evidence != "not_sent" for attempt in attempts)
        if not answered <= len(bodies) <= sent:
            faults.append(f"{_named(callback)} was answered {answered} times, arrived {len(bodies)}, was sent {sent}")
        written = {attempt.request_body.encode() for attempt in attempts if attempt.request_body is not None}
        if len({*bodies, *written}) > 1:
            faults.append(f"{_named(callback)} did not have the same bytes on every attempt")
    adopted = {(s.bet.operator_id, s.bet.placement_request_id) for s in stories(predictu) if s.placement is None}
    faults += [f"{key[0]}: request {key[1]} arrived and was never sent" for key in arrived if key not in adopted]
    answers = sum(attempt.evidence == "answered" for attempt in predictu.attempts)
    sendings = sum(attempt.evidence != "not_sent" for attempt in predictu.attempts)
    return Check(
        name="what arrived is what was sent, byte for byte",
        rows=total,
        figures=f"{answers} answered <= {total - len(arrived)} arrived <= {sendings} sent; {len(arrived)} from before",
        faults=tuple(faults),
    )


def _order_check(predictu: PredictuBooks) -> Check:
    """No debit is sent after its bet's terminal was, on the database's clock."""
    compared, faults = 0, []
    for story in stories(predictu):
        debits = [attempt.started_at for attempt in story.attempts if attempt.method == "BET_MAKE"]
        endings = [attempt.started_at for attempt in story.attempts if attempt.method != "BET_MAKE"]
        if debits and endings:
            compared += 1
            if max(debits) >= min(endings):
                faults.append(f"{story.bet.operator_id} {story.bet.bet_id}: its debit was sent after its terminal")
    return Check(
        name="no debit was sent after its bet's terminal",
        rows=compared,
        figures=f"{compared} bets of which both were sent",
        faults=tuple(faults),
    )


def _balance_check(predictu: PredictuBooks, operators: Sequence[OperatorBook]) -> Check:
    """The last BALANCE of every player, asked after the last bet, came to what the wallet holds."""
    bets_ended_at = max((c.finished_at for c in predictu.callbacks if c.bet_id and c.finished_at), default=None)
    asked = {
        (callback.operator_id, callback.player_id): callback
        for callback in predictu.callbacks
        if callback.method == "BALANCE" and bets_ended_at is not None and callback.created_at > bets_ended_at
    }
    faults, equal = [], 0
    for operator in operators:
        for player_id, balance in operator.balances.items():
            callback = asked.get((operator.operator_id, player_id))
            if callback is not None and callback.balance == balance:
                equal += 1
            else:
                told = "nothing" if callback is None or callback.balance is None else units(callback.balance)
                faults.append(
                    f"{operator.operator_id} {player_id}: the wallet holds {units(balance)}, BALANCE said {told}"
                )
    return Check(
        name="BALANCE tells what the wallets hold",
        rows=len(asked),
        figures=f"{equal} of {len(asked)} players",
        faults=tuple(faults),
    )


def _end_check(predictu: PredictuBooks) -> Check:
    """Health checks go on for as long as a daemon runs; everything else is over."""
    callbacks = [callback for callback in predictu.callbacks if callback.method != "PING"]
    states = Counter(callback.state for callback in callbacks)
    faults = [f"{_named(callback)} is {callback.state}" for callback in callbacks if callback.state in _UNFINISHED]
    faults += [f"{b.operator_id} {b.bet_id} is {b.state}" for b in predictu.bets if b.state not in {"closed", "void"}]
    return Check(
        name="nothing is left unfinished",
        rows=len(callbacks),
        figures=", ".join(f"{count} {state}" for state, count in sorted(states.items())),
        faults=tuple(faults),
    )


def _review_check(predictu: PredictuBooks) -> Check:
    """A terminal cancelled because its bet is rolled back is for a person to see, and explained; others are not."""
    explained = [review for review in predictu.reviews if review.state == "cancelled"]
    return Check(
        name="what needs review is explained",
        rows=len(predictu.reviews),
        figures=f"{len(predictu.reviews)} listed, {len(explained)} of them cancelled with their rolled back bet",
        faults=tuple(
            f"{review.operator_id} {review.bet_id}: {review.method} {review.request_id}: {review.reason}"
            for review in predictu.reviews
            if review not in explained
        ),
    )
