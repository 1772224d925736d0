"""An operator's outages, each as a server on a real socket that fails in that way only."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

import trustme

from tests.support.raw_server import Peer, RawServer, Script


def _http(status: str, body: str, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body.encode())}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


PAGE = "<html><head><title>Welcome to nginx!</title></head>\n<body>x</body></html>"
ANSWERS: Mapping[str, bytes] = {
    "404": _http("404 Not Found", '{"message":"no route"}'),
    "html": _http("200 OK", PAGE, "Content-Type: text/html"),
    "redirect": _http("301 Moved Permanently", "", "Location: https://wallet.example.com/v2/predictu"),
    "401": _http("401 Unauthorized", '{"error":"unknown key"}'),
    "wrong_status": _http("200 OK", '{"status":"PLAYER_FROZEN"}'),
    "503": _http("503 Service Unavailable", '{"error":"maintenance"}'),
}
"""What the operator answers in each outage in which it answers."""


def always(answer: bytes) -> Script:
    """Answers every request with the same bytes."""

    async def script(peer: Peer) -> None:
        while True:
            await peer.request()
            await peer.send(answer)

    return script


async def _silence(peer: Peer) -> None:
    await peer.request()
    await asyncio.Event().wait()


@asynccontextmanager
async def outages() -> AsyncIterator[Mapping[str, str]]:
    """The callback_url of each outage by its name."""
    async with AsyncExitStack() as stack:
        urls = {}
        for name, script in {**{name: always(answer) for name, answer in ANSWERS.items()}, "timeout": _silence}.items():
            server = await stack.enter_async_context(RawServer(script).running())
            urls[name] = server.url
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        trustme.CA().issue_cert("127.0.0.1").configure_cert(tls)
        # Signed by an authority that nobody trusts.
        server = await stack.enter_async_context(RawServer(always(ANSWERS["503"])).running(tls))
        urls["bad_certificate"] = server.url.replace("http:", "https:")
        with socket.socket() as unused, socket.create_server(("127.0.0.1", 0), backlog=0) as full:
            unused.bind(("127.0.0.1", 0))
            urls["refused"] = f"http://127.0.0.1:{unused.getsockname()[1]}/predictu"
            # Nobody accepts, so after the first connection the kernel drops every request for one.
            with socket.create_connection(full.getsockname()):
                urls["black_hole"] = f"http://127.0.0.1:{full.getsockname()[1]}/predictu"
                yield urls
