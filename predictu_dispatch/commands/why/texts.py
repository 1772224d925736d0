"""The sentences of `why`: one table, code → (what holds, what to do or what happens next).

A name in braces is a value of values.py, or a field of the callback, operator or file.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from predictu_dispatch.commands.why.values import values_of
from predictu_dispatch.core.diagnosis import Code

if TYPE_CHECKING:
    from predictu_dispatch.core.diagnosis_facts import Facts

_RELOAD: Final = "reload the daemons: systemctl reload 'predictu-dispatch@*' with the unit of deploy/, or SIGHUP"
_START: Final = (
    "start one: systemctl start predictu-dispatch@INSTANCE with the unit of deploy/, or predictu-dispatch run"
)
_LOGS: Final = (
    "curl http://127.0.0.1:9464/readyz on a daemon's host names what stops it, such as a full disk of the database;"
    " a callback that cannot be processed is callback.set_aside in the log"
)
_NOT_CONFIRMED: Final = ("{state}; {effect}{cancelled}{last_failure}", "{after_end}")

_TEXTS: Final[dict[Code, tuple[str, str]]] = {
    Code.DELIVERED: ("{state}", "nothing is left to send"),
    Code.REJECTED: _NOT_CONFIRMED,
    Code.EXHAUSTED: _NOT_CONFIRMED,
    Code.CANCELLED: _NOT_CONFIRMED,
    Code.NEEDS_REVIEW: ("it has needed manual review {review_since}", "{after_review}"),
    Code.RESOLVED: ("{resolved}", "it counts as settled with the operator manually, and is never sent again"),
    Code.WAITING: ("it {waiting}", "{after_earlier}"),
    Code.IN_FLIGHT: (
        "{sending}; its lease ends at {lease_until}",
        "the attempt ends with the operator's answer, or when the lease expires",
    ),
    Code.LEASE_EXPIRED: (
        "{attempt} has no result: its lease expired at {lease_until}",
        "{recovered_by} recovers it, records the attempt as interrupted and applies the retry policy",
    ),
    Code.LEASE_OWNER_STOPPED: (
        "daemon {lease_owner_stopped}",
        "when the lease expires, {recovered_by} recovers the callback; a late answer is still recorded",
    ),
    Code.RETRY_STOPPED: (
        "a rollback of its bet was requested during this attempt",
        "this attempt is the last one; after it, the rollback takes back a debit that may have been applied",
    ),
    Code.DEADLINE_PASSED: (
        "its deadline passed at {deadline}",
        "it is no longer sent: {soon} it ends exhausted, {ending}",
    ),
    Code.NO_DAEMON: (
        "no daemon is running (none sends heartbeats), so nothing is sent; {last_daemon}",
        _START + "; if its process runs, look for heartbeat.failed in its log",
    ),
    Code.NOT_SERVED: (
        "no running daemon has the file of operator {operator_id} (running: {running})",
        "put operators/{operator_id}.toml beside a daemon's dispatcher.toml, then " + _RELOAD + "; {if_gone}",
    ),
    Code.FILE_MISSING_HERE: (
        "this host has no file of the operator: {file.path}",
        "another host may have it; op_example.toml.example shows the format",
    ),
    Code.FILE_FAULTY_HERE: (
        "the operator's file on this host cannot be used by this user: {file_faults}",
        "correct it, or run this command as root; predictu-dispatch check lists every fault of every file",
    ),
    Code.OPERATOR_DISABLED: (
        "operator {operator_id} is disabled: its file says enabled = false",
        "to send again, set enabled = true in operators/{operator_id}.toml, then " + _RELOAD,
    ),
    Code.PAUSED: (
        "operator {operator_id} was paused {paused_at} by {operator.paused_by}: {operator.pause_reason}",
        "{while_blocked}; to end the pause: predictu-dispatch resume {operator_id}",
    ),
    Code.CIRCUIT_OPEN: (
        "the circuit of operator {operator_id} has been open {circuit_since}, {failures}",
        "{next_ping}; {while_blocked}; {after_failures}",
    ),
    Code.CIRCUIT_HALF_OPEN: (
        "the circuit of operator {operator_id} has been half open {circuit_since}, {failures}: {deciding_ping} decides",
        "if that PING succeeds, sending resumes; if it fails, the circuit opens again; {while_blocked}",
    ),
    Code.BACKING_OFF: (
        "operator {operator_id} sent Retry-After: its {callback.lane} callbacks wait until {backoff_until}",
        "they are sent after that; waiting uses no attempt",
    ),
    Code.DUE_LATER: ("{due}", "{due_next}"),
    Code.ROW_LOCKED: (
        "an open transaction has locked its {locked_row}: {locking_session}",
        "unless the lock is a shared one, {while_locked} until that transaction ends; {end_lock}",
    ),
    Code.UNREACHABLE: (
        "{unreachable_from} cannot connect to operator {operator_id}",
        "the daemons that can connect send its callbacks; if none can, the circuit opens",
    ),
    Code.SLOTS_FULL: ("{slots_full}", "{slots_next}"),
    Code.SLOW_START: (
        "the circuit of {operator_id} closed at {circuit_changed}; slow start allows {slots_open}, and {ahead}",
        "the number of slots doubles every half second",
    ),
    Code.RATE: (
        "operator {operator_id} has max_requests_per_s = {rate}, over all daemons, and {ahead_by_rate}",
        "it is sent in {rate_wait}",
    ),
    Code.DUE: (
        "nothing that this command can see blocks it: it is due",
        "a claim takes it within poll_interval_s; run this command again, and if it is still due, " + _LOGS,
    ),
    Code.DEADLINE_FIRST: (
        "its deadline comes before that, at {deadline}",
        "it is not sent: it ends exhausted at its deadline, {ending}",
    ),
    Code.DEADLINE_RUNS: (
        "its deadline is at {deadline}",
        "if it is not sent by then, it ends exhausted{after_start}, {ending}",
    ),
}


def explain(code: Code, facts: Facts) -> tuple[str, str]:
    """What holds, and what to do or what happens next; each a sentence without its full stop."""
    text, next_step = _TEXTS[code]
    values = values_of(facts)
    return text.format_map(values), next_step.format_map(values)
