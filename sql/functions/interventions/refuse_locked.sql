-- Raises PD006.
create or replace function predictu_dispatch.refuse_locked(what text) returns void language plpgsql as $$
begin
    raise exception using errcode = 'PD006', message = format('%s is locked by another transaction; nothing was done', what),
        hint = 'Try again in a moment. If it stays so, a transaction was left open: look for it in pg_stat_activity.';
end $$;

revoke all on function predictu_dispatch.refuse_locked from public;
