"""Connections of a producer, daemon, person and owner to one test database, and their calls.

It knows no rule of ours: it calls the database's functions and the statements of sql/queries, and
reads tables.
"""

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeAlias

import asyncpg

from predictu_dispatch.edge.postgres.sql_files import query
from tests.support.defaults import of_the_tests
from tests.support.postgres import Database

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Lease: TypeAlias = "asyncpg.Record | dict[str, Any]"
Report = dict[str, Any]

OPERATOR = "op_abc123"
DISABLED = "op_off"
INTERACTIVE_DEADLINE_S = 120.0
"""Longer than any test, also on a loaded machine."""
LANES = ("interactive", "settlement")
WAIT_S = 20.0
"""Far above any wait here; a test that takes this long has found a lock that is never released."""

_REPORT = """
    operator_id request_id attempt bet_id state state_reason effect due_in_s operator_status operator_transaction_id
    balance anomaly reaped method evidence verdict reason instance started_at finished_at url key_id request_headers
    request_body response_status response_headers response_body response_truncated connect_ms first_byte_ms
    total_ms error report_id
"""
EARLIER_REPORT_FIELDS = tuple(_REPORT.split())
"""The fields of the type predictu_dispatch.report, of daemons before 0013_evidence.sql."""
REPORT_FIELDS = (
    *EARLIER_REPORT_FIELDS,
    *("peer", "peer_certificate_sha256", "token_signature", "response_body_sha256", "response_body_repeats"),
)
"""The fields of the type predictu_dispatch.attempt_report, in its order."""


def report(lease: Lease, **fields: Any) -> Report:
    """Returns a daemon's report of the attempt that `lease` allowed."""
    return dict.fromkeys(REPORT_FIELDS) | {
        "operator_id": lease["operator_id"],
        "request_id": lease["request_id"],
        "attempt": lease["attempt"],
        "bet_id": lease["bet_id"],
        "method": lease["method"],
        "effect": lease["effect"],
        "reaped": False,
        "evidence": "answered",
        "instance": "host-1",
        "started_at": lease["leased_at"],
        "finished_at": lease["leased_at"],
        "response_truncated": False,
        "report_id": uuid.uuid4(),
        **fields,
    }


def delivered(lease: Lease, **fields: Any) -> Report:
    return report(lease, **{"state": "delivered", "verdict": "delivered", "effect": "applied", **fields})


def rejected(lease: Lease, **fields: Any) -> Report:
    reason = {"state_reason": "insufficient_funds", "operator_status": "INSUFFICIENT_FUNDS"}
    return report(lease, **{"state": "rejected", "verdict": "rejected", **reason, **fields})


def retried(lease: Lease, **fields: Any) -> Report:
    """Due again at once, effect unknown."""
    return report(lease, **{"state": "ready", "verdict": "retry", "effect": "unknown", "due_in_s": 0.0, **fields})


def exhausted(lease: Lease, **fields: Any) -> Report:
    return report(
        lease,
        **{"state": "exhausted", "verdict": "retry", "effect": "unknown", "state_reason": "max_attempts", **fields},
    )


def reaped(lease: Lease, **fields: Any) -> Report:
    """A reaper's report of an attempt whose daemon crashed."""
    return retried(lease, **{"reaped": True, "evidence": "unanswered", "reason": "interrupted", **fields})


def placement_params(bet_id: str, *, amount: int = 500, player_id: str = "p1", currency: str = "EUR") -> dict[str, Any]:
    bet = {"market_id": "m1", "outcome": "yes", "odds": 1.85, "shares": 10, "price": 50}
    return {"player_id": player_id, "currency": currency, "amount": amount, "bet_id": bet_id, "bet": bet}


def terminal_params(method: str, bet: asyncpg.Record | dict[str, Any]) -> dict[str, Any]:
    params = {"player_id": bet["player_id"], "bet_id": bet["bet_id"]}
    if method != "BET_LOSE":
        params |= {"currency": bet["currency"], "amount": bet["amount"]}
    if method == "BET_ROLLBACK":
        params["rollback_of"] = str(bet["placement_request_id"])
    return params


