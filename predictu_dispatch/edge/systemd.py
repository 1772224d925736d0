"""The service manager: it is told how the daemon is, in the datagrams of sd_notify(3)."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

_SECOND_US: Final = 1_000_000


class ServiceManager:
    """systemd, or whoever else set NOTIFY_SOCKET; without one nothing is told."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        # A socket in the abstract namespace is written with @ for its leading zero byte. Source: sd_notify(3).
        self._address = environ.get("NOTIFY_SOCKET", "").replace("@", "\0", 1)
        self._said = ""
        self.listens = bool(self._address)
        self.watchdog_s = _watchdog_s(environ) if self.listens else None
        """The manager kills a process that said WATCHDOG=1 and then nothing for so long; None where it does not."""

    def ready(self) -> None:
        self._tell("READY=1")

    def alive(self) -> None:
        self._tell("WATCHDOG=1")

    def status(self, words: str) -> None:
        """`systemctl status` shows these words."""
        if words != self._said:
            self._said = words
            self._tell(f"STATUS={words}")

    def stopping(self, *, within_s: float) -> None:
        """The end has begun and may take so long, whatever TimeoutStopSec says; where that is longer, it holds."""
        self._tell(f"STOPPING=1\nEXTEND_TIMEOUT_USEC={round(within_s * _SECOND_US)}")

    def _tell(self, state: str) -> None:
        if not self.listens:
            return
        # A manager that cannot be told must not hold up callbacks; it acts by itself when it hears nothing.
        with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(state.encode(), socket.MSG_DONTWAIT, self._address)


def _watchdog_s(environ: Mapping[str, str]) -> float | None:
    """Source: sd_watchdog_enabled(3): the variable counts only for the process whose id stands beside it."""
    interval, pid = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", str(os.getpid()))
    if not interval.isdecimal() or int(interval) == 0 or pid != str(os.getpid()):
        return None
    return int(interval) / _SECOND_US
