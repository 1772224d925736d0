-- Returns a bet's state, and what outcome() returns of its placement and of its terminal callback,
-- all as of one moment. The terminal columns are null while the bet has none; a cancelled terminal is
-- shown until another one takes its place. An adopted bet has only the request_id of its
-- placement. There is no row for an unknown bet. For a bet that retention removed, bet_state remains, and
-- if it was removed by this release or a later one, also request_id, method, state, reason, effect
-- and finished_at of both. Raises PD008 (the login may not act for this operator).
create or replace function predictu_dispatch.outcome_of_bet(operator_id text, bet_id text)
returns table (
    bet_state text,
    placement_request_id uuid, placement_state text, placement_reason text, placement_effect text,
    placement_operator_status text, placement_operator_transaction_id text, placement_balance bigint,
    placement_finished_at timestamptz,
    terminal_request_id uuid, terminal_method text, terminal_state text, terminal_reason text, terminal_effect text,
    terminal_operator_status text, terminal_operator_transaction_id text, terminal_balance bigint,
    terminal_finished_at timestamptz
) language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
#variable_conflict use_column
begin
    perform predictu_dispatch.check_producer_scope(outcome_of_bet.operator_id);
    return query
    select b.state, b.placement_request_id, p.state, p.reason, p.effect, p.operator_status, p.operator_transaction_id,
           p.balance, p.finished_at, b.terminal_request_id, t.method, t.state, t.reason, t.effect, t.operator_status,
           t.operator_transaction_id, t.balance, t.finished_at
      from predictu_dispatch.bet b
      left join predictu_dispatch.callback p on p.operator_id = b.operator_id and p.request_id = b.placement_request_id
      left join predictu_dispatch.callback t on t.operator_id = b.operator_id and t.request_id = b.terminal_request_id
     where b.operator_id = outcome_of_bet.operator_id and b.bet_id = outcome_of_bet.bet_id;
    if not found then
        return query
        select b.state, b.placement_request_id, p.state, p.reason, p.effect, null::text, null::text, null::bigint,
               p.finished_at, b.terminal_request_id, t.method, t.state, t.reason, t.effect, null::text, null::text,
               null::bigint, t.finished_at
          from predictu_dispatch.bet_tombstone b
          left join predictu_dispatch.request_tombstone p
            on p.operator_id = b.operator_id and p.request_id = b.placement_request_id
          left join predictu_dispatch.request_tombstone t
            on t.operator_id = b.operator_id and t.request_id = b.terminal_request_id
         where b.operator_id = outcome_of_bet.operator_id and b.bet_id = outcome_of_bet.bet_id;
    end if;
end $$;

revoke all on function predictu_dispatch.outcome_of_bet from public;
grant execute on function predictu_dispatch.outcome_of_bet to predictu_producer;
