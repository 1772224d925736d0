"""The verb `ping`: what it prints of one PING, and of one to each operator."""

from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from predictu_dispatch.commands.invocation import EXIT_FAILED, Invocation, common_options
from predictu_dispatch.commands.output import (
    Row,
    count,
    print_json,
    print_line,
    print_wrapped,
    styled,
    table,
    terminal_columns,
)
from predictu_dispatch.commands.ping.help import help_after
from predictu_dispatch.commands.ping.pings import Ping, Skipped, ping_all, ping_one, waits_for
from predictu_dispatch.commands.texts import failure_text, fault, first_line, reason_text

if TYPE_CHECKING:
    from collections.abc import Sequence

_PHASES: Final = {
    "waiting": "waiting in the outbox",
    "connecting": "connecting, TLS included",
    "first_byte": "until the first byte",
    "rest": "until the last byte",
    "total": "total",
}


@click.command()
@click.argument("operator", required=False)
@click.option("--all", "is_all", is_flag=True, help="PING every enabled operator that a running daemon serves.")
@common_options
def ping(invocation: Invocation, operator: str | None, *, is_all: bool) -> None:
    """Send one PING to OPERATOR through the normal delivery path, and show the time of each phase.

    If it fails, the cause comes first: the reason, the HTTP code, the answer, and what to do. While
    the operator's circuit is open, this PING decides whether it closes. With --all, a table has one
    line for each operator.
    """
    if is_all == (operator is not None):
        raise click.UsageError("name one OPERATOR, or give --all")
    if operator is not None:
        one = asyncio.run(ping_one(invocation, operator))
        print_json(_as_json(one)) if invocation.json else _print(one)
        sys.exit(0 if one.is_delivered else EXIT_FAILED)
    pings, skipped = asyncio.run(ping_all(invocation))
    if invocation.json:
        listed = [asdict(one) for one in skipped]
        print_json({"pings": [_as_json(one) for one in pings], "not_sent": listed})
    else:
        _print_table(pings, skipped)
    are_intended = all(one.is_intended for one in skipped)
    sys.exit(0 if pings and are_intended and all(one.is_delivered for one in pings) else EXIT_FAILED)


def _print(one: Ping) -> None:
    progress, attempt = one.progress, one.attempt
    title = f"PING {progress['request_id']} of operator {progress['operator_id']} is {progress['state']}"
    print_wrapped(title, colour="green" if one.is_delivered else "red", bold=True)
    if not one.is_delivered:
        print_wrapped(_cause(one), indent="  ")
        print_wrapped(_help(one), indent="  ")
    if attempt is not None:
        said = f"delivered, HTTP {attempt['response_status']}, " if one.is_delivered else ""
        print_wrapped(f"{said}to {attempt['url']}", indent="  ")
        error = attempt["error"] or ""
        print_wrapped("" if fault(error) in _cause(one) else error, indent="  ")
        if one.is_delivered and (answer := _answer(attempt)["answer"]):
            print_wrapped(f"answer: {answer}", indent="  ")
    for key, phase_ms in _phases(one).items():
        shown = "       -" if phase_ms is None else f"{phase_ms:8.1f} ms"
        print_line(f"  {_PHASES[key]:<30}{shown}")


def _cause(one: Ping) -> str:
    """Why a PING was not delivered, in one line."""
    if (waiting := waits_for(one.progress)) is not None:
        return waiting
    attempt = one.attempt
    if attempt is None:
        return reason_text(one.progress["reason"]) or "it was never sent"
    answer = _answer(attempt)
    return failure_text(
        attempt["reason"],
        attempt["response_status"],
        answer["location"] or None,
        answer["answer"],
        attempt["error"],
    )


def _help(one: Ping) -> str:
    """The next step, or "" if the cause names it."""
    if one.attempt is None or waits_for(one.progress) is not None:
        return ""
    return help_after(
        one.attempt["reason"],
        one.attempt["response_status"],
        operator_id=one.progress["operator_id"],
        url=one.attempt["url"],
        request_id=one.progress["request_id"],
    )


