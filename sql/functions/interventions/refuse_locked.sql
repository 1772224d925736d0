-- Raises PD006.
create or replace function predictu_dispatch.refuse_locked(what text) returns void
language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using errcode = 'PD006',
        message = format('%s is locked by another transaction; nothing was done', what),
        hint = 'Try again. If it stays locked, look in pg_stat_activity for a transaction that was left open.';
end $$;

revoke all on function predictu_dispatch.refuse_locked from public;
