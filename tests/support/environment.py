"""What a test of real daemons needs: a database and its producer, an operator, and the daemons."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp

from predictu_dispatch.edge.config.keys import create_key_file
from tests.support.daemons import WAIT_S, Fleet, until
from tests.support.harness import OPERATOR, Harness, know_operators, open_harness
from tests.support.operators import Operator, running_operator
from tests.support.postgres import Database

_KEPT_S = 300.0
"""The test's HTTP connections to a daemon stay open, because the daemon may be unable to accept new
ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """A database, its producer, an operator, and daemons between the two."""

    harness: Harness
    operator: Operator
    fleet: Fleet

    async def adopt(self, bet_id: str) -> None:
        """Adopts a bet: it is open, and the operator has booked its debit."""
        await self.harness.producer.execute(
            "select predictu_dispatch.adopt_bet($1, $2, 'p1', 'EUR', 500, gen_random_uuid())", OPERATOR, bet_id
        )
        self.operator.book(bet_id, str((await self.harness.bet(bet_id))["placement_request_id"]), "p1", 500)

    async def expire_leases(self, instance: str) -> None:
        """Moves the leases of this instance into the past."""
        await self.harness.owner.execute(
            "update predictu_dispatch.callback set lease_until = now() - interval '1 millisecond'"
            " where state = 'in_flight' and leased_by = $1",
            instance,
        )

    async def states(self) -> dict[str, int]:
        rows = await self.harness.owner.fetch("select state, count(*) from predictu_dispatch.callback group by state")
        return {row["state"]: row["count"] for row in rows}

    async def bets(self) -> dict[str, int]:
        rows = await self.harness.owner.fetch("select state, count(*) from predictu_dispatch.bet group by state")
        return {row["state"]: row["count"] for row in rows}

    async def until_all_final(self, *, within_s: float = WAIT_S) -> None:
        async def nothing_is_left() -> bool:
            return not {"waiting", "ready", "in_flight"} & (await self.states()).keys()

        await until("every callback is final", nothing_is_left, within_s=within_s)

    async def until_in_flight(self, count: int) -> None:
        """Waits until the operator has exactly `count` unanswered requests."""
        await until(f"{count} requests are in flight", lambda: self.operator.live.total() == count)

    async def audit(self, request_id: object) -> list[tuple[int, str, str, str | None, str]]:
        """(attempt, verdict, evidence, reason, instance) of each audit row, deciding rows first."""
        rows = await self.harness.owner.fetch(
            "select attempt, verdict, evidence, reason, instance from predictu_dispatch.attempt where request_id = $1"
            " order by attempt, verdict = 'late'",
            request_id,
        )
        return [tuple(row) for row in rows]

    async def audit_faults(self) -> list[str]:
        """Returns the callbacks whose deciding audit rows are not exactly 1, 2, … `attempts`."""
        rows = await self.harness.owner.fetch(
            "select c.request_id, c.method, c.attempts, array_agg(a.attempt order by a.attempt)"
            "           filter (where a.verdict <> 'late') as decided"
            "  from predictu_dispatch.callback c left join predictu_dispatch.attempt a using (operator_id, request_id)"
            " group by c.operator_id, c.request_id"
            " having coalesce(array_agg(a.attempt order by a.attempt) filter (where a.verdict <> 'late'), '{}')"
            "        <> array(select generate_series(1, c.attempts))"
        )
        return [
            f"{row['method']} {row['request_id']}: {row['attempts']} attempts, rows {row['decided']}" for row in rows
        ]


@asynccontextmanager
async def open_environment(folder: Path, database: Database) -> AsyncIterator[Environment]:
    """Opens everything except the daemons, which the test starts."""
    key = create_key_file(folder / "key.pem", "EdDSA")
    async with (
        open_harness(database) as harness,
        running_operator(OPERATOR, key.public_pem()) as operator,
        aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(keepalive_timeout=_KEPT_S), timeout=aiohttp.ClientTimeout(total=WAIT_S)
        ) as session,
    ):
        fleet = Fleet(folder=folder, dsn=database.dispatcher, session=session)
        fleet.write_operator(operator.url)
        # As in the operator's file: no debit may expire before the first daemon has started.
        await know_operators(harness.daemon, interactive_deadline_s=60.0)
        try:
            yield Environment(harness=harness, operator=operator, fleet=fleet)
        finally:
            await asyncio.to_thread(fleet.end)


OTHER = "op_other"


@asynccontextmanager
async def another_operator(environment: Environment, **sections: Any) -> AsyncIterator[Operator]:
    """Adds the operator OTHER for daemons started from now on.

    `sections` as in write_operator().
    """
    key = create_key_file(environment.fleet.folder / "other.pem", "EdDSA")
    async with running_operator(OTHER, key.public_pem()) as other:
        signing = {"key_file": "../other.pem"}
        environment.fleet.write_operator(other.url, operator_id=OTHER, signing=signing, **sections)
        yield other
