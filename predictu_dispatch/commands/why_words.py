"""What the reasons of core/diagnosis.py are called for people: what is so, and then what to do or what comes next."""

from __future__ import annotations

from typing import Final

from predictu_dispatch.commands import words
from predictu_dispatch.commands.why_operator_words import OPERATOR_WORDS
from predictu_dispatch.commands.why_phrases import COMMAND, Phrase, ending, moment_of, named, sighted, since
from predictu_dispatch.core.callback import Effect
from predictu_dispatch.core.diagnosis import Code
from predictu_dispatch.core.diagnosis_facts import Facts
from predictu_dispatch.core.lifecycle import CallbackState
from predictu_dispatch.core.methods import RULES, Method


def said(code: Code, facts: Facts) -> tuple[str, str]:
    """The reason in words, and what to do or what happens next; each a sentence without its full stop."""
    return _WORDS[code](facts)


def _state(facts: Facts) -> str:
    why = words.reason(facts.callback.reason, facts.callback.operator_status)
    return f"it {words.STATES[facts.callback.state]}" + (f" ({why})" if why else "")


def _delivered(facts: Facts) -> tuple[str, str]:
    return _state(facts), "nothing is left to send"


def _not_confirmed(facts: Facts) -> tuple[str, str]:
    text = f"{_state(facts)}; {words.EFFECTS[facts.callback.effect]}"
    done = facts.callback.last_intervention
    if done is not None and done.action == "cancel":
        text += f"; {done.done_by} took it back at {words.moment(done.done_at)}: {done.reason}"
    return text, _after_the_end(facts)


def _after_the_end(facts: Facts) -> str:
    callback, other = facts.callback, facts.callback.other
    if callback.method is Method.BET_MAKE:
        if callback.effect is Effect.NONE:
            return "a debit is never sent again, and none took place; the platform may place a new bet"
        if other is None:
            return "a debit is never sent again"
        return f"a debit is never sent again; what may have been taken is given back by {named(other)}"
    if not RULES[callback.method].ends_bet:
        return "whoever asked was told so, and asks anew with a new callback"
    if callback.state is CallbackState.CANCELLED:
        return (
            "it is never sent; what became of its bet tells"
            f" {COMMAND} show --bet {callback.operator_id} {callback.bet_id}"
        )
    return "it is never sent again by itself"


def _needs_review(facts: Facts) -> tuple[str, str]:
    callback = facts.callback
    then = f"{COMMAND} resolve {callback.request_id} --reason TEXT, once it is settled with the operator by other means"
    if callback.state in (CallbackState.REJECTED, CallbackState.EXHAUSTED):
        then = f"{COMMAND} retry {callback.request_id}, to send the same bytes again; or {then}"
    return f"a person must look at it, {since(facts, callback.review_since)}", then


def _resolved(facts: Facts) -> tuple[str, str]:
    done = facts.callback.last_intervention
    who = f"{done.done_by} resolved it at {words.moment(done.done_at)}: {done.reason}" if done else "it was resolved"
    return who, "it was settled by other means, so it is never sent again"


def _waiting(facts: Facts) -> tuple[str, str]:
    callback, other = facts.callback, facts.callback.other
    text = f"it {words.STATES['waiting']}" + (f": {named(other)}" if other else "")
    if callback.method is Method.BET_ROLLBACK:
        return (
            text,
            "if that debit was made, or may have been, this goes out at once; if certainly not, it is cancelled",
        )
    return text, "when that one is delivered, this goes out at once; if it comes to nothing, this is cancelled"


def _in_flight(facts: Facts) -> tuple[str, str]:
    callback, holder = facts.callback, facts.holder
    seen = f", last seen {moment_of(facts, holder.seen_at)}," if holder and holder.is_live else ""
    text = (
        f"it {words.STATES['in_flight']}: attempt {callback.attempts}, by daemon {callback.leased_by}{seen}"
        f" whose lease ends at {moment_of(facts, callback.lease_until)}"
    )
    return text, "the operator's answer decides what becomes of it, or the end of the lease"