def _print_table(pings: Sequence[Ping], skipped: Sequence[Skipped]) -> None:
    if pings:
        rows = [_cells(one) for one in pings]
        columns = terminal_columns()
        for number, line in enumerate(table([("operator", "PING", "HTTP", "time", "cause"), *rows], right=(2, 3))):
            colour = "red" if number > 0 and not pings[number - 1].is_delivered else None
            shown = line if len(line.rstrip()) <= columns else f"{line[: columns - 1]}…"
            print_line(styled(shown.rstrip(), colour=colour, bold=number == 0))
    for one in skipped:
        print_wrapped(f"{one.operator_id}  not sent: {one.reason}", colour=None if one.is_intended else "red")
    failed = [one for one in pings if not one.is_delivered]
    is_good = bool(pings) and not failed and all(one.is_intended for one in skipped)
    summary = f"{count(len(pings), 'PING')}, {len(failed)} failed, {len(skipped)} not sent"
    print_line(styled(summary, colour="green" if is_good else "red", bold=True))
    if failed:
        print_wrapped(f"For the whole cause: predictu-dispatch ping {failed[0].progress['operator_id']}")
    elif not pings and not skipped:
        print_wrapped("This database has no operators: a daemon registers them when it starts or reloads.")
    elif not is_good:
        print_wrapped("For the operators and the daemons: predictu-dispatch status")


def _cells(one: Ping) -> tuple[str, ...]:
    status = one.attempt and one.attempt["response_status"]
    total_ms = _phases(one)["total"]
    result = "delivered" if one.is_delivered else "failed"
    answer = _answer(one.attempt)["answer"] if one.attempt else ""
    said = (
        (f"answer: {answer}" if answer else "") if one.is_delivered else _cause(one).replace(f", HTTP {status}", "", 1)
    )
    taken = "-" if total_ms is None else f"{total_ms:.0f} ms"
    return one.progress["operator_id"], result, str(status or "-"), taken, said


def _phases(one: Ping) -> dict[str, float | None]:
    """Milliseconds of each phase, None if it was not reached. `total` is their sum."""
    waiting_ms: float | None = one.progress["waited_ms"]
    attempt = one.attempt
    connect_ms, first_byte_ms, total_ms = (
        (attempt["connect_ms"], attempt["first_byte_ms"], attempt["total_ms"]) if attempt else (None, None, None)
    )
    return {
        "waiting": waiting_ms,
        "connecting": connect_ms,
        "first_byte": _between(connect_ms, first_byte_ms),
        "rest": _between(first_byte_ms, total_ms),
        "total": None if waiting_ms is None or total_ms is None else waiting_ms + total_ms,
    }


def _between(earlier_ms: float | None, later_ms: float | None) -> float | None:
    return None if earlier_ms is None or later_ms is None else later_ms - earlier_ms


def _answer(attempt: Row) -> dict[str, str]:
    """What the operator answered: where it redirects, and the first line of the body."""
    headers = json.loads(attempt["response_headers"] or "[]")
    location = next((value for name, value in headers if name.lower() == "location"), "")
    return {"location": first_line(location.encode()), "answer": first_line(attempt["response_body"])}


def _as_json(one: Ping) -> dict[str, Any]:
    columns = ("verdict", "evidence", "response_status", "url", "error")
    progress, attempt = one.progress, one.attempt
    return {
        **{key: progress[key] for key in ("operator_id", "request_id", "state")},
        "reason": (attempt and attempt["reason"]) or progress["reason"],
        **{key: attempt[key] if attempt else None for key in columns},
        **(_answer(attempt) if attempt else {"location": None, "answer": None}),
        "cause": None if one.is_delivered else _cause(one),
        "help": None if one.is_delivered else _help(one) or None,
        "waiting_for": waits_for(progress),
        "phases_ms": _phases(one),
    }
