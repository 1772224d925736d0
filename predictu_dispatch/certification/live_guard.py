"""Whether a sandbox is a live operator: the same endpoint, or a key that signs live tokens.

A run debits and credits players, so it must never reach a live wallet. Two URLs that may name one
endpoint count as equal: the guard refuses too much rather than too little. What a name resolves to
is not compared.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import unquote, urlsplit

_PORTS: Final = {"http": 80, "https": 443}
_NAT64: Final = ipaddress.IPv6Network("64:ff9b::/96")
_DECODINGS_MAX: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Live:
    """A live operator: its URL, and the ids of its keys, which are digests of the public halves."""

    operator_id: str
    callback_url: str
    kids: frozenset[str]


class Shared(StrEnum):
    """What a sandbox shares with a live operator."""

    URL = "url"
    KEY = "key"


@dataclass(frozen=True, slots=True, kw_only=True)
class Conflict:
    """What a sandbox shares with which live operator. `kid` is "" for the URL."""

    shared: Shared
    operator_id: str
    kid: str = ""


def conflicts(url: str, kids: Sequence[str], live: Iterable[Live]) -> tuple[Conflict, ...]:
    """Return everything that the sandbox shares with a live operator; empty if it is safe."""
    found = []
    for operator in live:
        if endpoint(url) == endpoint(operator.callback_url):
            found.append(Conflict(shared=Shared.URL, operator_id=operator.operator_id))
        shared = [kid for kid in kids if kid in operator.kids]
        found += [Conflict(shared=Shared.KEY, operator_id=operator.operator_id, kid=kid) for kid in shared]
    return tuple(found)


def endpoint(url: str) -> tuple[str, int, tuple[str, ...]]:
    """Return host, port and path of a URL, equal for all URLs that may name the same endpoint.

    Scheme, query and fragment do not count, and the default ports of both schemes are one.
    """
    parts = urlsplit(url.replace("\\", "/"))
    port = parts.port if parts.port is not None else _PORTS.get(parts.scheme.lower(), 443)
    return _host(parts.hostname or ""), _PORTS["https"] if port in _PORTS.values() else port, _path(parts.path)


def _host(host: str) -> str:
    """The host in one spelling; all addresses of this host are one.

    0.0.0.0 and :: are as well: Linux connects them to the loopback interface.
    """
    name = _decoded(host).rstrip(".").casefold()
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return "loopback" if name.rpartition(".")[2] == "localhost" else name
    if isinstance(address, ipaddress.IPv6Address):
        address = _embedded(address) or address
    return "loopback" if address.is_loopback or address.is_unspecified else str(address)


def _embedded(address: ipaddress.IPv6Address) -> ipaddress.IPv4Address | None:
    """Return the IPv4 address that an IPv6 address stands for: mapped, or by NAT64 (RFC 6052)."""
    return ipaddress.IPv4Address(int(address) % 2**32) if address in _NAT64 else address.ipv4_mapped


def _path(path: str) -> tuple[str, ...]:
    """The path's segments, without what a server may ignore, and in lower case."""
    segments: list[str] = []
    for written in _decoded(path).replace("\\", "/").split("/"):
        # Some servers cut a segment's parameters off, some what follows a NUL, some blanks.
        segment = written.partition("\0")[0].partition(";")[0].strip().casefold()
        if segment == ".." and segments:
            segments.pop()
        elif segment not in ("", ".", ".."):
            segments.append(segment)
    return tuple(segments)


def _decoded(text: str) -> str:
    """Without percent-encoding, also where it was encoded several times."""
    for _ in range(_DECODINGS_MAX):
        if (plain := unquote(text)) == text:
            break
        text = plain
    return text
