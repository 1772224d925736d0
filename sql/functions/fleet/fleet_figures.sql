-- Returns the figures of the last count for metrics, and how many seconds ago they were counted.
-- The count is a chore: if it is due, this call does it and stores the result for all daemons.
-- Counting takes a fiftieth of one core at most, because a backlog of a million takes a second; the
-- figures are at least 5 s and at most 20 s apart. Both are null before the first count.
-- If a row cannot be read, the stored figures grow old until they are left out.
create or replace function predictu_dispatch.fleet_figures(instance text)
returns table (figures jsonb, age_s double precision)
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
declare
    began_at timestamptz := clock_timestamp();
    counted jsonb;
begin
    if predictu_dispatch.claim_chore('backlog', 20, instance) then
        begin
            counted := jsonb_build_object(
                'backlog', (select coalesce(jsonb_agg(b), '[]') from predictu_dispatch.backlog() b),
                'review', (select coalesce(jsonb_agg(r), '[]')
                             from (select c.operator_id, count(*) as callbacks,
                                          count(*) filter (where c.effect = 'unknown') as unknown_effect,
                                          extract(epoch from now() - min(c.review_since))::double precision as review_for_s
                                     from predictu_dispatch.callback c
                                    where c.review_since is not null group by c.operator_id) r));
        exception when others then
            perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
        end;
        update predictu_dispatch.maintenance_chore m
           set result = counted, result_at = began_at,
               due_at = clock_timestamp() + least(greatest(interval '5 seconds', 50 * (clock_timestamp() - began_at)),
                                                  interval '20 seconds')
         where m.chore = 'backlog' and counted is not null;
    end if;
    return query
        select m.result, greatest(extract(epoch from clock_timestamp() - m.result_at), 0)::double precision
          from predictu_dispatch.maintenance_chore m where m.chore = 'backlog';
end $$;

revoke all on function predictu_dispatch.fleet_figures from public;
grant execute on function predictu_dispatch.fleet_figures to predictu_dispatcher;
