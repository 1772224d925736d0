-- Ends a callback that is being retried: it becomes exhausted, reason abandoned, and its bet moves
-- as after every exhausted callback. A rollback that was never attempted may be abandoned too,
-- because it can never be cancelled. Abandoning it again returns the first result and changes
-- nothing. Raises PD003, PD005, PD006.
create or replace function predictu_dispatch.abandon_callback(operator_id text, request_id uuid, reason text, by text)
returns predictu_dispatch.abandonment
language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.callback;
    abandoned predictu_dispatch.callback;
    blocker record;
    warning text;
begin
    perform predictu_dispatch.commit_durably();
    perform predictu_dispatch.check_intervention('abandon', reason, by);
    locked := predictu_dispatch.lock_callback('abandon', operator_id, request_id);
    if locked.state = 'exhausted' and locked.reason = 'abandoned' then
        return predictu_dispatch.abandonment_of(operator_id, request_id, true);
    elsif locked.finished_at is not null then
        perform predictu_dispatch.refuse_intervention('abandon', locked, format('it is %s already', locked.state),
            case when locked.review_since is null
                 then format('Nothing is sent any more. To see how it ended: predictu-dispatch show %s', request_id)
                 else format('It needs review. If it was settled with the operator manually: predictu-dispatch resolve %s',
                             request_id) end);
    elsif locked.state = 'waiting' then
        select placement.method, placement.request_id, placement.state into blocker
          from predictu_dispatch.get_bet(operator_id, locked.bet_id) b
         cross join lateral predictu_dispatch.get_callback(operator_id, b.placement_request_id) placement;
        perform predictu_dispatch.refuse_intervention('abandon', locked,
            format('it is not sent yet, it waits for the bet''s %s %s, which is %s', blocker.method, blocker.request_id,
                   blocker.state),
            case locked.method when 'BET_ROLLBACK'
                 then 'It is sent or cancelled as soon as the placement has ended.'
                 else format('To withdraw it: predictu-dispatch cancel %s', request_id) end);
    elsif locked.state = 'in_flight' then
        perform predictu_dispatch.refuse_intervention('abandon', locked,
            format('attempt %s is in flight', locked.attempts),
            case when locked.lease_until > clock_timestamp()
                 then format('Repeat this after its lease, which ends at %s.', predictu_dispatch.format_utc(locked.lease_until))
                 else format('Its lease ended at %s; a running daemon records that within seconds. Repeat this then.',
                             predictu_dispatch.format_utc(locked.lease_until)) end);
    elsif locked.attempts = 0 and locked.method <> 'BET_ROLLBACK' then
        perform predictu_dispatch.refuse_intervention('abandon', locked, 'it was never attempted',
            format('To withdraw it: predictu-dispatch cancel %s', request_id));
    end if;
    if locked.method = 'BET_ROLLBACK' then
        warning := case
            when locked.effect = 'none' and predictu_dispatch.is_debit_confirmed(operator_id, (
                     select b.placement_request_id from predictu_dispatch.get_bet(operator_id, locked.bet_id) b))
                then 'the operator confirmed the debit and has not reversed it: the debit stands'
            else 'a debit may stand at the operator' end;
    end if;
    update predictu_dispatch.callback c
       set state = 'exhausted', reason = 'abandoned', finished_at = clock_timestamp(),
           note = concat_ws('; ', c.note, reason),
           review_since = case when c.method not in ('PING', 'BALANCE', 'BET_MAKE') then clock_timestamp() end
     where c.operator_id = operator_id and c.request_id = request_id
    returning c.* into abandoned;
    if locked.bet_id is not null then
        perform predictu_dispatch.advance_bets(array[operator_id], array[locked.bet_id]);
    end if;
    -- They may be unreadable.
    locked.params := null;
    abandoned.params := null;
    perform predictu_dispatch.record_intervention('abandon',
        to_jsonb(locked) || case when warning is null then '{}' else '{"warning": null}' end::jsonb,
        to_jsonb(abandoned) || case when warning is null then '{}' else jsonb_build_object('warning', warning) end,
        reason, by, abandoned.finished_at);
    return predictu_dispatch.abandonment_of(operator_id, request_id, false);
end $$;

revoke all on function predictu_dispatch.abandon_callback from public;
revoke all on function predictu_dispatch.abandon_callback from predictu_dispatcher;
grant execute on function predictu_dispatch.abandon_callback to predictu_operations;
