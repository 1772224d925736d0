-- Ends a maintenance window. Returns the operator as it was while paused. Raises PD002, PD003,
-- PD005, PD006.
create or replace function predictu_dispatch.resume_operator(operator_id text, reason text, by text)
returns predictu_dispatch.operator language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.operator;
    resumed predictu_dispatch.operator;
begin
    perform predictu_dispatch.commit_durably();
    perform predictu_dispatch.check_intervention('resume', reason, by);
    locked := predictu_dispatch.lock_operator(operator_id);
    if locked.paused_at is null then
        raise exception using errcode = 'PD005', message = format('operator %s is not paused', operator_id),
            hint = 'To see why a callback is not sent: predictu-dispatch why REQUEST_ID';
    end if;
    update predictu_dispatch.operator o
       set paused_at = null, paused_by = null, pause_reason = null, revision = o.revision + 1
     where o.operator_id = operator_id
    returning o.* into resumed;
    perform predictu_dispatch.record_intervention('resume', to_jsonb(locked), to_jsonb(resumed), reason, by, clock_timestamp());
    perform predictu_dispatch.notify('predictu_dispatch_due', operator_id);
    return locked;
end $$;

revoke all on function predictu_dispatch.resume_operator from public;
revoke all on function predictu_dispatch.resume_operator from predictu_dispatcher;
grant execute on function predictu_dispatch.resume_operator to predictu_operations;
