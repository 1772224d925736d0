"""Runs a reconciliation: the operator's file, the ledger's files or URL, and what ends it early."""

from __future__ import annotations

import gc
import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from predictu_dispatch.commands.invocation import (
    EXIT_MISCONFIGURED,
    Invocation,
    dsn_of,
    exit_on_database_errors,
    unknown_operator,
)
from predictu_dispatch.commands.keys.common import operator_file, refuse, refuse_missing
from predictu_dispatch.commands.reconcile.options import Options, Period, period_of
from predictu_dispatch.core.database import Refused
from predictu_dispatch.core.ledger_request import LedgerRefusal
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.edge.config.files import ConfigError
from predictu_dispatch.edge.config.operator_file import read_ledger_settings, read_operator
from predictu_dispatch.edge.postgres.reconciliation_store import ReconciliationStore, open_reconciliation_store
from predictu_dispatch.reconciliation.files import LedgerFile, LedgerFileError, open_ledger
from predictu_dispatch.reconciliation.run import Ledger, Request, currency_digits, reconcile

if TYPE_CHECKING:
    from predictu_dispatch.reconciliation.result import RunResult

_OBJECTS_BETWEEN_COLLECTIONS: Final = 50_000
"""Garbage collection threshold. With the default of 700, it takes a tenth of the reading."""


async def run_reconciliation(
    invocation: Invocation,
    operator: str,
    files: Sequence[Path],
    options: Options,
    *,
    verbs: Mapping[str, str],
) -> RunResult:
    """Reconcile; ends the command if the files or the ledger's URL cannot be read.

    A misspelled word of `verbs` is taken for an operator: the message names its command.
    """
    file = operator_file(invocation, operator)
    refuse_missing(invocation, file, verbs)
    period = period_of(options)
    settings = _settings(invocation, file)
    if isinstance(period, int):
        today = settings.reconcile.days.day_of(datetime.now(UTC))
        period = Period(today - timedelta(days=period), today - timedelta(days=1))
    request = Request(
        operator_id=operator,
        file=str(file),
        settings=settings.reconcile,
        days=settings.reconcile.days,
        first_day=period.first,
        last_day=period.last,
        done_by=options["by"],
    )
    _refuse_future(request)
    if not files and not settings.reconcile.url:
        raise click.UsageError(f"give the ledger as FILE, or set [reconcile] url in {file}")
    gc.set_threshold(_OBJECTS_BETWEEN_COLLECTIONS)
    with exit_on_database_errors(invocation):
        async with open_reconciliation_store(dsn_of(invocation)) as store:
            if not await store.fetch("known_operator", operator):
                refuse(invocation, unknown_operator(operator))
            digits = await currency_digits(store)
            async with _ledger(invocation, store, request, files) as ledger:
                try:
                    return await reconcile(store, request, ledger, digits)
                except LedgerFileError as error:
                    refuse(invocation, f"{error}; nothing was compared", EXIT_MISCONFIGURED)
                except Refused as error:
                    if not error.is_for_a_person:
                        raise
                    refuse(invocation, f"{error.message}. {error.hint}".removesuffix(" "))


def _settings(invocation: Invocation, file: Path) -> OperatorSettings:
    try:
        return read_ledger_settings(file)
    except ConfigError as error:
        invocation.refuse(error)


def _refuse_future(request: Request) -> None:
    today = request.days.day_of(datetime.now(UTC))
    if request.last_day > today:
        raise click.UsageError(f"{request.last_day} has not begun: today is {today} in {request.settings.time_zone}")


@asynccontextmanager
async def _ledger(
    invocation: Invocation, store: ReconciliationStore, request: Request, files: Sequence[Path]
) -> AsyncIterator[Ledger]:
    """The open ledger: the files, or what the operator's URL serves."""
    if files:
        with _open_files(invocation, files) as opened:
            yield Ledger(files=opened)
        return
    from predictu_dispatch.edge.http.ledger_client import PullLimits  # noqa: PLC0415 - loads aiohttp
    from predictu_dispatch.reconciliation.pull import pulled_ledger  # noqa: PLC0415

    edges = request.edges()
    try:
        # With the signing key, which a run on files does not need.
        operator = read_operator(Path(request.file), os.environ)
    except ConfigError as error:
        invocation.refuse(error)
    async with pulled_ledger(
        operator, starts_at=edges[0], ends_at=edges[-1], now=await store.clock_at(), limits=PullLimits()
    ) as pulled:
        if isinstance(pulled, LedgerRefusal):
            refuse(invocation, f"no ledger from {request.operator_id}: {pulled.why}. {pulled.todo}".removesuffix(" "))
        yield Ledger(files=[pulled.file], asked_from=pulled.since, asked_until=pulled.until)


@contextmanager
def _open_files(invocation: Invocation, files: Sequence[Path]) -> Iterator[list[LedgerFile]]:
    """The open files; ends the command if one cannot be opened or is given twice."""
    with ExitStack() as stack:
        opened: dict[str, tuple[Path, LedgerFile]] = {}
        for path in files:
            try:
                file = stack.enter_context(open_ledger(path))
            except LedgerFileError as error:
                refuse(invocation, str(error), EXIT_MISCONFIGURED)
            if file.sha256 in opened:
                first, _ = opened[file.sha256]
                refuse(invocation, f"{path} has the same content as {first}: give each file once", EXIT_MISCONFIGURED)
            opened[file.sha256] = (path, file)
        yield [file for _, file in opened.values()]
