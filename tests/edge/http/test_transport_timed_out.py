"""The kernel delivers no request after its attempt has ended."""

from __future__ import annotations

import asyncio
import socket
import time

from predictu_dispatch.core.callback import Evidence
from predictu_dispatch.core.operator_settings import OperatorSettings
from predictu_dispatch.edge.http.transport import Transport

BODY_BYTES = 4_000_000
"""Larger than the loopback's buffers, so that a part stays in our kernel and a part in asyncio."""
PATIENCE_S = 20.0


async def test_a_request_that_timed_out_never_arrives_completely() -> None:
    """An operator that resumes reading gets a truncated request, not a debit after its rollback."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    settings = OperatorSettings.model_validate(
        {
            "operator_id": "op_abc123",
            "callback_url": f"http://127.0.0.1:{listener.getsockname()[1]}/",
            "allow_insecure_http": True,
            "allow_private_addresses": True,
            "signing": {"key_file": "op_abc123.pem"},
        }
    )
    transport = Transport(settings)
    try:
        exchange = await transport.post(
            headers={},
            body=b"x" * BODY_BYTES,
            timeout_s=0.5,
            connect_timeout_s=0.5,
            send_before_s=time.monotonic() + PATIENCE_S,
        )
        assert (exchange.evidence, exchange.reason) == (Evidence.UNANSWERED, "timeout")
        arrived, ended_by = await asyncio.to_thread(read_all, listener)
    finally:
        await transport.close()
        listener.close()
    assert arrived < BODY_BYTES
    assert ended_by is ConnectionResetError


def read_all(listener: socket.socket) -> tuple[int, type[BaseException] | None]:
    """How many bytes the operator can still read, and how the connection ends."""
    connection, _ = listener.accept()
    connection.settimeout(PATIENCE_S)
    arrived = 0
    with connection:
        try:
            while chunk := connection.recv(65_536):
                arrived += len(chunk)
        except ConnectionResetError:
            return arrived, ConnectionResetError
    return arrived, None
