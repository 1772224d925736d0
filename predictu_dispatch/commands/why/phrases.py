"""Phrases that several sentences of `why` share: a time with its distance, a named callback."""

from __future__ import annotations

from datetime import datetime

from predictu_dispatch.commands.output import duration, timestamp
from predictu_dispatch.commands.texts import failure_text, first_line
from predictu_dispatch.core.diagnosis_facts import Facts, LastAttempt, OtherCallback


def time_at(facts: Facts, at: datetime | None) -> str:
    """A time, and how far it is from now."""
    if at is None:
        return "an unknown time"
    wait_s = (at - facts.at).total_seconds()
    return f"{timestamp(at)} ({f'in {duration(wait_s)}' if wait_s > 0 else f'{duration(-wait_s)} ago'})"


def time_since(facts: Facts, at: datetime | None) -> str:
    """A time in the past, and how long ago it was."""
    if at is None:
        return "since an unknown time"
    return f"since {timestamp(at)} ({duration((facts.at - at).total_seconds())})"


def named(other: OtherCallback) -> str:
    """A related callback with its state."""
    return f"{other.method} {other.request_id} ({other.state})"


def failure_of(attempt: LastAttempt) -> str:
    """An attempt that failed: its reason, the HTTP code, where it redirects, the answer."""
    return failure_text(attempt.reason, attempt.status, attempt.location, first_line(attempt.answer), attempt.error)
