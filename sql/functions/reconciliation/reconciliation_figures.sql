-- Returns the open differences and the newest runs for metrics, and how many seconds ago they were
-- read; both are null before the first reading. Reading is a chore: if it is due, this call does it
-- and stores the result for all daemons. It takes a fiftieth of one core at most: readings are at
-- least a minute and at most 10 minutes apart. If reading fails, the chore stays due.
create or replace function predictu_dispatch.reconciliation_figures(instance text)
returns table (figures jsonb, age_s double precision)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    began_at timestamptz := clock_timestamp();
    found jsonb;
begin
    if predictu_dispatch.claim_chore('reconciliation', 600, instance) then
        found := jsonb_build_object(
            'differences', (
                select coalesce(jsonb_agg(d), '[]')
                  from (select o.operator_id, o.class, o.currency, count(*) as items, sum(o.disputed) as disputed,
                               extract(epoch from began_at - min(first_run.finished_at)) as open_for_s
                          from predictu_dispatch.reconciliation_open o
                          left join lateral (
                              select min(r.finished_at) as finished_at
                                from predictu_dispatch.reconciliation_item i
                                join predictu_dispatch.reconciliation_run r using (operator_id, run_id)
                               where i.operator_id = o.operator_id and i.item_id = o.item_id) first_run on true
                         group by o.operator_id, o.class, o.currency) d),
            'runs', (
                select coalesce(jsonb_agg(n), '[]')
                  from (select r.operator_id, (array_agg(r.is_complete order by r.finished_at desc))[1] as is_complete,
                               -- The first run's, if none was complete.
                               extract(epoch from coalesce(max(r.finished_at) filter (where r.is_complete),
                                                           min(r.finished_at))) as complete_at_s,
                               extract(epoch from max(r.cut_at) filter (where r.is_complete)) as covered_until_s
                          from predictu_dispatch.reconciliation_run r
                          join predictu_dispatch.operator o using (operator_id)
                         where r.finished_at is not null and o.retired_at is null
                         group by r.operator_id) n));
        update predictu_dispatch.maintenance_chore m
           set result = found, result_at = began_at,
               due_at = clock_timestamp() + least(greatest(interval '1 minute', 50 * (clock_timestamp() - began_at)),
                                                  interval '10 minutes')
         where m.chore = 'reconciliation';
    end if;
    return query
        select m.result, greatest(extract(epoch from clock_timestamp() - m.result_at), 0)::double precision
          from predictu_dispatch.maintenance_chore m where m.chore = 'reconciliation';
end $$;

revoke all on function predictu_dispatch.reconciliation_figures from public;
grant execute on function predictu_dispatch.reconciliation_figures to predictu_dispatcher;
