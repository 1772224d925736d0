"""Sends PINGs and waits for their ends."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

from predictu_dispatch.commands.invocation import Invocation, database, fail
from predictu_dispatch.commands.output import Row, timestamp
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
_UNFINISHED: Final = ("ready", "in_flight")
_INSTANCES_MAX: Final = 8
"""How many running daemons a message names."""
_LOCKED: Final = "PD006"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ping:
    """A PING that is final or whose time is over, and its last audit row."""

    progress: Row
    attempt: Row | None

    @property
    def is_delivered(self) -> bool:
        return bool(self.progress["state"] == "delivered")


@dataclass(frozen=True, slots=True, kw_only=True)
class Skipped:
    """An operator that was not pinged, and why."""

    operator_id: str
    reason: str
    is_intended: bool
    """True if a person disabled, paused or retired it."""


async def ping_one(invocation: Invocation, operator: str) -> Ping:
    """Ping one operator; ends the command at once if nothing can be sent to it."""
    async with _listening(invocation, operator) as (db, notified):
        for target in await db.fetch(query("ping_targets"), operator):
            # The function itself refuses the others, and says why.
            is_sendable = target["may_ping"] and target["enabled"] and target["paused_at"] is None
            if is_sendable and not target["daemons"]:
                fail(await _unserved(db, operator))
        try:
            request_id = await _send(db, operator)
        except Refused as error:
            if not error.is_for_a_person:
                raise
            fail(error.message, hint=error.hint)
        [progress] = await _ends(db, {operator: request_id}, notified)
        return await _with_attempt(db, progress)


async def ping_all(invocation: Invocation) -> tuple[list[Ping], list[Skipped]]:
    """Ping every operator to which a running daemon sends, all at once."""
    sent: dict[str, UUID] = {}
    skipped: list[Skipped] = []
    async with _listening(invocation) as (db, notified):
        for target in await db.fetch(query("ping_targets"), None):
            name = target["operator_id"]
            if (reason := _stopped(target)) is not None:
                skipped.append(Skipped(operator_id=name, reason=reason, is_intended=True))
            elif target["may_ping"] and not target["daemons"]:
                skipped.append(Skipped(operator_id=name, reason="no running daemon serves it", is_intended=False))
            else:
                try:
                    sent[name] = await _send(db, name)
                except Refused as error:
                    if not error.is_for_a_person:
                        raise
                    # Such as one that was retired; not one whose row is locked.
                    is_intended = error.sqlstate != _LOCKED
                    skipped.append(Skipped(operator_id=name, reason=error.message, is_intended=is_intended))
        ends = await _ends(db, sent, notified) if sent else []
        return [await _with_attempt(db, progress) for progress in ends], skipped


def waits_for(progress: Row) -> str | None:
    """Why a PING that is not final was not sent, or not settled, within its time."""
    if progress["state"] not in _UNFINISHED:
        return None
    if progress["state"] == "in_flight":
        return "it is in flight and not settled yet"
    if not progress["daemon_is_live"]:
        return "the daemons that served the operator have stopped"
    if progress["paused_at"] is not None:
        return "the operator was paused after the PING was enqueued"
    if progress["backoff_until"] is not None:
        return f"the operator sent Retry-After: nothing is sent to it until {timestamp(progress['backoff_until'])}"
    return f"no daemon has claimed it; to see the reasons: predictu-dispatch why {progress['request_id']}"


def _stopped(target: Row) -> str | None:
    """Why nothing is sent to an operator, if a person decided it."""
    if not target["enabled"]:
        return "disabled"
    if target["paused_at"] is not None:
        return f"paused since {timestamp(target['paused_at'])} by {target['paused_by']}: {target['pause_reason']}"
    return None


async def _unserved(db: Database, operator: str) -> str:
    """The message about an operator that no running daemon serves."""
    [found] = await db.fetch(query("ping_daemons"))
    running: Sequence[str] = found["running"]
    if running:
        names = ", ".join(running[:_INSTANCES_MAX])
        more = len(running) - _INSTANCES_MAX
        names += f" and {more} more" if more > 0 else ""
        return (
            f"no running daemon serves {operator}; those that run do not have its file ({names}); nothing was sent;"
            f" put operators/{operator}.toml beside their dispatcher.toml, then: predictu-dispatch check && systemctl"
            " reload 'predictu-dispatch@*'"
        )
    last = found["last_seen_at"]
    since = f"the last heartbeat was at {timestamp(last)}" if last else "none has sent a heartbeat to this database"
    return (
        f"no daemon is running ({since}); nothing was sent; to start one: systemctl start predictu-dispatch@1, or"
        " predictu-dispatch run"
    )


async def _send(db: Database, operator: str) -> UUID:
    (row,) = await db.fetch(query("ping_operator"), operator)
    request_id: UUID = row["request_id"]
    return request_id


@asynccontextmanager
async def _listening(
    invocation: Invocation, operator: str | None = None
) -> AsyncIterator[tuple[Database, asyncio.Event]]:
    """The open database, and an event that is set when a PING may have ended."""
    from predictu_dispatch.edge.postgres.connections import listen  # noqa: PLC0415 - loaded only where used

    settings = invocation.dispatcher(needs_file=False).database
    listen_dsn = settings.listen_dsn.get_secret_value() or settings.dsn.get_secret_value()
    async with database(invocation) as db:
        notified = asyncio.Event()

        def on_notification(_channel: str, payload: str) -> None:
            # An empty payload means that listening began; others are of all operators.
            if operator is None or payload.partition(" ")[0] in ("", operator):
                notified.set()

        listening = asyncio.create_task(
            listen(listen_dsn, ["predictu_dispatch_outcome"], on_notification), name="listen for the outcome"
        )
        try:
            yield db, notified
        finally:
            listening.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await listening


async def _ends(db: Database, sent: dict[str, UUID], notified: asyncio.Event) -> list[Row]:
    """Wait until each PING is final or its time is over; polls in case a notification is lost."""
    waiting = dict(sent)
    stop_at_s: dict[str, float] = {}
    ends: list[Row] = []
    while True:
        notified.clear()
        now_s = time.monotonic()
        for row in await db.fetch(query("ping_progress"), list(waiting), list(waiting.values())):
            name, expires_in_s = row["operator_id"], row["expires_in_s"]
            wait_s = _WAIT_MAX_S if expires_in_s is None else expires_in_s + _MARGIN_S
            if row["state"] not in _UNFINISHED or now_s >= stop_at_s.setdefault(name, now_s + wait_s):
                ends.append(row)
                del waiting[name]
        if not waiting:
            return sorted(ends, key=lambda row: str(row["operator_id"]))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(notified.wait(), _POLL_S)


async def _with_attempt(db: Database, progress: Row) -> Ping:
    attempts = await db.fetch(query("show_attempts"), progress["operator_id"], progress["request_id"])
    return Ping(progress=progress, attempt=attempts[-1] if attempts else None)