def _lease_ran_out(facts: Facts) -> tuple[str, str]:
    callback = facts.callback
    text = (
        f"attempt {callback.attempts} by daemon {callback.leased_by} was never reported:"
        f" its lease ran out at {moment_of(facts, callback.lease_until)}"
    )
    when = "a running daemon takes it back within a second" if facts.live else "the next daemon that runs takes it back"
    return text, f"{when}, writes the attempt down as interrupted, and tries again as the policy says"


def _lease_owner_gone(facts: Facts) -> tuple[str, str]:
    instance, holder = facts.callback.leased_by, facts.holder
    if holder is None:
        text = f"daemon {instance}, which sent it, is not running"
    elif facts.lease_owner_restarted:
        text = f"daemon {instance}, which sent it, was started anew at {moment_of(facts, holder.started_at)}"
    else:
        text = f"daemon {sighted(facts, holder)}, is gone"
    return text, "nobody waits for that answer any more; after the end of its lease a running daemon takes it back"


def _retry_stopped(_facts: Facts) -> tuple[str, str]:
    text = "a rollback of its bet was asked for while it was being sent"
    return text, "whatever this attempt brings, there is no other; a debit that may stand is taken back"


def _deadline_passed(facts: Facts) -> tuple[str, str]:
    when = "within a second" if facts.live else "as soon as a daemon runs"
    text = f"its deadline passed at {moment_of(facts, facts.callback.expires_at)}"
    return text, f"it is not sent any more: {when} it ends exhausted, {ending(facts)}"


def _due_later(facts: Facts) -> tuple[str, str]:
    callback, last = facts.callback, facts.callback.last_attempt
    due = moment_of(facts, callback.due_at)
    if last is None:
        return f"it is due at {due}", "it is sent then"
    text = (
        f"retry number {callback.attempts} is due at {due}; attempt {last.attempt} ended at"
        f" {moment_of(facts, last.finished_at)}: {words.reason(last.reason) or 'it brought no usable answer'}"
    )
    return text, f"it is tried again then; every attempt in full: {COMMAND} show {callback.request_id}"


def _row_locked(facts: Facts) -> tuple[str, str]:
    holder = facts.callback.row_locker
    who = f"session {holder.pid} ({holder.application or 'without a name'})" if holder else "another session"
    text = f"an open transaction holds its row: database {who}"
    return text, "daemons pass it by until that transaction ends; if it stays, look for it in pg_stat_activity"


def _due(_facts: Facts) -> tuple[str, str]:
    text = "nothing stands in its way: it is due, and a daemon is about to claim it"
    return text, "it goes with the next claim, within poll_interval_s; it may well be gone by now, so ask again"


def _deadline_first(facts: Facts) -> tuple[str, str]:
    text = f"its deadline comes before that, at {moment_of(facts, facts.callback.expires_at)}"
    return text, f"it is not sent any more: it ends exhausted then, {ending(facts)}"


def _deadline_runs(facts: Facts) -> tuple[str, str]:
    when = "" if facts.live else " as soon as a daemon runs"
    text = f"its deadline is at {moment_of(facts, facts.callback.expires_at)}"
    return text, f"if it was not sent by then it ends exhausted{when}, {ending(facts)}"


_WORDS: Final[dict[Code, Phrase]] = {
    Code.DELIVERED: _delivered,
    Code.REJECTED: _not_confirmed,
    Code.EXHAUSTED: _not_confirmed,
    Code.CANCELLED: _not_confirmed,
    Code.NEEDS_REVIEW: _needs_review,
    Code.RESOLVED: _resolved,
    Code.WAITING: _waiting,
    Code.IN_FLIGHT: _in_flight,
    Code.LEASE_RAN_OUT: _lease_ran_out,
    Code.LEASE_OWNER_GONE: _lease_owner_gone,
    Code.RETRY_STOPPED: _retry_stopped,
    Code.DEADLINE_PASSED: _deadline_passed,
    Code.DUE_LATER: _due_later,
    Code.ROW_LOCKED: _row_locked,
    Code.DUE: _due,
    Code.DEADLINE_FIRST: _deadline_first,
    Code.DEADLINE_RUNS: _deadline_runs,
    **OPERATOR_WORDS,
}
