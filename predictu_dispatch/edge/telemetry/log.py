"""The log: one line per event on stderr, written by a thread (log_thread.py).

orjson writes the JSON lines in a fifth of the standard encoder's time. It leaves out the space
after a colon or comma.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from datetime import UTC, datetime
from typing import Any, cast

import orjson
import structlog
from structlog.typing import EventDict, Processor
from typing_extensions import override

from predictu_dispatch.core.events import Event
from predictu_dispatch.core.printable import printable, printable_lines
from predictu_dispatch.core.settings import LogSettings
from predictu_dispatch.edge.telemetry.log_thread import LineWriter, redirect_stderr

_TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+(\.[\w*-]*)?")
"""A JWT, whole or truncated: base64url of `{"`, then claims, then the signature, perhaps already
replaced by asterisks."""
_encode = json.JSONEncoder(default=repr).encode
_ORJSON_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z | orjson.OPT_PASSTHROUGH_DATACLASS

log = structlog.get_logger()


_writer: LineWriter | None = None


def configure_log(settings: LogSettings) -> None:
    """Sends log lines to stderr, with `auto` as console text on a terminal and JSON otherwise.

    From here on nothing in this process waits for what reads stderr: warnings, tracebacks and
    messages that Python prints go the same way.
    """
    global _writer  # noqa: PLW0603 - one log per process, as in structlog and logging
    console = settings.format == "console" or (settings.format == "auto" and sys.stderr.isatty())
    processors = structlog.processors
    rendered: list[Processor] = [
        processors.add_log_level,
        *((processors.TimeStamper(fmt="iso", utc=True),) if console else ()),
        processors.format_exc_info,
        *((_escaped, structlog.dev.ConsoleRenderer(), _encoded) if console else (json_line,)),
    ]

    def lines_lost_notice(lines: int, error: str) -> bytes:
        notice: Any = {"event": Event.LOG_LINES_LOST, "lines": lines, "error": error}
        for processor in rendered:
            notice = processor(None, "warning", notice)
        return cast("bytes", notice)

    _writer = writer = LineWriter(sys.stderr.fileno(), lines_lost_notice)
    structlog.configure(
        processors=rendered,
        wrapper_class=structlog.make_filtering_bound_logger(getattr(logging, settings.level.upper())),
        logger_factory=lambda *_: writer,
        cache_logger_on_first_use=True,
    )
    redirect_stderr(writer)
    # Library log records go the same way: plain text must not appear between the JSON lines.
    logging.basicConfig(handlers=[_LibraryHandler()], level=logging.WARNING, force=True)
    logging.captureWarnings(True)  # noqa: FBT003 - the standard library's own signature


def lines_lost() -> int:
    """Returns how many lines of this process were lost."""
    return 0 if _writer is None else _writer.lines_lost


def without_tokens(text: str) -> str:
    """Returns `text` without JWTs: an operator's answer may quote the token that we sent."""
    return _TOKEN.sub("[token withheld]", text)


def json_line(_: object, __: str, event: EventDict) -> bytes:
    """Returns the event with the current time as one line of JSON, in ASCII.

    The standard encoder writes what orjson refuses (lone surrogates, integers beyond 64 bits) or
    would not escape: a terminal or a line reader may act on a character beyond ASCII.
    """
    event["timestamp"] = now = datetime.now(UTC)
    try:
        line = orjson.dumps(event, repr, _ORJSON_OPTIONS)
    except orjson.JSONEncodeError:
        line = b""
    if not line or not line.isascii():
        event["timestamp"] = f"{now:%Y-%m-%dT%H:%M:%S.%f}Z"
        line = f"{_encode(event)}\n".encode()
    return line.replace(b"\x7f", b"\\u007f")


def _escaped(_: object, __: str, event: EventDict) -> EventDict:
    """Escapes text of others, and indents a traceback, so that no line of it looks like ours."""
    for key, value in event.items():
        if isinstance(value, str):
            event[key] = printable_lines(value, indent="  ") if key == "exception" else printable(value)
        elif not isinstance(value, int | float | None):
            event[key] = printable(repr(value))
    return event


def _encoded(_: object, __: str, line: str) -> bytes:
    """A terminal with another encoding loses a character, not the line."""
    return f"{line}\n".encode(sys.stderr.encoding, "backslashreplace")


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
