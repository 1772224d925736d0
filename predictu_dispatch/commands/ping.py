"""`ping`: one PING through the outbox, a daemon and the wire, with the timing of each phase."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from predictu_dispatch.commands.invocation import EXIT_FAILED, Invocation, common_options, database
from predictu_dispatch.commands.output import Row, print_error, print_json, print_line, print_wrapped, timestamp
from predictu_dispatch.commands.texts import VERDICTS, first_line, reason_text
from predictu_dispatch.core.database import Refused
from predictu_dispatch.edge.postgres.sql_files import query

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database

_POLL_S: Final = 0.2
"""How late the outcome is seen if its notification is lost."""
_MARGIN_S: Final = 5.0
"""How long a daemon may take to end a callback after its deadline, on a busy database."""
_WAIT_MAX_S: Final = 120.0
"""For an operator without a deadline, whose PING may wait forever."""
_PHASES: Final = {
    "waiting": "waiting in the outbox",
    "connecting": "connecting, TLS included",
    "first_byte": "until the first byte",
    "rest": "until the last byte",
    "total": "total",
}


@click.command()
@click.argument("operator")
@common_options
def ping(invocation: Invocation, operator: str) -> None:
    """Send one PING to OPERATOR through the normal delivery path, and show the time of each phase.

    Exits 1 if it failed.

    While the operator's circuit is open, this PING decides whether it closes.
    """
    progress, attempt = asyncio.run(_ping(invocation, operator))
    if invocation.json:
        print_json(_as_json(progress, attempt))
    else:
        _print(progress, attempt)
    if progress["state"] != "delivered":
        sys.exit(EXIT_FAILED)


async def _ping(invocation: Invocation, operator: str) -> tuple[Row, Row | None]:
    """The PING when it is final or its time is over, and its last audit row."""
    from predictu_dispatch.edge.postgres.connections import listen  # noqa: PLC0415 - loaded only where used

    settings = invocation.dispatcher().database
    listen_dsn = settings.listen_dsn.get_secret_value() or settings.dsn.get_secret_value()
    async with database(invocation) as db:
        notified = asyncio.Event()

        def on_notification(_channel: str, payload: str) -> None:
            # An empty payload means that listening began; others are of all operators.
            if payload.partition(" ")[0] in ("", operator):
                notified.set()

        listening = asyncio.create_task(
            listen(listen_dsn, ["predictu_dispatch_outcome"], on_notification), name="listen for the outcome"
        )
        try:
            (row,) = await db.fetch(query("ping_operator"), operator)
            progress = await _outcome(db, operator, row["request_id"], notified)
        except Refused as error:
            if not error.is_for_a_person:
                raise
            print_error(error.message, error.hint)
            sys.exit(EXIT_FAILED)
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening
        attempts = await db.fetch(query("show_attempts"), operator, row["request_id"])
    return progress, attempts[-1] if attempts else None


async def _outcome(db: Database, operator: str, request_id: UUID, notified: asyncio.Event) -> Row:
    """Wait until the PING is final or its time is over; polls in case a notification is lost."""
    stop_at_s: float | None = None
    while True:
        notified.clear()
        (progress,) = await db.fetch(query("ping_progress"), operator, request_id)
        if stop_at_s is None:
            expires_in_s = progress["expires_in_s"]
            stop_at_s = time.monotonic() + (_WAIT_MAX_S if expires_in_s is None else expires_in_s + _MARGIN_S)
            if not progress["daemon_is_live"]:
                print_error(f"{_no_daemon(progress)}; waiting for one")
        if progress["state"] not in ("ready", "in_flight") or time.monotonic() >= stop_at_s:
            return dict(progress)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(notified.wait(), min(_POLL_S, stop_at_s - time.monotonic()))


def _no_daemon(progress: Row) -> str:
    seen_at = progress["daemon_seen_at"]
    return f"no daemon sends heartbeats; {f'the last was at {timestamp(seen_at)}' if seen_at else 'none yet'}"


def _waits_for(progress: Row) -> str | None:
    """Why a PING that is not final was not sent, or not settled, within its time."""
    if progress["state"] not in ("ready", "in_flight"):
        return None
    if progress["state"] == "in_flight":
        return "it is in flight and not settled yet"
    if not progress["daemon_is_live"]:
        return _no_daemon(progress)
    if progress["paused_at"] is not None:
        return "the operator was paused after the PING was enqueued"
    if progress["backoff_until"] is not None:
        return f"the operator sent Retry-After: nothing is sent to it until {timestamp(progress['backoff_until'])}"
    return f"no daemon has claimed it; to see the reasons: predictu-dispatch why {progress['request_id']}"


def _phases(progress: Row, attempt: Row | None) -> dict[str, float | None]:
    """Milliseconds of each phase, None if it was not reached. `total` is their sum."""
    waiting_ms: float | None = progress["waited_ms"]
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


def _print(progress: Row, attempt: Row | None) -> None:
    title = f"PING {progress['request_id']} of operator {progress['operator_id']} is {progress['state']}"
    print_wrapped(title, colour="green" if progress["state"] == "delivered" else "red", bold=True)
    if waits_for := _waits_for(progress):
        print_wrapped(waits_for, indent="  ")
    if attempt is not None:
        reason = f" ({reason_text(attempt['reason'])})" if attempt["reason"] else ""
        answered = f", HTTP {attempt['response_status']}" if attempt["response_status"] is not None else ""
        print_wrapped(f"{VERDICTS[attempt['verdict']]}{reason}{answered}, to {attempt['url']}", indent="  ")
        print_wrapped(attempt["error"] or "", indent="  ")
        for name, text in _answer(attempt).items():
            print_wrapped(f"{name}: {text}" if text else "", indent="  ")
    elif progress["reason"]:
        print_wrapped(reason_text(progress["reason"]), indent="  ")
    for key, phase_ms in _phases(progress, attempt).items():
        shown = "       -" if phase_ms is None else f"{phase_ms:8.1f} ms"
        print_line(f"  {_PHASES[key]:<30}{shown}")


def _answer(attempt: Row) -> dict[str, str]:
    """What the operator answered: where it redirects, and the first line of the body."""
    headers = json.loads(attempt["response_headers"] or "[]")
    location = next((value for name, value in headers if name.lower() == "location"), "")
    return {"location": first_line(location.encode()), "answer": first_line(attempt["response_body"])}


def _as_json(progress: Row, attempt: Row | None) -> dict[str, Any]:
    columns = ("verdict", "evidence", "response_status", "url", "error")
    return {
        **{key: progress[key] for key in ("operator_id", "request_id", "state", "reason")},
        **{key: attempt[key] if attempt else None for key in columns},
        **(_answer(attempt) if attempt else {"location": None, "answer": None}),
        "waiting_for": _waits_for(progress),
        "phases_ms": _phases(progress, attempt),
    }
