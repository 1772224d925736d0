-- Makes every stored row the backlog again: the sealer then finds the rows that a damaged log has
-- missed, and seals those that no tile has. To be called when the log's tiles fit its head again.
create or replace function predictu_dispatch.audit_rescan() returns void
language sql security definer set search_path = pg_catalog, pg_temp as $$
    update predictu_dispatch.audit_position p
       set backlog_until = p.sealed_until, backlog_part = '', backlog_source = null, backlog_block = null,
           revision = p.revision + 1
$$;

revoke all on function predictu_dispatch.audit_rescan from public;
grant execute on function predictu_dispatch.audit_rescan to predictu_dispatcher;
