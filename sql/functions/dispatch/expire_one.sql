-- Ends one callback if expire() would, and moves its bet; see expire_apart().
create or replace function predictu_dispatch.expire_one(operator_id text, request_id uuid)
returns setof predictu_dispatch.change
language plpgsql set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off as $$
declare
    of_bet text := (select c.bet_id from predictu_dispatch.callback c
                     where c.operator_id = expire_one.operator_id and c.request_id = expire_one.request_id);
begin
    if of_bet is not null then
        perform from predictu_dispatch.bet b
          where b.operator_id = expire_one.operator_id and b.bet_id = of_bet
            for no key update skip locked;
        if not found then
            return;
        end if;
    end if;
    perform from predictu_dispatch.callback c
      where c.operator_id = expire_one.operator_id and c.request_id = expire_one.request_id
        for no key update skip locked;
    if not found then
        return;
    end if;
    return query
    update predictu_dispatch.callback c
       set state = 'exhausted', finished_at = clock_timestamp(),
           reason = case when c.expires_at <= now() then 'deadline' when o.paused_at is null then 'circuit_open'
                         else 'paused' end,
           review_since = case when c.method not in ('PING', 'BALANCE', 'BET_MAKE') then clock_timestamp() end
      from predictu_dispatch.operator o
     where c.operator_id = expire_one.operator_id and c.request_id = expire_one.request_id and c.state = 'ready'
       and o.operator_id = c.operator_id
       and (c.expires_at <= now()
            or (c.method in ('BALANCE', 'BET_MAKE') and (o.paused_at is not null or o.circuit <> 'closed')))
    returning c.operator_id, c.request_id, c.method, c.lane, c.state, c.reason, 'settled', null::integer;
    if of_bet is not null then
        return query select * from predictu_dispatch.advance_bets(array[operator_id], array[of_bet]);
    end if;
end $$;

revoke all on function predictu_dispatch.expire_one from public;
