"""The reasons of `why` that lie with an operator and its daemons, in words."""

from __future__ import annotations

from typing import Final

from predictu_dispatch.commands import words
from predictu_dispatch.commands.why_phrases import COMMAND, Phrase, ahead, moment_of, sighted, since, while_shut
from predictu_dispatch.core.diagnosis import Code
from predictu_dispatch.core.diagnosis_facts import COUNTED_MOST, Facts

_RELOAD: Final = "systemctl reload 'predictu-dispatch@*'"


def _no_daemon(facts: Facts) -> tuple[str, str]:
    seen = "none was seen within a day, or the last ones stopped in order"
    if facts.daemons:
        seen = f"the last one was {sighted(facts, facts.daemons[0])}"
    return f"no daemon is running; {seen}", f"start one: systemctl start predictu-dispatch, or {COMMAND} run"


def _not_served(facts: Facts) -> tuple[str, str]:
    operator_id = facts.callback.operator_id
    running = ", ".join(daemon.instance for daemon in facts.live)
    text = f"no running daemon has the file of operator {operator_id} (running: {running})"
    return text, f"put operators/{operator_id}.toml beside a daemon's dispatcher.toml, then: {_RELOAD}"


def _file_missing_here(facts: Facts) -> tuple[str, str]:
    text = f"the operator's file is missing here: {facts.file.path}"
    return text, "another host may have it; *.toml.example shows what stands in one"


def _file_faulty_here(facts: Facts) -> tuple[str, str]:
    text = f"the operator's file is refused here: {'; '.join(facts.file.faults)}"
    return text, f"put that right; {COMMAND} check names every fault of every file"


def _operator_disabled(facts: Facts) -> tuple[str, str]:
    operator_id = facts.callback.operator_id
    text = f"operator {operator_id} is disabled: its file says enabled = false"
    return text, f"nothing is sent to it until operators/{operator_id}.toml says enabled = true; then: {_RELOAD}"


def _paused(facts: Facts) -> tuple[str, str]:
    operator, operator_id = facts.operator, facts.callback.operator_id
    text = (
        f"operator {operator_id} is paused {since(facts, operator.paused_at)} by {operator.paused_by}:"
        f" {operator.pause_reason}"
    )
    return text, f"{while_shut(facts)}; to end the pause: {COMMAND} resume {operator_id}"


def _circuit(facts: Facts, name: str) -> str:
    operator = facts.operator
    return (
        f"the circuit of operator {facts.callback.operator_id} is {name}"
        f" {since(facts, operator.circuit_since)}, after {operator.consecutive_failures:,} failures in a row"
    )


def _circuit_open(facts: Facts) -> tuple[str, str]:
    at = facts.operator.ping_at
    is_planned = at is not None and at > facts.at
    ping = f"the next PING goes at {moment_of(facts, at)}" if is_planned else "the next PING is due now"
    if facts.operator.paused_at is not None or not facts.operator.enabled:
        ping = "it is not pinged meanwhile"
    return _circuit(facts, "open"), f"{ping}, and once a PING succeeds the backlog flows again; {while_shut(facts)}"


def _circuit_half_open(facts: Facts) -> tuple[str, str]:
    ping = facts.operator.ping
    deciding = f"PING {ping.request_id}, which is {ping.state}, decides" if ping else "its next PING decides"
    return (
        f"{_circuit(facts, 'half open')}: {deciding}",
        f"if that PING succeeds the backlog flows again, if not the circuit is open again; {while_shut(facts)}",
    )


def _backing_off(facts: Facts) -> tuple[str, str]:
    until = moment_of(facts, facts.operator.backoff_until)
    text = f"operator {facts.callback.operator_id} asked to be left alone (Retry-After) until {until}"
    return text, f"its {facts.callback.lane} callbacks go on then; no attempt is spent meanwhile"


def _slots_full(facts: Facts) -> tuple[str, str]:
    lane = facts.callback.lane
    limit = max((daemon.slots_max for daemon in facts.serving), default=0)
    of_lane = f"{lane} slots of operator {facts.callback.operator_id}"
    if facts.slots == 0:
        text = f"no running daemon has a share of the {limit:,} {of_lane}"
        return text, "the daemons divide them anew every second"
    used = ", ".join(sorted(f"{daemon.instance} {daemon.in_flight} of {daemon.slots}" for daemon in facts.serving))
    return (
        f"all {facts.slots:,} {of_lane} are in use ({used}), and {ahead(facts.ahead)}",
        f"it goes when its turn comes; how many go at once is [{lane}] max_in_flight = {limit}, over all daemons",
    )


def _slow_start(facts: Facts) -> tuple[str, str]:
    text = (
        f"the circuit of operator {facts.callback.operator_id} is closed again"
        f" {since(facts, facts.operator.circuit_since)}, and its backlog flows gently: {facts.slots_open:,} of"
        f" {facts.slots:,} slots may be used yet, and {ahead(facts.ahead)}"
    )
    return text, "every half second it is twice as many slots"


def _rate(facts: Facts) -> tuple[str, str]:
    rate, first = facts.requests_per_s_max, facts.ahead + facts.interactive_due
    which = ", interactive ones among them" if facts.interactive_due else ""
    text = (
        f"the file of operator {facts.callback.operator_id} says max_requests_per_s = {rate:g}, over all daemons, and"
        f" {ahead(first)}{which}"
    )
    if first == 0:
        return text, f"its turn comes within {words.span(1 / rate)}"
    about = "more than" if first > COUNTED_MOST else "about"
    return text, f"its turn comes in {about} {words.span(min(first, COUNTED_MOST) / rate)}"


OPERATOR_WORDS: Final[dict[Code, Phrase]] = {
    Code.NO_DAEMON: _no_daemon,
    Code.NOT_SERVED: _not_served,
    Code.FILE_MISSING_HERE: _file_missing_here,
    Code.FILE_FAULTY_HERE: _file_faulty_here,
    Code.OPERATOR_DISABLED: _operator_disabled,
    Code.PAUSED: _paused,
    Code.CIRCUIT_OPEN: _circuit_open,
    Code.CIRCUIT_HALF_OPEN: _circuit_half_open,
    Code.BACKING_OFF: _backing_off,
    Code.SLOTS_FULL: _slots_full,
    Code.SLOW_START: _slow_start,
    Code.RATE: _rate,
}
