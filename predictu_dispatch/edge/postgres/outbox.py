"""The outbox: claims and settles callbacks. Translates rows and records, and decides nothing."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, nullcontext
from uuid import UUID

import structlog

from predictu_dispatch.core.callback import Callback
from predictu_dispatch.core.claim import ClaimRequest, Lease, RowFailure, UnusableRows
from predictu_dispatch.core.clock import ClockReading
from predictu_dispatch.core.fleet import FleetFigures, LatestTimes, ReconciliationFigures, RetiredOperator
from predictu_dispatch.core.lifecycle import Attempt, CallbackChange
from predictu_dispatch.core.methods import Lane
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.core.signing import SigningKey
from predictu_dispatch.edge.postgres.database import Database
from predictu_dispatch.edge.postgres.outbox_rows import (
    callback_of,
    change_of,
    is_awaited,
    leases,
    leases_apart,
    readable_changes,
    report_of,
    settled,
    succeeded_apart,
    usable_rows,
)
from predictu_dispatch.edge.postgres.sql_files import query

log = structlog.get_logger()

_REAP_MAX = 500
_MONTHS_AHEAD = 2


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

    async def register_signing_keys(self, keys: Mapping[str, SigningKey]) -> None:
        """Store the key that signs from now on for each operator; it is kept forever."""
        await self._database.fetch(
            query("register_signing_keys"),
            list(keys),
            [key.kid for key in keys.values()],
            [key.algorithm for key in keys.values()],
            [json.dumps(key.public_jwk()) for key in keys.values()],
        )

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
        return usable_rows(rows, lambda row: callback_of(row, leased_at_s=asked_at_s))

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
        rows, failures = succeeded_apart(rows)
        try:
            return usable_rows(rows, lambda row: callback_of(row[:-2], leased_at_s=asked_at_s)), failures
        except UnusableRows as some:
            return list(some.usable), [*failures, *some.failures]

    async def settle(self, attempts: Sequence[Attempt]) -> list[CallbackChange]:
        """Settle these attempts in one transaction. Changes that cannot be read are left out.

        It may be repeated: the database recognises settled attempts by their report_id.
        """
        if len(attempts) == 1 and is_awaited(attempts[0]) and await self._settle_one(attempts[0]):
            return [settled(attempts[0])]
        # In one order, so that two daemons that settle the same callbacks do not deadlock.
        ordered = sorted(
            attempts, key=lambda attempt: (attempt.callback.operator_id, attempt.callback.request_id.bytes)
        )
        rows = await self._database.fetch(
            query("settle"),
            [report_of(attempt) for attempt in ordered],
            urgent=any(attempt.callback.lane is Lane.INTERACTIVE for attempt in attempts),
        )
        return readable_changes(rows)

    async def settle_apart(self, attempt: Attempt, *, timeout_s: float) -> list[CallbackChange]:
        """Settle one attempt in a session of its own, which may take up to `timeout_s`."""
        return readable_changes(
            await self._database.fetch_apart(query("settle"), [report_of(attempt)], timeout_s=timeout_s)
        )

    async def _settle_one(self, attempt: Attempt) -> bool:
        """Settle it if nothing follows; if False, nothing has changed and settle() must decide."""
        [row] = await self._database.fetch(query("settle_one"), *report_of(attempt), urgent=True)
        return bool(row["is_settled"])

    async def expire(self, most: int) -> list[CallbackChange]:
        """End callbacks that must not wait any longer, up to `most` per operator and kind."""
        return [change_of(row) for row in await self._database.fetch(query("expire"), most)]

    async def expire_apart(self, most: int, set_aside: Sequence[UUID]) -> tuple[list[CallbackChange], list[RowFailure]]:
        """End callbacks as expire() does, but each alone."""
        good, failures = succeeded_apart(await self._database.fetch(query("expire_apart"), most, list(set_aside)))
        return [change_of(row) for row in good], failures

    async def expired_leases(self, *, every_s: float) -> list[Lease]:
        """Expired attempts, their lease owners and the database's time, once per interval."""
        return leases(await self._database.fetch(query("expired_leases"), _REAP_MAX, every_s, self._instance))

    async def leases_ahead(self) -> list[Lease]:
        """The attempts whose lease begins in the future, as expired_leases() returns them."""
        return leases(await self._database.fetch(query("leases_ahead"), _REAP_MAX))

    async def expired_leases_apart(self, *, every_s: float) -> tuple[list[Lease], list[RowFailure]]:
        """The same without the rows that are unreadable, each of which is a failure."""
        return leases_apart(
            await self._database.fetch(query("expired_leases_apart"), _REAP_MAX, every_s, self._instance)
        )

    async def leases_ahead_apart(self) -> tuple[list[Lease], list[RowFailure]]:
        """As expired_leases_apart(), of the leases that begin in the future."""
        return leases_apart(await self._database.fetch(query("leases_ahead_apart"), _REAP_MAX))

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

    async def reconciliation_figures(self) -> ReconciliationFigures | None:
        """The figures of the last reading, which is done now if due. None before the first."""
        ((figures, age_s),) = await self._database.fetch(query("reconciliation_figures"), self._instance)
        if figures is None:
            return None
        found = json.loads(figures)
        # By name: a later schema may have more figures.
        return ReconciliationFigures(differences=found["differences"], runs=found["runs"], age_s=age_s)
