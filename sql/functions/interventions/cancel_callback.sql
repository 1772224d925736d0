-- Withdraws a callback that was never attempted. A BET_MAKE's bet becomes void; the bet of a
-- terminal callback may get another one. Raises PD003, PD005, PD006.
create or replace function predictu_dispatch.cancel_callback(operator_id text, request_id uuid, reason text, by text)
returns predictu_dispatch.callback
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.callback;
    cancelled predictu_dispatch.callback;
begin
    perform predictu_dispatch.commit_durably();
    perform predictu_dispatch.check_intervention('cancel', reason, by);
    locked := predictu_dispatch.lock_callback('cancel', operator_id, request_id);
    if locked.finished_at is not null then
        perform predictu_dispatch.refuse_intervention('cancel', locked, format('it is %s already', locked.state),
            'If it needs review and was settled with the operator: predictu-dispatch resolve REQUEST_ID');
    elsif locked.attempts > 0 then
        perform predictu_dispatch.refuse_intervention('cancel', locked,
            case locked.state when 'in_flight' then format('it is being sent now, attempt %s', locked.attempts)
                              else format('it was attempted already, %s time(s)', locked.attempts) end,
            case locked.method when 'BET_MAKE'
                 then 'The operator may have booked it. rollback_bet() rolls a placement back at any time.'
                 else 'The operator may have received it. Wait until it has ended.' end);
    elsif locked.method = 'BET_ROLLBACK' then
        perform predictu_dispatch.refuse_intervention('cancel', locked, 'a debit that may have been applied must be rolled back',
            'If it was settled manually, wait until the rollback has ended, then: predictu-dispatch resolve REQUEST_ID');
    end if;
    update predictu_dispatch.callback c
       set state = 'cancelled', reason = 'withdrawn', finished_at = clock_timestamp(),
           note = concat_ws('; ', c.note, reason)
     where c.operator_id = operator_id and c.request_id = request_id
    returning c.* into cancelled;
    if locked.method = 'BET_MAKE' then
        perform predictu_dispatch.advance_bets(array[operator_id], array[locked.bet_id]);
    elsif locked.bet_id is not null and locked.state = 'ready' then
        update predictu_dispatch.bet b set state = 'open', updated_at = clock_timestamp()
         where b.operator_id = operator_id and b.bet_id = locked.bet_id;
    end if;
    -- They may be unreadable.
    locked.params := null;
    cancelled.params := null;
    perform predictu_dispatch.record_intervention('cancel', to_jsonb(locked), to_jsonb(cancelled), reason, by,
                                                  cancelled.finished_at);
    return cancelled;
end $$;

revoke all on function predictu_dispatch.cancel_callback from public;
revoke all on function predictu_dispatch.cancel_callback from predictu_dispatcher;
grant execute on function predictu_dispatch.cancel_callback to predictu_operations;
