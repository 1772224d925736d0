"""Confirmed movements at chosen times, inserted in their final state, many at once."""

import uuid
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from tests.support.harness import OPERATOR, Connection

# As a replica: foreign keys and most triggers do not allow inserting rows in their final state.
_AS_REPLICA = "set session_replication_role = replica"
_BETS = """
    insert into predictu_dispatch.bet
        (operator_id, bet_id, state, player_id, currency, amount, placement_request_id, terminal_request_id, created_at)
    select $1, 'bet-' || n, 'closed', 'player-' || n % 10000, 'EUR', 500,
           md5('make-' || n)::uuid, md5('end-' || n)::uuid, $2::timestamptz + n * $3::interval
      from generate_series($4::bigint, $5::bigint) n
"""
_CALLBACKS = """
    insert into predictu_dispatch.callback
        (operator_id, request_id, method, bet_id, lane, state, effect, attempts, params, amount_format, created_at,
         due_at, finished_at, operator_status, operator_transaction_id, balance)
    select $1, md5(kind.prefix || n)::uuid, kind.method, 'bet-' || n, kind.lane, 'delivered', 'applied', 1,
           kind.params || jsonb_build_object(
               'player_id', 'player-' || n % 10000, 'currency', 'EUR', 'bet_id', 'bet-' || n),
           'subunits', done.at, done.at, done.at, 'OK', 'tx-' || kind.prefix || n, 100000
      from generate_series($4::bigint, $5::bigint) n
     cross join (values
         ('make-', 'BET_MAKE', 'interactive', '0', '{"amount": 500, "bet": {"market_id": "m-7",
             "outcome": "yes", "odds": 1.85, "shares": 10, "price": 0.54}}'::jsonb),
         ('end-', 'BET_WIN', 'settlement', '0.5', '{"amount": 900}'::jsonb)) kind (prefix, method, lane, part, params)
     cross join lateral (select $2::timestamptz + (n + kind.part::float8) * $3::interval as at) done
"""
_AT_ONCE = 20_000
_TIMEOUT_S = 600.0


class Movement(NamedTuple):
    """One confirmed callback."""

    method: str
    at: datetime
    amount: int
    bet_id: str
    player_id: str = "p1"
    currency: str = "EUR"
    transaction_id: str | None = "tx"


async def add_movements(owner: Connection, movements: Sequence[Movement]) -> list[uuid.UUID]:
    """Inserts each movement with a bet of its own; returns their request ids."""
    ids = [uuid.uuid4() for _ in movements]
    await owner.execute(_AS_REPLICA)
    for request_id, one in zip(ids, movements, strict=True):
        is_debit = one.method == "BET_MAKE"
        await owner.execute(
            "insert into predictu_dispatch.bet (operator_id, bet_id, state, player_id, currency, amount,"
            " placement_request_id, terminal_request_id, created_at)"
            " values ($1, $2, 'closed', $3, $4, $5, $6, $7, $8)",
            *(OPERATOR, one.bet_id, one.player_id, one.currency, one.amount),
            *((request_id, uuid.uuid4()) if is_debit else (uuid.uuid4(), request_id)),
            one.at,
        )
        await owner.execute(
            "insert into predictu_dispatch.callback (operator_id, request_id, method, bet_id, lane, state, effect,"
            " attempts, params, created_at, due_at, finished_at, operator_transaction_id)"
            " values ($1, $2, $3::text, $4::text, case when $3::text in ('BET_MAKE', 'BET_ROLLBACK') then 'interactive'"
            " else 'settlement' end, 'delivered', 'applied', 1, jsonb_build_object('player_id', $5::text, 'currency',"
            " $6::text, 'amount', $7::bigint, 'bet_id', $4::text), $8, $8, $8, $9)",
            *(OPERATOR, request_id, one.method, one.bet_id, one.player_id, one.currency, one.amount, one.at),
            one.transaction_id,
        )
    await owner.execute("reset session_replication_role")
    return ids


async def add_many(owner: Connection, rows: int, starts_at: datetime, ends_at: datetime) -> None:
    """Inserts movements of EUR, spread evenly over the period: a debit and a win for each bet."""
    bets = rows // 2
    step = (ends_at - starts_at) / bets
    await owner.execute(_AS_REPLICA)
    for first in range(0, bets, _AT_ONCE):
        arguments = (OPERATOR, starts_at, step, first, min(first + _AT_ONCE, bets) - 1)
        for statement in (_BETS, _CALLBACKS):
            await owner.execute(statement, *arguments, timeout=_TIMEOUT_S)
    await owner.execute("reset session_replication_role")
