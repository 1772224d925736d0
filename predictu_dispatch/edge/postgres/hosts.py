"""Opens connections, to whichever host of a DSN serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import asyncpg

from predictu_dispatch.core.database_errors import DatabaseUnavailable
from predictu_dispatch.core.dsn import one_per_host
from predictu_dispatch.edge.postgres.errors import translated

if TYPE_CHECKING:
    from asyncpg import Connection

CONNECT_TIMEOUT_S: Final = 5.0


class Hosts:
    """The hosts of one DSN. The one that answered last is tried first the next time.

    asyncpg gives all hosts one timeout together: a host without power would use it up, and the others would never be
    tried.
    """

    def __init__(self, dsn: str) -> None:
        self._dsns = one_per_host(dsn)

    async def connect(self, *_: Any, **options: Any) -> Connection:  # noqa: ANN401 - asyncpg's pool passes the DSN
        """Connect to the first host that answers and is what the DSN asks for, within CONNECT_TIMEOUT_S.

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
