-- Leases due callbacks for one attempt each: for each operator and lane the oldest due first, no
-- more than its free slots. The lease is committed before the request leaves, so the database knows
-- of every attempt that began. Operators that are paused, in backoff or behind an open circuit are
-- excluded before any of their callbacks is read; while the circuit is half open, its PING may be
-- claimed. BET_ROLLBACK has a lease of its own, because it uses the settlement lane's timeouts in
-- the interactive lane. due_from is how far the daemon has read each lane (null: the start): while
-- a snapshot is held open, the index entries of finished callbacks remain before that point, and
-- every claim would read all of them. set_aside are callbacks to leave out (null: none); see
-- claim_apart().
create or replace function predictu_dispatch.claim(
    instance text, operator_ids text[], lanes text[], free_slots integer[], leases_s double precision[],
    rollback_leases_s double precision[], amount_formats text[], due_from timestamptz[] default null,
    set_aside uuid[] default null
) returns table (
    operator_id text, request_id uuid, method text, bet_id text, lane text, attempt integer, budget_from integer,
    effect text, reason text, params text, created_at timestamptz, due_at timestamptz, expires_in_s double precision,
    leased_at timestamptz, lease_s double precision, amount_format text, minor_digits integer,
    placement_ended_s_ago double precision
) language plpgsql security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off set jit = off
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    picked record;
begin
    perform predictu_dispatch.commit_durably();
    -- Apart from the update: the planner does not know that the limits below are small. In one
    -- statement it would read the whole table instead of looking up the picked rows.
    with want as materialized (
        select want.*, o.circuit, o.ping_request_id
          from unnest(operator_ids, lanes, free_slots, leases_s, rollback_leases_s, amount_formats, due_from)
               as want (operator_id, lane, free_slots, lease_s, rollback_lease_s, amount_format, due_from)
          join predictu_dispatch.operator o on o.operator_id = want.operator_id
         where o.paused_at is null and o.circuit <> 'open'
           and coalesce(case want.lane when 'interactive' then o.interactive_backoff_until
                                       else o.settlement_backoff_until end, '-infinity') <= now()
    )
    select array_agg(p.operator_id) as operator_ids, array_agg(p.request_id) as request_ids,
           array_agg(p.amount_format) as amount_formats, array_agg(p.lease_s) as leases_s
      into picked
      from (
          select due.operator_id, due.request_id, want.amount_format,
                 case due.method when 'BET_ROLLBACK' then want.rollback_lease_s else want.lease_s end as lease_s
            from want
           cross join lateral (
               select c.operator_id, c.request_id, c.method
                 from predictu_dispatch.callback c
                where c.operator_id = want.operator_id and c.lane = want.lane and c.state = 'ready' and c.due_at <= now()
                  and c.due_at >= coalesce(want.due_from, '-infinity') and coalesce(c.expires_at, 'infinity') > now()
                  and (set_aside is null or c.request_id <> all(set_aside))
                order by c.due_at limit want.free_slots
                  for no key update skip locked
           ) due
           where want.circuit = 'closed'
          union all
          select ping.operator_id, ping.request_id, want.amount_format, want.lease_s
            from want
           cross join lateral (
               select c.operator_id, c.request_id
                 from predictu_dispatch.callback c
                where c.operator_id = want.operator_id and c.request_id = want.ping_request_id and c.state = 'ready'
                  and (c.expires_at is null or c.expires_at > now())
                  and (set_aside is null or c.request_id <> all(set_aside))
                  for no key update skip locked
           ) ping
           where want.circuit = 'half_open' and want.lane = 'interactive'
      ) p;
    if picked.request_ids is null then
        return;
    end if;
    return query
    update predictu_dispatch.callback c
       set state = 'in_flight', attempts = c.attempts + 1, leased_at = now(), leased_by = instance,
           -- Each ends a microsecond after the one before, so that leases_apart() can tell them apart.
           lease_until = now() + lease.lease_s * interval '1 second' + lease.number * interval '1 microsecond',
           amount_format = coalesce(c.amount_format, lease.amount_format)
      from unnest(picked.operator_ids, picked.request_ids, picked.amount_formats, picked.leases_s) with ordinality
           as lease (operator_id, request_id, amount_format, lease_s, number)
     where c.operator_id = lease.operator_id and c.request_id = lease.request_id
    returning c.operator_id, c.request_id, c.method, c.bet_id, c.lane, c.attempts, c.budget_from, c.effect, c.reason,
              c.params::text, c.created_at, c.due_at, extract(epoch from c.expires_at - now())::double precision,
              c.leased_at, lease.lease_s, c.amount_format,
              -- Only decimal amounts need it.
              case c.amount_format when 'decimal' then (
                  select known.minor_digits from predictu_dispatch.currency known
                   where known.currency = coalesce(c.params ->> 'currency', (
                       -- BET_LOSE names no currency; the balance in its answer is in the bet's currency.
                       select b.currency from predictu_dispatch.bet b
                        where b.operator_id = c.operator_id and b.bet_id = c.bet_id
                   ))
              ) end,
              case when c.method = 'BET_ROLLBACK' then (
                  select extract(epoch from now() - placement.finished_at)::double precision
                    from predictu_dispatch.callback placement
                   where placement.operator_id = c.operator_id
                     and placement.request_id = (c.params ->> 'rollback_of')::uuid
              ) end;
end $$;

revoke all on function predictu_dispatch.claim from public;
grant execute on function predictu_dispatch.claim to predictu_dispatcher;
