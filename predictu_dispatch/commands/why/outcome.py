"""The values of `why` about how a callback ended or will end, and what a person can do then."""

from __future__ import annotations

from typing import assert_never

from predictu_dispatch.commands.output import timestamp
from predictu_dispatch.commands.texts import EFFECTS, INTERVENTIONS, STATES, state_text
from predictu_dispatch.commands.why.phrases import failure_of, named, time_at
from predictu_dispatch.core.callback import Effect
from predictu_dispatch.core.diagnosis_facts import Facts, LastIntervention, OtherCallback
from predictu_dispatch.core.lifecycle import CallbackState
from predictu_dispatch.core.methods import RULES, Method


def of_end(facts: Facts) -> dict[str, str]:
    """The values about the callback's end, by name."""
    callback, done, other = facts.callback, facts.callback.last_intervention, facts.callback.other
    is_cancelled = done is not None and done.action == "cancel"
    earlier_ends = "if that one is delivered, this is sent at once; if it fails, this is cancelled"
    if callback.method is Method.BET_ROLLBACK:
        earlier_ends = "if that debit was made or may have been made, this is sent at once; if not, this is cancelled"
    return {
        "state": state_text(callback.state, callback.reason, callback.operator_status, callback.operator_id),
        "last_failure": _last_attempt(facts),
        "effect": EFFECTS[callback.effect],
        "cancelled": f"; {_done(done)}" if is_cancelled else "",
        "resolved": _done(done),
        "after_end": _after_end(facts),
        "after_review": _after_review(facts),
        "waiting": STATES["waiting"] + (f": {named(other)}" if other else ""),
        "after_earlier": earlier_ends,
        "ending": ending(facts),
        "if_gone": f"if the operator is gone for good: predictu-dispatch {_end(facts)}",
    }


def _end(facts: Facts) -> str:
    """The command that ends a callback that is not sent."""
    callback = facts.callback
    is_new = callback.attempts == 0 and callback.method is not Method.BET_ROLLBACK
    return f"{'cancel' if is_new else 'abandon'} {callback.request_id} --reason TEXT"


def _last_attempt(facts: Facts) -> str:
    """Why the last attempt failed, if the callback ended without an answer that decides."""
    last = facts.callback.last_attempt
    if facts.callback.state is not CallbackState.EXHAUSTED or last is None or last.reason is None:
        return ""
    return f"; attempt {last.number}, the last one, ended at {time_at(facts, last.finished_at)}: {failure_of(last)}"


def _after_end(facts: Facts) -> str:
    callback = facts.callback
    if callback.method is Method.BET_MAKE:
        if callback.effect is Effect.NONE:
            return "nothing was charged, and a debit is never sent again; the platform may place a new bet"
        return f"a debit is never sent again; {_rollback(callback.other)}"
    if not RULES[callback.method].ends_bet:
        return "the producer got this outcome; it may enqueue a new callback"
    if callback.state is CallbackState.CANCELLED:
        other = callback.other
        is_replaced = other is not None and other.method is Method.BET_ROLLBACK
        show = f"for the bet: predictu-dispatch show --bet {callback.operator_id} {callback.bet_id}"
        return f"it is never sent; {f'{_rollback(other)}; ' if is_replaced else ''}{show}"
    if callback.review_since is None:
        return f"it is never sent again; for every attempt: predictu-dispatch show {callback.request_id}"
    return "it is never sent again automatically"


def _rollback(rollback: OtherCallback | None) -> str:
    """What has become of the rollback of a debit of unknown effect."""
    if rollback is None or rollback.method is not Method.BET_ROLLBACK:
        return "no rollback of it exists"
    named = f"{rollback.method} {rollback.request_id}"
    match rollback.state:
        case CallbackState.WAITING | CallbackState.READY | CallbackState.IN_FLIGHT:
            progress = f"{named} ({rollback.state}) is to take back what may have been debited"
            return f"{progress}: predictu-dispatch why {rollback.request_id}"
        case CallbackState.DELIVERED if rollback.reason == "nothing_to_reverse":
            return f"{named} is confirmed: the operator had no debit to reverse"
        case CallbackState.DELIVERED:
            return f"{named} is confirmed, so no debit stands"
        case CallbackState.REJECTED | CallbackState.EXHAUSTED:
            ended = f"{named} ended {rollback.state}, so a debit may stand"
            return f"{ended}: predictu-dispatch why {rollback.request_id}"
        case CallbackState.CANCELLED:
            return f"{named} was cancelled, because no debit took place"
        case never:
            assert_never(never)


def _after_review(facts: Facts) -> str:
    """What a person does with a callback of the review list; only the first is sent again."""
    callback = facts.callback
    resolve = f"predictu-dispatch resolve {callback.request_id} --reason TEXT"
    if callback.state not in (CallbackState.REJECTED, CallbackState.EXHAUSTED):
        return f"after settling it with the operator manually: {resolve}"
    retry = f"predictu-dispatch retry {callback.request_id}"
    if callback.state is CallbackState.EXHAUSTED and callback.effect is Effect.NONE:
        # No byte of any attempt left, so there is nothing to ask.
        return f"nothing of it reached the operator; to send it: {retry}; if it was settled manually instead: {resolve}"
    return f"to send the same bytes again: {retry}; or after settling it with the operator manually: {resolve}"


def ending(facts: Facts) -> str:
    """What follows if the callback ends before its next attempt."""
    effect, method = facts.callback.effect, facts.callback.method
    if method is Method.BET_MAKE:
        return (
            "and its debit, which may have been applied, is rolled back"
            if effect is Effect.UNKNOWN
            else "without a debit"
        )
    return "and needs manual review" if RULES[method].ends_bet else "and the producer gets this outcome"


def _done(done: LastIntervention | None) -> str:
    if done is None:
        return "it was resolved"
    return f"{done.done_by} {INTERVENTIONS[done.action]} it at {timestamp(done.done_at)}: {done.reason}"
