"""The outbox: claims and settles callbacks. Translates rows and records, and decides nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from json.encoder import encode_basestring_ascii as quoted
from typing import Any, TypeVar
from uuid import UUID

import structlog

from predictu_dispatch.core.callback import Callback, Effect
from predictu_dispatch.core.claim import ClaimRequest, Lease, RowFailure, UnusableRows
from predictu_dispatch.core.clock import ClockReading
from predictu_dispatch.core.events import Event
from predictu_dispatch.core.fleet import FleetFigures, LatestTimes, RetiredOperator
from predictu_dispatch.core.lifecycle import Attempt, CallbackChange, CallbackState, Cause
from predictu_dispatch.core.methods import Lane, Method
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.edge.postgres.database import Database
from predictu_dispatch.edge.postgres.sql_files import query

log = structlog.get_logger()

_REAP_MAX = 500
_MONTHS_AHEAD = 2

# A dict lookup takes a twentieth of the time of an enum's.
_METHODS = {str(one): one for one in Method}
_LANES = {str(one): one for one in Lane}
_EFFECTS = {str(one): one for one in Effect}
_STATES = {str(one): one for one in CallbackState}
_CAUSES = {str(one): one for one in Cause}

_AWAITED = frozenset({Method.PING, Method.BALANCE, Method.BET_MAKE})
"""Somebody waits for them, and they end no bet."""


T = TypeVar("T")


class Outbox:
    """The outbox of one database, used by one daemon."""

    def __init__(self, database: Database, *, instance: str) -> None:
        self._database = database
        self._instance = instance

    async def sync_operators(self, operators: Iterable[tuple[OperatorSettings, str]]) -> list[str]:
        """Let producers enqueue for these operators, each with its configuration's fingerprint.

        Returns the operators whose rows are locked: try them again.
        """
        given = list(operators)
        rows = await self._database.fetch(
            query("sync_operators"),
            [settings.operator_id for settings, _ in given],
            [settings.enabled for settings, _ in given],
            [settings.interactive.deadline_s for settings, _ in given],
            [settings.settlement.deadline_s for settings, _ in given],
            [fingerprint for _, fingerprint in given],
        )
        return [row["operator_id"] for row in rows]

    async def retired_operators(self, operator_ids: Sequence[str]) -> list[RetiredOperator]:
        """Those of the operators that are retired."""
        rows = await self._database.fetch(query("retired_operators"), list(operator_ids))
        return [RetiredOperator(**row) for row in rows]

    def claim_permit(self, lane: Lane) -> AbstractAsyncContextManager[None]:
        """Permit to claim: bets get it at once, settlements when a connection is free."""
        return nullcontext() if lane is Lane.INTERACTIVE else self._database.background_permit()

    async def claim(
        self, requests: Sequence[ClaimRequest], *, is_stopped: Callable[[], bool] = lambda: False
    ) -> list[Callback]:
        """Claim due callbacks, each leased for one attempt; none if stopped while it waits.

        Never repeated: if the answer is lost, the reaper returns what was leased.
        """
        asked_at_s = time.monotonic()
        rows = await self._database.fetch(
            query("claim"),
            self._instance,
            # A request's fields are the parameters in order: conversion is a large part of a claim.
            *zip(*requests, strict=True),
            # The lane has its permit already.
            urgent=True,
            unless=is_stopped,
        )
        return _usable(rows, lambda row: _callback(row, leased_at_s=asked_at_s))

    async def claim_apart(
        self, requests: Sequence[ClaimRequest], set_aside: Sequence[UUID], *, is_stopped: Callable[[], bool]
    ) -> tuple[list[Callback], list[RowFailure]]:
        """Claim as claim() does, but each operator and if necessary each callback alone."""
        asked_at_s = time.monotonic()
        rows = await self._database.fetch(
            query("claim_apart"),
            self._instance,
            # Without due_from: the queue is read from its beginning.
            *list(zip(*requests, strict=True))[:-1],
            list(set_aside),
            urgent=True,
            unless=is_stopped,
        )
        rows, failures = _apart(rows)
        try:
            return _usable(rows, lambda row: _callback(row[:-2], leased_at_s=asked_at_s)), failures
        except UnusableRows as some:
            return list(some.usable), [*failures, *some.failures]

    async def settle(self, attempts: Sequence[Attempt]) -> list[CallbackChange]:
        """Settle these attempts in one transaction. Changes that cannot be read are left out.

        It may be repeated: the database recognises settled attempts by their report_id.
        """
        if len(attempts) == 1 and _is_awaited(attempts[0]) and await self._settle_one(attempts[0]):
            return [_settled(attempts[0])]
        # In one order, so that two daemons that settle the same callbacks do not deadlock.
        ordered = sorted(
            attempts, key=lambda attempt: (attempt.callback.operator_id, attempt.callback.request_id.bytes)
        )
        rows = await self._database.fetch(
            query("settle"),
            [_report(attempt) for attempt in ordered],
            urgent=any(attempt.callback.lane is Lane.INTERACTIVE for attempt in attempts),
        )
        return _readable_changes(rows)

    async def settle_apart(self, attempt: Attempt, *, timeout_s: float) -> list[CallbackChange]:
        """Settle one attempt in a session of its own, which may take up to `timeout_s`."""
        return _readable_changes(
            await self._database.fetch_apart(query("settle"), [_report(attempt)], timeout_s=timeout_s)
        )

    async def _settle_one(self, attempt: Attempt) -> bool:
        """Settle it if nothing follows; if False, nothing has changed and settle() must decide."""
        [row] = await self._database.fetch(query("settle_one"), *_report(attempt), urgent=True)
        return bool(row["is_settled"])

    async def expire(self, most: int) -> list[CallbackChange]:
        """End callbacks that must not wait any longer, up to `most` per operator and kind."""
        return [_change(row) for row in await self._database.fetch(query("expire"), most)]

    async def expire_apart(self, most: int, set_aside: Sequence[UUID]) -> tuple[list[CallbackChange], list[RowFailure]]:
        """End callbacks as expire() does, but each alone."""
        good, failures = _apart(await self._database.fetch(query("expire_apart"), most, list(set_aside)))
        return [_change(row) for row in good], failures

    async def expired_leases(self, *, every_s: float) -> list[Lease]:
        """Expired attempts, their lease owners and the database's time, once per interval."""
        return _leases(await self._database.fetch(query("expired_leases"), _REAP_MAX, every_s, self._instance))

    async def leases_ahead(self) -> list[Lease]:
        """The attempts whose lease begins in the future, as expired_leases() returns them."""
        return _leases(await self._database.fetch(query("leases_ahead"), _REAP_MAX))

    async def expired_leases_apart(self, *, every_s: float) -> tuple[list[Lease], list[RowFailure]]:
        """The same without the rows that are unreadable, each of which is a failure."""
        return _leases_apart(
            await self._database.fetch(query("expired_leases_apart"), _REAP_MAX, every_s, self._instance)
        )

    async def leases_ahead_apart(self) -> tuple[list[Lease], list[RowFailure]]:
        """As expired_leases_apart(), of the leases that begin in the future."""
        return _leases_apart(await self._database.fetch(query("leases_ahead_apart"), _REAP_MAX))

    async def read_clock(self) -> ClockReading:
        """Read the database's clock."""
        sent_s = 0.0

        def note_time() -> bool:
            nonlocal sent_s
            sent_s = time.monotonic()
            return False

        # Called with the connection at hand: waiting for one would make the reading inexact.
        [row] = await self._database.fetch(query("read_clock"), urgent=True, unless=note_time)
        return ClockReading(database_at_s=row["database_at_s"], sent_s=sent_s, received_s=time.monotonic())

    async def correct_times(self, latest: Sequence[LatestTimes], *, ahead_s: float) -> list[str]:
        """Correct times that are too far ahead; returns the operators concerned."""
        # The fields are the parameters, in their order.
        columns = ([one[field] for one in latest] for field in range(len(LatestTimes._fields)))
        rows = await self._database.fetch(query("correct_times"), *columns, ahead_s)
        return [row["operator_id"] for row in rows]

    async def prepare_partitions(self, *, every_s: float) -> None:
        """Create the coming months' audit partitions, unless a daemon did in this interval."""
        await self._database.fetch(query("prepare_partitions"), _MONTHS_AHEAD, every_s, self._instance)

    async def fleet_figures(self) -> FleetFigures | None:
        """The figures of the last count, which is done now if it is due. None before the first."""
        ((figures, age_s, usage),) = await self._database.fetch(query("fleet_figures"), self._instance)
        if figures is None:
            return None
        return FleetFigures(**json.loads(figures), age_s=age_s, notification_queue_usage=usage)


