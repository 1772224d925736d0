"""Insert history: finished callbacks with their bets and audit rows."""

from collections.abc import Sequence

from tests.bench.backlog import Connection
from tests.bench.workload import CALLBACKS_PER_BET

AUDIT_ROWS_PER_CALLBACK = 2
_BETS_AT_ONCE = 50_000

# As a replica: foreign keys and most triggers do not allow inserting rows in their final state.
_BETS = """
    insert into predictu_dispatch.bet
        (operator_id, bet_id, state, player_id, currency, amount, placement_request_id, terminal_request_id, created_at)
    select ($1::text[])[n % cardinality($1::text[]) + 1], 'past-' || n, 'closed', 'p-' || n, 'EUR', 500,
           md5('make-' || n)::uuid, md5('end-' || n)::uuid, now() - n * interval '1 millisecond'
      from generate_series($2::integer, $3::integer) n
"""
_CALLBACKS = """
    insert into predictu_dispatch.callback
        (operator_id, request_id, method, bet_id, lane, state, effect, attempts, params, amount_format, created_at,
         due_at, finished_at, operator_status, operator_transaction_id, balance)
    select ($1::text[])[n % cardinality($1::text[]) + 1], md5(kind.prefix || n)::uuid, kind.method,
           case when kind.method <> 'BALANCE' then 'past-' || n end, kind.lane, 'delivered', 'applied', 2,
           kind.params || jsonb_build_object('player_id', 'p-' || n, 'currency', 'EUR')
               || case when kind.method <> 'BALANCE' then jsonb_build_object('bet_id', 'past-' || n) else '{}' end,
           'subunits', done.at, done.at, done.at, 'OK', 'op-tx-1', 100000
      from generate_series($2::integer, $3::integer) n
     cross join lateral (select now() - n * interval '1 millisecond' as at) done
     cross join (values
         ('ask-', 'BALANCE', 'interactive', '{}'::jsonb),
         ('make-', 'BET_MAKE', 'interactive', '{"amount": 500, "bet": {"market_id": "m-7",
             "outcome": "yes", "odds": 1.85, "shares": 10, "price": 0.54}}'::jsonb),
         ('end-', 'BET_WIN', 'settlement', '{"amount": 900}'::jsonb)) kind (prefix, method, lane, params)
"""
_ATTEMPTS = """
    insert into predictu_dispatch.attempt_record
        (operator_id, request_id, method, attempt, evidence, verdict, reason, instance, started_at, finished_at, url,
         key_id, request_headers, request_body, response_status, response_headers, response_body, connect_ms,
         first_byte_ms, total_ms, report_id)
    select ($1::text[])[n % cardinality($1::text[]) + 1], md5(kind.prefix || n)::uuid, kind.method, tries.attempt,
           'answered', case tries.attempt when 1 then 'retry' else 'delivered' end,
           case tries.attempt when 1 then 'http_503' end,
           'past', done.at, done.at, 'http://127.0.0.1/predictu', 'past',
           '{"Content-Type": "application/json", "X-Predictu-Operator": "op_work_0"}', repeat('x', $4::integer), 200,
           '[["Content-Type", "application/json"]]', repeat('y', $4::integer / 8)::bytea, 0.1, 1.0, 1.1,
           md5(kind.prefix || n || tries.attempt)::uuid
      from generate_series($2::integer, $3::integer) n
     -- All in this month, whose partition is the one that is written to now.
     cross join lateral (select greatest(date_trunc('month', now()), now() - n * interval '1 millisecond') as at) done
     cross join (values ('ask-', 'BALANCE'), ('make-', 'BET_MAKE'), ('end-', 'BET_WIN')) kind (prefix, method)
     cross join generate_series(1, 2) tries (attempt)
"""


async def write_history(owner: Connection, callbacks: int, *, body_bytes: int, operators: Sequence[str]) -> str:
    """Insert finished callbacks with their bets and two audit rows each; returns a description."""
    bets = callbacks // CALLBACKS_PER_BET
    await owner.execute("set session_replication_role = replica")
    for first in range(1, bets + 1, _BETS_AT_ONCE):
        last = min(bets, first + _BETS_AT_ONCE - 1)
        await owner.execute(_BETS, list(operators), first, last)
        await owner.execute(_CALLBACKS, list(operators), first, last)
        await owner.execute(_ATTEMPTS, list(operators), first, last, body_bytes)
    await owner.execute("reset session_replication_role")
    audited_bytes = await owner.fetchval(
        "select sum(pg_total_relation_size(relid)) from pg_partition_tree('predictu_dispatch.attempt_record')"
    )
    rows = bets * CALLBACKS_PER_BET * AUDIT_ROWS_PER_CALLBACK
    return (
        f"history: {bets * CALLBACKS_PER_BET:,} callbacks, {bets:,} bets, {rows:,} audit rows of"
        f" {float(audited_bytes) / rows:.0f} bytes with their index"
    )
