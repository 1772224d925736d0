"""The request line and the Host header, as they leave for each form of callback_url."""

import asyncio
import re
import ssl
from collections.abc import Sequence
from urllib.parse import urlsplit

import aiohttp
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from predictu_dispatch.core.callback import Evidence
from predictu_dispatch.edge.http.resolver import look_up
from predictu_dispatch.edge.http.transport import Transport
from tests.edge.http.test_address_guard import HAS_IPV6, answering_inside
from tests.support.environment import Environment
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
    "/%7Etenant?sig=a%2Bb/c%3D": "/%7Etenant?sig=a%2Bb/c%3D",
    "?a+b;c": "/?a+b;c",
    "/../..//./": "/../..//./",
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
        ("WALLET.Example.com", "WALLET.Example.com"),
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
    assert asked == [sent.lower()]


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
        ("https://[2606:4700:0:0::1]:443/", "[2606:4700:0:0::1]"),
    ],
)
async def test_the_host_header_has_no_default_port(url: str, sent: str) -> None:
    async with transport_to(url) as transport:
        assert transport._request_line.endswith(f"\r\nHost: {sent}\r\n")


async def test_an_ipv6_host_is_in_brackets() -> None:
    if not HAS_IPV6:
        pytest.skip("this system has no IPv6")
    async with answering_inside() as server, transport_to(f"http://[::1]:{server.address[1]}/") as transport:
        assert evidence_and_reason(await post(transport)) == (Evidence.ANSWERED, None)
    assert f"\r\nHost: [::1]:{server.address[1]}\r\n".encode() in server.requests[0]


_CHARACTERS = st.characters(min_codepoint=0x1F, max_codepoint=0x17F)
_HOSTS = st.sampled_from(["h.example", "H_1.Example", "xn--mnchen-3ya.de", "xn--a", "127.0.0.1"]) | (
    st.text(st.sampled_from("aZ09-_."), max_size=8)
    | st.text(_CHARACTERS, max_size=5)
    | st.sampled_from(["[::1]", "[::ffff:1.2.3.4]", "1.2", "u:p@h", "h.", "m\u00fcnchen.de"])
)
_PIECES = [
    *("/", "//", ".", "..", "?", "&", "=", "+", ";", "~", ":", "@", "!", "*", "%", "%2F", "%2f", "%7E", "%7e", "%20"),
    *("%00", "%C3%A9", "%zz", "'", '"', "<", "[", "]", "{", "|", "}", "^", "`", "#", "\\", "\u00e9", "a", "B"),
]
_URLS = st.builds(
    "{}://{}{}{}{}".format,
    st.sampled_from(["http", "https", "HTTP", "ftp"]),
    _HOSTS,
    st.sampled_from([":PORT", "", ":80", ":443"]) | st.sampled_from([":PORT", ":", ":0", ":080"]),
    st.sampled_from("/?"),
    st.lists(st.sampled_from(_PIECES), max_size=8).map("".join) | st.text(_CHARACTERS, max_size=8),
)


@given(url=_URLS)
@settings(max_examples=500)
def test_every_accepted_url_leaves_as_it_is_written(url: str) -> None:
    """Any URL is refused, or the request has its text, which is therefore true in the audit."""
    asyncio.run(is_refused_or_leaves_as_written(url))


async def is_refused_or_leaves_as_written(url: str) -> None:
    """PORT in the URL is that of a server to which every name leads."""
    async with RawServer(answering(OK)).running() as server:
        port = server.address[1]
        written = re.fullmatch(r"([a-zA-Z]+)://([^/?]*)(.*)", url.replace("PORT", str(port)))
        assert written is not None
        try:
            accepted = settings_for(written[0])
        except ValidationError:
            return
        scheme, authority, target = written[1].lower(), written[2], written[3]
        host = authority.removesuffix({"http": ":80", "https": ":443"}[scheme])
        line = f"POST {'' if target.startswith('/') else '/'}{target} HTTP/1.1\r\nHost: {host}\r\n"

        def here(_name: str, port: int, family: int) -> Sequence[aiohttp.AddrInfoType]:
            return look_up("127.0.0.1", port, family)

        transport = Transport(accepted, look_up=here)
        try:
            assert transport._request_line == line
            if scheme == "https":
                name = urlsplit(accepted.callback_url).hostname
                ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), ssl.MemoryBIO(), server_hostname=name)
            elif "PORT" in url and "[" not in authority:
                assert evidence_and_reason(await post(transport)) == (Evidence.ANSWERED, None)
                assert server.requests[0].startswith(line.encode("ascii"))
        finally:
            await transport.close()


async def test_the_audit_has_the_url_that_the_operator_received(environment: Environment) -> None:
    async with RawServer(answering(OK)).running() as server:
        authority = f"127.0.0.1:{server.address[1]}"
        target = "/%7Etenant//../x?sig=a%2Bb/c%3D&d=a+b;c"
        environment.fleet.write_operator(f"http://{authority}{target}")
        daemon = await environment.fleet.start("host-1")
        await environment.harness.place()
        request = await server.arrivals.get()
        await environment.until_all_final()
        daemon.kill()
    url = await environment.harness.owner.fetchval("select url from predictu_dispatch.attempt")
    line, host = request.decode().split("\r\n")[:2]
    assert url == f"http://{host.removeprefix('Host: ')}{line.removeprefix('POST ').removesuffix(' HTTP/1.1')}"
    assert url == f"http://{authority}{target}"
