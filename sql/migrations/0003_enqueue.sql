-- enqueue_callback and what it checks. It is called inside the producer's own transaction, from any language.
--
-- Every function that touches a bet locks the bet first and its callbacks after it. Those that a role may call are security
-- definer with a fixed search_path, so that the role needs no right on any table.

create function predictu_dispatch.lane_of(method text) returns text language sql immutable parallel safe as $$
    select case when method in ('PING', 'BALANCE', 'BET_MAKE', 'BET_ROLLBACK') then 'interactive'
                when method in ('BET_WIN', 'BET_LOSE', 'BET_SELL', 'BET_REFUND') then 'settlement' end
$$;

-- The same keys as in predictu_dispatch/core/methods.py; a test compares them.
create function predictu_dispatch.required_params(method text) returns text[] language sql immutable parallel safe as $$
    select case method
        when 'PING' then '{}'::text[]
        when 'BALANCE' then '{player_id,currency}'
        when 'BET_MAKE' then '{player_id,currency,amount,bet_id,bet}'
        when 'BET_LOSE' then '{player_id,bet_id}'
        when 'BET_ROLLBACK' then '{player_id,currency,amount,bet_id,rollback_of}'
        else '{player_id,currency,amount,bet_id}'
    end
$$;

-- Minor digits of a currency by ISO 4217; null for a code that is not in the list of active codes.
create function predictu_dispatch.minor_digits(currency text) returns integer language sql immutable parallel safe as $$
    select case
        when currency in ('BIF', 'CLP', 'DJF', 'GNF', 'ISK', 'JPY', 'KMF', 'KRW', 'PYG', 'RWF', 'UGX', 'UYI', 'VND', 'VUV', 'XAF',
                          'XOF', 'XPF') then 0
        when currency in ('BHD', 'IQD', 'JOD', 'KWD', 'LYD', 'OMR', 'TND') then 3
        when currency in ('CLF', 'UYW') then 4
        when currency in ('AED', 'AFN', 'ALL', 'AMD', 'ANG', 'AOA', 'ARS', 'AUD', 'AWG', 'AZN', 'BAM', 'BBD', 'BDT', 'BGN', 'BMD',
                          'BND', 'BOB', 'BOV', 'BRL', 'BSD', 'BTN', 'BWP', 'BYN', 'BZD', 'CAD', 'CDF', 'CHE', 'CHF', 'CHW', 'CNY',
                          'COP', 'COU', 'CRC', 'CUP', 'CVE', 'CZK', 'DKK', 'DOP', 'DZD', 'EGP', 'ERN', 'ETB', 'EUR', 'FJD', 'FKP',
                          'GBP', 'GEL', 'GHS', 'GIP', 'GMD', 'GTQ', 'GYD', 'HKD', 'HNL', 'HTG', 'HUF', 'IDR', 'ILS', 'INR', 'IRR',
                          'JMD', 'KES', 'KGS', 'KHR', 'KPW', 'KYD', 'KZT', 'LAK', 'LBP', 'LKR', 'LRD', 'LSL', 'MAD', 'MDL', 'MGA',
                          'MKD', 'MMK', 'MNT', 'MOP', 'MRU', 'MUR', 'MVR', 'MWK', 'MXN', 'MXV', 'MYR', 'MZN', 'NAD', 'NGN', 'NIO',
                          'NOK', 'NPR', 'NZD', 'PAB', 'PEN', 'PGK', 'PHP', 'PKR', 'PLN', 'QAR', 'RON', 'RSD', 'RUB', 'SAR', 'SBD',
                          'SCR', 'SDG', 'SEK', 'SGD', 'SHP', 'SLE', 'SOS', 'SRD', 'SSP', 'STN', 'SVC', 'SYP', 'SZL', 'THB', 'TJS',
                          'TMT', 'TOP', 'TRY', 'TTD', 'TWD', 'TZS', 'UAH', 'USD', 'USN', 'UYU', 'UZS', 'VED', 'VES', 'WST', 'XCD',
                          'XCG', 'YER', 'ZAR', 'ZMW', 'ZWG') then 2
    end
$$;

create function predictu_dispatch.refuse_params(method text, fault text, hint text) returns void language plpgsql as $$
begin
    raise exception using errcode = 'PD003', message = format('bad params for %s: %s', method, fault), hint = hint;
end $$;

