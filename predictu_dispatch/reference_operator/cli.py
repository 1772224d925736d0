"""Starts the operator from the command line, prints where it listens, and stops it on a signal."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sqlite3
import sys
from collections.abc import Sequence

from .database import WalletError, utc_now
from .faults import FaultError
from .keys import KeyFileError
from .server import serving
from .settings import PROGRAM, LogFormat, Settings, parse_settings
from .witness import WitnessKeyError

EXIT_OK, EXIT_FAILED, EXIT_USAGE = 0, 1, 2


def main(arguments: Sequence[str]) -> int:
    """Runs until SIGTERM or SIGINT; returns 0 for success, 1 for failure, 2 for wrong usage."""
    try:
        settings = parse_settings(arguments)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_USAGE
    except (KeyFileError, FaultError, ValueError) as fault:
        sys.stderr.write(f"{PROGRAM}: {fault}\n")
        return EXIT_USAGE
    set_up_log(settings.log)
    try:
        asyncio.run(_run(settings))
    except (OSError, sqlite3.Error, WalletError, WitnessKeyError) as fault:
        sys.stderr.write(f"{PROGRAM}: {fault}\n")
        return EXIT_FAILED
    return EXIT_OK


async def _run(settings: Settings) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with serving(settings) as listening:
        line = {
            "event": "operator.listening",
            "url": listening.url,
            "admin_url": listening.admin_url,
            # Its place is Predictu's [[audit.witness]].
            **({"witness_vkey": listening.witness_vkey} if listening.witness_vkey else {}),
        }
        # Flushed, because a parent process may wait for this line.
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()
        await stop.wait()


def set_up_log(log_format: LogFormat) -> None:
    """Sends all log records to stderr in this format, or nowhere."""
    root = logging.getLogger()
    if log_format == "off":
        root.addHandler(logging.NullHandler())
        return
    lines = logging.StreamHandler()
    lines.setFormatter(_Formatter(log_format))
    root.addHandler(lines)
    root.setLevel(logging.INFO)


class _Formatter(logging.Formatter):
    """One line per record, without tokens, bodies or keys."""

    def __init__(self, log_format: LogFormat) -> None:
        super().__init__()
        self._log_format = log_format

    # typing.override, which mypy asks for, came with Python 3.12.
    def format(self, record: logging.LogRecord) -> str:  # type: ignore[explicit-override]
        fields = {"level": record.levelname.lower(), "event": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        fields = {key: value for key, value in fields.items() if value is not None}
        at = utc_now()
        if self._log_format == "json":
            return json.dumps({"at": at, **fields})
        return f"{at} " + " ".join(f"{key}={value}" for key, value in fields.items())
