-- Removes the lines of a run that repeat an earlier one in all columns, and returns where they were and
-- which line each repeats. The caller counts them as unreadable.
create or replace function predictu_dispatch.repeated_lines(operator_id text, run_id uuid)
returns table (source integer, line bigint, first_source integer, first_line bigint)
language sql security definer set search_path = pg_catalog, pg_temp
set jit = off set work_mem = '32MB' set enable_nestloop = off set enable_mergejoin = off as $$
    with hashed as (
        select l.source, l.line, hash_record_extended(
                   row(l.booked_at, l.transaction_id, l.request_id, l.method, l.bet_id, l.player_id, l.currency, l.amount,
                       l.is_debit), 0) as hash
          from predictu_dispatch.reconciliation_line l
         where l.operator_id = repeated_lines.operator_id and l.run_id = repeated_lines.run_id
    ), candidate as (
        -- Few, so that only they are compared by all columns.
        select h.source, h.line from hashed h
         where h.hash in (select g.hash from hashed g group by g.hash having count(*) > 1)
    ), compared as (
        select l.source, l.line, first_value(l.source) over same as first_source, first_value(l.line) over same as first_line
          from candidate c
          join predictu_dispatch.reconciliation_line l
            on l.operator_id = repeated_lines.operator_id and l.run_id = repeated_lines.run_id
           and l.source = c.source and l.line = c.line
        window same as (partition by l.booked_at, l.transaction_id, l.request_id, l.method, l.bet_id, l.player_id,
                                     l.currency, l.amount, l.is_debit order by l.source, l.line)
    ), removed as (
        delete from predictu_dispatch.reconciliation_line l
         using compared c
         where l.operator_id = repeated_lines.operator_id and l.run_id = repeated_lines.run_id
           and l.source = c.source and l.line = c.line and (c.source, c.line) <> (c.first_source, c.first_line)
        returning c.source, c.line, c.first_source, c.first_line
    )
    select r.source, r.line, r.first_source, r.first_line from removed r order by r.source, r.line;
$$;

revoke all on function predictu_dispatch.repeated_lines from public;
grant execute on function predictu_dispatch.repeated_lines to predictu_reconciler;
