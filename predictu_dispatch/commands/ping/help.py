"""What helps after a PING that failed."""

from __future__ import annotations

from typing import Final
from urllib.parse import urlsplit

from predictu_dispatch.commands.advice import after_failure

_CONNECTING: Final = ("connect_refused", "connect_timeout", "connect_failed", "reset", "truncated", "timeout")
_FILE: Final = "operators/{operator_id}.toml"
_HTTPS_PORT: Final = 443
_PING: Final = "predictu-dispatch ping"


def help_after(reason: str | None, status: int | None, *, operator_id: str, url: str, request_id: object) -> str:
    """The next step after a PING that failed for this reason."""
    address = urlsplit(url)
    host = address.hostname or ""
    if reason in _CONNECTING:
        return f"from the daemon's host: curl --verbose --max-time 10 {url}"
    if reason == "dns_failed":
        return f"from the daemon's host: getent hosts {host}; compare it with callback_url in {_file(operator_id)}"
    if reason == "tls_failed":
        port = address.port or _HTTPS_PORT
        return f"to see the certificate: openssl s_client -brief -connect {host}:{port} </dev/null"
    text = after_failure(reason, status).format(operator_id=operator_id)
    # The PING has just been sent.
    return text if _PING not in text else f"for the whole exchange: predictu-dispatch show {request_id}"


def _file(operator_id: str) -> str:
    return _FILE.format(operator_id=operator_id)
