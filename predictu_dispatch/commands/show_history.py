"""Prints the attempts of a callback and the manual actions on it, in order."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from itertools import groupby
from typing import Final

from predictu_dispatch.commands.output import Row, print_wrapped, timestamp
from predictu_dispatch.commands.texts import (
    INTERVENTIONS,
    REASONS,
    VERDICTS,
    changes_text,
    difference_text,
    reason_text,
    repeated_answer,
)

_BODY_CHARS_MAX: Final = 600
COLOURS: Final = {
    "delivered": "green",
    "rejected": "red",
    "exhausted": "red",
    "cancelled": "yellow",
    "closed": "green",
}
_EQUAL_ATTEMPTS_MAX: Final = 3  # Of more in a row, the first and the last are printed.
_ALIKE: Final = (
    "verdict",
    "evidence",
    "reason",
    "response_status",
    "response_body",
    "response_body_sha256",
    "error",
    "url",
    "key_id",
)


def print_field(name: str, text: str | None, *, colour: str | None = None) -> None:
    """Print a line with a name, or nothing if the text is empty."""
    if text:
        print_wrapped(text, indent=f"  {name:<9} ", colour=colour)


def print_history(audit: list[Row], interventions: list[Row]) -> None:
    """Print attempts and interventions in the order in which they happened."""
    print_attempt = partial(_print_attempt, audit=audit)
    events: list[tuple[datetime, Callable[[Row], None], Row]] = [
        *((attempt["started_at"], print_attempt, attempt) for attempt in audit),
        *((intervention["done_at"], _print_intervention, intervention) for intervention in interventions),
    ]
    in_order = [(print_event, row) for _, print_event, row in sorted(events, key=lambda event: event[0])]
    for run in [list(events) for _, events in groupby(in_order, key=lambda event: _kind_of(event[1]))]:
        is_short = len(run) <= _EQUAL_ATTEMPTS_MAX
        for print_event, row in run if is_short else run[:1]:
            print_event(row)
        if not is_short:
            _print_equal_attempts([row for _, row in run[1:-1]])
            print_attempt(run[-1][1])


def _kind_of(event: Row) -> tuple[object, ...]:
    """Equal for attempts that failed alike; different for any two others."""
    failed = event.get("verdict") == "retry"
    return tuple(event[name] for name in _ALIKE) if failed else (id(event),)


def _print_equal_attempts(attempts: list[Row]) -> None:
    first, last = attempts[0], attempts[-1]
    title = (
        f"attempts {first['attempt']} to {last['attempt']} from {timestamp(first['started_at'])} to"
        f" {timestamp(last['started_at'])}: as the one before and the one after; --json prints all"
    )
    print_wrapped(title, indent="  ", hanging="    ", colour="yellow")


def _print_intervention(intervention: Row) -> None:
    client = f" from {intervention['client_addr']}" if intervention["client_addr"] else ""
    by = f"{intervention['done_by']} (database role {intervention['database_role']}{client})"
    of_what = difference_text(intervention["before"])
    action = f"{INTERVENTIONS[intervention['action']]} {of_what}".rstrip()
    title = f"{action} by {by} at {timestamp(intervention['done_at'])}"
    print_wrapped(title, indent="  ", hanging="    ", colour="cyan")
    if intervention["reason"]:
        print_field("", f"reason: {intervention['reason']}")
    print_field("", changes_text(intervention["before"], intervention["after"]))


def _print_attempt(attempt: Row, audit: list[Row]) -> None:
    title = f"attempt {attempt['attempt']} by {attempt['instance']} at {timestamp(attempt['started_at'])}"
    colour = COLOURS.get(attempt["verdict"], "yellow")
    print_wrapped(f"{title}: {VERDICTS[attempt['verdict']]}", indent="  ", hanging="    ", colour=colour)
    # The reason of a rejection is the operator's status, which is in the answer.
    if attempt["verdict"] != "rejected" or attempt["reason"] in REASONS:
        print_field("", reason_text(attempt["reason"]))
    phases = (("connected", "connect_ms"), ("first byte", "first_byte_ms"), ("ended", "total_ms"))
    timing = [f"{name} after {attempt[key]:.1f} ms" for name, key in phases if attempt[key] is not None]
    print_field("", ", ".join(timing))
    if attempt["url"]:
        print_field("", f"to {attempt['url']}, signed with key {attempt['key_id']}")
    if attempt["response_status"] is not None:
        cut = "(cut) " if attempt["response_truncated"] else ""
        print_field("", f"HTTP {attempt['response_status']} {cut}{_body_text(attempt['response_body'])}")
    if attempt["response_body_repeats"] is not None:
        print_field("", repeated_answer(attempt, audit))
    print_field("", attempt["error"])


def _body_text(body: bytes | None) -> str:
    text = (body or b"").decode("utf-8", "backslashreplace").strip()
    if len(text) <= _BODY_CHARS_MAX:
        return text
    return f"{text[:_BODY_CHARS_MAX]}… ({len(text)} characters; --json prints all)"
