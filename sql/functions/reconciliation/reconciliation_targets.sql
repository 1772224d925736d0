-- Returns a run's lines, and the id that each names: its own request_id, or that of the callback or
-- adopted debit to which its transaction_id or its bet leads. A function of its own, because it tells
-- the planner the number of rows: freshly copied lines have no statistics.
create or replace function predictu_dispatch.reconciliation_targets(
    operator_id text, run_id uuid, period_from timestamptz, period_until timestamptz
) returns table (
    source integer, line bigint, booked_at timestamptz, day date, transaction_id text, request_id uuid, method text,
    bet_id text, player_id text, currency text, amount bigint, is_debit boolean, is_in_period boolean, target_id uuid
) language sql stable rows 1000000 set search_path = pg_catalog, pg_temp set jit = off as $$
    select l.source, l.line, l.booked_at, l.day, l.transaction_id, l.request_id, l.method, l.bet_id, l.player_id, l.currency,
           l.amount, l.is_debit,
           l.booked_at >= reconciliation_targets.period_from and l.booked_at < reconciliation_targets.period_until,
           coalesce(l.request_id, by_transaction.request_id, by_bet.request_id)
      from predictu_dispatch.reconciliation_line l
      left join lateral (
          select (array_agg(c.request_id))[1] as request_id
            -- Of an id that an operator gives to all of its callbacks, not all are read for each line.
            from (select c.request_id, c.method, c.bet_id, count(*) over () as shared
                    from (select c.request_id, c.method, c.bet_id from predictu_dispatch.callback c
                           where l.request_id is null and l.transaction_id is not null
                             and c.operator_id = l.operator_id and c.operator_transaction_id = l.transaction_id
                           limit 11) c) c
           where c.shared <= 10 and c.bet_id is not null
             and (c.method = l.method or l.method is null and (c.method = 'BET_MAKE') = l.is_debit)
             -- An operator may use an id again, such as on every day.
             and (l.bet_id is null or c.bet_id = l.bet_id
                  or not exists (select from predictu_dispatch.bet b
                                  where b.operator_id = l.operator_id and b.bet_id = l.bet_id offset 0))
          having count(*) = 1 offset 0) by_transaction on true
      left join lateral (
          select case when l.is_debit then b.placement_request_id
                      else (select t.request_id from predictu_dispatch.callback t
                             where t.operator_id = l.operator_id and t.request_id = b.terminal_request_id
                               and (l.method is null or t.method = l.method)) end as request_id
            from predictu_dispatch.bet b
           where l.request_id is null and by_transaction.request_id is null
             and b.operator_id = l.operator_id and b.bet_id = l.bet_id offset 0) by_bet on true
     where l.operator_id = reconciliation_targets.operator_id and l.run_id = reconciliation_targets.run_id;
$$;

revoke all on function predictu_dispatch.reconciliation_targets from public;
