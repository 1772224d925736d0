-- Returns a callback's params to show, or, if they cannot be read, an object whose key unreadable
-- has the SQLSTATE: so one such callback hides no other one.
create or replace function predictu_dispatch.readable_params(params jsonb) returns jsonb
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    perform length(params::text);
    return params;
exception when others then
    return jsonb_build_object('unreadable', sqlstate);
end $$;

revoke all on function predictu_dispatch.readable_params from public;
grant execute on function predictu_dispatch.readable_params
    to predictu_dispatcher, predictu_support, predictu_operations, predictu_auditor, predictu_reconciler;
