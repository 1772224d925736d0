"""The log: one line per event on stderr."""

from __future__ import annotations

import asyncio
import atexit
import json
import logging
import re
import sys
from typing import TextIO, cast

import structlog
from typing_extensions import override

from predictu_dispatch.core.events import Event
from predictu_dispatch.core.settings import LogSettings

_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+(\.[\w-]*)?")
"""A JWT, whole or truncated: base64url of `{"`, then claims, then the signature."""
_encode = json.JSONEncoder(default=repr).encode

log = structlog.get_logger()


def configure_log(settings: LogSettings) -> None:
    """Sends log lines to stderr, with `auto` as console text on a terminal and JSON otherwise."""
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
    # Library log records go the same way: plain text must not appear between the JSON lines.
    logging.basicConfig(handlers=[_LibraryHandler()], level=logging.WARNING, force=True)


def without_tokens(text: str) -> str:
    """Returns `text` without JWTs: an operator's answer may quote the token that we sent."""
    return _TOKEN.sub("[token withheld]", text)


class LineWriter:
    """Writes the lines of one turn of the event loop, if there is one, in a single system call."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lines: list[str] = []
        atexit.register(self._drain)

    def write(self, text: str) -> None:
        self._lines.append(text)

    def flush(self) -> None:
        if len(self._lines) > 1:
            # The first line of this turn has already scheduled it.
            return
        try:
            asyncio.get_running_loop().call_soon(self._drain)
        except RuntimeError:
            self._drain()

    def _drain(self) -> None:
        text, self._lines = "".join(self._lines), []
        self._stream.write(text)
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
