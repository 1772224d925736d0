"""Addresses and hosts that a callback must not be sent to.

A callback_url inside our own network would let an operator send requests to our machines in our
name (server-side request forgery). So every block of the IANA special-purpose registries is
refused, also the few that may be routed, and of IPv6 everything outside 2000::/3. The table is
ours, because the answers of `ipaddress.is_global` differ between Python releases. A NAT64 prefix
that a network chose from its own public range cannot be recognized. Sources: IANA IPv4 and IPv6
Special-Purpose Address Registries; RFC 6890.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from typing import Final

# The first match names the address, so narrower networks come first.
_IPV4: Final = tuple(
    (ipaddress.IPv4Network(network), reason)
    for network, reason in (
        ("0.0.0.0/8", "this host on this network (RFC 791)"),
        ("10.0.0.0/8", "private (RFC 1918)"),
        ("100.64.0.0/10", "shared by a carrier's customers (CGNAT, RFC 6598)"),
        ("127.0.0.0/8", "loopback (RFC 1122)"),
        ("169.254.0.0/16", "link-local (RFC 3927)"),
        ("172.16.0.0/12", "private (RFC 1918)"),
        ("192.0.0.0/24", "reserved for protocols (RFC 6890)"),
        ("192.0.2.0/24", "reserved for documentation (RFC 5737)"),
        ("192.31.196.0/24", "an anycast sink for private names (AS112, RFC 7535)"),
        ("192.52.193.0/24", "a multicast relay (AMT, RFC 7450)"),
        ("192.88.99.0/24", "a 6to4 relay (RFC 7526)"),
        ("192.168.0.0/16", "private (RFC 1918)"),
        ("192.175.48.0/24", "an anycast sink for private names (AS112, RFC 7534)"),
        ("198.18.0.0/15", "reserved for benchmarks (RFC 2544)"),
        ("198.51.100.0/24", "reserved for documentation (RFC 5737)"),
        ("203.0.113.0/24", "reserved for documentation (RFC 5737)"),
        ("224.0.0.0/4", "multicast (RFC 5771)"),
        ("255.255.255.255/32", "broadcast (RFC 919)"),
        ("240.0.0.0/4", "reserved (RFC 1112)"),
    )
)
_IPV6: Final = tuple(
    (ipaddress.IPv6Network(network), reason)
    for network, reason in (
        ("::/128", "unspecified (RFC 4291)"),
        ("::1/128", "loopback (RFC 4291)"),
        ("::/96", "an IPv4 address inside an IPv6 one (IPv4-compatible, RFC 4291)"),
        ("::ffff:0:0/96", "an IPv4 address inside an IPv6 one (IPv4-mapped, RFC 4291)"),
        ("::ffff:0:0:0/96", "an IPv4 address inside an IPv6 one (IPv4-translated, RFC 2765)"),
        ("64:ff9b::/96", "an IPv4 address inside an IPv6 one (NAT64, RFC 6052)"),
        ("64:ff9b:1::/48", "an IPv4 address inside an IPv6 one (local NAT64, RFC 8215)"),
        ("100::/64", "discarded (RFC 6666)"),
        ("100:0:0:1::/64", "a placeholder (RFC 9780)"),
        ("2001::/32", "an IPv4 address inside an IPv6 one (Teredo, RFC 4380)"),
        ("2001:2::/48", "reserved for benchmarks (RFC 5180)"),
        ("2001::/23", "reserved for protocols (RFC 2928)"),
        ("2001:db8::/32", "reserved for documentation (RFC 3849)"),
        ("2002::/16", "an IPv4 address inside an IPv6 one (6to4, RFC 3056)"),
        ("2620:4f:8000::/48", "an anycast sink for private names (AS112, RFC 7534)"),
        ("3fff::/20", "reserved for documentation (RFC 9637)"),
        ("5f00::/16", "a segment routing identifier (RFC 9602)"),
        ("fc00::/7", "private (unique local, RFC 4193)"),
        ("fe80::/10", "link-local (RFC 4291)"),
        ("fec0::/10", "private (site-local, RFC 3879)"),
        ("ff00::/8", "multicast (RFC 4291)"),
    )
)
_IPV6_ALLOCATED: Final = ipaddress.IPv6Network("2000::/3")
"""The only part of IPv6 that is assigned to hosts (RFC 4291 section 2.4)."""
_ISATAP_MARKS: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""The 32 bits before a tunnelled IPv4 address in any IPv6 prefix (RFC 5214 section 6.1)."""
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
"""A host whose last label is such a number is an IPv4 address (WHATWG URL, "ends in a number")."""


def address_fault(address: str) -> str | None:
    """Return why this address must not be connected to, as text after "is"; None if it may be.

    Only the usual spelling is accepted, because programs read others differently.
    """
    if "%" in address:
        return "an address with a zone, valid on one link only"
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "not an IP address in its usual spelling"
    if isinstance(parsed, ipaddress.IPv4Address):
        return next((reason for network, reason in _IPV4 if parsed in network), None)
    if named := next((reason for network, reason in _IPV6 if parsed in network), None):
        return named
    if parsed not in _IPV6_ALLOCATED:
        return "outside 2000::/3, so not assigned to hosts (RFC 4291)"
    if int(parsed) >> 32 & 0xFFFF_FFFF in _ISATAP_MARKS:
        return "an IPv4 address inside an IPv6 one (ISATAP, RFC 5214)"
    return None


def host_fault(host: str) -> str | None:
    """Return why a URL's host must not be called; None for names, which a resolver must answer.

    `host` has no brackets. Full-width characters are read as clients do (RFC 3490, UTS 46).
    """
    normalized = unicodedata.normalize("NFKC", host).replace("\N{IDEOGRAPHIC FULL STOP}", ".").casefold()
    if ":" in normalized:
        return address_fault(normalized)
    if normalized.rstrip(".").rpartition(".")[2] == "localhost":
        return "loopback (RFC 6761)"
    return address_fault(normalized) if ends_in_number(normalized) else None


def ends_in_number(host: str) -> bool:
    """Return whether programs read this host as an IPv4 address."""
    return _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]) is not None
