"""What the command line decides, checked and typed."""

from __future__ import annotations

import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from .faults import FaultSource
from .keys import Keyring
from .money import AmountFormat
from .wallet import NewPlayer

PORT_MAX = 65535


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Where to listen; port 0 lets the system choose one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """True where only this host can reach it; a name other than localhost may mean anything."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Everything one operator runs with."""

    operator_id: str
    listen: Address
    path: str
    admin_listen: Address | None
    database: Path
    keyring: Keyring
    amount_format: AmountFormat
    faults: FaultSource
    seed_players: tuple[NewPlayer, ...]
    tls: ssl.SSLContext | None


def parse_address(text: str) -> Address:
    """`127.0.0.1:8080`, `[::1]:8080` or `localhost:0`. Raises ValueError."""
    host, colon, port = text.rpartition(":")
    if not colon or not host or not (port.isascii() and port.isdigit()) or int(port) > PORT_MAX:
        raise ValueError(f'"{text}" is not of the form host:port with a port between 0 and {PORT_MAX}')
    return Address(host=host.removeprefix("[").removesuffix("]"), port=int(port))
