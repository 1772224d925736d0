"""A DSN's hosts. Postgres allows several, separated by commas.

Python's urlsplit() does not know them.

urlsplit() refuses several hosts if one of them is in brackets, since it checks that nothing stands
before a bracket. So the hosts are found here, and urlsplit() sees one host at a time.
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

_PARTS: Final = re.compile(r"(?P<before>[a-z]+://(?:[^/?#@]*@)?)(?P<hosts>[^/?#]*)(?P<after>.*)", re.DOTALL)
"""The login ends at the first @, as in asyncpg."""
_HOST: Final = re.compile(r"(\[[^][@]+\]|[^][@:]*)(:[0-9]{0,5})?")


def one_per_host(dsn: str) -> list[str]:
    """The DSN once for each of its hosts, in their order."""
    parts = _PARTS.fullmatch(dsn)
    if parts is None:
        return [dsn]
    return [f"{parts['before']}{host}{parts['after']}" for host in parts["hosts"].split(",")]


def has_valid_hosts(dsn: str) -> bool:
    """False if something else is in the place of the hosts, such as the rest of a password."""
    parts = _PARTS.fullmatch(dsn)
    if parts is None or not all(_HOST.fullmatch(host) for host in parts["hosts"].split(",")):
        return False
    try:
        for one in one_per_host(dsn):
            urlsplit(one)
    except ValueError:
        return False
    return True
