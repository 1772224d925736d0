"""An operator that closes right before the request: nothing was sent, and the audit says so.

The operator's end reaches the kernel in the same turn of the loop in which the request would be
written, so the loop has not seen it.
"""

import asyncio
import contextlib
import socket
import ssl
import struct
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from predictu_dispatch.core.callback import Evidence
from predictu_dispatch.edge.http.transport import Transport
from tests.edge.http.test_tls import ca_file, server_tls
from tests.support.raw_server import OK, TIMEOUT_S, evidence_and_reason, post, transport_to

ANSWERED = (Evidence.ANSWERED, None)
CLOSED = (Evidence.NOT_SENT, "connect_failed")


def plain(peer: socket.socket) -> socket.socket:
    return socket.socket(fileno=peer.detach())


def end(peer: socket.socket) -> None:
    """A FIN, without the end of TLS."""
    tcp = plain(peer)
    tcp.shutdown(socket.SHUT_WR)
    _KEPT.append(tcp)


def close(peer: socket.socket) -> None:
    plain(peer).close()


def reset(peer: socket.socket) -> None:
    tcp = plain(peer)
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    tcp.close()


def close_notify(peer: socket.socket) -> None:
    """The end of TLS, without a FIN."""
    assert isinstance(peer, ssl.SSLSocket)
    peer.setblocking(False)  # noqa: FBT003 - the system's own signature
    with contextlib.suppress(ssl.SSLWantReadError):
        peer.unwrap()
    _KEPT.append(peer)


def close_notify_and_close(peer: socket.socket) -> None:
    close_notify(peer)
    close(_KEPT.pop())


Closing = Callable[[socket.socket], None]
CLOSINGS: list[tuple[str, Closing]] = [
    *(("http", closing) for closing in (end, close, reset)),
    *(("https", closing) for closing in (end, close, reset, close_notify, close_notify_and_close)),
]
_KEPT: list[socket.socket] = []
"""Sockets that stay open until the test ends."""


class Operator:
    """A listening socket whose connections the test drives itself, in threads or in one call."""

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self._threads = ThreadPoolExecutor()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(TIMEOUT_S)

    def stop(self) -> None:
        self._threads.shutdown()
        self.listener.close()
        while _KEPT:
            _KEPT.pop().close()

    def accept(self) -> Future[socket.socket]:
        """The next connection, once its handshake is complete."""
        return self._threads.submit(self._accept)

    def answer(self) -> Future[socket.socket]:
        """The next connection, once it has had one request and its answer."""
        return self._threads.submit(self._answer)

    def _accept(self) -> socket.socket:
        peer, _ = self.listener.accept()
        peer.settimeout(TIMEOUT_S)
        # The end of TLS must not wait in the kernel.
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return self._tls.wrap_socket(peer, server_side=True) if self._tls else peer

    def _answer(self) -> socket.socket:
        peer = self._accept()
        received = b""
        while not received.endswith(b"}}"):
            part = peer.recv(65_536)
            assert part, "the connection ended before the request"
            received += part
        peer.sendall(OK)
        return peer


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@asynccontextmanager
async def operator_of(scheme: str, authority: trustme.CA, folder: Path) -> AsyncIterator[tuple[Operator, Transport]]:
    operator = Operator(server_tls(authority) if scheme == "https" else None)
    url = f"{scheme}://127.0.0.1:{operator.listener.getsockname()[1]}/"
    tls = {"ca_file": ca_file(authority, folder)} if scheme == "https" else {}
    try:
        async with transport_to(url, tls=tls) as transport:
            yield operator, transport
    finally:
        operator.stop()


@pytest.mark.parametrize("turns", range(4))
@pytest.mark.parametrize(("scheme", "closing"), CLOSINGS)
async def test_a_new_connection_that_is_closed_before_the_request_is_not_sent(
    authority: trustme.CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, scheme: str, closing: Closing, turns: int
) -> None:
    """With turns of the loop between, in which aiohttp's protocol or TLS sees the end, not ours."""
    async with operator_of(scheme, authority, tmp_path) as (operator, transport):
        with monkeypatch.context() as patched:
            connector = transport._connector._connector
            connect = connector.connect

            async def connect_and_be_closed(*arguments: Any) -> object:
                peer = operator.accept()
                connection = await connect(*arguments)
                closing(await asyncio.wrap_future(peer))
                for _ in range(turns):
                    await asyncio.sleep(0)
                return connection

            patched.setattr(connector, "connect", connect_and_be_closed)
            assert evidence_and_reason(await post(transport)) == CLOSED
        assert transport._connector._connector._acquired == set()
        answered = operator.answer()
        assert evidence_and_reason(await post(transport)) == ANSWERED
        answered.result(TIMEOUT_S).close()


@pytest.mark.parametrize(("scheme", "closing"), CLOSINGS)
async def test_an_idle_connection_that_is_closed_before_the_request_is_replaced_in_the_same_attempt(
    authority: trustme.CA, tmp_path: Path, scheme: str, closing: Closing
) -> None:
    async with operator_of(scheme, authority, tmp_path) as (operator, transport):
        first = operator.answer()
        assert evidence_and_reason(await post(transport)) == ANSWERED
        second = operator.answer()
        closing(first.result(TIMEOUT_S))
        assert evidence_and_reason(await post(transport)) == ANSWERED
        second.result(TIMEOUT_S).close()
