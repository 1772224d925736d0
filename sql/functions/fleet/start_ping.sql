-- Sends a PING to the operator through the normal delivery path and returns its request_id; if one
-- is in progress, returns that one. If the circuit is open, it becomes half open and this PING
-- decides. A retired operator gets none; the result is null.
create or replace function predictu_dispatch.start_ping(operator_id text) returns uuid
language plpgsql set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    target predictu_dispatch.operator;
    id uuid;
begin
    select o.* into target from predictu_dispatch.operator o where o.operator_id = operator_id for no key update;
    if target.retired_at is not null then
        return null;
    elsif predictu_dispatch.ping_state(operator_id, target.ping_request_id) in ('ready', 'in_flight') then
        id := target.ping_request_id;
    else
        id := gen_random_uuid();
        insert into predictu_dispatch.callback (operator_id, request_id, method, lane, state, params, expires_at)
        values (operator_id, id, 'PING', 'interactive', 'ready', '{}',
                clock_timestamp() + nullif(target.interactive_deadline_s, 0) * interval '1 second');
    end if;
    update predictu_dispatch.operator o
       set ping_request_id = id, revision = o.revision + 1,
           circuit = case o.circuit when 'open' then 'half_open' else o.circuit end
     where o.operator_id = operator_id;
    perform predictu_dispatch.notify('predictu_dispatch_due', operator_id);
    return id;
end $$;

revoke all on function predictu_dispatch.start_ping from public;
