"""Why a callback is not being sent now: every reason that holds, the decisive one first.

Theory of operation. The reasons follow from the facts by the rules that claim(), expire() and
admission use. For a ready callback the order is: its deadline passed; what only a person can
change; what only the operator can change; what time alone changes, the later one first. If none of
these holds, the callback is in the queue, and the reasons of the queue hold: a locked row, slots,
slow start, rate. The effect of its deadline comes last. The sentence of each reason is in
commands/why/texts.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import assert_never

from predictu_dispatch.core.breaker import Circuit
from predictu_dispatch.core.diagnosis_facts import Facts, FileState
from predictu_dispatch.core.lifecycle import CallbackState


class Code(StrEnum):
    """A reason's name, for programs."""

    DELIVERED = "delivered"
    REJECTED = "rejected"
    EXHAUSTED = "exhausted"
    CANCELLED = "cancelled"
    NEEDS_REVIEW = "needs_review"
    RESOLVED = "resolved"
    WAITING = "waiting"
    IN_FLIGHT = "in_flight"
    LEASE_EXPIRED = "lease_expired"
    LEASE_OWNER_STOPPED = "lease_owner_stopped"
    RETRY_STOPPED = "retry_stopped"
    DEADLINE_PASSED = "deadline_passed"
    NO_DAEMON = "no_daemon"
    NOT_SERVED = "not_served"
    FILE_MISSING_HERE = "file_missing_here"
    FILE_FAULTY_HERE = "file_faulty_here"
    OPERATOR_DISABLED = "operator_disabled"
    PAUSED = "paused"
    CIRCUIT_OPEN = "circuit_open"
    CIRCUIT_HALF_OPEN = "circuit_half_open"
    BACKING_OFF = "backing_off"
    DUE_LATER = "due_later"
    ROW_LOCKED = "row_locked"
    UNREACHABLE = "unreachable"
    SLOTS_FULL = "slots_full"
    SLOW_START = "slow_start"
    RATE = "rate"
    DUE = "due"
    DEADLINE_FIRST = "deadline_first"
    DEADLINE_RUNS = "deadline_runs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One reason; `because` are the reasons of the earlier callback that it waits for."""

    code: Code
    because: tuple[Reason, ...] = ()


def reasons(facts: Facts) -> tuple[Reason, ...]:
    """Every reason that holds, the decisive one first; never empty."""
    state = facts.callback.state
    match state:
        case CallbackState.WAITING:
            return (Reason(code=Code.WAITING, because=reasons(facts.earlier) if facts.earlier else ()),)
        case CallbackState.READY:
            codes = tuple(_of_ready(facts))
        case CallbackState.IN_FLIGHT:
            codes = tuple(_of_in_flight(facts))
        case CallbackState.DELIVERED | CallbackState.REJECTED | CallbackState.EXHAUSTED | CallbackState.CANCELLED:
            codes = tuple(_of_ended(facts))
        case never:
            assert_never(never)
    return tuple(Reason(code=code) for code in codes)


def _of_ended(facts: Facts) -> Iterator[Code]:
    yield Code(facts.callback.state)
    intervention = facts.callback.last_intervention
    if facts.callback.review_since is not None:
        yield Code.NEEDS_REVIEW
    elif intervention is not None and intervention.action == "resolve":
        yield Code.RESOLVED


def _of_in_flight(facts: Facts) -> Iterator[Code]:
    lease_until, owner = facts.callback.lease_until, facts.lease_owner
    is_expired = lease_until is not None and lease_until < facts.at
    yield Code.LEASE_EXPIRED if is_expired else Code.IN_FLIGHT
    if facts.callback.row_locker is not None:
        # Then its result cannot be recorded.
        yield Code.ROW_LOCKED
    if owner is None or not owner.is_live or facts.lease_owner_restarted:
        yield Code.LEASE_OWNER_STOPPED
    if not facts.live:
        # Then no daemon reaps the lease.
        yield Code.NO_DAEMON
    if facts.callback.retry_stopped:
        yield Code.RETRY_STOPPED


def _of_ready(facts: Facts) -> Iterator[Code]:
    expires_at = facts.callback.expires_at
    if expires_at is not None and expires_at <= facts.at:
        # No claim takes it any more, whatever else holds.
        yield Code.DEADLINE_PASSED
        if facts.callback.row_locker is not None:
            # Then it cannot end.
            yield Code.ROW_LOCKED
        yield from _until_changed(facts)
        return
    blocked = tuple(_until_changed(facts))
    later = _until_time(facts)
    queue = () if blocked or later else tuple(_of_queue(facts))
    codes = (*blocked, *(code for code, _ in later), *queue)
    yield from codes or (Code.DUE,)
    if expires_at is None or not codes or (facts.ends_at_once and facts.live):
        return
    yield Code.DEADLINE_FIRST if later and expires_at <= later[0][1] else Code.DEADLINE_RUNS


def _until_changed(facts: Facts) -> Iterator[Code]:
    """What time alone does not end: a person has to act, or the operator has to recover."""
    if not facts.serving:
        yield Code.NOT_SERVED if facts.live else Code.NO_DAEMON
        # If a daemon serves it, it does not matter that this host has no file.
        if facts.file.state is FileState.MISSING:
            yield Code.FILE_MISSING_HERE
        elif facts.file.state is FileState.FAULTY:
            yield Code.FILE_FAULTY_HERE
    if not facts.operator.enabled:
        yield Code.OPERATOR_DISABLED
    if facts.operator.paused_at is not None:
        yield Code.PAUSED
    match facts.operator.circuit:
        case Circuit.OPEN:
            yield Code.CIRCUIT_OPEN
        case Circuit.HALF_OPEN if not facts.is_deciding_ping:
            yield Code.CIRCUIT_HALF_OPEN
        case _:
            pass


def _until_time(facts: Facts) -> list[tuple[Code, datetime]]:
    """What ends at a known time, with that time; the later one first."""
    backoff_until, due_at = facts.operator.backoff_until, facts.callback.due_at
    found = []
    if backoff_until is not None and backoff_until > facts.at:
        found.append((Code.BACKING_OFF, backoff_until))
    if due_at > facts.at:
        found.append((Code.DUE_LATER, due_at))
    return sorted(found, key=lambda reason: reason[1], reverse=True)


def _of_queue(facts: Facts) -> Iterator[Code]:
    locker = facts.callback.row_locker
    if locker is not None and locker.locked == "callback":
        yield Code.ROW_LOCKED
    free_slots = sum(max(0, daemon.slots - daemon.in_flight) for daemon in facts.serving)
    if free_slots == 0:
        yield Code.SLOTS_FULL
    in_flight = sum(daemon.in_flight for daemon in facts.serving)
    if facts.slots_open < facts.slots and facts.ahead >= facts.slots_open - in_flight:
        yield Code.SLOW_START
    rate = facts.requests_per_s_max
    if rate > 0 and (facts.ahead + facts.interactive_due > 0 or rate < 1):
        yield Code.RATE
    if any(daemon.unreachable_since is not None for daemon in facts.serving):
        yield Code.UNREACHABLE
