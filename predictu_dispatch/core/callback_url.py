"""An operator's callback_url: which ones are accepted, and what of it a request has.

The audit stores the URL of the file, so the request must have exactly that URL. A URL that a client
would have to change (letters beyond ASCII, a zone, 127.1) is refused.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from predictu_dispatch.core.addresses import ends_in_number, host_fault

_AUTHORITY: Final = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._-]+))(?::[1-9][0-9]{0,4})?")
_LABEL: Final = re.compile(r"[A-Za-z0-9_-]{1,63}")
_NAME_CHARS_MAX: Final = 253
"""Limit of a name in DNS (RFC 1035)."""
_DEFAULT_PORTS: Final = {"https": ":443", "http": ":80"}


def url_fault(url: str, *, allow_insecure_http: bool, allow_private_addresses: bool) -> str | None:
    """Return what would be allowed instead of this URL; None if it is allowed."""
    # urlsplit drops tabs and line ends, and some clients read a backslash as a slash: the URL that
    # is checked must be the URL that is called.
    if "\\" in url or any(c.isspace() or not c.isprintable() for c in url):
        return "a URL without spaces, backslashes or control characters"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return "an https:// URL with a valid host and port"
    rules = {
        "an https:// URL": parts.scheme in _DEFAULT_PORTS,
        "an https:// URL with a host, and a port from 1 to 65535 if any": bool(host) and port != 0,
        "a URL without user and password; the signed token identifies us": "@" not in parts.netloc,
        "a URL without a fragment (#…), which is never sent": "#" not in url,
    }
    if malformed := next((allowed for allowed, is_kept in rules.items() if not is_kept), None):
        return malformed
    # Both keys are named at once, so that one correction is enough.
    faults = []
    if parts.scheme != "https" and not allow_insecure_http:
        faults.append("an https:// URL, or allow_insecure_http = true")
    # The transport checks the addresses of a name; a URL that can never work is refused here.
    if not allow_private_addresses and (why := host_fault(host or "")):
        faults.append(f"a URL of a public host, or allow_private_addresses = true ({host} is {why})")
    return "; and ".join(faults) or _spelling_fault(parts.netloc, url)


def _spelling_fault(netloc: str, url: str) -> str | None:
    """Return what would be allowed instead of a URL that cannot be sent as it is written."""
    if not _is_usual(netloc):
        return (
            "a URL whose host is a name in ASCII (xn--… for other letters, no dot at its end) or an IP address in its"
            " usual spelling, with a port from 1 to 65535 if any"
        )
    if not url.isascii():
        return "a URL in ASCII, with other characters percent-encoded, such as %C3%A9 for é"
    return None


def _is_usual(netloc: str) -> bool:
    match = _AUTHORITY.fullmatch(netloc)
    if match is None:
        return False
    ipv6, name = match.groups()
    try:
        if ipv6 is not None:
            ipaddress.IPv6Address(ipv6)
        elif ends_in_number(name):
            ipaddress.IPv4Address(name)
    except ValueError:
        return False
    return ipv6 is not None or (len(name) <= _NAME_CHARS_MAX and all(map(_LABEL.fullmatch, name.split("."))))


def host_header(url: str) -> str:
    """Return host and port as they are written in the URL, without the scheme's default port."""
    parts = urlsplit(url)
    return parts.netloc.removesuffix(_DEFAULT_PORTS[parts.scheme])


def request_target(url: str) -> str:
    """Return the path and the query as they are written in the URL; an empty path is sent as /."""
    target = url.partition("://")[2].removeprefix(urlsplit(url).netloc)
    return target if target.startswith("/") else f"/{target}"
