"""`ping`: one PING through the outbox, a daemon and the wire, with the timing of each phase."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import click

from predictu_dispatch.commands import output, texts
from predictu_dispatch.commands.connection import database
from predictu_dispatch.commands.invocation import EXIT_FAILED, Invocation, common_options, print_json
from predictu_dispatch.core.database_errors import Refused

if TYPE_CHECKING:
    from predictu_dispatch.edge.postgres.database import Database

Row = Mapping[str, Any]

_POLL_S: Final = 0.2
"""How late the outcome is seen where the notification is lost."""
_MARGIN_S: Final = 5.0
"""What a daemon may take to end a callback after its deadline: its reaper's round, and a busy database."""
_WAIT_MAX_S: Final = 120.0
"""For an operator without a deadline: then a PING may wait for ever, and a person should not."""


@click.command()
@click.argument("operator")
@common_options
def ping(invocation: Invocation, operator: str) -> None:
    """Ping OPERATOR the way every callback goes, and show how long each phase took; exit 1 if it was not delivered.

    While the operator's circuit is open, it is this PING that decides whether it closes.
    """
    progress, attempt = asyncio.run(_ping(invocation, operator))
    if invocation.json:
        print_json(_plain(progress, attempt))
    else:
        _print(progress, attempt)
    if progress["state"] != "delivered":
        sys.exit(EXIT_FAILED)


async def _ping(invocation: Invocation, operator: str) -> tuple[Row, Row | None]:
    """How far the PING came within its time, and its last audit row."""
    from predictu_dispatch.edge.postgres.listener import listen  # noqa: PLC0415 - loaded only where used
    from predictu_dispatch.edge.postgres.sql_files import query  # noqa: PLC0415

    async with database(invocation) as db:
        heard = asyncio.Event()
        listening = asyncio.create_task(
            listen(
                _listen_dsn(invocation),
                ["predictu_dispatch_outcome"],
                # Others' outcomes are many on a busy fleet; without a payload it is the listening that has begun.
                lambda _, payload: heard.set() if payload.partition(" ")[0] in ("", operator) else None,
            ),
            name="listen for the outcome",
        )
        try:
            (row,) = await db.fetch(query("ping_operator"), operator)
            progress = await _outcome(db, operator, row["request_id"], heard)
        except Refused as error:
            if not error.is_for_a_person:
                raise
            click.echo(f"{error.message}\n    {error.hint}", err=True)
            sys.exit(EXIT_FAILED)
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening
        attempts = await db.fetch(query("show_attempts"), operator, row["request_id"])
    return progress, attempts[-1] if attempts else None


def _listen_dsn(invocation: Invocation) -> str:
    from predictu_dispatch.edge.config.dispatcher_file import read_dispatcher  # noqa: PLC0415 - loaded only where used

    settings = read_dispatcher(invocation.config, os.environ).database
    return settings.listen_dsn.get_secret_value() or settings.dsn.get_secret_value()


async def _outcome(db: Database, operator: str, request_id: UUID, heard: asyncio.Event) -> Row:
    """The PING once it is final, or as it stands when its time is over. The notification is a hint, polling is sure."""
    from predictu_dispatch.edge.postgres.sql_files import query  # noqa: PLC0415 - loaded only where used

    give_up_at_s: float | None = None
    while True:
        heard.clear()
        (progress,) = await db.fetch(query("ping_progress"), operator, request_id)
        if give_up_at_s is None:
            expires_in_s = progress["expires_in_s"]
            give_up_at_s = time.monotonic() + (_WAIT_MAX_S if expires_in_s is None else expires_in_s + _MARGIN_S)
            if not progress["daemon_is_here"]:
                click.echo(f"{_absence(progress)}; waiting for one all the same", err=True)
        if progress["state"] not in ("ready", "in_flight") or time.monotonic() >= give_up_at_s:
            return dict(progress)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(heard.wait(), min(_POLL_S, give_up_at_s - time.monotonic()))


def _absence(progress: Row) -> str:
    if progress["daemon_seen_at"] is None:
        return "no daemon has announced itself in this database"
    return f"no daemon has announced itself since {output.timestamp(progress['daemon_seen_at'])}"


def _why_not(progress: Row) -> str:
    """Why a PING that is not final was not sent, or not settled, within its time."""
    if progress["state"] == "in_flight":
        return "it is in flight, and nobody has settled it yet"
    if not progress["daemon_is_here"]:
        return _absence(progress)
    if progress["paused_at"] is not None:
        return "the operator was paused meanwhile"
    if progress["backoff_until"] is not None:
        return f"the operator asked to be left alone until {output.timestamp(progress['backoff_until'])}"
    return "no daemon has taken it: predictu-dispatch why tells more"


def _phases(progress: Row, attempt: Row | None) -> dict[str, float | None]:
    """Milliseconds of each phase, None where it was not reached; they follow each other, and `total` is all of them."""
    waiting_ms: float | None = progress["waited_ms"]
    connect_ms, first_byte_ms, ended_ms = (
        (None, None, None)
        if attempt is None
        else (attempt["connect_ms"], attempt["first_byte_ms"], attempt["total_ms"])
    )
    return {
        "waiting": waiting_ms,
        "connecting": connect_ms,
        "first_byte": _between(connect_ms, first_byte_ms),
        "rest": _between(first_byte_ms, ended_ms),
        "total": None if waiting_ms is None or ended_ms is None else waiting_ms + ended_ms,
    }


def _between(earlier_ms: float | None, later_ms: float | None) -> float | None:
    return None if earlier_ms is None or later_ms is None else later_ms - earlier_ms


_PHASES: Final = {
    "waiting": "waiting in the outbox",
    "connecting": "connecting, TLS included",
    "first_byte": "until the answer's first byte",
    "rest": "until its last byte",
    "total": "total",
}


def _print(progress: Row, attempt: Row | None) -> None:
    state = click.style(progress["state"], fg="green" if progress["state"] == "delivered" else "red", bold=True)
    click.echo(f"PING {progress['request_id']} of operator {progress['operator_id']} is {state}")
    if progress["state"] in ("ready", "in_flight"):
        click.echo(f"  {_why_not(progress)}")
    if attempt is not None:
        why = texts.reason_text(attempt["reason"])
        answered = f", HTTP {attempt['response_status']}" if attempt["response_status"] is not None else ""
        click.echo(f"  {texts.VERDICTS[attempt['verdict']]}{f' ({why})' if why else ''}{answered}, to {attempt['url']}")
        if attempt["error"]:
            click.echo(f"  {attempt['error']}")
    elif progress["reason"]:
        click.echo(f"  {texts.reason_text(progress['reason'])}")
    for key, phase_ms in _phases(progress, attempt).items():
        shown = "       -" if phase_ms is None else f"{phase_ms:8.1f} ms"
        click.echo(f"  {_PHASES[key]:<30}{shown}")


def _plain(progress: Row, attempt: Row | None) -> dict[str, Any]:
    audited = attempt or dict.fromkeys(("verdict", "evidence", "reason", "response_status", "url", "error"))
    return {
        "operator_id": progress["operator_id"],
        "request_id": str(progress["request_id"]),
        "state": progress["state"],
        "reason": progress["reason"],
        **{key: audited[key] for key in ("verdict", "evidence", "response_status", "url", "error")},
        "waiting_for": _why_not(progress) if progress["state"] in ("ready", "in_flight") else None,
        "phases_ms": _phases(progress, attempt),
    }
