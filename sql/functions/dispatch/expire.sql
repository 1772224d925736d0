-- Ends callbacks that must not wait any longer: those past their deadline, and BALANCE and BET_MAKE
-- of an operator that is paused or whose circuit is not closed. Of the second kind the newest end
-- first, because their callers still wait. It ends at most the given number for each operator and
-- kind. It skips locked rows, so that an open transaction does not delay the deadlines of others.
create or replace function predictu_dispatch.expire(most integer) returns setof predictu_dispatch.change
language plpgsql security definer set search_path = pg_catalog, pg_temp
set enable_seqscan = off set jit = off set plan_cache_mode = force_custom_plan as $$
declare
    locked record;
    ending record;
begin
    perform predictu_dispatch.commit_durably();
    -- The bets first, in a statement of their own; see settle().
    select array_agg(b.operator_id) as operator_ids, array_agg(b.bet_id) as bet_ids into locked
      from (select distinct found.operator_id, found.bet_id
              from predictu_dispatch.operator o
             cross join lateral (
                 select * from (
                     select b.operator_id, b.bet_id
                       from predictu_dispatch.callback c
                       join predictu_dispatch.bet b on b.operator_id = c.operator_id and b.bet_id = c.bet_id
                      where c.operator_id = o.operator_id and c.state = 'ready' and c.expires_at <= now()
                        and c.bet_id is not null
                      order by c.expires_at limit most
                        for no key update of b skip locked) picked
                 union all
                 select * from (
                     select b.operator_id, b.bet_id
                       from predictu_dispatch.callback c
                       join predictu_dispatch.bet b on b.operator_id = c.operator_id and b.bet_id = c.bet_id
                      where (o.paused_at is not null or o.circuit <> 'closed')
                        and c.operator_id = o.operator_id and c.state = 'ready' and c.method = 'BET_MAKE'
                      order by c.due_at desc limit most
                        for no key update of b skip locked) picked
             ) found) b;
    -- Apart from the update, as in claim().
    select array_agg(e.operator_id) as operator_ids, array_agg(e.request_id) as request_ids,
           array_agg(e.reason) as reasons
      into ending
      from (
          select * from (
              select c.operator_id, c.request_id,
                     case when c.expires_at <= now() then 'deadline' when o.paused_at is null then 'circuit_open'
                          else 'paused' end as reason
                from unnest(locked.operator_ids, locked.bet_ids) as named (operator_id, bet_id)
                join predictu_dispatch.operator o on o.operator_id = named.operator_id
                join predictu_dispatch.callback c on c.operator_id = named.operator_id and c.bet_id = named.bet_id
               where c.state = 'ready'
                 and (c.expires_at <= now()
                      or (c.method = 'BET_MAKE' and (o.paused_at is not null or o.circuit <> 'closed')))
                 for no key update of c skip locked) of_bets
          union all
          select found.*
            from predictu_dispatch.operator o
           cross join lateral (
               select * from (
                   select c.operator_id, c.request_id, 'deadline' as reason
                     from predictu_dispatch.callback c
                    where c.operator_id = o.operator_id and c.state = 'ready' and c.expires_at <= now() and c.bet_id is null
                    order by c.expires_at limit most
                      for no key update skip locked) overdue
               union all
               select * from (
                   select c.operator_id, c.request_id, case when o.paused_at is null then 'circuit_open' else 'paused' end
                     from predictu_dispatch.callback c
                    where (o.paused_at is not null or o.circuit <> 'closed')
                      and c.operator_id = o.operator_id and c.state = 'ready' and c.method = 'BALANCE'
                      and (c.expires_at is null or c.expires_at > now())
                    order by c.due_at desc limit most
                      for no key update skip locked) refused
           ) found
      ) e;
    if ending.request_ids is not null then
        return query
        update predictu_dispatch.callback c
           set state = 'exhausted', reason = e.reason, finished_at = clock_timestamp(),
               review_since = case when c.method not in ('PING', 'BALANCE', 'BET_MAKE') then clock_timestamp() end
          from unnest(ending.operator_ids, ending.request_ids, ending.reasons) as e (operator_id, request_id, reason)
         where c.operator_id = e.operator_id and c.request_id = e.request_id
        returning c.operator_id, c.request_id, c.method, c.lane, c.state, c.reason, 'settled', null::integer;
    end if;
    if locked.bet_ids is not null then
        return query select * from predictu_dispatch.advance_bets(locked.operator_ids, locked.bet_ids);
    end if;
end $$;

revoke all on function predictu_dispatch.expire from public;
grant execute on function predictu_dispatch.expire to predictu_dispatcher;
