"""Maps the exception that kept a connection from opening to the reason code in the audit."""

from __future__ import annotations

import errno
import ssl
from typing import Final

import aiohttp

from predictu_dispatch.edge.http.resolver import AddressRefusedError

CLOSED_BEFORE_REQUEST: Final = "the operator closed the connection before the request"


class UnsolicitedDataError(Exception):
    """The operator sent bytes before the request; they could be read as its answer."""


def unwrapped(error: Exception) -> Exception:
    """Returns the error that aiohttp wraps if that one tells the cause, else `error`."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
    if isinstance(cause, AddressRefusedError):
        return cause
    # The event loop raises it, without an errno, if the connection ends during the handshake.
    if isinstance(cause, ConnectionResetError) and cause.errno is None:
        message = "the operator closed the connection during the TLS handshake; it may require a client certificate"
        return ssl.SSLError(errno.ECONNRESET, message)
    return error


def reason_not_sent(error: Exception) -> str:
    """Returns the reason if no byte of the request was sent."""
    match error:
        case UnsolicitedDataError():
            return "unsolicited_data"
        # InvalidUrlClientError: aiohttp refuses 127.1, 2130706433 and other spellings of 127.0.0.1.
        case AddressRefusedError() | aiohttp.InvalidUrlClientError():
            return "address_refused"
        # Before dns_failed: without a free descriptor, the name server was never asked.
        case aiohttp.ClientConnectorError() if error.os_error.errno in (errno.EMFILE, errno.ENFILE):
            return "no_socket"
        case aiohttp.ClientConnectorDNSError():
            return "dns_failed"
        case aiohttp.ClientSSLError() | ssl.SSLError():
            return "tls_failed"
        case TimeoutError():
            return "connect_timeout"
        case aiohttp.ClientConnectorError() if isinstance(error.os_error, ConnectionRefusedError):
            return "connect_refused"
        case aiohttp.ClientError() | OSError():
            return "connect_failed"
        case _:
            return "internal_error"
