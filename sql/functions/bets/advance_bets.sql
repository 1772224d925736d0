-- Moves bets to the states that their callbacks require, and releases, cancels or enqueues
-- callbacks accordingly. The caller has locked the bets, names each once, and has finished its
-- changes to callbacks.
create or replace function predictu_dispatch.advance_bets(operator_ids text[], bet_ids text[])
returns setof predictu_dispatch.change language plpgsql set search_path = pg_catalog, pg_temp
-- The settings make every step a lookup by key, whatever the planner assumes about table sizes. It
-- is planned once: planning for each array's length takes longer than the work for a few rows.
set enable_seqscan = off set enable_hashjoin = off set enable_mergejoin = off set jit = off
set plan_cache_mode = force_generic_plan as $$
declare
    moved record;
    ended record;
    rollback_id uuid;
begin
    -- Terminal delivered: closing → closed.
    -- BET_MAKE delivered: placing → open, or → closing if a terminal callback waits.
    select array_agg(found.operator_id) filter (where next_state is not null) as operator_ids,
           array_agg(found.bet_id) filter (where next_state is not null) as bet_ids,
           array_agg(found.next_state) filter (where next_state is not null) as states,
           array_agg(found.operator_id) filter (where is_released) as released_operator_ids,
           array_agg(found.terminal_request_id) filter (where is_released) as released_ids,
           bool_or(found.has_failed) as has_failed
      into moved
      from (select named.operator_id, named.bet_id, b.terminal_request_id,
                   case when b.state = 'closing' and terminal.state = 'delivered' then 'closed'
                        when b.state = 'placing' and placement.state = 'delivered' and terminal.state = 'waiting'
                            then 'closing'
                        when b.state = 'placing' and placement.state = 'delivered' then 'open' end as next_state,
                   terminal.state = 'waiting'
                       and (b.state = 'closing' or (b.state = 'placing' and placement.state = 'delivered')) as is_released,
                   b.state = 'placing' and placement.state in ('rejected', 'exhausted', 'cancelled') as has_failed
              from unnest(operator_ids, bet_ids) as named (operator_id, bet_id)
             cross join lateral (
                 select b.state, b.placement_request_id, b.terminal_request_id from predictu_dispatch.bet b
                  where b.operator_id = named.operator_id and b.bet_id = named.bet_id limit 1) b
              left join lateral (
                  select c.state from predictu_dispatch.callback c
                   where c.operator_id = named.operator_id and c.request_id = b.placement_request_id
                     and b.state = 'placing' limit 1
              ) placement on true
              left join lateral (
                  select c.state from predictu_dispatch.callback c
                   where c.operator_id = named.operator_id and c.request_id = b.terminal_request_id limit 1) terminal on true
           ) found
     where found.next_state is not null or found.is_released or found.has_failed;

    if moved.bet_ids is not null then
        update predictu_dispatch.bet b
           set state = m.state, updated_at = clock_timestamp()
          from unnest(moved.operator_ids, moved.bet_ids, moved.states) as m (operator_id, bet_id, state)
         where b.operator_id = m.operator_id and b.bet_id = m.bet_id;
    end if;

    if moved.has_failed then
        -- BET_MAKE ended unconfirmed.
        for ended in
            select b as bet, placement.state, placement.reason, placement.effect, terminal.request_id as terminal_id,
                   terminal.state as terminal_state, terminal.method as terminal_method
              from unnest(operator_ids, bet_ids) as named (operator_id, bet_id)
             cross join lateral predictu_dispatch.get_bet(named.operator_id, named.bet_id) b
             cross join lateral predictu_dispatch.get_callback(named.operator_id, b.placement_request_id) placement
              left join lateral predictu_dispatch.get_callback(named.operator_id, b.terminal_request_id) terminal on true
             where b.state = 'placing' and placement.state in ('rejected', 'exhausted', 'cancelled')
        loop
            if ended.effect = 'none' then
                -- No debit took place: → void; a waiting terminal is cancelled.
                update predictu_dispatch.bet b set state = 'void', updated_at = clock_timestamp()
                 where b.operator_id = (ended.bet).operator_id and b.bet_id = (ended.bet).bet_id;
                return query select * from predictu_dispatch.cancel_waiting((ended.bet).operator_id, ended.terminal_id,
                    case when ended.state = 'rejected' then 'bet_rejected'
                         when ended.reason = 'rolled_back' then 'rolled_back' else 'bet_void' end, false);
            elsif ended.terminal_state = 'waiting' and ended.terminal_method = 'BET_ROLLBACK' then
                -- The debit may be applied, and its rollback waits: → closing; it is released with
                -- the others.
                update predictu_dispatch.bet b set state = 'closing', updated_at = clock_timestamp()
                 where b.operator_id = (ended.bet).operator_id and b.bet_id = (ended.bet).bet_id;
                moved.released_operator_ids := array_append(moved.released_operator_ids, (ended.bet).operator_id);
                moved.released_ids := array_append(moved.released_ids, ended.terminal_id);
            else
                -- The debit may be applied: → closing with a rollback; another waiting terminal is
                -- cancelled and needs review.
                return query select * from predictu_dispatch.cancel_waiting((ended.bet).operator_id, ended.terminal_id,
                    'rolled_back', true);
                rollback_id := predictu_dispatch.add_rollback(ended.bet, 'closing', 'ready',
                    case ended.reason when 'rolled_back' then 'requested' else 'unknown_effect' end, null);
                return query select c.operator_id, c.request_id, c.method, c.lane, c.state, c.reason, 'rolled_back',
                                    null::integer
                               from predictu_dispatch.callback c
                              where c.operator_id = (ended.bet).operator_id and c.request_id = rollback_id;
            end if;
        end loop;
    end if;

    -- The bet is closing, so its waiting terminal may be sent.
    if moved.released_ids is not null then
        return query
        update predictu_dispatch.callback terminal
           set state = 'ready', due_at = clock_timestamp()
          from unnest(moved.released_operator_ids, moved.released_ids) as released (operator_id, request_id)
         where terminal.operator_id = released.operator_id and terminal.request_id = released.request_id
        returning terminal.operator_id, terminal.request_id, terminal.method, terminal.lane, terminal.state,
                  terminal.reason, 'released', null::integer;
    end if;
end $$;

revoke all on function predictu_dispatch.advance_bets from public;
