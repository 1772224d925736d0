"""The phrases that several reasons of `why` are made of."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final, TypeAlias

from predictu_dispatch.commands import words
from predictu_dispatch.core.callback import Effect
from predictu_dispatch.core.diagnosis_facts import COUNTED_MOST, DaemonFacts, Facts, OtherCallback
from predictu_dispatch.core.methods import RULES, Method

Phrase: TypeAlias = Callable[[Facts], tuple[str, str]]
"""A reason in words, and what to do or what happens next; each a sentence without its full stop."""

COMMAND: Final = "predictu-dispatch"


def moment_of(facts: Facts, at: datetime | None) -> str:
    """A moment, and how far ahead it lies or how long ago it was."""
    if at is None:
        return "an unknown moment"
    wait_s = (at - facts.at).total_seconds()
    return f"{words.moment(at)} ({f'in {words.span(wait_s)}' if wait_s > 0 else f'{words.span(-wait_s)} ago'})"


def since(facts: Facts, at: datetime | None) -> str:
    """Since when, and for how long that is."""
    if at is None:
        return "since an unknown moment"
    return f"since {words.moment(at)} ({words.span((facts.at - at).total_seconds())})"


def named(other: OtherCallback) -> str:
    """Another callback, so that it can be looked up."""
    return f"{other.method} {other.request_id}, which is {other.state}"


def sighted(facts: Facts, daemon: DaemonFacts) -> str:
    """A daemon, and when it was seen."""
    return f"{daemon.instance} on host {daemon.host}, last seen {moment_of(facts, daemon.seen_at)}"


def ahead(number: int) -> str:
    """How many go first, of what was counted no further than COUNTED_MOST."""
    match number:
        case 0:
            return "no other due callback is ahead of it"
        case 1:
            return "1 due callback is ahead of it"
        case _ if number > COUNTED_MOST:
            return f"more than {COUNTED_MOST:,} due callbacks are ahead of it"
        case _:
            return f"{number:,} due callbacks are ahead of it"


def ending(facts: Facts) -> str:
    """What it comes to if the callback ends before its next attempt."""
    effect, method = facts.callback.effect, facts.callback.method
    if method is Method.BET_MAKE:
        return "and its debit, which may stand, is rolled back" if effect is Effect.UNKNOWN else "without any debit"
    return "and a person must look at it" if RULES[method].ends_bet else "and whoever asked is told so"


def while_shut(facts: Facts) -> str:
    """What becomes of the callback while nothing may be sent to its operator."""
    if not facts.ends_at_once:
        return "until then it waits, and no attempt is spent"
    when = "at once" if facts.live else "as soon as a daemon runs"
    return f"someone waits for it, so it ends exhausted {when}, {ending(facts)}"
