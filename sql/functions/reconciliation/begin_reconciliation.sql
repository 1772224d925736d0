-- Begins a run for one operator and a period of accounting days; the caller then copies its lines into
-- reconciliation_line and calls finish_reconciliation(). day_edges has the first moment of each day and
-- the period's end. Lines that killed runs of the operator left more than a day ago are removed. Raises PD002
-- (unknown operator), PD003 (bad params, or retention has removed a part of the period), PD005 (an index
-- is missing).
create or replace function predictu_dispatch.begin_reconciliation(
    operator_id text, first_day date, last_day date, time_zone text, day_starts time, day_edges timestamptz[],
    settle_s double precision, no_end_days integer, done_by text
) returns predictu_dispatch.reconciliation_run
language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    days integer := last_day - first_day + 1;
    cutoff timestamptz := (select max(h.removed_before) from predictu_dispatch.removed_history h);
    missing text := (
        select string_agg(wanted, ', ' order by wanted)
          from unnest(array['callback_finished', 'callback_of_transaction']) as wanted
         where not exists (select from pg_index i where i.indexrelid = to_regclass('predictu_dispatch.' || wanted)
                                                    and i.indisvalid));
    fault text;
    hint text := 'Give whole days of the operator''s accounting, the last one not before the first.';
    begun predictu_dispatch.reconciliation_run;
begin
    if not exists (select from predictu_dispatch.operator o where o.operator_id = operator_id) then
        raise exception using errcode = 'PD002', message = format('unknown operator %s', left(operator_id, 80)),
            hint = 'A daemon registers an operator when it starts or reloads with the operator''s file.';
    end if;
    fault := case
        when days is null or days not between 1 and 400 then 'the period must have 1 to 400 days'
        when time_zone is null or length(time_zone) not between 1 and 100 then '"time_zone" is not a name'
        when day_starts is null then '"day_starts" is NULL'
        when cardinality(day_edges) is distinct from days + 1 or array_position(day_edges, null) is not null
             or exists (select from generate_subscripts(day_edges, 1) as n
                         where day_edges[n] >= day_edges[n + 1] or not isfinite(day_edges[n]))
            then '"day_edges" must be the ascending beginnings of the days and the period''s end'
        when settle_s is null or not settle_s between 0 and 86400 then '"settle_s" must be 0 to 86400'
        when no_end_days is null or no_end_days not between 1 and 3650 then '"no_end_days" must be 1 to 3650'
        when done_by is null or length(done_by) not between 1 and 200 then '"done_by" must have 1 to 200 characters'
    end;
    if fault is null and day_edges[1] >= clock_timestamp() then
        fault := format('the period begins in the future, at %s', predictu_dispatch.format_utc(day_edges[1]));
    elsif fault is null and day_edges[1] < cutoff then
        fault := format('the period begins at %s, and retention has removed what ended before %s',
                        predictu_dispatch.format_utc(day_edges[1]), predictu_dispatch.format_utc(cutoff));
        hint := 'Choose a later first day.';
    end if;
    if fault is not null then
        perform predictu_dispatch.refuse_params('reconciliation', fault, hint);
    end if;
    if missing is not null then
        raise exception using errcode = 'PD005', message = format('missing index: %s', missing),
            hint = 'Run predictu-dispatch migrate, which builds it while daemons deliver.';
    end if;

    -- A run may be under way beside this one.
    delete from predictu_dispatch.reconciliation_line l
     where l.operator_id = operator_id
       and not exists (select from predictu_dispatch.reconciliation_run r
                        where r.operator_id = operator_id and r.run_id = l.run_id and r.finished_at is null
                          and r.started_at >= clock_timestamp() - interval '1 day');
    insert into predictu_dispatch.reconciliation_run
        (operator_id, first_day, last_day, time_zone, day_starts, day_edges, settle_s, no_end_days, cut_at, done_by)
    values (operator_id, first_day, last_day, time_zone, day_starts, day_edges, settle_s, no_end_days,
            least(day_edges[days + 1], clock_timestamp()), done_by)
    returning * into begun;
    return begun;
end $$;

revoke all on function predictu_dispatch.begin_reconciliation from public;
grant execute on function predictu_dispatch.begin_reconciliation to predictu_reconciler;
