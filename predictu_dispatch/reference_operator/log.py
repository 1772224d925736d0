"""The log on stderr: one line per callback, as JSON or for reading. Never a token, a body or a key."""

from __future__ import annotations

import json
import logging
from typing import Literal

LogFormat = Literal["json", "plain", "off"]


class _Formatter(logging.Formatter):
    def __init__(self, log_format: LogFormat) -> None:
        super().__init__()
        self._log_format = log_format

    # typing.override, which mypy asks for, came with Python 3.12.
    def format(self, record: logging.LogRecord) -> str:  # type: ignore[explicit-override]
        """One line; a traceback, where there is one, is part of it in JSON and follows it in plain."""
        fields = {"level": record.levelname.lower(), "event": record.getMessage(), **getattr(record, "fields", {})}
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        fields = {key: value for key, value in fields.items() if value is not None}
        if self._log_format == "json":
            return json.dumps({"at": self.formatTime(record), **fields})
        return f"{self.formatTime(record)} " + " ".join(f"{key}={value}" for key, value in fields.items())


def set_up_log(log_format: LogFormat) -> None:
    """From here on everything that is logged goes to stderr in this format, or nowhere."""
    root = logging.getLogger()
    if log_format == "off":
        root.addHandler(logging.NullHandler())
        return
    lines = logging.StreamHandler()
    lines.setFormatter(_Formatter(log_format))
    root.addHandler(lines)
    root.setLevel(logging.INFO)
