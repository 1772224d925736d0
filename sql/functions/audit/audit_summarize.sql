-- Summarizes the new pages of the audit in the indexes by which audit_unsealed() finds rows. Without
-- it each turn reads again what was written since autovacuum last did this. Inserts do not wait for it.
create or replace function predictu_dispatch.audit_summarize() returns void
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '50ms' as $$
declare
    written record;
begin
    for written in
        select i.indexrelid
          from pg_inherits p
          join pg_class c on c.oid = p.inhrelid
          join pg_index i on i.indrelid = c.oid
          join pg_class x on x.oid = i.indexrelid
          join pg_am m on m.oid = x.relam
         where p.inhparent = 'predictu_dispatch.attempt_record'::regclass and m.amname = 'brin'
           -- What is written now; autovacuum is enough for the others.
           and c.relname in ('attempt_default', 'attempt_' || to_char(now() at time zone 'UTC', 'YYYY_MM'),
                             'attempt_' || to_char((now() - interval '1 day') at time zone 'UTC', 'YYYY_MM'))
    loop
        begin
            perform brin_summarize_new_values(written.indexrelid);
        exception when lock_not_available then
            -- A VACUUM does it.
            null;
        end;
    end loop;
end $$;

revoke all on function predictu_dispatch.audit_summarize from public;
grant execute on function predictu_dispatch.audit_summarize to predictu_dispatcher;
