"""The values that the sentences of `why` name, computed from the facts."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from predictu_dispatch.commands.output import count, duration, timestamp
from predictu_dispatch.commands.texts import (
    EFFECTS,
    INTERVENTIONS,
    STATES,
    clock_text,
    failure_text,
    first_line,
    reason_text,
    state_text,
)
from predictu_dispatch.core.callback import Effect
from predictu_dispatch.core.diagnosis_facts import AHEAD_COUNT_MAX, DaemonFacts, Facts, LastIntervention, OtherCallback
from predictu_dispatch.core.lifecycle import CallbackState
from predictu_dispatch.core.methods import RULES, Method
from predictu_dispatch.core.verdict import MISCONFIGURED


def values_of(facts: Facts) -> dict[str, Any]:
    """Every value by its name. Those that do not fit the callback's state are never used."""
    return {
        "operator_id": facts.callback.operator_id,
        "callback": facts.callback,
        "operator": facts.operator,
        "file": facts.file,
        **_of_times(facts),
        **_of_end(facts),
        **_of_lease(facts),
        **_of_operator(facts),
        **_of_queue(facts),
    }


def _of_times(facts: Facts) -> dict[str, str]:
    callback, operator = facts.callback, facts.operator
    return {
        "review_since": _since(facts, callback.review_since),
        "paused_at": f"at {_at(facts, operator.paused_at)}",
        "circuit_since": _since(facts, operator.circuit_since),
        "circuit_changed": _at(facts, operator.circuit_since),
        "lease_until": _at(facts, callback.lease_until),
        "deadline": _at(facts, callback.expires_at),
        "backoff_until": _at(facts, operator.backoff_until),
        "soon": _soon(facts),
        "after_start": "" if facts.live else " as soon as a daemon runs",
    }


def _of_end(facts: Facts) -> dict[str, str]:
    callback, done, other = facts.callback, facts.callback.last_intervention, facts.callback.other
    is_cancelled = done is not None and done.action == "cancel"
    resolve = f"predictu-dispatch resolve {callback.request_id} --reason TEXT"
    after_review = f"after settling it with the operator manually: {resolve}"
    if callback.state in (CallbackState.REJECTED, CallbackState.EXHAUSTED):
        retry = f"predictu-dispatch retry {callback.request_id}"
        after_review = f"to send the same bytes again: {retry}; or {after_review}"
    earlier_ends = "if that one is delivered, this is sent at once; if it fails, this is cancelled"
    if callback.method is Method.BET_ROLLBACK:
        earlier_ends = "if that debit was made or may have been made, this is sent at once; if not, this is cancelled"
    return {
        "state": state_text(callback.state, callback.reason, callback.operator_status, callback.operator_id),
        "effect": EFFECTS[callback.effect],
        "cancelled": f"; {_done(done)}" if is_cancelled else "",
        "resolved": _done(done),
        "after_end": _after_end(facts),
        "after_review": after_review,
        "waiting": STATES["waiting"] + (f": {_named(other)}" if other else ""),
        "after_earlier": earlier_ends,
        "ending": _ending(facts),
    }


def _of_lease(facts: Facts) -> dict[str, str]:
    owner, name = facts.lease_owner, facts.callback.leased_by
    seen = f", last seen {_at(facts, owner.seen_at)}" if owner and owner.is_live else ""
    if owner is None:
        stopped = f"{name}, which claimed it, sends no heartbeats"
    elif facts.lease_owner_restarted:
        stopped = f"{name}, which claimed it, was restarted at {_at(facts, owner.started_at)}"
    else:
        stopped = f"{_seen(facts, owner)}, sends no heartbeats any more"
    return {
        "sending": f"attempt {facts.callback.attempts} was claimed by daemon {name}{seen}, and has no result yet",
        "attempt": f"attempt {facts.callback.attempts} by daemon {name}",
        "lease_owner_stopped": stopped,
        "recovered_by": "a running daemon" if facts.live else "the next daemon that starts",
    }


