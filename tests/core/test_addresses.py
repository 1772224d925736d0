"""Addresses to which nothing is sent, and hosts that an operator's file may not name."""

import ipaddress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from predictu_dispatch.core.addresses import address_fault, host_fault
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.core.settings import refusals

# The first and last address of each refused block, from the IANA registries.
REFUSED = {
    "this host": ("0.0.0.0", "0.255.255.255"),  # noqa: S104 - nothing is bound to it
    "private": ("10.0.0.0", "10.255.255.255", "172.16.0.0", "172.31.255.255", "192.168.0.0", "192.168.255.255"),
    "CGNAT": ("100.64.0.0", "100.127.255.255"),
    "loopback": ("127.0.0.0", "127.0.0.1", "127.255.255.255", "::1"),
    "link-local": ("169.254.0.0", "169.254.169.254", "169.254.255.255", "fe80::", "febf:ffff::1"),
    "reserved for protocols": ("192.0.0.0", "192.0.0.255", "2001:3::1", "2001:1ff:ffff::1"),
    "reserved for documentation": (
        *("192.0.2.0", "192.0.2.255", "198.51.100.0", "198.51.100.255", "203.0.113.0", "203.0.113.255"),
        *("2001:db8::", "2001:db8:ffff::1", "3fff::", "3fff:fff:ffff::1"),
    ),
    "AS112": ("192.31.196.0", "192.31.196.255", "192.175.48.0", "192.175.48.255", "2620:4f:8000::1"),
    "AMT": ("192.52.193.0", "192.52.193.255"),
    "6to4 relay": ("192.88.99.0", "192.88.99.255"),
    "reserved for benchmarks": ("198.18.0.0", "198.19.255.255", "2001:2::", "2001:2:0:ffff::1"),
    "multicast": ("224.0.0.0", "239.255.255.255", "ff00::", "ff02::1", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"),
    "reserved": ("240.0.0.0", "255.255.255.254"),
    "broadcast": ("255.255.255.255",),
    "unspecified": ("::",),
    "IPv4-compatible": ("::2", "::127.0.0.1", "::ffff:ffff"),
    "IPv4-mapped": ("::ffff:0:0", "::ffff:127.0.0.1", "::ffff:7f00:1", "::ffff:8.8.8.8"),
    "IPv4-translated": ("::ffff:0:7f00:1",),
    "NAT64": ("64:ff9b::", "64:ff9b::7f00:1", "64:ff9b::ffff:ffff", "64:ff9b:1::", "64:ff9b:1:ffff::1"),
    "discarded": ("100::", "100::ffff:ffff:ffff:ffff"),
    "placeholder": ("100:0:0:1::1",),
    "Teredo": ("2001::", "2001:0:ffff::1"),
    "6to4": ("2002::", "2002:7f00:1::", "2002:ffff:ffff::1"),
    "segment": ("5f00::", "5f00:ffff::1"),
    "unique local": ("fc00::", "fd00::1", "fdff:ffff::1"),
    "site-local": ("fec0::", "feff:ffff::1"),
    "outside 2000::/3": ("1::", "200::1", "1fff:ffff::1", "4000::", "5eff:ffff::1", "e000::1", "fbff:ffff::1"),
    "ISATAP": ("2a00:1450:4001::5efe:10.0.0.1", "2a00:1450:4001:0:200:5efe:7f00:1"),
    "zone": ("fe80::1%eth0", "2a00:1450:4001::1%2", "127.0.0.1%lo"),
    "not an IP address in its usual spelling": (
        *("", "localhost", "127.1", "127.0.1", "2130706433", "0x7f.0.0.1", "0x7f000001", "017700000001", "0177.0.0.1"),
        *("127.0.0.01", "127.0.0.1.", " 127.0.0.1", "127.0.0.1\n", "127.0.0.1:80", "1.2.3.4/32"),
        *("\uff11\uff12\uff17.0.0.1", "\u0661\u0662\u0667.0.0.1"),
        *("[::1]", "::1::", ":::1", "::ffff:127.1", "256.0.0.1", "-1.0.0.1", "8.8.8", "8.8.8.8.8"),
    ),
}
# Just outside a refused block, and some that are in use.
ALLOWED = [
    *("1.0.0.0", "9.255.255.255", "11.0.0.0", "100.63.255.255", "100.128.0.0", "126.255.255.255", "128.0.0.0"),
    *("169.253.255.255", "169.255.0.0", "172.15.255.255", "172.32.0.0", "191.255.255.255", "192.0.1.0", "192.0.3.0"),
    *("192.88.98.255", "192.88.100.0", "192.167.255.255", "192.169.0.0", "198.17.255.255", "198.20.0.0"),
    *("198.51.99.255", "198.51.101.0", "203.0.112.255", "203.0.114.0", "223.255.255.255", "8.8.8.8", "93.184.216.34"),
    *("2001:200::", "2001:db7:ffff::1", "2001:db9::", "2001:4860:4860::8888", "2003::1", "2606:4700::1111"),
    *("2620:4f:7fff::1", "2620:4f:8001::1", "2A00:1450:4001::1", "2a00:1450:4001:0:0:0:0:1", "3ffe:ffff::1"),
    "3fff:1000::",
]
IPV4 = st.ip_addresses(v=4)
IPV6 = st.ip_addresses(v=6)


@pytest.mark.parametrize(("reason", "address"), [(reason, one) for reason, all_ in REFUSED.items() for one in all_])
def test_an_address_of_no_public_host_is_refused_with_a_reason(reason: str, address: str) -> None:
    assert reason in (address_fault(address) or "not refused")


@pytest.mark.parametrize("address", ALLOWED)
def test_an_address_beside_a_refused_block_is_allowed(address: str) -> None:
    assert address_fault(address) is None


@given(IPV4, IPV6)
def test_no_ipv6_form_carries_an_ipv4_address_past_the_guard(
    inner: ipaddress.IPv4Address, any_: ipaddress.IPv6Address
) -> None:
    bits, prefix, suffix = int(inner), int(any_) >> 64 << 64, int(any_) & 0xFFFF_FFFF
    for form in (
        bits,
        0xFFFF << 32 | bits,
        0xFFFF << 48 | bits,
        0x64FF9B << 96 | bits,
        0x64FF9B_0001 << 80 | bits << 40 | suffix,
        0x2002 << 112 | bits << 80 | int(any_) & (1 << 80) - 1,
        0x2001_0000 << 96 | bits << 64 | suffix,
        0x2001_0000 << 96 | int(any_) & (1 << 64) - 1 << 32 | bits ^ 0xFFFF_FFFF,
        prefix | 0x5EFE << 32 | bits,
        prefix | 0x0200_5EFE << 32 | bits,
    ):
        for spelling in spellings(ipaddress.IPv6Address(form)):
            assert address_fault(spelling), spelling


@given(IPV6)
def test_every_spelling_of_an_ipv6_address_gets_the_same_answer(address: ipaddress.IPv6Address) -> None:
    assert len({address_fault(spelling) for spelling in spellings(address)}) == 1
    assert address_fault(f"{address}%1")


@given(IPV4)
def test_an_ipv4_address_is_allowed_only_as_four_decimal_numbers(address: ipaddress.IPv4Address) -> None:
    first, *_, last = address.packed
    low = int(address) & 0xFF_FFFF
    for legacy in (int(address), hex(int(address)), f"0{int(address):o}", f"{first}.{low}", f"{hex(first)}.0.0.{last}"):
        assert address_fault(str(legacy))
        assert host_fault(str(legacy))
    assert host_fault(str(address)) == address_fault(str(address))


@given(st.one_of(IPV4, IPV6))
def test_what_python_calls_private_is_refused_too(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    # Python's table changes with its releases; what it calls private is refused in any case.
    if address.is_private or address.is_reserved or address.is_multicast or address.is_link_local:
        assert address_fault(str(address))


def spellings(address: ipaddress.IPv6Address) -> set[str]:
    low = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    dotted = f"{address.exploded.rpartition(':')[0].rpartition(':')[0]}:{low}"
    return {str(address), address.exploded, address.exploded.upper(), dotted}


# In an operator's file


def refused(url: str, **keys: Any) -> dict[str, str]:
    """Return the refused keys of a file with this callback_url, with what is allowed."""
    file = {"operator_id": "op_abc123", "callback_url": url, "signing": {"key_file": "key.pem"}, **keys}
    with pytest.raises(ValidationError) as raised:
        OperatorSettings.model_validate(file)
    return {refusal.key: refusal.allowed for refusal in refusals(raised.value, OperatorSettings, file)}


@pytest.mark.parametrize(
    ("host", "why"),
    [
        ("127.0.0.1", "127.0.0.1 is loopback (RFC 1122)"),
        ("127.0.0.1:8443", "127.0.0.1 is loopback (RFC 1122)"),
        ("[::1]", "::1 is loopback (RFC 4291)"),
        ("[fe80::1%25eth0]", "fe80::1%25eth0 is an address with a zone, valid on one link only"),
        ("10.1.2.3", "10.1.2.3 is private (RFC 1918)"),
        ("localhost", "localhost is loopback (RFC 6761)"),
        ("LOCALHOST.", "localhost. is loopback (RFC 6761)"),
        ("wallet.localhost", "wallet.localhost is loopback (RFC 6761)"),
        ("\uff4cocalhost", "\uff4cocalhost is loopback (RFC 6761)"),
        ("\uff11\uff12\uff17.0.0.1", "\uff11\uff12\uff17.0.0.1 is loopback (RFC 1122)"),
        ("127\u30020\u30020\u30021", "127\u30020\u30020\u30021 is loopback (RFC 1122)"),
        ("\u2460\u2461\u2466.0.0.1", "\u2460\u2461\u2466.0.0.1 is loopback (RFC 1122)"),
        ("127.1", "127.1 is not an IP address in its usual spelling"),
        ("2130706433", "2130706433 is not an IP address in its usual spelling"),
        ("0x7F.0.0.0x1", "0x7f.0.0.0x1 is not an IP address in its usual spelling"),
        ("017700000001", "017700000001 is not an IP address in its usual spelling"),
    ],
)
def test_a_callback_url_inside_our_network_is_refused_when_the_file_is_read(host: str, why: str) -> None:
    url = f"https://{host}/predictu"
    fault = f"must be a URL of a public host, or allow_private_addresses = true ({why})"
    assert refused(url) == {"callback_url": fault}
    assert refused(url, allow_private_addresses=False, enabled="yes").keys() == {"callback_url", "enabled"}


PUBLIC = ("8.8.8.8", "[2a00:1450:4001::1]", "wallet.example.com", "localhost.example", "1.example", "0x.example")
PRIVATE = ("127.0.0.1", "[::1]", "localhost", "10.1.2.3")


@pytest.mark.parametrize("host", [*PUBLIC, *PRIVATE])
def test_public_hosts_are_accepted_and_others_if_the_file_allows_them(host: str) -> None:
    url = f"https://{host}/"
    file = {"operator_id": "op_abc123", "callback_url": url, "signing": {"key_file": "key.pem"}}
    allowed = OperatorSettings.model_validate({**file, "allow_private_addresses": host in PRIVATE})
    assert allowed.callback_url == url


def test_both_keys_that_a_url_needs_are_named_together() -> None:
    assert refused("http://127.0.0.1/") == {
        "callback_url": "must be an https:// URL, or allow_insecure_http = true; and a URL of a public host, or "
        "allow_private_addresses = true (127.0.0.1 is loopback (RFC 1122))"
    }


def test_an_invalid_key_causes_no_second_fault() -> None:
    assert refused("https://127.0.0.1/", allow_private_addresses="yes").keys() == {"allow_private_addresses"}
