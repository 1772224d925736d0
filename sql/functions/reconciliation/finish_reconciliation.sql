-- Ends a run whose lines have been copied: classifies all rows, stores the result and removes the lines.
-- sources describes the files or the URL; unreadable names the first unreadable lines, as
-- [{"source", "line", "column", "why"}]. given_from and given_until are the ledger that was given: what
-- may be booked outside of it is in_flight. Nothing is stored if it fails. Raises PD003 (bad params),
-- PD005 (the run is unknown or has finished, or lines are gone).
create or replace function predictu_dispatch.finish_reconciliation(
    operator_id text, run_id uuid, sources jsonb, lines_read bigint, lines_ignored bigint, lines_unreadable bigint,
    unreadable jsonb, given_from timestamptz, given_until timestamptz
) returns predictu_dispatch.reconciliation_run
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    run predictu_dispatch.reconciliation_run;
    found_rows record;
    fault text := case
        when jsonb_typeof(sources) is distinct from 'array' then '"sources" is not an array'
        when jsonb_typeof(unreadable) is distinct from 'array' then '"unreadable" is not an array'
        when lines_read is null or lines_ignored is null or lines_unreadable is null
             or least(lines_read, lines_ignored, lines_unreadable) < 0 then 'a number of lines is missing or negative'
        when given_from is null or given_until is null or given_from > given_until
            then '"given_from" must be a time not after "given_until"'
    end;
begin
    if fault is not null then
        perform predictu_dispatch.refuse_params('reconciliation', fault, 'Pass what the run has read.');
    end if;
    select r.* into run from predictu_dispatch.reconciliation_run r
     where r.operator_id = operator_id and r.run_id = run_id for no key update;
    if not found or run.finished_at is not null then
        raise exception using errcode = 'PD005',
            message = format('run %s of operator %s %s', run_id, left(operator_id, 80),
                             case when run.finished_at is null then 'is unknown' else 'has finished' end),
            hint = 'Begin another run with begin_reconciliation().';
    end if;
    -- Behind a pooling proxy, the caller may not notice that the server was restarted.
    if lines_read <> (select count(*) from predictu_dispatch.reconciliation_line l
                       where l.operator_id = operator_id and l.run_id = run_id) then
        raise exception using errcode = 'PD005',
            message = format('run %s of operator %s is refused: lines that it has copied are gone', run_id, operator_id),
            hint = 'The server was restarted, or another session removed them. Reconcile again.';
    end if;
    run.given_from := given_from;
    run.given_until := given_until;
    select * into strict found_rows from predictu_dispatch.classify(run);

    insert into predictu_dispatch.reconciliation_unreadable (operator_id, run_id, source, line, column_name, why)
    select operator_id, run_id, u.source, u.line, coalesce(u."column", ''), u.why
      from jsonb_to_recordset(unreadable) as u (source integer, line bigint, "column" text, why text)
    on conflict do nothing;
    delete from predictu_dispatch.reconciliation_line l where l.operator_id = operator_id and l.run_id = run_id;
    update predictu_dispatch.reconciliation_run r
       set sources = finish_reconciliation.sources, lines_read = finish_reconciliation.lines_read,
           lines_ignored = finish_reconciliation.lines_ignored, lines_unreadable = finish_reconciliation.lines_unreadable,
           given_from = finish_reconciliation.given_from, given_until = finish_reconciliation.given_until,
           rows_ours = coalesce(found_rows.rows_ours, 0), sums = found_rows.sums, finished_at = clock_timestamp(),
           is_complete = finish_reconciliation.lines_unreadable = 0 and found_rows.is_consistent
                         and finish_reconciliation.lines_read = coalesce(found_rows.rows_theirs, 0)
     where r.operator_id = run.operator_id and r.run_id = run.run_id;
    perform predictu_dispatch.open_differences(operator_id, run_id);
    select r.* into run from predictu_dispatch.reconciliation_run r
     where r.operator_id = operator_id and r.run_id = run_id;
    return run;
end $$;

revoke all on function predictu_dispatch.finish_reconciliation from public;
grant execute on function predictu_dispatch.finish_reconciliation to predictu_reconciler;