def _of_operator(facts: Facts) -> dict[str, str]:
    operator, daemons, ping_at = facts.operator, facts.daemons, facts.operator.ping_at
    if operator.paused_at is not None or not operator.enabled:
        next_ping = "no PING is sent until then"
    else:
        when = "due now" if ping_at is not None else "not planned yet"
        when = f"at {_at(facts, ping_at)}" if ping_at is not None and ping_at > facts.at else when
        by = "" if facts.serving else ", and no daemon serves the operator"
        next_ping = f"the next PING is {when}{by}; sending resumes when it succeeds"
    blocked = "until then it waits and uses no attempt"
    if facts.ends_at_once:
        when = "at once" if facts.live else "as soon as a daemon runs"
        blocked = f"a producer waits for it, so it ends exhausted {when}, {_ending(facts)}"
    return {
        "last_daemon": f"the last one was {_seen(facts, daemons[0])}" if daemons else "there was none in the last day",
        "running": ", ".join(daemon.instance for daemon in facts.live),
        "file_faults": "; ".join(facts.file.faults),
        "failures": f"after {operator.consecutive_failures:,} failures in a row{_last_failure(facts)}",
        "unreachable_from": " and ".join(
            f"daemon {daemon.instance}, {_since(facts, daemon.unreachable_since)},"
            for daemon in facts.serving
            if daemon.unreachable_since is not None
        ),
        "next_ping": next_ping,
        "deciding_ping": _named(operator.ping) if operator.ping else "its next PING",
        "while_blocked": blocked,
    }


def _last_failure(facts: Facts) -> str:
    operator = facts.operator
    if operator.last_failure_at is None:
        return ""
    answer = first_line(operator.last_failure_answer)
    failure = (operator.last_failure_reason, operator.last_failure_status, operator.last_failure_location, answer)
    return f", the last one at {_at(facts, operator.last_failure_at)} ({failure_text(*failure)})"


def _of_queue(facts: Facts) -> dict[str, str]:
    callback, last = facts.callback, facts.callback.last_attempt
    due, due_next = f"it is due at {_at(facts, callback.due_at)}", "it is sent then"
    if last is not None:
        failure = f"{_at(facts, last.finished_at)}: {reason_text(last.reason) or 'no usable answer'}"
        if last.reason == MISCONFIGURED:
            failure += _clocks(facts)
        due = f"retry {callback.attempts} is due at {_at(facts, callback.due_at)}"
        due += f"; attempt {last.number} ended at {failure}"
        due_next = f"it is retried then; for every attempt: predictu-dispatch show {callback.request_id}"
    first, rate = facts.ahead + facts.interactive_due, facts.requests_per_s_max
    of_lane = f"{callback.lane} slots of operator {callback.operator_id}"
    slots_max = max((daemon.slots_max for daemon in facts.serving), default=0)
    slots_full = f"no running daemon has a share of the {slots_max:,} {of_lane}"
    slots_next = "the daemons divide the slots again every second"
    if facts.slots:
        used = ", ".join(sorted(f"{daemon.instance} {daemon.in_flight} of {daemon.slots}" for daemon in facts.serving))
        slots_full = f"all {facts.slots:,} {of_lane} are in use ({used}), and {_ahead(facts.ahead)}"
        limit = f"[{callback.lane}] max_in_flight = {slots_max}"
        slots_next = f"it is sent when a slot is free; the limit over all daemons is {limit}"
    return {
        "due": due,
        "due_next": due_next,
        **_of_lock(facts),
        "slots_open": f"{facts.slots_open:,} of {facts.slots:,} slots",
        "slots_full": slots_full,
        "slots_next": slots_next,
        "ahead": _ahead(facts.ahead),
        "rate": f"{rate:g}",
        "ahead_by_rate": _ahead(first) + (", including interactive ones" if facts.interactive_due else ""),
        "rate_wait": _rate_wait(first, rate),
    }


