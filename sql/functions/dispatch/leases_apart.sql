-- Returns the attempts whose lease ends from `from_at` until before `until_at`, and are in flight,
-- except those whose rows the database cannot read; for those, a row with the SQLSTATE and the
-- message, and nothing else: an unreadable row has no name. An unreadable row is found by halving
-- the time: so all leases before and after it are read. Only if two leases end in the same
-- microsecond, which claim() avoids, both count as unreadable. An outage fails the whole call.
create or replace function predictu_dispatch.leases_apart(from_at timestamptz, until_at timestamptz, most integer)
returns table (
    operator_id text, request_id uuid, method text, bet_id text, lane text, attempt integer, budget_from integer,
    effect text, reason text, params text, created_at timestamptz, due_at timestamptz, expires_in_s double precision,
    leased_at timestamptz, lease_s double precision, amount_format text, minor_digits integer,
    placement_ended_s_ago double precision, leased_by text, reaped_at timestamptz, failed_sqlstate text,
    failed_message text
) language plpgsql security definer set search_path = pg_catalog, pg_temp set jit = off
-- By the index only: any other plan reads rows that are not asked for.
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set enable_hashjoin = off
set enable_mergejoin = off
-- With a known time, the planner itself reads rows, at the ends of the index.
set plan_cache_mode = force_generic_plan as $$
#variable_conflict use_column
declare
    starts timestamptz[] := array[from_at];
    ends timestamptz[] := array[until_at];
    first_at timestamptz;
    end_at timestamptz;
    failures_left integer := 200;
    names text[] := '{}';
    ids uuid[] := '{}';
    found_names text[];
    found_ids uuid[];
begin
    while cardinality(starts) > 0 and failures_left > 0 and cardinality(ids) < most loop
        first_at := starts[cardinality(starts)];
        end_at := ends[cardinality(ends)];
        starts := trim_array(starts, 1);
        ends := trim_array(ends, 1);
        begin
            select coalesce(array_agg(c.operator_id), '{}'), coalesce(array_agg(c.request_id), '{}')
              into found_names, found_ids
              from (select c.operator_id, c.request_id
                      from predictu_dispatch.callback c
                     where c.state = 'in_flight' and c.lease_until >= first_at and c.lease_until < end_at
                     order by c.lease_until limit most) c;
            names := names || found_names;
            ids := ids || found_ids;
        exception when others then
            perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
            if end_at - first_at > interval '1 microsecond' then
                -- The earlier half is next.
                starts := starts || (first_at + (end_at - first_at) / 2) || first_at;
                ends := ends || end_at || (first_at + (end_at - first_at) / 2);
            else
                failures_left := failures_left - 1;
                failed_sqlstate := sqlstate;
                failed_message := format('a lease that ended at %s: %s', predictu_dispatch.format_utc(first_at), sqlerrm);
                return next;
            end if;
        end;
    end loop;
    return query
    select c.operator_id, c.request_id, c.method, c.bet_id, c.lane, c.attempts, c.budget_from, c.effect, c.reason,
           -- Not the callback's: nothing is sent, and they may be unreadable.
           '{}', c.created_at, c.due_at, extract(epoch from c.expires_at - c.leased_at)::double precision, c.leased_at,
           extract(epoch from c.lease_until - c.leased_at)::double precision, c.amount_format, null::integer,
           null::double precision, c.leased_by, now(), null::text, null::text
      from (select distinct k.operator_id, k.request_id from unnest(names, ids) as k (operator_id, request_id)) k
     -- By its key, whatever the conditions below would allow: the offset keeps them out of here.
     cross join lateral (
         select * from predictu_dispatch.callback c
          where c.operator_id = k.operator_id and c.request_id = k.request_id
         offset 0) c
     where c.state = 'in_flight' and c.lease_until >= from_at and c.lease_until < until_at;
end $$;

revoke all on function predictu_dispatch.leases_apart from public;
grant execute on function predictu_dispatch.leases_apart to predictu_dispatcher;
