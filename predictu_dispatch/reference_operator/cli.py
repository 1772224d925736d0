"""Starts the operator from the command line, prints where it listens, and stops it on a signal.

`ledger` exports the bookings and ends.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sqlite3
import sys
from collections.abc import Sequence

from aiohttp.http_exceptions import HttpProcessingError

from .database import WalletError, utc_now
from .export import export_ledger
from .faults import FaultError
from .keys import KeyFileError
from .server import ListenError, Listening, serving
from .settings import PROGRAM, LogFormat, Settings, parse_settings
from .trial import Trial, parse_trial
from .witness import WitnessKeyError

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def main(arguments: Sequence[str]) -> int:
    """Runs until SIGTERM or SIGINT; returns 0 for success, 1 for failure, 2 for wrong usage."""
    try:
        if arguments[:1] == ["ledger"]:
            export_ledger(arguments[1:])
            return EXIT_OK
        trial = parse_trial(arguments[1:]) if arguments[:1] == ["try"] else None
        settings = trial.settings if trial else parse_settings(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_USAGE
    except (KeyFileError, FaultError, ValueError) as fault:
        return _failed(fault, EXIT_USAGE)
    except BrokenPipeError:
        # The reader of the ledger has gone; what is buffered must not fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except (OSError, WalletError) as fault:
        return _failed(fault, EXIT_FAILED)
    set_up_log(settings.log)
    try:
        asyncio.run(_run(settings, trial))
    except (ListenError, OSError, sqlite3.Error, WalletError, WitnessKeyError) as fault:
        return _failed(fault, EXIT_FAILED)
    except ExceptionGroup as group:
        # What fails while the writer already runs comes out of its group.
        matched, others = group.split((OSError, sqlite3.Error, WalletError, WitnessKeyError))
        if matched is None or others is not None:
            raise
        return _failed(matched.exceptions[0], EXIT_FAILED)
    return EXIT_OK


def _failed(fault: Exception, code: int) -> int:
    sys.stderr.write(f"{PROGRAM}: {fault}\n")
    return code


async def _run(settings: Settings, trial: Trial | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings) as listening:
        sys.stdout.write(_for_a_person(listening, trial) if sys.stdout.isatty() else _for_a_program(listening, trial))
        # Flushed, because a parent process may wait for this line.
        sys.stdout.flush()
        await stop.wait()


def _for_a_program(listening: Listening, trial: Trial | None) -> str:
    line = {
        "event": "operator.listening",
        "url": listening.url,
        "admin_url": listening.admin_url,
        # Its place is Predictu's [[audit.witness]].
        **({"witness_vkey": listening.witness_vkey} if listening.witness_vkey else {}),
        **({"certify": trial.certify(listening.url)} if trial else {}),
    }
    return json.dumps(line) + "\n"


def _for_a_person(listening: Listening, trial: Trial | None) -> str:
    first = trial.advice(listening.url) if trial else f"The reference operator listens on {listening.url}\n"
    admin = f"Admin routes, for tests: {listening.admin_url}/_admin/\n" if listening.admin_url else ""
    witness = f"Key of this witness, for Predictu: {listening.witness_vkey}\n" if listening.witness_vkey else ""
    return first + admin + witness


def set_up_log(log_format: LogFormat) -> None:
    """Sends all log records to stderr in this format, or nowhere."""
    root = logging.getLogger()
    if log_format == "off":
        root.addHandler(logging.NullHandler())
        return
    logging.getLogger("aiohttp.server").addFilter(_shorten)
    lines = logging.StreamHandler()
    lines.setFormatter(_Formatter(log_format))
    root.addHandler(lines)
    root.setLevel(logging.INFO)


def _shorten(record: logging.LogRecord) -> bool:
    """Logs a request that is no HTTP without a traceback: anyone can send it, at any rate."""
    fault = record.exc_info[1] if record.exc_info else None
    if isinstance(fault, HttpProcessingError):
        record.msg, record.args, record.exc_info = "request.malformed", None, None
        record.__dict__["fields"] = {"reason": fault.message.partition(":")[0].strip()}
    return True


class _Formatter(logging.Formatter):
    """One line per record, without tokens, bodies or keys; a plain one may have a traceback."""

    def __init__(self, log_format: LogFormat) -> None:
        super().__init__()
        self._log_format = log_format

    # typing.override, which mypy asks for, came with Python 3.12.
    def format(self, record: logging.LogRecord) -> str:  # type: ignore[explicit-override]
        fields = {"level": record.levelname.lower(), "event": record.getMessage(), **getattr(record, "fields", {})}
        exception = self.formatException(record.exc_info) if record.exc_info else None
        fields = {key: value for key, value in fields.items() if value is not None}
        at = utc_now()
        if self._log_format == "json":
            return json.dumps({"at": at, **fields, **({"exception": exception} if exception else {})})
        line = f"{at} " + " ".join(f"{key}={_plain(value)}" for key, value in fields.items())
        return f"{line}\n{exception}" if exception else line


def _plain(value: object) -> str:
    """Returns one word; other text is quoted and escaped, so that none can make a line."""
    text = str(value)
    return text if text.isprintable() and text.isascii() and " " not in text else json.dumps(text)