def _of_lock(facts: Facts) -> dict[str, str]:
    locker = facts.callback.row_locker
    if locker is None:
        return {}
    session = f"database session {locker.pid} ({locker.application or 'no name'})"
    end = f"if it stays open, look for process {locker.pid} in pg_stat_activity"
    if locker.gid is not None:
        session = f"the prepared transaction {locker.gid} of {locker.owner}"
        end = f"its owner ends it with COMMIT PREPARED or ROLLBACK PREPARED '{locker.gid}'"
    elif locker.pid is None:
        session, end = "its session is not known", "look in pg_stat_activity and pg_prepared_xacts"
    is_ready = facts.callback.state is CallbackState.READY
    return {
        "locked_row": "row" if locker.locked == "callback" else f"bet {facts.callback.bet_id}",
        "locking_session": session,
        "while_locked": "daemons skip it" if is_ready else "no result of the attempt is recorded",
        "end_lock": end,
    }


def _after_end(facts: Facts) -> str:
    callback = facts.callback
    if callback.method is Method.BET_MAKE:
        if callback.effect is Effect.NONE:
            return "a debit is never sent again, and none took place; the platform may place a new bet"
        rolled_back = f"; {_named(callback.other)} rolls back what may have been debited" if callback.other else ""
        return f"a debit is never sent again{rolled_back}"
    if not RULES[callback.method].ends_bet:
        return "the producer got this outcome; it may enqueue a new callback"
    if callback.state is CallbackState.CANCELLED:
        return f"it is never sent; for the bet: predictu-dispatch show --bet {callback.operator_id} {callback.bet_id}"
    return "it is never sent again automatically"


def _ending(facts: Facts) -> str:
    """What follows if the callback ends before its next attempt."""
    effect, method = facts.callback.effect, facts.callback.method
    if method is Method.BET_MAKE:
        return (
            "and its debit, which may have been applied, is rolled back"
            if effect is Effect.UNKNOWN
            else "without a debit"
        )
    return "and needs manual review" if RULES[method].ends_bet else "and the producer gets this outcome"


def _at(facts: Facts, at: datetime | None) -> str:
    """A time, and how far it is from now."""
    if at is None:
        return "an unknown time"
    wait_s = (at - facts.at).total_seconds()
    return f"{timestamp(at)} ({f'in {duration(wait_s)}' if wait_s > 0 else f'{duration(-wait_s)} ago'})"


def _soon(facts: Facts) -> str:
    """When a callback ends whose deadline has passed."""
    if not facts.live:
        return "as soon as a daemon runs"
    return "when its lock is released" if facts.callback.row_locker else "within seconds"


def _since(facts: Facts, at: datetime | None) -> str:
    """A time in the past, and how long ago it was."""
    if at is None:
        return "since an unknown time"
    return f"since {timestamp(at)} ({duration((facts.at - at).total_seconds())})"


def _clocks(facts: Facts) -> str:
    """The daemons whose clock may make the operator refuse a token."""
    differing = [f"{daemon.host}: {text}" for daemon in facts.live if (text := clock_text(daemon.clock_ahead_s))]
    return f" (on host {'; '.join(differing)})" if differing else ""


def _named(other: OtherCallback) -> str:
    return f"{other.method} {other.request_id} ({other.state})"


def _seen(facts: Facts, daemon: DaemonFacts) -> str:
    return f"{daemon.instance} on host {daemon.host}, last seen {_at(facts, daemon.seen_at)}"


def _done(done: LastIntervention | None) -> str:
    if done is None:
        return "it was resolved"
    return f"{done.done_by} {INTERVENTIONS[done.action]} it at {timestamp(done.done_at)}: {done.reason}"


def _ahead(number: int) -> str:
    """How many callbacks go first; they are counted up to AHEAD_COUNT_MAX."""
    if number == 0:
        return "no other due callback is ahead of it"
    many = f"more than {AHEAD_COUNT_MAX:,} due callbacks"
    named = many if number > AHEAD_COUNT_MAX else count(number, "due callback")
    return f"{named} {'is' if number == 1 else 'are'} ahead of it"


def _rate_wait(first: int, rate: float) -> str:
    if first == 0 or rate == 0:
        return f"at most {duration(1 / (rate or 1))}"
    about = "more than" if first > AHEAD_COUNT_MAX else "about"
    return f"{about} {duration(min(first, AHEAD_COUNT_MAX) / rate)}"
