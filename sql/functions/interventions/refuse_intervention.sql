-- Raises PD005 for a callback.
create or replace function predictu_dispatch.refuse_intervention(
    action text, locked predictu_dispatch.callback, fault text, hint text
) returns void language plpgsql set search_path = pg_catalog, pg_temp as $$
begin
    raise exception using errcode = 'PD005',
        message = format('%s of %s %s of operator %s is refused: %s', action, locked.method, locked.request_id,
                         locked.operator_id, fault),
        hint = hint;
end $$;

revoke all on function predictu_dispatch.refuse_intervention from public;
