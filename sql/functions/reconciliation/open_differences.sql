-- Opens the differences of a run whose items are complete, and closes the older ones that it
-- replaces: those of its days, if it was given all that they consist of, and those of other days that
-- lack a booking which this run has found. Any other difference has bookings on its own days, so a
-- run over other days does not have it all.
-- A run that could read no line of its ledger knows our side only: it opens and closes nothing else.
-- An accepted difference is not opened again. Writes into the run how many it opened and closed.
create or replace function predictu_dispatch.open_differences(operator_id text, run_id uuid) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    run predictu_dispatch.reconciliation_run;
    open_before uuid[];
    open_after uuid[];
    is_unread boolean;
begin
    -- Runs and acceptances of one operator wait for each other: the newest run is the last one here.
    perform predictu_dispatch.take_lock(format('differences of %s', operator_id), waits => true);
    select r.* into strict run from predictu_dispatch.reconciliation_run r
     where r.operator_id = operator_id and r.run_id = run_id;
    is_unread := run.lines_read = 0 and run.lines_unreadable > 0;
    select coalesce(array_agg(i.item_id), '{}') into open_before from predictu_dispatch.reconciliation_item i
     where i.operator_id = operator_id and i.is_open;
    update predictu_dispatch.reconciliation_item i set is_open = false
     where i.operator_id = operator_id and i.is_open
       and (not is_unread or predictu_dispatch.difference_kind(i.class) = 'contradiction')
       and (i.day between run.first_day and run.last_day
            -- In another time zone, the same days are other hours.
            and (i.class not in ('missing_there', 'ours') and (i.class <> 'debit_standing' or i.method <> 'BET_ROLLBACK')
                 or (i.confirmed_at >= run.day_edges[1]
                     and i.confirmed_at < run.day_edges[cardinality(run.day_edges)]) is not false)
            -- One of the lines that this run could not read may be one of the difference's.
            and (run.lines_unreadable = 0 or i.lines = '[]')
            and not exists (
                select from jsonb_to_recordset(i.lines) as l (booked_at timestamptz)
                 where l.booked_at < run.given_from or l.booked_at > run.given_until)
            and i.key not in (select n.key from predictu_dispatch.reconciliation_item n
                               where n.operator_id = operator_id and n.run_id = run_id
                                 and n.class in ('out_of_window', 'in_flight'))
            or i.item_id in (select n.item_id from predictu_dispatch.reconciliation_item n
                              where n.operator_id = operator_id and n.run_id = run_id)
            or i.class in ('missing_there', 'debit_standing')
               and i.key in (select n.key from predictu_dispatch.reconciliation_item n
                              where n.operator_id = operator_id and n.run_id = run_id
                                and n.class not in ('out_of_window', 'in_flight')));
    update predictu_dispatch.reconciliation_item i set is_open = true
     where i.operator_id = operator_id and i.run_id = run_id
       and (predictu_dispatch.difference_kind(i.class) = 'contradiction'
            or not is_unread and predictu_dispatch.difference_kind(i.class) = 'difference')
       and not exists (
           select from predictu_dispatch.intervention a
            where a.operator_id = i.operator_id and a.action = 'accept' and a.before ->> 'item_id' = i.item_id::text);
    select coalesce(array_agg(i.item_id), '{}') into open_after from predictu_dispatch.reconciliation_item i
     where i.operator_id = operator_id and i.is_open;
    update predictu_dispatch.reconciliation_run r
       set opened = (select count(*) from (select unnest(open_after) except select unnest(open_before)) as opened),
           closed = (select count(*) from (select unnest(open_before) except select unnest(open_after)) as closed)
     where r.operator_id = operator_id and r.run_id = run_id;
end $$;

revoke all on function predictu_dispatch.open_differences from public;
