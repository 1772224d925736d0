"""Where an operator's callbacks must not go: addresses that are no public host's, and hosts that can only mean such.

A callback_url that leads back into our own network would let whoever names it speak to our machines in our name (server
side request forgery). So every block of the IANA special-purpose registries is refused, also those few that may be
routed, because no operator's host has an address there; and of IPv6 all that was never given out, 2000::/3 aside. The
table is our own: `ipaddress.is_global` answers differently from one Python release to the next.

What cannot be seen in an address stays unseen: a NAT64 prefix that some network chose for itself out of its own public
range. Sources: IANA IPv4, IPv6 Special-Purpose Address Registry; IPv4, IPv6 Address Space; RFC 6890 and its updates.
"""

from __future__ import annotations

import ipaddress
import re
import unicodedata
from typing import Final

# The first network of a list that holds an address names it, so the narrower ones stand first.
_IPV4: Final = tuple(
    (ipaddress.IPv4Network(network), words)
    for network, words in (
        ("0.0.0.0/8", "this host on this network (RFC 791)"),
        ("10.0.0.0/8", "private (RFC 1918)"),
        ("100.64.0.0/10", "shared by a carrier's customers (CGNAT, RFC 6598)"),
        ("127.0.0.0/8", "loopback (RFC 1122)"),
        ("169.254.0.0/16", "link-local (RFC 3927)"),
        ("172.16.0.0/12", "private (RFC 1918)"),
        ("192.0.0.0/24", "for protocols, not for hosts (RFC 6890)"),
        ("192.0.2.0/24", "for documentation (RFC 5737)"),
        ("192.31.196.0/24", "an anycast sink for private names (AS112, RFC 7535)"),
        ("192.52.193.0/24", "a multicast relay (AMT, RFC 7450)"),
        ("192.88.99.0/24", "a 6to4 relay (RFC 7526)"),
        ("192.168.0.0/16", "private (RFC 1918)"),
        ("192.175.48.0/24", "an anycast sink for private names (AS112, RFC 7534)"),
        ("198.18.0.0/15", "for benchmarks (RFC 2544)"),
        ("198.51.100.0/24", "for documentation (RFC 5737)"),
        ("203.0.113.0/24", "for documentation (RFC 5737)"),
        ("224.0.0.0/4", "multicast (RFC 5771)"),
        ("255.255.255.255/32", "broadcast (RFC 919)"),
        ("240.0.0.0/4", "reserved (RFC 1112)"),
    )
)
_IPV6: Final = tuple(
    (ipaddress.IPv6Network(network), words)
    for network, words in (
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
        ("2001:2::/48", "for benchmarks (RFC 5180)"),
        ("2001::/23", "for protocols, not for hosts (RFC 2928)"),
        ("2001:db8::/32", "for documentation (RFC 3849)"),
        ("2002::/16", "an IPv4 address inside an IPv6 one (6to4, RFC 3056)"),
        ("2620:4f:8000::/48", "an anycast sink for private names (AS112, RFC 7534)"),
        ("3fff::/20", "for documentation (RFC 9637)"),
        ("5f00::/16", "a segment routing identifier (RFC 9602)"),
        ("fc00::/7", "private (unique local, RFC 4193)"),
        ("fe80::/10", "link-local (RFC 4291)"),
        ("fec0::/10", "private (site-local, RFC 3879)"),
        ("ff00::/8", "multicast (RFC 4291)"),
    )
)
_IPV6_GIVEN_OUT: Final = ipaddress.IPv6Network("2000::/3")
"""The only part of IPv6 from which hosts get their addresses. Source: RFC 4291 section 2.4."""
_ISATAP_MARKS: Final = frozenset({0x0000_5EFE, 0x0200_5EFE})
"""The 32 bits before an IPv4 address that is tunnelled inside any IPv6 prefix. Source: RFC 5214
section 6.1."""
_NUMBER: Final = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
"""A host whose last label is such a number is an IPv4 address. Source: WHATWG URL, "ends in a
number"."""


def address_fault(address: str) -> str | None:
    """Why this address must not be connected to, in words that follow "is"; None if it may be.

    `address` is the text of one IPv4 or IPv6 address. Anything else is refused as well, other
    spellings of an address above all: whoever connects might read them in a way of its own.
    """
    if "%" in address:
        return "an address of one link only (it has a zone)"
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return "no IP address in its usual spelling"
    if isinstance(parsed, ipaddress.IPv4Address):
        return next((words for network, words in _IPV4 if parsed in network), None)
    if named := next((words for network, words in _IPV6 if parsed in network), None):
        return named
    if parsed not in _IPV6_GIVEN_OUT:
        return "outside 2000::/3, so no host's (RFC 4291)"
    if int(parsed) >> 32 & 0xFFFF_FFFF in _ISATAP_MARKS:
        return "an IPv4 address inside an IPv6 one (ISATAP, RFC 5214)"
    return None


def host_fault(host: str) -> str | None:
    """Why a URL's host must not be called whatever it resolves to.

    None for names, which a resolver has to answer.

    `host` is as in the URL, without brackets. Letters and digits of other widths are read as a
    client does (RFC 3490, UTS 46).
    """
    read = unicodedata.normalize("NFKC", host).replace("\N{IDEOGRAPHIC FULL STOP}", ".").casefold()
    if ":" in read:
        return address_fault(read)
    name = read.rstrip(".")
    last = name.rpartition(".")[2]
    if last == "localhost":
        return "loopback (RFC 6761)"
    if _NUMBER.fullmatch(last):
        return address_fault(read)
    return None
