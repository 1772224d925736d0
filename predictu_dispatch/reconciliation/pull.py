"""Pulls the ledger of a period from the operator's URL into a temporary file."""

from __future__ import annotations

import io
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import IO, Final, NamedTuple
from urllib.parse import urlsplit
from uuid import uuid4

from predictu_dispatch.core.ledger_request import LedgerRefusal, ledger_headers, ledger_token, ledger_url
from predictu_dispatch.edge.config.operator_file import OperatorConfig
from predictu_dispatch.edge.http.ledger_client import PullLimits, pull_ledger
from predictu_dispatch.reconciliation.files import LedgerFile

URL_KEY: Final = "[reconcile] url"
_BUFFER_BYTES: Final = 256 * 1024
_ACCEPT: Final = {"csv": "text/csv", "ndjson": "application/x-ndjson", "json": "application/json"}


class PulledLedger(NamedTuple):
    """The whole ledger from `since` to before `until`."""

    file: LedgerFile
    since: datetime
    until: datetime


@asynccontextmanager
async def pulled_ledger(
    operator: OperatorConfig, *, starts_at: datetime, ends_at: datetime, now: datetime, limits: PullLimits
) -> AsyncIterator[PulledLedger | LedgerRefusal]:
    """Yield the ledger of this period, extended by `settle_s` on both sides up to now.

    The file has no name, so that nobody else can open it and nothing is left of it.
    """
    settings = operator.settings
    settle = timedelta(seconds=settings.reconcile.settle_s)
    since, until = starts_at - settle, min(ends_at + settle, now)
    token = ledger_token(operator.signing_key, settings, jti=str(uuid4()), now_s=int(datetime.now(UTC).timestamp()))
    with tempfile.TemporaryFile() as file:
        refusal = await pull_ledger(
            ledger_url(settings.reconcile.url, since=since, until=until),
            ledger_headers(token, accept=_ACCEPT[settings.reconcile.format]),
            file,
            limits=limits,
            ssl_context=operator.ssl_context,
            allow_private_addresses=settings.allow_private_addresses,
            url_key=f"{URL_KEY} in {operator.file}",
        )
        if refusal is not None:
            yield LedgerRefusal(_without_token(refusal.why, token), refusal.todo)
            return
        with _reader(file) as reader:
            ledger = LedgerFile(_without_query(settings.reconcile.url), reader, bytes_max=limits.bytes_max)
            yield PulledLedger(ledger, since, until)


def _reader(file: IO[bytes]) -> io.BufferedReader:
    file.seek(0)
    return io.BufferedReader(io.FileIO(file.fileno(), closefd=False), _BUFFER_BYTES)


def _without_token(text: str, token: str) -> str:
    """Return the text without what an operator may have repeated of our token."""
    return text.replace(token, "…").replace(token.rpartition(".")[2], "…")


def _without_query(url: str) -> str:
    # A query may hold a secret.
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}"
