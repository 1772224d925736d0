"""The request line and the Host header, as they leave for each form of callback_url."""

from collections.abc import Sequence

import aiohttp
import pytest

from predictu_dispatch.core.callback import Evidence
from predictu_dispatch.edge.http.resolver import look_up
from predictu_dispatch.edge.http.transport import Transport
from tests.edge.http.test_address_guard import HAS_IPV6, answering_inside
from tests.support.raw_server import OK, RawServer, answering, evidence_and_reason, post, settings_for, transport_to

TARGETS = {
    "": "/",
    "/": "/",
    "?": "/?",
    "?a=b": "/?a=b",
    "/?": "/?",
    "//": "//",
    "//callback//x/": "//callback//x/",
    "/a/../b/./c": "/a/../b/./c",
    "/%7e%7E~%2F%2f": "/%7e%7E~%2F%2f",
    "/%": "/%",
    "/a;b=c,d:e@f!$&'()*+": "/a;b=c,d:e@f!$&'()*+",
    "/x?next=https://h/y?z": "/x?next=https://h/y?z",
    '/[]{}|^`"<>': '/[]{}|^`"<>',
    "/\u00e9/\u20ac?\U0001f600=%e9": "/%C3%A9/%E2%82%AC?%F0%9F%98%80=%e9",
}


@pytest.mark.parametrize("suffix", TARGETS)
async def test_the_request_target_leaves_as_it_is_written(suffix: str) -> None:
    async with RawServer(answering(OK)).running() as server:
        host = f"127.0.0.1:{server.address[1]}"
        async with transport_to(f"http://{host}{suffix}") as transport:
            assert evidence_and_reason(await post(transport)) == (Evidence.ANSWERED, None)
    head = server.requests[0].partition(b"\r\nContent-Type")[0].decode("ascii")
    assert head == f"POST {TARGETS[suffix]} HTTP/1.1\r\nHost: {host}"


@pytest.mark.parametrize(
    ("host", "sent"),
    [
        ("wallet.example.com", "wallet.example.com"),
        ("WALLET.Example.com", "wallet.example.com"),
        ("m\u00fcnchen.example.com", "xn--mnchen-3ya.example.com"),
        ("xn--mnchen-3ya.example.com", "xn--mnchen-3ya.example.com"),
    ],
)
async def test_the_host_header_names_the_host_and_its_port(host: str, sent: str) -> None:
    asked: list[str] = []

    def here(name: str, port: int, family: int) -> Sequence[aiohttp.AddrInfoType]:
        asked.append(name)
        return look_up("127.0.0.1", port, family)

    async with RawServer(answering(OK)).running() as server:
        port = server.address[1]
        transport = Transport(settings_for(f"http://{host}:{port}/"), look_up=here)
        assert evidence_and_reason(await post(transport)) == (Evidence.ANSWERED, None)
        await transport.close()
    assert f"\r\nHost: {sent}:{port}\r\n".encode() in server.requests[0]
    assert asked == [sent]


@pytest.mark.parametrize(
    ("url", "sent"),
    [
        ("http://h.example.com:80/", "h.example.com"),
        ("https://h.example.com:443/", "h.example.com"),
        ("https://h.example.com/", "h.example.com"),
        ("https://h.example.com:80/", "h.example.com:80"),
        ("http://h.example.com:443/", "h.example.com:443"),
        ("https://[2606:4700::1]/", "[2606:4700::1]"),
        ("https://[2606:4700::1]:8443/", "[2606:4700::1]:8443"),
    ],
)
async def test_the_host_header_has_no_default_port(url: str, sent: str) -> None:
    async with transport_to(url) as transport:
        assert transport._connector.host == sent


async def test_an_ipv6_host_is_in_brackets() -> None:
    if not HAS_IPV6:
        pytest.skip("this system has no IPv6")
    async with answering_inside() as server, transport_to(f"http://[::1]:{server.address[1]}/") as transport:
        assert evidence_and_reason(await post(transport)) == (Evidence.ANSWERED, None)
    assert f"\r\nHost: [::1]:{server.address[1]}\r\n".encode() in server.requests[0]
