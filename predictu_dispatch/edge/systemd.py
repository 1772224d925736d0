"""Notifies the service manager of the daemon's state, by the protocol of sd_notify(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

from predictu_dispatch.core.printable import printable

_SECOND_US: Final = 1_000_000


class ServiceManager:
    """systemd, or another manager that set NOTIFY_SOCKET; without that variable nothing is sent."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        # @ stands for the leading zero byte of an abstract socket. Source: sd_notify(3).
        self._address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        self._status = ""
        self.listens = bool(self._address)
        self.watchdog_s = _watchdog_s(environ) if self.listens else None
        """The manager kills the process if WATCHDOG=1 is late by this; None: no watchdog."""

    def ready(self) -> None:
        self._notify("READY=1")

    def alive(self) -> None:
        self._notify("WATCHDOG=1")

    def status(self, text: str) -> None:
        if text != self._status:
            self._status = text
            # A newline would begin another assignment.
            self._notify(f"STATUS={printable(text)}")

    def stopping(self, *, within_s: float) -> None:
        """Announces the stop, which may take `within_s` even if TimeoutStopSec is shorter."""
        self._notify(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round(within_s * _SECOND_US)}")

    def _notify(self, state: str) -> None:
        if not self.listens:
            return
        # A failed notification must not delay callbacks; the manager's own timeouts still apply.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state.encode(), socket.MSG_DONTWAIT, self._address)


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """Returns the watchdog interval if it applies to this process: sd_watchdog_enabled(3)."""
    interval, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", str(os.getpid()))
    if not interval.isdecimal() or int(interval) == 0 or pid != str(os.getpid()):
        return None
    return int(interval) / _SECOND_US
