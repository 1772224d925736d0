-- Makes a terminal callback that needs review due again, with the same request_id and the same
-- bytes. Attempt numbers continue; the attempt budget and the deadline start again. Raises PD003,
-- PD005, PD006.
create or replace function predictu_dispatch.retry_callback(operator_id text, request_id uuid, by text)
returns predictu_dispatch.callback language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.callback;
    retried predictu_dispatch.callback;
    retried_at timestamptz;
    deadline_from timestamptz;
begin
    perform predictu_dispatch.commit_durably();
    perform predictu_dispatch.check_intervention('retry', null, by);
    locked := predictu_dispatch.lock_callback('retry', operator_id, request_id);
    if locked.method = 'BET_MAKE' then
        perform predictu_dispatch.refuse_intervention('retry', locked, 'a debit is never retried manually',
            'Place a new bet. A debit that may have been applied is rolled back by a BET_ROLLBACK; see show --bet.');
    elsif locked.method in ('PING', 'BALANCE') then
        perform predictu_dispatch.refuse_intervention('retry', locked, 'its caller no longer waits for the answer',
            'Enqueue a new one; to check an operator: predictu-dispatch ping OPERATOR');
    elsif locked.state = 'delivered' then
        perform predictu_dispatch.refuse_intervention('retry', locked, 'the operator has confirmed it',
            'If it needs review, settle it with the operator, then: predictu-dispatch resolve REQUEST_ID');
    elsif locked.state = 'cancelled' then
        perform predictu_dispatch.refuse_intervention('retry', locked,
            format('it was cancelled (%s) and must not be sent', locked.reason),
            'Another callback may have replaced it; see show --bet. If it was settled manually: predictu-dispatch resolve REQUEST_ID');
    elsif locked.review_since is null then
        perform predictu_dispatch.refuse_intervention('retry', locked, predictu_dispatch.why_not_in_review(locked),
            case when locked.state in ('rejected', 'exhausted')
                 then 'It was settled manually: sending it now might pay twice.'
                 else 'To see why it is not sent now: predictu-dispatch why REQUEST_ID' end);
    end if;
    retried_at := clock_timestamp();
    -- A retry moves the deadline, so its duration counts from the last retry.
    select max(i.done_at) into deadline_from from predictu_dispatch.intervention i
     where i.operator_id = operator_id and i.request_id = request_id and i.action = 'retry';
    update predictu_dispatch.callback c
       set state = 'ready', reason = null, due_at = retried_at, finished_at = null, review_since = null,
           budget_from = c.attempts,
           expires_at = retried_at + (c.expires_at - coalesce(deadline_from, c.created_at))
     where c.operator_id = operator_id and c.request_id = request_id
    returning c.* into retried;
    -- They may be unreadable.
    locked.params := null;
    retried.params := null;
    perform predictu_dispatch.record_intervention('retry', to_jsonb(locked), to_jsonb(retried), null, by, retried_at);
    perform predictu_dispatch.notify('predictu_dispatch_due', operator_id);
    return retried;
end $$;

revoke all on function predictu_dispatch.retry_callback from public;
revoke all on function predictu_dispatch.retry_callback from predictu_dispatcher;
grant execute on function predictu_dispatch.retry_callback to predictu_operations;
