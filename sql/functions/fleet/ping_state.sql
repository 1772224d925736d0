-- Returns the state of an operator's last PING, for the monitor of all operators; null if there is
-- none or if its row cannot be read, because one operator's row must not hide the others' circuits.
create or replace function predictu_dispatch.ping_state(operator_id text, request_id uuid) returns text
language plpgsql stable security definer set search_path = pg_catalog, pg_temp set enable_seqscan = off as $$
begin
    return (select c.state from predictu_dispatch.callback c
             where c.operator_id = ping_state.operator_id and c.request_id = ping_state.request_id);
exception when others then
    perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
    return null;
end $$;

revoke all on function predictu_dispatch.ping_state from public;
grant execute on function predictu_dispatch.ping_state to predictu_dispatcher;