async def enqueue(
    connection: Connection,
    method: str | None,
    params: Any,
    *,
    request_id: uuid.UUID | None = None,
    expires_at: datetime | None = None,
    operator_id: str | None = OPERATOR,
) -> uuid.UUID:
    """Calls enqueue_callback().

    `params` may also be JSON text that Python's json would not write.
    """
    text = params if isinstance(params, str) or params is None else json.dumps(params)
    found: uuid.UUID = await _as_a_producer(
        connection,
        "select predictu_dispatch.enqueue_callback($1, $2, $3::text::jsonb, $4, $5)",
        *(operator_id, method, text, request_id, expires_at),
    )
    return found


async def rollback(connection: Connection, bet_id: str | None, operator_id: str | None = OPERATOR) -> uuid.UUID | None:
    found: uuid.UUID | None = await _as_a_producer(
        connection, "select predictu_dispatch.rollback_bet($1, $2, 'the trade failed')", operator_id, bet_id
    )
    return found


async def _as_a_producer(connection: Connection, statement: str, *arguments: Any) -> Any:
    """Executes a statement, and repeats it after 40001 unless the caller has begun a transaction.

    That is what sql/README.md asks of producers. READ COMMITTED does not raise it.
    """
    while True:
        try:
            return await connection.fetchval(statement, *arguments)
        except asyncpg.SerializationError:
            if connection.is_in_transaction():
                raise


async def claim(
    connection: Connection,
    *,
    slots: int = 10_000,
    lease_s: float = 60.0,
    instance: str = "host-1",
    lanes: Iterable[str] = LANES,
    due_from: datetime | None = None,
) -> list[asyncpg.Record]:
    """Claims what is due, at most `slots` of each lane."""
    wanted = list(lanes)
    count = len(wanted)
    return await connection.fetch(
        query("claim"),
        *(
            instance,
            [OPERATOR] * count,
            wanted,
            [slots] * count,
            [lease_s] * count,
            [lease_s] * count,
            ["subunits"] * count,
            [due_from] * count,
        ),
    )


async def settle(connection: Connection, *reports: Report) -> list[asyncpg.Record]:
    return await connection.fetch(query("settle"), [tuple(one[field] for field in REPORT_FIELDS) for one in reports])


async def settle_as_before(connection: Connection, *reports: Report) -> list[asyncpg.Record]:
    """Settles as daemons before 0013_evidence.sql do."""
    return await connection.fetch(
        query("settle").replace("attempt_report[]", "report[]"),
        [tuple(one[field] for field in EARLIER_REPORT_FIELDS) for one in reports],
    )


async def settle_one(connection: Connection, report: Report) -> bool:
    """Returns whether it settled the report; if not, settle() must."""
    found: bool = await connection.fetchval(query("settle_one"), *(report[field] for field in REPORT_FIELDS))
    return found


async def settle_all(connection: Connection, *reports: Report) -> None:
    """Settles as a recorder does: reports of locked rows again, until none is left."""
    while reports:
        locked = {
            (change["request_id"], change["attempt"])
            for change in await settle(connection, *reports)
            if change["cause"] == "locked"
        }
        reports = tuple(one for one in reports if (one["request_id"], one["attempt"]) in locked)


