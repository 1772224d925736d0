-- Starts a maintenance window: nothing is sent to the operator until resume_operator(). Raises
-- PD002, PD003, PD005, PD006.
create or replace function predictu_dispatch.pause_operator(operator_id text, reason text, by text)
returns predictu_dispatch.operator language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.operator;
    paused predictu_dispatch.operator;
begin
    perform predictu_dispatch.commit_durably();
    perform predictu_dispatch.check_intervention('pause', reason, by);
    locked := predictu_dispatch.lock_operator(operator_id);
    if locked.paused_at is not null then
        raise exception using errcode = 'PD005',
            message = format('operator %s is already paused, since %s by %s: %s', operator_id,
                             predictu_dispatch.format_utc(locked.paused_at), locked.paused_by, locked.pause_reason),
            hint = format('To end the pause: predictu-dispatch resume %s', operator_id);
    end if;
    update predictu_dispatch.operator o
       set paused_at = clock_timestamp(), paused_by = by, pause_reason = reason, revision = o.revision + 1
     where o.operator_id = operator_id
    returning o.* into paused;
    perform predictu_dispatch.record_intervention('pause', to_jsonb(locked), to_jsonb(paused), reason, by, paused.paused_at);
    return paused;
end $$;

revoke all on function predictu_dispatch.pause_operator from public;
revoke all on function predictu_dispatch.pause_operator from predictu_dispatcher;
grant execute on function predictu_dispatch.pause_operator to predictu_operations;
