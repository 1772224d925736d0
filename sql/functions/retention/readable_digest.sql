-- Returns params_digest(), or null if the params cannot be read: such a callback is removed like any
-- other, and its request_id is refused from then on, whatever the content.
create or replace function predictu_dispatch.readable_digest(params jsonb) returns bytea
language plpgsql stable set search_path = pg_catalog, pg_temp as $$
begin
    return predictu_dispatch.params_digest(params);
exception when others then
    perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
    return null;
end $$;

revoke all on function predictu_dispatch.readable_digest from public;