def _callback(row: Iterable[Any], *, leased_at_s: float) -> Callback:
    """A claimed row; its columns are the fields in order, because by name takes twice as long."""
    operator_id, request_id, method, bet_id, lane, attempt, budget_from, effect, *others = row
    named = operator_id, request_id, _METHODS[method], bet_id, _LANES[lane], attempt, budget_from, _EFFECTS[effect]
    return Callback._make((*named, *others, leased_at_s))


def _usable(rows: Sequence[Any], read: Callable[[Any], T]) -> list[T]:
    """The rows as `read` returns them. Raises UnusableRows with those that it can read."""
    try:
        return [read(row) for row in rows]
    except Exception:  # noqa: BLE001 - one row that cannot be read must not hide the others, which are leased
        usable, failures = [], []
        for row in rows:
            try:
                usable.append(read(row))
            except Exception as error:  # noqa: BLE001 - as above
                message = f"this release cannot read the row: {type(error).__name__}: {error}"
                failures.append(RowFailure(row["operator_id"], row["request_id"], "", message))
        raise UnusableRows(usable, failures) from None


def _apart(rows: Sequence[Any]) -> tuple[list[Any], list[RowFailure]]:
    """What succeeded, and what failed, of a function that processes each callback alone."""
    failures = [
        # A row that cannot be read may be of any operator.
        RowFailure(row["operator_id"] or "", row["request_id"], row["failed_sqlstate"], row["failed_message"])
        for row in rows
        if row["failed_sqlstate"] is not None
    ]
    return [row for row in rows if row["failed_sqlstate"] is None], failures


