"""The values that the sentences of `why` name, computed from the facts."""

from __future__ import annotations

from typing import Any, Final

from predictu_dispatch.commands import advice
from predictu_dispatch.commands.output import count, duration
from predictu_dispatch.commands.texts import (
    clock_text,
    failure_text,
    first_line,
)
from predictu_dispatch.commands.why.outcome import ending, of_end
from predictu_dispatch.commands.why.phrases import failure_of, named, time_at, time_since
from predictu_dispatch.core.diagnosis_facts import (
    AHEAD_COUNT_MAX,
    DaemonFacts,
    Facts,
)
from predictu_dispatch.core.lifecycle import CallbackState
from predictu_dispatch.core.verdict import MISCONFIGURED

_OVERDUE_S: Final = 30.0
"""A daemon ends what has passed its deadline within seconds, unless the database refuses it."""


def values_of(facts: Facts) -> dict[str, Any]:
    """Every value by its name. Those that do not fit the callback's state are never used."""
    return {
        "operator_id": facts.callback.operator_id,
        "callback": facts.callback,
        "operator": facts.operator,
        "file": facts.file,
        **_of_times(facts),
        **of_end(facts),
        **_of_lease(facts),
        **_of_operator(facts),
        **_of_queue(facts),
    }


def _of_times(facts: Facts) -> dict[str, str]:
    callback, operator = facts.callback, facts.operator
    return {
        "review_since": time_since(facts, callback.review_since),
        "paused_at": f"at {time_at(facts, operator.paused_at)}",
        "circuit_since": time_since(facts, operator.circuit_since),
        "circuit_changed": time_at(facts, operator.circuit_since),
        "lease_until": time_at(facts, callback.lease_until),
        "deadline": time_at(facts, callback.expires_at),
        "backoff_until": time_at(facts, operator.backoff_until),
        "soon": _soon(facts),
        "after_start": "" if facts.live else " as soon as a daemon runs",
    }


def _of_lease(facts: Facts) -> dict[str, str]:
    owner, name = facts.lease_owner, facts.callback.leased_by
    seen = f", last seen {time_at(facts, owner.seen_at)}" if owner and owner.is_live else ""
    if owner is None:
        stopped = f"{name}, which claimed it, sends no heartbeats"
    elif facts.lease_owner_restarted:
        stopped = f"{name}, which claimed it, was restarted at {time_at(facts, owner.started_at)}"
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
        when = f"at {time_at(facts, ping_at)}" if ping_at is not None and ping_at > facts.at else when
        by = "" if facts.serving else ", and no daemon serves the operator"
        next_ping = f"the next PING is {when}{by}; sending resumes when it succeeds"
    blocked = "until then it waits and uses no attempt"
    if facts.ends_at_once:
        when = "at once" if facts.live else "as soon as a daemon runs"
        blocked = f"a producer waits for it, so it ends exhausted {when}, {ending(facts)}"
    return {
        "last_daemon": f"the last one was {_seen(facts, daemons[0])}" if daemons else "there was none in the last day",
        "running": ", ".join(daemon.instance for daemon in facts.live),
        "file_faults": "; ".join(facts.file.faults),
        "after_failures": advice.after_failure(operator.last_failure_reason, operator.last_failure_status).format(
            operator_id=facts.callback.operator_id
        ),
        "failures": f"after {operator.consecutive_failures:,} failures in a row{_last_failure(facts)}",
        "unreachable_from": " and ".join(
            f"daemon {daemon.instance}, {time_since(facts, daemon.unreachable_since)},"
            for daemon in facts.serving
            if daemon.unreachable_since is not None
        ),
        "next_ping": next_ping,
        "deciding_ping": named(operator.ping) if operator.ping else "its next PING",
        "while_blocked": blocked,
    }


def _last_failure(facts: Facts) -> str:
    operator = facts.operator
    if operator.last_failure_at is None:
        return ""
    answer = first_line(operator.last_failure_answer)
    failure = (operator.last_failure_reason, operator.last_failure_status, operator.last_failure_location, answer)
    text = failure_text(*failure, operator.last_failure_error)
    return f", the last one at {time_at(facts, operator.last_failure_at)}: {text}"


def _of_queue(facts: Facts) -> dict[str, str]:
    callback, last = facts.callback, facts.callback.last_attempt
    due, due_next = f"it is due at {time_at(facts, callback.due_at)}", "it is sent then"
    if last is not None:
        failure = f"{time_at(facts, last.finished_at)}: {failure_of(last)}"
        if last.reason == MISCONFIGURED:
            failure += _clocks(facts)
        helps = advice.after_failure(last.reason, last.status).format(operator_id=callback.operator_id)
        due = f"retry {callback.attempts} is due at {time_at(facts, callback.due_at)}"
        due += f"; attempt {last.number} ended at {failure}"
        stop = f"to stop the retries: predictu-dispatch abandon {callback.request_id} --reason TEXT"
        due_next = f"it is retried then; {helps}; {stop}"
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


def _soon(facts: Facts) -> str:
    """When a callback ends whose deadline has passed."""
    if not facts.live:
        return "as soon as a daemon runs"
    if facts.callback.row_locker:
        return "when its lock is released"
    expires_at = facts.callback.expires_at
    if expires_at is not None and (facts.at - expires_at).total_seconds() > _OVERDUE_S:
        return "as soon as a daemon can write (for the reason, curl http://127.0.0.1:9464/readyz on its host),"
    return "within seconds"


def _clocks(facts: Facts) -> str:
    """The daemons whose clock may make the operator refuse a token."""
    differing = [f"{daemon.host}: {text}" for daemon in facts.live if (text := clock_text(daemon.clock_ahead_s))]
    return f" (on host {'; '.join(differing)})" if differing else ""


def _seen(facts: Facts, daemon: DaemonFacts) -> str:
    return f"{daemon.instance} on host {daemon.host}, last seen {time_at(facts, daemon.seen_at)}"


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
