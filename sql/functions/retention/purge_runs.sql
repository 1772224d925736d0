-- Removes up to `runs` old runs of reconciliation with all that they found, and returns how many. A
-- run is old if it ended, and its period too, before the cutoff. It is kept while one of its
-- differences is open, and while a legal hold is placed on its operator or on a bet in it. What
-- people said about differences is kept forever. Raises PD003, PD006.
create or replace function predictu_dispatch.purge_runs(keep_months integer, runs integer) returns bigint
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '200ms' as $$
#variable_conflict use_variable
declare
    cutoff timestamptz := predictu_dispatch.retention_cutoff(keep_months);
    old record;
begin
    perform predictu_dispatch.lock_retention(runs);
    select array_agg(o.operator_id) as operator_ids, array_agg(o.run_id) as run_ids, count(*) as runs into old
      from (select r.operator_id, r.run_id from predictu_dispatch.reconciliation_run r
             where greatest(r.day_edges[cardinality(r.day_edges)], coalesce(r.finished_at, r.started_at)) < cutoff
               and not exists (select from predictu_dispatch.reconciliation_item i
                                where i.operator_id = r.operator_id and i.run_id = r.run_id and i.is_open)
               and not exists (
                   select from predictu_dispatch.legal_hold h
                    where h.operator_id = r.operator_id and h.lifted_at is null
                      and (h.bet_id is null
                           or exists (select from predictu_dispatch.reconciliation_item i
                                       where i.operator_id = r.operator_id and i.run_id = r.run_id and i.bet_id = h.bet_id)))
             order by r.started_at limit runs
               for update skip locked) o;
    delete from predictu_dispatch.reconciliation_line l
     using unnest(old.operator_ids, old.run_ids) as o (operator_id, run_id)
     where l.operator_id = o.operator_id and l.run_id = o.run_id;
    delete from predictu_dispatch.reconciliation_unreadable u
     using unnest(old.operator_ids, old.run_ids) as o (operator_id, run_id)
     where u.operator_id = o.operator_id and u.run_id = o.run_id;
    delete from predictu_dispatch.reconciliation_total t
     using unnest(old.operator_ids, old.run_ids) as o (operator_id, run_id)
     where t.operator_id = o.operator_id and t.run_id = o.run_id;
    delete from predictu_dispatch.reconciliation_item i
     using unnest(old.operator_ids, old.run_ids) as o (operator_id, run_id)
     where i.operator_id = o.operator_id and i.run_id = o.run_id;
    delete from predictu_dispatch.reconciliation_run r
     using unnest(old.operator_ids, old.run_ids) as o (operator_id, run_id)
     where r.operator_id = o.operator_id and r.run_id = o.run_id;
    return old.runs;
end $$;

revoke all on function predictu_dispatch.purge_runs from public;
grant execute on function predictu_dispatch.purge_runs to predictu_retention;
