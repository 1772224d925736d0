"""The backlog of an operator: due settlements, and balances without a deadline."""

import time
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import TypeAlias

import asyncpg

from predictu_dispatch.embedded_postgres.server import EmbeddedPostgres
from tests.bench.scenarios import Operator

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# Written by the owner: producer functions would take minutes for this number of rows.
_OPEN_BETS = """
    insert into predictu_dispatch.bet
        (operator_id, bet_id, state, player_id, currency, amount, placement_request_id, terminal_request_id)
    select $1, $2 || n, 'closing', 'p-' || n, 'EUR', 500, gen_random_uuid(), gen_random_uuid()
      from generate_series(1, $3::integer) n
"""
_SETTLE_BETS = """
    insert into predictu_dispatch.callback (operator_id, request_id, method, bet_id, lane, state, params)
    select operator_id, terminal_request_id, case when random() < 0.5 then 'BET_WIN' else 'BET_LOSE' end, bet_id,
           'settlement', 'ready',
           jsonb_build_object('player_id', player_id, 'currency', 'EUR', 'amount', 900, 'bet_id', bet_id)
      from predictu_dispatch.bet
     where operator_id = $1 and starts_with(bet_id, $2)
"""
_ASK = """
    select count(predictu_dispatch.enqueue_callback($1, 'BALANCE',
               jsonb_build_object('player_id', 'p-' || n, 'currency', 'EUR'), null, 'infinity'))
      from generate_series(1, $2::integer) n
"""
_DUE = """
    select count(*) from predictu_dispatch.callback
     where operator_id = $1 and lane = $2 and state = 'ready' and due_at <= now()
"""


@asynccontextmanager
async def owner_of(postgres: EmbeddedPostgres, database: str) -> AsyncIterator[Connection]:
    """A connection as the database's owner."""
    owner = await asyncpg.connect(postgres.dsn(database))
    try:
        yield owner
    finally:
        owner.terminate()


async def count_due(owner: Connection, operators: Iterable[Operator]) -> int:
    """Number of due settlements of the operators that have a backlog."""
    whose = [operator.operator_id for operator in operators if operator.settlements_due]
    return sum([await owner.fetchval(_DUE, operator_id, "settlement") for operator_id in whose])


async def fill(owner: Connection, operator: Operator) -> None:
    """Refill the operator's backlog to its level."""
    missing = operator.settlements_due - (await owner.fetchval(_DUE, operator.operator_id, "settlement"))
    if operator.settlements_due and missing > 0:
        bets = f"adopted-{time.monotonic_ns()}-"
        async with owner.transaction():
            await owner.execute(_OPEN_BETS, operator.operator_id, bets, missing)
            await owner.execute(_SETTLE_BETS, operator.operator_id, bets)
    missing = operator.interactive_due - (await owner.fetchval(_DUE, operator.operator_id, "interactive"))
    if operator.interactive_due and missing > 0:
        await owner.execute(_ASK, operator.operator_id, missing)
