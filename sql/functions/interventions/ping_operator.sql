-- Sends a PING through the normal delivery path, also while the circuit is open. Raises PD002,
-- PD005, PD006.
create or replace function predictu_dispatch.ping_operator(operator_id text) returns uuid
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.operator;
begin
    perform predictu_dispatch.enabled_operator(operator_id);
    locked := predictu_dispatch.lock_operator(operator_id);
    if locked.paused_at is not null then
        raise exception using errcode = 'PD005',
            message = format('operator %s was paused at %s by %s: %s; nothing is sent to it', operator_id,
                             predictu_dispatch.format_utc(locked.paused_at), locked.paused_by, locked.pause_reason),
            hint = format('To end the pause: predictu-dispatch resume %s', operator_id);
    end if;
    return predictu_dispatch.start_ping(operator_id);
end $$;

revoke all on function predictu_dispatch.ping_operator from public;
revoke all on function predictu_dispatch.ping_operator from predictu_dispatcher;
grant execute on function predictu_dispatch.ping_operator to predictu_operations;
