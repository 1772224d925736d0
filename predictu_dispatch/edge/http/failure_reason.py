"""What broke an exchange off, as the short reason that stands in the audit: before anything was sent, and after."""

from __future__ import annotations

import errno
import ssl

import aiohttp

from predictu_dispatch.edge.http.resolver import AddressRefusedError


class TooLateError(Exception):
    """A connection is there, but the deadline or the lease does not allow the request to leave any more."""


class UnsolicitedDataError(Exception):
    """The connection holds bytes that the operator sent unasked; they would be taken for the answer to this request."""


def unwrapped(error: Exception) -> Exception:
    """What aiohttp wraps, where that alone says what has happened; `error` itself otherwise."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else None
    if isinstance(cause, AddressRefusedError):
        return cause
    # The system's own errors have a number; without one, the loop met the connection's end in the handshake.
    if isinstance(cause, ConnectionResetError) and cause.errno is None:
        words = "the operator's side ended the TLS handshake without saying why; does it demand a client certificate?"
        return ssl.SSLError(errno.ECONNRESET, words)
    return error


def reason_not_sent(error: Exception) -> str:
    """Of an exchange that broke off before the first byte of its request was written."""
    match error:
        case TooLateError():
            return "too_late"
        case UnsolicitedDataError():
            return "unsolicited_data"
        # The second is aiohttp's own, for 127.1, 2130706433 and other spellings that a system may read as 127.0.0.1.
        case AddressRefusedError() | aiohttp.InvalidUrlClientError():
            return "address_refused"
        # Before a failed look-up, which is the name server's doing only where it could be asked.
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


def reason_sent(error: Exception) -> str:
    """Of one that broke off when the operator may have got something."""
    match error:
        case TimeoutError():
            return "timeout"
        # In TLS 1.3 our handshake is done, and the request sent, before a server can refuse our certificate.
        case aiohttp.ClientOSError() if isinstance(error.__cause__, ssl.SSLError):
            return "tls_failed"
        case aiohttp.ClientPayloadError():
            return "truncated"
        case aiohttp.ServerDisconnectedError() | aiohttp.ClientOSError() | OSError():
            return "reset"
        case aiohttp.ClientError():
            return "bad_http"
        case _:
            return "internal_error"