def _leases_apart(rows: Sequence[Any]) -> tuple[list[Lease], list[RowFailure]]:
    good, failures = _apart(rows)
    try:
        return _leases(good), failures
    except UnusableRows as some:
        return list(some.usable), [*failures, *some.failures]


def _leases(rows: Sequence[Any]) -> list[Lease]:
    now_s = time.monotonic()
    return _usable(
        rows,
        lambda row: (
            _callback(
                row[: len(Callback._fields) - 1],
                leased_at_s=now_s - (row["reaped_at"] - row["leased_at"]).total_seconds(),
            ),
            row["leased_by"],
            row["reaped_at"],
        ),
    )


def _as_json(headers: tuple[tuple[str, str], ...]) -> str:
    """The same text as json.dumps(), in a third of its time."""
    return f"[{', '.join([f'[{quoted(name)}, {quoted(value)}]' for name, value in headers])}]"


def _change(row: Mapping[str, Any]) -> CallbackChange:
    return CallbackChange(
        operator_id=row["operator_id"],
        request_id=row["request_id"],
        method=_METHODS[row["method"]],
        lane=_LANES[row["lane"]] if row["lane"] else None,
        state=_STATES[row["state"]] if row["state"] else None,
        reason=row["reason"],
        cause=_CAUSES[row["cause"]],
        attempt=row["attempt"],
    )


def _readable_changes(rows: Iterable[Mapping[str, Any]]) -> list[CallbackChange]:
    """The changes without those of a newer release that this one does not know."""
    changes = []
    for row in rows:
        try:
            changes.append(_change(row))
        except KeyError as unknown:
            log.warning(Event.CHANGE_UNREADABLE, value=str(unknown))
    return changes


def _is_awaited(attempt: Attempt) -> bool:
    """Whether somebody waits for it and nothing may follow; see settle_one()."""
    return attempt.outcome.state is CallbackState.DELIVERED and attempt.callback.method in _AWAITED


def _settled(attempt: Attempt) -> CallbackChange:
    callback, outcome = attempt.callback, attempt.outcome
    return CallbackChange(
        operator_id=callback.operator_id,
        request_id=callback.request_id,
        method=callback.method,
        lane=callback.lane,
        state=outcome.state,
        reason=outcome.reason,
        cause=Cause.SETTLED,
        attempt=callback.attempt,
    )


def _report(attempt: Attempt) -> tuple[Any, ...]:
    """The attempt as the composite type predictu_dispatch.report, in the order of its fields."""
    callback, exchange, judgement, outcome = attempt.callback, attempt.exchange, attempt.judgement, attempt.outcome
    return (
        callback.operator_id,
        callback.request_id,
        callback.attempt,
        callback.bet_id,
        outcome.state,
        # The callback's reason; the attempt's is below.
        outcome.reason,
        outcome.effect,
        outcome.due_in_s,
        judgement.operator_status,
        judgement.operator_transaction_id,
        judgement.balance,
        judgement.anomaly,
        attempt.reaped,
        callback.method,
        exchange.evidence,
        outcome.verdict,
        judgement.reason,
        attempt.instance,
        callback.leased_at,
        attempt.finished_at,
        attempt.url,
        attempt.key_id,
        attempt.request_headers,
        attempt.request_body,
        exchange.status,
        _as_json(exchange.headers) if exchange.status is not None else None,
        exchange.body if exchange.status is not None else None,
        exchange.truncated,
        exchange.connect_ms,
        exchange.first_byte_ms,
        exchange.total_ms,
        exchange.error,
        attempt.report_id,
    )