-- A text parameter between 1 and 200 characters.
create function predictu_dispatch.check_text(method text, key text, value jsonb) returns void language plpgsql as $$
begin
    if jsonb_typeof(value) <> 'string' or length(value #>> '{}') not between 1 and 200 then
        perform predictu_dispatch.refuse_params(method, format('"%s" is %s', key, left(value::text, 80)),
            format('"%s" must be a string of 1 to 200 characters.', key));
    end if;
end $$;

-- What can be said of params without looking at the bet. Raises PD003; source: PROTOCOL.md, params by method.
create function predictu_dispatch.check_params(method text, params jsonb) returns void language plpgsql as $$
declare
    key text;
    missing text[];
begin
    if params is null or jsonb_typeof(params) <> 'object' then
        perform predictu_dispatch.refuse_params(method, format('%s is not a JSON object', coalesce(left(params::text, 80), 'NULL')),
            'Pass an object, for example jsonb_build_object(''player_id'', …).');
    end if;
    if octet_length(params::text) > 65536 then
        perform predictu_dispatch.refuse_params(method, format('they take %s bytes', octet_length(params::text)),
            'At most 65536 bytes are sent to an operator.');
    end if;
    if params @? '$.**{32}' then
        perform predictu_dispatch.refuse_params(method, 'they are nested too deeply', 'At most 31 levels are sent to an operator.');
    end if;
    if method = 'PING' and params <> '{}' then
        perform predictu_dispatch.refuse_params(method, format('%s is not empty', left(params::text, 80)), 'PING takes {} only.');
    end if;
    select array_agg(k) into missing from unnest(predictu_dispatch.required_params(method)) k where not params ? k;
    if missing is not null then
        perform predictu_dispatch.refuse_params(method, format('missing: %s', array_to_string(missing, ', ')),
            format('%s requires %s.', method, array_to_string(predictu_dispatch.required_params(method), ', ')));
    end if;
    foreach key in array array['player_id', 'bet_id', 'currency'] loop
        if params ? key then
            perform predictu_dispatch.check_text(method, key, params -> key);
        end if;
    end loop;
    if params ? 'currency' and predictu_dispatch.minor_digits(params ->> 'currency') is null then
        perform predictu_dispatch.refuse_params(method, format('unknown currency "%s"', left(params ->> 'currency', 80)),
            'Use an active ISO 4217 code in capitals, for example EUR.');
    end if;
    if params ? 'amount' then
        if jsonb_typeof(params -> 'amount') <> 'number' or (params ->> 'amount') !~ '^[0-9]{1,18}$' then
            perform predictu_dispatch.refuse_params(method, format('"amount" is %s', left((params -> 'amount')::text, 80)),
                '"amount" must be a whole number of subunits (cents), at most 18 digits, not negative.');
        end if;
        if method = 'BET_MAKE' and (params ->> 'amount')::bigint = 0 then
            perform predictu_dispatch.refuse_params(method, '"amount" is 0', 'A placement debits more than nothing.');
        end if;
    end if;
    if method = 'BET_MAKE' then
        if jsonb_typeof(params -> 'bet') <> 'object' then
            perform predictu_dispatch.refuse_params(method, format('"bet" is %s', left((params -> 'bet')::text, 80)),
                '"bet" must be an object with market_id, outcome, odds, shares, price.');
        end if;
        select array_agg(k) into missing from unnest(array['market_id', 'outcome', 'odds', 'shares', 'price']) k
         where not (params -> 'bet') ? k;
        if missing is not null then
            perform predictu_dispatch.refuse_params(method, format('"bet" lacks %s', array_to_string(missing, ', ')),
                '"bet" must be an object with market_id, outcome, odds, shares, price.');
        end if;
    end if;
end $$;

-- What a terminal's params must have in common with its bet. Raises PD003.
create function predictu_dispatch.check_terminal(method text, params jsonb, bet predictu_dispatch.bet) returns void
language plpgsql as $$
declare
    fault text;
begin
    fault := case
        when params ->> 'player_id' <> bet.player_id then format('"player_id" is %s, the bet''s is %s', params ->> 'player_id', bet.player_id)
        when params ->> 'currency' <> bet.currency then format('"currency" is %s, the bet''s is %s', params ->> 'currency', bet.currency)
        when method in ('BET_REFUND', 'BET_ROLLBACK') and (params ->> 'amount')::bigint <> bet.amount
            then format('"amount" is %s, the bet''s debit is %s', params ->> 'amount', bet.amount)
        when method = 'BET_ROLLBACK' and params -> 'rollback_of' <> to_jsonb(bet.placement_request_id::text)
            then format('"rollback_of" is %s, the bet''s placement is %s', left(params ->> 'rollback_of', 80), bet.placement_request_id)
    end;
    if fault is not null then
        perform predictu_dispatch.refuse_params(method, fault, format('Bet %s of operator %s fixes these.', bet.bet_id, bet.operator_id));
    end if;
end $$;

-- The operator, if it is known and enabled. Raises PD002.
create function predictu_dispatch.enabled_operator(operator_id text) returns predictu_dispatch.operator
language plpgsql stable as $$
declare
    found_operator predictu_dispatch.operator;
begin
    select o.* into found_operator from predictu_dispatch.operator o where o.operator_id = enabled_operator.operator_id;
    if not found then
        raise exception using errcode = 'PD002', message = format('unknown operator %s', coalesce(quote_literal(left(operator_id, 80)), 'NULL')),
            hint = 'An operator becomes known when a daemon starts with its file in config/operators/.';
    end if;
    if not found_operator.enabled then
        raise exception using errcode = 'PD002', message = format('operator %s is disabled', quote_literal(operator_id)),
            hint = 'Its file says enabled = false; nothing new is accepted for it. rollback_bet() still is.';
    end if;
    return found_operator;
end $$;

-- True if the same request is enqueued already; raises PD004 where the id stands for something else.
create function predictu_dispatch.is_enqueued(operator_id text, request_id uuid, method text, params jsonb) returns boolean
language plpgsql as $$
declare
    earlier record;
begin
    select c.method, c.params into earlier from predictu_dispatch.callback c
     where c.operator_id = is_enqueued.operator_id and c.request_id = is_enqueued.request_id;
    if not found then
        return false;
    end if;
    if earlier.method <> method or earlier.params is distinct from params then
        raise exception using errcode = 'PD004',
            message = format('request_id %s of operator %s is taken by another %s', request_id, operator_id, earlier.method),
            hint = 'The same id may be enqueued again only with the same method and params; use a new id for a new callback.';
    end if;
    return true;
end $$;

create function predictu_dispatch.refuse_for_bet(operator_id text, bet_id text, what text, fault text, hint text) returns void
language plpgsql as $$
begin
    raise exception using errcode = 'PD005', message = format('%s for bet %s of operator %s is refused: %s', what, bet_id, operator_id, fault),
        hint = hint;
end $$;

create function predictu_dispatch.enqueue_callback(
    operator_id text, method text, params jsonb, request_id uuid default null, expires_at timestamptz default null
) returns uuid language plpgsql security definer set search_path = pg_catalog, pg_temp as $$
#variable_conflict use_variable
declare
    operator predictu_dispatch.operator;
    bet predictu_dispatch.bet;
    id uuid := coalesce(request_id, gen_random_uuid());
    lane text := predictu_dispatch.lane_of(method);
    bet_id text;
    enqueued_at timestamptz := clock_timestamp();
    deadline_s double precision;
    state text := 'ready';
begin
    if lane is null then
        raise exception using errcode = 'PD001', message = format('unknown method %s', coalesce(quote_literal(left(method, 80)), 'NULL')),
            hint = 'Methods are PING, BALANCE, BET_MAKE, BET_WIN, BET_LOSE, BET_SELL, BET_REFUND, BET_ROLLBACK.';
    end if;
    -- Before all that may have changed since: a producer that repeats itself, after the deadline or after its operator was
    -- disabled, must hear that the first time counted.
    if request_id is not null and predictu_dispatch.is_enqueued(operator_id, id, method, params) then
        return id;
    end if;
    operator := predictu_dispatch.enabled_operator(operator_id);
    perform predictu_dispatch.check_params(method, params);
    if expires_at <= enqueued_at or (isfinite(expires_at) and expires_at > enqueued_at + interval '10 years') then
        perform predictu_dispatch.refuse_params(method, format('expires_at %s is in the past, or more than 10 years away', expires_at),
            'Leave it null for the operator''s own deadline, or give infinity for none.');
    end if;
    if method = 'BET_ROLLBACK' and isfinite(expires_at) then
        perform predictu_dispatch.refuse_params(method, format('expires_at is %s', expires_at),
            'A rollback has no deadline: a debit that may stand must be given back, however late.');
    end if;
    if request_id is not null and exists (
        select from predictu_dispatch.bet b
         where b.operator_id = operator_id and b.placement_request_id = id
           and (method <> 'BET_MAKE' or b.bet_id <> params ->> 'bet_id')
    ) then
        raise exception using errcode = 'PD004',
            message = format('request_id %s of operator %s is the placement of a bet', id, operator_id),
            hint = 'The operator would take it for a repetition and do nothing; use a new id for a new callback.';
    end if;
    if method not in ('PING', 'BALANCE') then
        bet_id := params ->> 'bet_id';
    end if;

    if method = 'BET_MAKE' then
        insert into predictu_dispatch.bet (operator_id, bet_id, state, player_id, currency, amount, placement_request_id)
        values (operator_id, bet_id, 'placing', params ->> 'player_id', params ->> 'currency', (params ->> 'amount')::bigint, id)
        on conflict do nothing;
        if not found then
            -- Whoever placed it has committed by now: either this very request, or another one.
            if predictu_dispatch.is_enqueued(operator_id, id, method, params) then
                return id;
            end if;
            perform predictu_dispatch.refuse_for_bet(operator_id, bet_id, method, 'the bet exists already',
                'A bet has one placement; a new placement needs a new bet_id.');
        end if;
    elsif bet_id is not null then
        select b.* into bet from predictu_dispatch.bet b where b.operator_id = operator_id and b.bet_id = bet_id for no key update;
        if not found then
            perform predictu_dispatch.refuse_for_bet(operator_id, bet_id, method, 'the bet is unknown',
                'Enqueue its BET_MAKE first, or adopt_bet() a bet that was opened before this system existed.');
        end if;
        -- Once more under the bet's lock: the same request may have come in while we waited for it.
        if predictu_dispatch.is_enqueued(operator_id, id, method, params) then
            return id;
        end if;
        if bet.state not in ('placing', 'open') or exists (
            select from predictu_dispatch.callback c
             where c.operator_id = operator_id and c.request_id = bet.terminal_request_id and c.state <> 'cancelled'
        ) then
            perform predictu_dispatch.refuse_for_bet(operator_id, bet_id, method,
                case bet.state when 'void' then 'the bet is void, its debit never took place'
                               else format('the bet is %s and has its terminal callback %s already', bet.state, bet.terminal_request_id) end,
                'A bet ends with exactly one of BET_WIN, BET_LOSE, BET_SELL, BET_REFUND, BET_ROLLBACK.');
        end if;
        perform predictu_dispatch.check_terminal(method, params, bet);
        state := case bet.state when 'placing' then 'waiting' else 'ready' end;
        update predictu_dispatch.bet b
           set state = case bet.state when 'placing' then 'placing' else 'closing' end, terminal_request_id = id, updated_at = clock_timestamp()
         where b.operator_id = operator_id and b.bet_id = bet_id;
    end if;

    deadline_s := case when method = 'BET_ROLLBACK' then 0 when lane = 'interactive' then operator.interactive_deadline_s
                       else operator.settlement_deadline_s end;
    insert into predictu_dispatch.callback (operator_id, request_id, method, bet_id, lane, state, params, created_at, due_at, expires_at)
    values (operator_id, id, method, bet_id, lane, state, params, enqueued_at, enqueued_at,
            -- 'infinity' says that there is no deadline; kept as such, it could not be subtracted from before Postgres 17.
            nullif(coalesce(expires_at, enqueued_at + nullif(deadline_s, 0) * interval '1 second'), 'infinity'))
    on conflict do nothing;
    if not found then
        -- The same id came in from another transaction between our look and our insert; PD004 unless it says the same.
        if not predictu_dispatch.is_enqueued(operator_id, id, method, params) then
            raise exception using errcode = '40001', message = format('request_id %s was enqueued at the same moment', id),
                hint = 'Run the transaction again.';
        end if;
    elsif state = 'ready' and lane = 'interactive' then
        -- A settlement waits for the next poll: nobody is waiting for it, and commits that notify queue behind one lock.
        perform pg_notify('predictu_dispatch_due', operator_id);
    end if;
    return id;
end $$;
