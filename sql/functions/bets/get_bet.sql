-- Returns a bet by its key. A function of its own is planned as a lookup by key, whatever the
-- planner assumes about table sizes.
create or replace function predictu_dispatch.get_bet(operator_id text, bet_id text) returns setof predictu_dispatch.bet
language sql stable rows 1 set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
    select b.* from predictu_dispatch.bet b where b.operator_id = get_bet.operator_id and b.bet_id = get_bet.bet_id
$$;

revoke all on function predictu_dispatch.get_bet from public;
