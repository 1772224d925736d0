-- Retires an operator that is gone for good: nothing is enqueued for it any more, no daemon may take
-- its file, and its history stays readable. Refused while a running daemon has its file, while
-- anything of it has not ended, and while anything needs review. Retiring it again returns the first
-- result and changes nothing. Raises PD002, PD003, PD005, PD006.
create or replace function predictu_dispatch.retire_operator(operator_id text, reason text, by text)
returns predictu_dispatch.operator language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = '3s' as $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.operator;
    retired predictu_dispatch.operator;
    forbidden record;
begin
    perform predictu_dispatch.commit_durably();
    perform predictu_dispatch.check_intervention('retire', reason, by);
    if current_setting('transaction_isolation') <> 'read committed' then
        perform predictu_dispatch.refuse_params('retire_operator', 'the transaction is not read committed',
            'An older snapshot does not show all that is unfinished: begin isolation level read committed');
    end if;
    select o.* into retired from predictu_dispatch.operator o where o.operator_id = operator_id and o.retired_at is not null;
    if found then
        return retired;
    end if;
    -- adopt_bet() waits for this lock, so no bet is adopted after the bets are read.
    locked := predictu_dispatch.lock_operator(operator_id);
    begin
        perform from predictu_dispatch.operator o where o.operator_id = operator_id for update;
    exception when lock_not_available then
        perform predictu_dispatch.refuse_locked(format('operator %s', quote_literal(operator_id)));
    end;
    for with_bets in reverse 1..0 loop
        select string_agg(w.fault, '; ') as faults, string_agg(w.advice, ' ') as advice into forbidden
          from predictu_dispatch.why_not_retired(operator_id, with_bets = 1) w;
        if forbidden.faults is not null then
            raise exception using errcode = 'PD005',
                message = format('operator %s is not retired: %s', operator_id, forbidden.faults), hint = forbidden.advice;
        end if;
        continue when with_bets = 0;
        -- enqueue_callback() locks producer_scope before it reads the operator, and holds its lock
        -- until its transaction ends. With this lock, all that was enqueued is visible to the second
        -- turn, and what is enqueued later sees the retirement. Producers wait for 0.2 s at most.
        begin
            perform set_config('lock_timeout', '200ms', true);
            -- Producers of all operators wait until this transaction ends: it may not stay open.
            perform set_config('idle_in_transaction_session_timeout', '2s', true);
            lock table predictu_dispatch.producer_scope in access exclusive mode;
        exception when lock_not_available then
            raise exception using errcode = 'PD006',
                message = format('operator %s is not retired: a transaction of a producer is open, and it may have '
                                 'enqueued a callback; nothing was done', operator_id),
                hint = 'Try again. If it stays so, look in pg_stat_activity for a transaction that was left open.';
        end;
    end loop;
    update predictu_dispatch.operator o
       set retired_at = clock_timestamp(), retired_by = by, retire_reason = reason, revision = o.revision + 1
     where o.operator_id = operator_id
    returning o.* into retired;
    perform predictu_dispatch.record_intervention('retire', to_jsonb(locked), to_jsonb(retired), reason, by, retired.retired_at);
    return retired;
end $$;

revoke all on function predictu_dispatch.retire_operator from public;
revoke all on function predictu_dispatch.retire_operator from predictu_dispatcher;
grant execute on function predictu_dispatch.retire_operator to predictu_operations;
