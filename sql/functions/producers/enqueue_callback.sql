-- Enqueues a callback in the caller's transaction and returns its request_id. method is PING, BALANCE,
-- BET_MAKE, BET_WIN, BET_LOSE, BET_SELL, BET_REFUND or BET_ROLLBACK; params has that method's keys, with
-- amounts in subunits, and any further ones. Give a request_id of your own: a repeated call with the
-- same id and content returns it and changes nothing. After expires_at nothing is sent; null means the
-- operator's deadline. Raises PD001 (unknown method), PD002 (unknown or disabled operator), PD003 (bad
-- params), PD004 (request_id reused), PD005 (the bet's state forbids it), PD008 (the login may not act
-- for this operator).
create or replace function predictu_dispatch.enqueue_callback(
    operator_id text, method text, params jsonb, request_id uuid default null, expires_at timestamptz default null
) returns uuid language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    operator record;
    bet predictu_dispatch.bet;
    id uuid := coalesce(request_id, predictu_dispatch.new_request_id());
    lane text := predictu_dispatch.lane_of(method);
    bet_id text;
    enqueued_at timestamptz := clock_timestamp();
    deadline_s double precision;
    state text := 'ready';
    refusal text[];
begin
    if lane is null then
        raise exception using errcode = 'PD001',
            message = format('unknown method %s', coalesce(quote_literal(left(method, 80)), 'NULL')),
            hint = 'Methods are PING, BALANCE, BET_MAKE, BET_WIN, BET_LOSE, BET_SELL, BET_REFUND, BET_ROLLBACK.';
    end if;
    -- One query, because each costs as much as this one. Its snapshot is younger than its locks, so it
    -- shows a retirement that it waited for; an older snapshot needs the lock of enabled_operator().
    select o.enabled and o.retired_at is null and current_setting('transaction_isolation') = 'read committed' as is_enabled,
           o.interactive_deadline_s, o.settlement_deadline_s,
           exists (select from predictu_dispatch.producer_scope s where s.role_name = session_user) as is_scoped,
           exists (select from predictu_dispatch.currency c where c.currency = params ->> 'currency') as is_currency_known
      into operator
      from (select) always left join predictu_dispatch.operator o on o.operator_id = operator_id;
    if operator.is_scoped then
        perform predictu_dispatch.check_producer_scope(operator_id);
    end if;
    -- Before all other checks: a repeated request succeeds also after its deadline or after its operator
    -- was disabled.
    if request_id is not null and predictu_dispatch.request_exists(operator_id, id, method, params) then
        return id;
    end if;
    if operator.is_enabled is not true then
        perform predictu_dispatch.enabled_operator(operator_id);
    end if;
    refusal := predictu_dispatch.wrong_params(method, params, operator.is_currency_known);
    if refusal is not null then
        perform predictu_dispatch.refuse_params(method, refusal[1], refusal[2]);
    end if;
    if expires_at <= enqueued_at or (isfinite(expires_at) and expires_at > enqueued_at + interval '10 years') then
        perform predictu_dispatch.refuse_params(method,
            format('expires_at %s is in the past, or more than 10 years away',
                   predictu_dispatch.format_utc(expires_at)),
            'Leave it null for the operator''s own deadline, or give infinity for none.');
    end if;
    if method = 'BET_ROLLBACK' and isfinite(expires_at) then
        perform predictu_dispatch.refuse_params(method, format('expires_at is %s', predictu_dispatch.format_utc(expires_at)),
            'A rollback has no deadline: a debit that may have been applied must be rolled back, however late.');
    end if;
    if request_id is not null and exists (
        select from predictu_dispatch.bet b
         where b.operator_id = operator_id and b.placement_request_id = id
           and (method <> 'BET_MAKE' or b.bet_id <> params ->> 'bet_id')
    ) then
        raise exception using errcode = 'PD004',
            message = format('request_id %s of operator %s is the placement of a bet', id, operator_id),
            hint = 'The operator would treat it as a repeated placement; use a new id for a new callback.';
    end if;
    if method not in ('PING', 'BALANCE') then
        bet_id := params ->> 'bet_id';
    end if;

    if method = 'BET_MAKE' then
        insert into predictu_dispatch.bet (operator_id, bet_id, state, player_id, currency, amount, placement_request_id)
        values (operator_id, bet_id, 'placing', params ->> 'player_id', params ->> 'currency', (params ->> 'amount')::bigint, id)
        on conflict do nothing;
        if not found then
            -- The transaction that placed it has committed: either this request or another one.
            if predictu_dispatch.request_exists(operator_id, id, method, params) then
                return id;
            end if;
            perform predictu_dispatch.refuse_for_bet(operator_id, bet_id, method, 'the bet exists already',
                'A bet has one placement; a new placement needs a new bet_id.');
        end if;
    elsif bet_id is not null then
        select b.* into bet from predictu_dispatch.bet b
         where b.operator_id = operator_id and b.bet_id = bet_id for no key update;
        if not found then
            perform predictu_dispatch.refuse_for_bet(operator_id, bet_id, method, 'the bet is unknown',
                'Enqueue its BET_MAKE first; for a bet that was opened before this system existed, call adopt_bet() first.');
        end if;
        -- Again under the bet's lock: the same request may have been enqueued meanwhile.
        if predictu_dispatch.request_exists(operator_id, id, method, params) then
            return id;
        end if;
        if bet.state not in ('placing', 'open') or exists (
            select from predictu_dispatch.callback c
             where c.operator_id = operator_id and c.request_id = bet.terminal_request_id and c.state <> 'cancelled'
        ) then
            perform predictu_dispatch.refuse_for_bet(operator_id, bet_id, method,
                case bet.state when 'void' then 'the bet is void, its debit never took place'
                               else format('the bet is %s and has its terminal callback %s already', bet.state,
                                           bet.terminal_request_id) end,
                'A bet ends with exactly one of BET_WIN, BET_LOSE, BET_SELL, BET_REFUND, BET_ROLLBACK.');
        end if;
        perform predictu_dispatch.check_terminal(method, params, bet);
        state := case bet.state when 'placing' then 'waiting' else 'ready' end;
        update predictu_dispatch.bet b
           set state = case bet.state when 'placing' then 'placing' else 'closing' end, terminal_request_id = id,
               updated_at = clock_timestamp()
         where b.operator_id = operator_id and b.bet_id = bet_id;
    end if;

    deadline_s := case when method = 'BET_ROLLBACK' then 0 when lane = 'interactive' then operator.interactive_deadline_s
                       else operator.settlement_deadline_s end;
    insert into predictu_dispatch.callback
        (operator_id, request_id, method, bet_id, lane, state, params, created_at, due_at, expires_at)
    values (operator_id, id, method, bet_id, lane, state, params, enqueued_at, enqueued_at,
            -- Null, not infinity, for no deadline: Postgres before 17 cannot subtract from
            -- infinity.
            nullif(coalesce(expires_at, enqueued_at + nullif(deadline_s, 0) * interval '1 second'), 'infinity'))
    on conflict do nothing;
    if not found then
        -- Another transaction has inserted the id since the check above; PD004 if its content
        -- differs.
        if not predictu_dispatch.request_exists(operator_id, id, method, params) then
            raise exception using errcode = '40001',
                message = format('request_id %s was enqueued concurrently', id),
                hint = 'Run the transaction again.';
        end if;
    end if;
    return id;
end $$;

revoke all on function predictu_dispatch.enqueue_callback from public;
grant execute on function predictu_dispatch.enqueue_callback to predictu_producer;
