"""Opens connections to the first usable host of a DSN."""

from __future__ import annotations

from typing import Any, Final

import asyncpg
from asyncpg import Connection

from predictu_dispatch.core.database_errors import DatabaseUnavailable
from predictu_dispatch.core.dsn import one_per_host
from predictu_dispatch.edge.postgres.errors import translated

CONNECT_TIMEOUT_S: Final = 5.0


class Hosts:
    """The hosts of one DSN. The host that answered last is tried first.

    asyncpg has one timeout for all hosts: an unreachable host would use it up.
    """

    def __init__(self, dsn: str) -> None:
        self._dsns = one_per_host(dsn)

    async def connect(self, *_: Any, **options: Any) -> Connection:  # noqa: ANN401 - asyncpg's pool passes the DSN
        """Connect to the first host that answers and fits the DSN, within CONNECT_TIMEOUT_S.

        Raises the last host's DatabaseUnavailable; LoginRefused and DsnError at once.
        """
        dsns = list(self._dsns)
        for dsn in dsns:
            try:
                with translated():
                    connection: Connection = await asyncpg.connect(
                        dsn, timeout=CONNECT_TIMEOUT_S / len(dsns), **options
                    )
            except DatabaseUnavailable:
                if dsn == dsns[-1]:
                    raise
            else:
                self._dsns.sort(key=lambda one: one != dsn)
                return connection
        raise AssertionError  # The last host either connects or raises.