@dataclass(frozen=True, slots=True, kw_only=True)
class Harness:
    """Connections to one database, each with the rights of its role."""

    owner: Connection
    producer: Connection
    daemon: Connection
    person: Connection
    settles: Callable[..., Awaitable[list[asyncpg.Record]]] = settle

    async def place(
        self, bet_id: str = "b1", *, request_id: uuid.UUID | None = None, expires_at: datetime | None = None
    ) -> uuid.UUID:
        """Enqueues a bet's placement; returns its request id."""
        return await enqueue(
            self.producer, "BET_MAKE", placement_params(bet_id), request_id=request_id, expires_at=expires_at
        )

    async def end(
        self, method: str = "BET_WIN", bet_id: str = "b1", *, request_id: uuid.UUID | None = None
    ) -> uuid.UUID:
        """Enqueues a terminal callback for the bet."""
        return await enqueue(
            self.producer, method, terminal_params(method, await self.bet(bet_id)), request_id=request_id
        )

    async def rollback(self, bet_id: str = "b1") -> uuid.UUID | None:
        return await rollback(self.producer, bet_id)

    async def lease(self, request_id: uuid.UUID, *, leased_at: datetime | None = None) -> Lease:
        """Claims everything that is due; returns the lease of this callback.

        With `leased_at`, as if it had been claimed then.
        """
        [lease] = [lease for lease in await claim(self.daemon) if lease["request_id"] == request_id]
        if leased_at is None:
            return lease
        await self.owner.execute(
            "update predictu_dispatch.callback set leased_at = $2 where request_id = $1", request_id, leased_at
        )
        return {**lease, "leased_at": leased_at}

    async def attempt(
        self, request_id: uuid.UUID, outcome: Callable[..., Report], **fields: Any
    ) -> list[asyncpg.Record]:
        """Claims and settles one attempt.

        `outcome` is delivered, rejected, retried, exhausted or reaped.
        """
        return await self.settles(self.daemon, outcome(await self.lease(request_id), **fields))

    async def settle(self, *reports: Report) -> list[asyncpg.Record]:
        return await self.settles(self.daemon, *reports)

    async def expire(self) -> list[asyncpg.Record]:
        return await self.daemon.fetch(query("expire"), 500)

    async def let_deadline_pass(self, request_id: uuid.UUID) -> None:
        """Moves the callback's deadline into the past."""
        await self.owner.execute(
            "update predictu_dispatch.callback set expires_at = now() - interval '1 second' where request_id = $1",
            request_id,
        )

    async def bet(self, bet_id: str = "b1") -> asyncpg.Record:
        bet = await self.owner.fetchrow("select * from predictu_dispatch.bet where bet_id = $1", bet_id)
        assert bet is not None
        return bet

    async def callback(self, request_id: uuid.UUID | None) -> asyncpg.Record:
        callback = await self.owner.fetchrow(
            "select * from predictu_dispatch.callback where request_id = $1", request_id
        )
        assert callback is not None
        return callback

    async def state(self, request_id: uuid.UUID | None) -> str:
        state: str = (await self.callback(request_id))["state"]
        return state

    async def attempts(self, request_id: uuid.UUID) -> list[tuple[int, str]]:
        """Returns (attempt, verdict) of each audit row of the callback, deciding rows first."""
        rows = await self.owner.fetch(
            "select attempt, verdict from predictu_dispatch.attempt where request_id = $1"
            " order by attempt, verdict = 'late'",
            request_id,
        )
        return [(row["attempt"], row["verdict"]) for row in rows]

    async def rollbacks(self, bet_id: str = "b1") -> list[asyncpg.Record]:
        """Returns the bet's rollbacks that are not cancelled."""
        return await self.owner.fetch(
            "select * from predictu_dispatch.callback"
            " where bet_id = $1 and method = 'BET_ROLLBACK' and state <> 'cancelled'",
            bet_id,
        )

    async def everything(self) -> list[tuple[Any, ...]]:
        """Returns all bets and callbacks, for a comparison before and after."""
        return [
            tuple(row)
            for table in ("bet", "callback")
            for row in await self.owner.fetch(f"select * from predictu_dispatch.{table} order by 1, 2")  # noqa: S608
        ]


async def know_operators(
    daemon: Connection, *, interactive_deadline_s: float = INTERACTIVE_DEADLINE_S, settlement_deadline_s: float = 0.0
) -> None:
    """Registers two operators, one enabled and one disabled."""
    await daemon.execute(
        query("sync_operators"),
        *([OPERATOR, DISABLED], [True, False], [interactive_deadline_s] * 2, [settlement_deadline_s] * 2, ["f1", "f2"]),
    )


@asynccontextmanager
async def open_harness(database: Database) -> AsyncIterator[Harness]:
    """Opens the connections and registers the operators."""
    async with (
        connected(database.owner, 1) as [owner],
        connected(database.producer, 1) as [producer],
        connected(database.dispatcher, 1) as [daemon],
        connected(database.operations, 1) as [person],
    ):
        await know_operators(daemon)
        yield Harness(owner=owner, producer=producer, daemon=daemon, person=person)


@asynccontextmanager
async def connected(dsn: str, count: int) -> AsyncIterator[list[Connection]]:
    """Opens `count` connections; closes them afterwards even if one still waits for a lock."""
    settings = of_the_tests(dsn)
    connections = await asyncio.gather(
        *(asyncpg.connect(dsn, command_timeout=WAIT_S, server_settings=settings) for _ in range(count))
    )
    try:
        yield connections
    finally:
        for connection in connections:
            connection.terminate()


async def until_blocked(watcher: Connection, blocked: Connection) -> None:
    """Waits until `blocked` waits for a lock that another connection holds."""
    async with asyncio.timeout(WAIT_S):
        while not await watcher.fetchval("select cardinality(pg_blocking_pids($1)) > 0", blocked.get_server_pid()):
            pass
