"""The log: one event a line on stderr, for people on a terminal, as JSON elsewhere."""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import re
import sys
from typing import TYPE_CHECKING, TextIO, cast

import structlog
from typing_extensions import override

from predictu_dispatch.core.events import Event

if TYPE_CHECKING:
    from predictu_dispatch.core.settings import LogSettings

_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+(\.[\w-]*)?")
"""A JWT, whole or cut off: base64url of `{"`, then claims, then the signature."""
_encode = json.JSONEncoder(default=repr).encode

log = structlog.get_logger()


def configure_log(settings: LogSettings) -> None:
    """Log lines go to stderr: for people on a terminal, as JSON elsewhere, unless `format` says which."""
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.dev.ConsoleRenderer()
            if console
            else structlog.processors.JSONRenderer(serializer=lambda event, **_: _encode(event)),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.level.upper())),
        logger_factory=structlog.WriteLoggerFactory(file=cast("TextIO", LineWriter(sys.stderr))),
        cache_logger_on_first_use=True,
    )
    # What libraries say by logging goes the same way, or raw text would stand between the JSON lines.
    logging.basicConfig(handlers=[_LibraryHandler()], level=logging.WARNING, force=True)


def without_tokens(text: str) -> str:
    """`text` as it may be logged: what an operator sent may quote the token that we sent it."""
    return _TOKEN.sub("[token withheld]", text)


class LineWriter:
    """Writes what is said in one turn of the loop at once, at the end of that turn; outside of a loop, immediately.

    A line for each attempt would otherwise be a system call for each.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._said: list[str] = []
        atexit.register(self._drain)

    def write(self, text: str) -> None:
        self._said.append(text)

    def flush(self) -> None:
        if len(self._said) > 1:
            # Somebody before us in this turn has asked for it.
            return
        try:
            asyncio.get_running_loop().call_soon(self._drain)
        except RuntimeError:
            self._drain()

    def _drain(self) -> None:
        said, self._said = "".join(self._said), []
        self._stream.write(said)
        self._stream.flush()


class _LibraryHandler(logging.Handler):
    @override
    def emit(self, record: logging.LogRecord) -> None:
        log.log(
            record.levelno,
            Event.LIBRARY_LOGGED,
            library=record.name,
            message=without_tokens(record.getMessage()),
            exc_info=record.exc_info,
        )
