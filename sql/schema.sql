-- Generated from a migrated database by `python -m tests.support.schema_dump`; do not edit.

CREATE SCHEMA predictu_dispatch;

CREATE TYPE predictu_dispatch.abandonment AS (
	operator_id text,
	request_id uuid,
	method text,
	bet_id text,
	state text,
	effect text,
	attempts integer,
	needs_review boolean,
	bet_state text,
	rollback_request_id uuid,
	warning text,
	abandoned_at timestamp with time zone,
	abandoned_by text,
	abandon_reason text,
	is_repeated boolean
);

CREATE TYPE predictu_dispatch.attempt_report AS (
	operator_id text,
	request_id uuid,
	attempt integer,
	bet_id text,
	state text,
	state_reason text,
	effect text,
	due_in_s double precision,
	operator_status text,
	operator_transaction_id text,
	balance bigint,
	anomaly text,
	reaped boolean,
	method text,
	evidence text,
	verdict text,
	reason text,
	instance text,
	started_at timestamp with time zone,
	finished_at timestamp with time zone,
	url text,
	key_id text,
	request_headers text,
	request_body text,
	response_status integer,
	response_headers text,
	response_body bytea,
	response_truncated boolean,
	connect_ms double precision,
	first_byte_ms double precision,
	total_ms double precision,
	error text,
	report_id uuid,
	peer text,
	peer_certificate_sha256 bytea,
	token_signature bytea,
	response_body_sha256 bytea,
	response_body_repeats integer
);

CREATE TYPE predictu_dispatch.change AS (
	operator_id text,
	request_id uuid,
	method text,
	lane text,
	state text,
	reason text,
	cause text,
	attempt integer
);

CREATE TYPE predictu_dispatch.report AS (
	operator_id text,
	request_id uuid,
	attempt integer,
	bet_id text,
	state text,
	state_reason text,
	effect text,
	due_in_s double precision,
	operator_status text,
	operator_transaction_id text,
	balance bigint,
	anomaly text,
	reaped boolean,
	method text,
	evidence text,
	verdict text,
	reason text,
	instance text,
	started_at timestamp with time zone,
	finished_at timestamp with time zone,
	url text,
	key_id text,
	request_headers text,
	request_body text,
	response_status integer,
	response_headers text,
	response_body bytea,
	response_truncated boolean,
	connect_ms double precision,
	first_byte_ms double precision,
	total_ms double precision,
	error text,
	report_id uuid
);

CREATE FUNCTION predictu_dispatch.abandon_callback(operator_id text, request_id uuid, reason text, by text) RETURNS predictu_dispatch.abandonment
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '3s'
    AS $$
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

CREATE FUNCTION predictu_dispatch.abandonment_of(operator_id text, request_id uuid, is_repeated boolean) RETURNS predictu_dispatch.abandonment
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
    select c.operator_id, c.request_id, c.method, c.bet_id, c.state, c.effect, c.attempts, c.review_since is not null,
           b.state, case when c.method = 'BET_MAKE' and rollback.finished_at is null then rollback.request_id end,
           done.after ->> 'warning', done.done_at, done.done_by, done.reason, abandonment_of.is_repeated
      from predictu_dispatch.callback c
      left join predictu_dispatch.bet b on b.operator_id = c.operator_id and b.bet_id = c.bet_id
      left join predictu_dispatch.callback rollback
        on rollback.operator_id = b.operator_id and rollback.request_id = b.terminal_request_id
       and rollback.method = 'BET_ROLLBACK'
      left join lateral (
          select i.after, i.done_at, i.done_by, i.reason from predictu_dispatch.intervention i
           where i.operator_id = c.operator_id and i.request_id = c.request_id and i.action = 'abandon'
           order by i.done_at desc limit 1
      ) done on true
     where c.operator_id = abandonment_of.operator_id and c.request_id = abandonment_of.request_id
$$;

CREATE TABLE predictu_dispatch.reconciliation_item (
    operator_id text NOT NULL,
    run_id uuid NOT NULL,
    item_id uuid NOT NULL,
    key text NOT NULL,
    class text NOT NULL,
    request_id uuid,
    method text,
    bet_id text,
    player_id text,
    transaction_id text,
    currency text NOT NULL,
    day date NOT NULL,
    confirmed_at timestamp with time zone,
    amounts jsonb NOT NULL,
    lines jsonb NOT NULL,
    disputed numeric NOT NULL,
    is_open boolean DEFAULT false NOT NULL
);

CREATE FUNCTION predictu_dispatch.accept_difference(operator_id text, item_id uuid, reason text, by text) RETURNS predictu_dispatch.reconciliation_item
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '3s'
    AS $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.reconciliation_item;
    logins text[];
begin
    perform predictu_dispatch.commit_durably();
    perform predictu_dispatch.check_intervention('accept', reason, by);
    locked := predictu_dispatch.lock_difference('accept', operator_id, item_id);
    select array_agg(e.database_role) into logins from predictu_dispatch.intervention e
     where e.operator_id = operator_id and e.action = 'explain' and e.before ->> 'item_id' = item_id::text;
    if logins is null then
        raise exception using errcode = 'PD005',
            message = format('accept of difference %s is refused: nobody has explained it', item_id),
            hint = format('To explain it: predictu-dispatch reconcile explain %s --reason TEXT', item_id);
    elsif session_user = any (logins) then
        raise exception using errcode = 'PD005',
            message = format('accept of difference %s is refused: database login %s has explained it', item_id,
                             session_user),
            hint = 'Somebody who has not explained it must accept it, with a database login of their own.';
    end if;
    perform predictu_dispatch.record_intervention('accept',
        to_jsonb(locked) || jsonb_build_object('state', 'explained'),
        to_jsonb(locked) || jsonb_build_object('state', 'accepted'), reason, by, clock_timestamp());
    update predictu_dispatch.reconciliation_item i set is_open = false
     where i.operator_id = operator_id and i.item_id = item_id and i.is_open
    returning i.* into locked;
    return locked;
end $$;

CREATE FUNCTION predictu_dispatch.add_currency(currency text, minor_digits integer) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_variable
declare
    digits integer;
begin
    if coalesce(currency !~ '^[0-9]*[A-Z][A-Z0-9]*$' or length(currency) not between 3 and 10, true) then
        raise exception using errcode = 'PD003',
            message = format('%s is no currency code', coalesce(quote_literal(left(currency, 80)), 'NULL')),
            hint = 'A code has 3 to 10 capital letters and digits, and at least one letter, for example USDT.';
    elsif coalesce(minor_digits not between 0 and 18, true) then
        raise exception using errcode = 'PD003',
            message = format('%s are no minor digits of a currency', coalesce(minor_digits::text, 'NULL')),
            hint = 'A currency has 0 to 18 minor digits.';
    end if;
    insert into predictu_dispatch.currency (currency, minor_digits) values (currency, minor_digits)
    on conflict do nothing;
    if found then
        return true;
    end if;
    select c.minor_digits into digits from predictu_dispatch.currency c where c.currency = currency;
    if digits <> minor_digits then
        raise exception using errcode = 'PD003',
            message = format('currency %s has %s minor digits, not %s', currency, digits, minor_digits),
            hint = 'A currency''s digits never change, because stored amounts are in its subunits; add another code.';
    end if;
    return false;
end $_$;

CREATE TABLE predictu_dispatch.bet (
    operator_id text NOT NULL,
    bet_id text NOT NULL,
    state text NOT NULL,
    player_id text NOT NULL,
    currency text NOT NULL,
    amount bigint NOT NULL,
    placement_request_id uuid NOT NULL,
    terminal_request_id uuid,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT bet_amount_check CHECK ((amount > 0)),
    CONSTRAINT bet_bet_id_check CHECK (((length(bet_id) >= 1) AND (length(bet_id) <= 200))),
    CONSTRAINT bet_check CHECK (((state <> ALL (ARRAY['closing'::text, 'closed'::text])) OR (terminal_request_id IS NOT NULL))),
    CONSTRAINT bet_state_check CHECK ((state = ANY (ARRAY['placing'::text, 'open'::text, 'closing'::text, 'closed'::text, 'void'::text])))
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='20000', autovacuum_analyze_scale_factor='0.02');

CREATE FUNCTION predictu_dispatch.add_rollback(bet predictu_dispatch.bet, bet_state text, callback_state text, cause text, note text) RETURNS uuid
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    id uuid := gen_random_uuid();
begin
    update predictu_dispatch.bet b set state = bet_state, terminal_request_id = id, updated_at = clock_timestamp()
     where b.operator_id = bet.operator_id and b.bet_id = bet.bet_id;
    insert into predictu_dispatch.callback (operator_id, request_id, method, bet_id, lane, state, reason, params, note)
    values (bet.operator_id, id, 'BET_ROLLBACK', bet.bet_id, 'interactive', callback_state, cause,
            jsonb_build_object('player_id', bet.player_id, 'currency', bet.currency, 'amount', bet.amount,
                               'bet_id', bet.bet_id, 'rollback_of', bet.placement_request_id), note);
    if callback_state = 'ready' then
        perform predictu_dispatch.notify('predictu_dispatch_due', bet.operator_id);
    end if;
    return id;
end $$;

CREATE FUNCTION predictu_dispatch.adopt_bet(operator_id text, bet_id text, player_id text, currency text, amount bigint, placement_request_id uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
declare
    earlier predictu_dispatch.bet;
begin
    perform predictu_dispatch.check_producer_scope(operator_id);
    -- retire_operator() waits for this lock, and the next statement sees what it did.
    perform from predictu_dispatch.operator o where o.operator_id = operator_id for key share;
    perform predictu_dispatch.enabled_operator(operator_id);
    perform predictu_dispatch.check_params('adopt_bet', jsonb_build_object(
        'player_id', player_id, 'currency', currency, 'amount', amount, 'bet_id', bet_id));
    if amount = 0 or placement_request_id is null then
        perform predictu_dispatch.refuse_params('adopt_bet',
            case when amount = 0 then '"amount" is 0' else '"placement_request_id" is NULL' end,
            'Give the booked debit and the request_id under which the operator booked it.');
    end if;
    if exists (select from predictu_dispatch.callback c
                where c.operator_id = operator_id and c.request_id = placement_request_id) then
        raise exception using errcode = 'PD004',
            message = format('placement_request_id %s of operator %s is a callback of this system',
                             placement_request_id, operator_id),
            hint = 'Adopt only bets that were placed before this system existed.';
    end if;
    insert into predictu_dispatch.bet (operator_id, bet_id, state, player_id, currency, amount, placement_request_id)
    values (operator_id, bet_id, 'open', player_id, currency, amount, placement_request_id)
    on conflict do nothing;
    if not found then
        -- The lock makes this commit wait for the standby that may not have the first one yet.
        select b.* into earlier from predictu_dispatch.bet b
         where b.operator_id = operator_id and b.bet_id = bet_id for key share;
        if not found then
            raise exception using errcode = 'PD004',
                message = format('placement_request_id %s of operator %s belongs to another bet',
                                 placement_request_id, operator_id),
                hint = 'Each debit belongs to one bet: check the id under which the operator has booked this one.';
        end if;
        if (earlier.player_id, earlier.currency, earlier.amount, earlier.placement_request_id)
           is distinct from (player_id, currency, amount, placement_request_id) then
            perform predictu_dispatch.refuse_for_bet(operator_id, bet_id, 'adoption',
                'the bet exists already with other content',
                'A bet is adopted once; adopting it again with the same content changes nothing.');
        end if;
    end if;
end $$;

CREATE FUNCTION predictu_dispatch.advance_bets(operator_ids text[], bet_ids text[]) RETURNS SETOF predictu_dispatch.change
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
declare
    moved record;
    ended record;
    rollback_id uuid;
begin
    -- Terminal delivered: closing → closed.
    -- BET_MAKE delivered: placing → open, or → closing if a terminal callback waits.
    select array_agg(found.operator_id) filter (where next_state is not null) as operator_ids,
           array_agg(found.bet_id) filter (where next_state is not null) as bet_ids,
           array_agg(found.next_state) filter (where next_state is not null) as states,
           array_agg(found.operator_id) filter (where is_released) as released_operator_ids,
           array_agg(found.terminal_request_id) filter (where is_released) as released_ids,
           bool_or(found.has_failed) as has_failed
      into moved
      from (select named.operator_id, named.bet_id, b.terminal_request_id,
                   case when b.state = 'closing' and terminal.state = 'delivered' then 'closed'
                        when b.state = 'placing' and placement.state = 'delivered' and terminal.state = 'waiting'
                            then 'closing'
                        when b.state = 'placing' and placement.state = 'delivered' then 'open' end as next_state,
                   terminal.state = 'waiting'
                       and (b.state = 'closing' or (b.state = 'placing' and placement.state = 'delivered')) as is_released,
                   b.state = 'placing' and placement.state in ('rejected', 'exhausted', 'cancelled') as has_failed
              from unnest(operator_ids, bet_ids) as named (operator_id, bet_id)
             cross join lateral (
                 select b.state, b.placement_request_id, b.terminal_request_id from predictu_dispatch.bet b
                  where b.operator_id = named.operator_id and b.bet_id = named.bet_id limit 1) b
              left join lateral (
                  select c.state from predictu_dispatch.callback c
                   where c.operator_id = named.operator_id and c.request_id = b.placement_request_id
                     and b.state = 'placing' limit 1
              ) placement on true
              left join lateral (
                  select c.state from predictu_dispatch.callback c
                   where c.operator_id = named.operator_id and c.request_id = b.terminal_request_id limit 1) terminal on true
           ) found
     where found.next_state is not null or found.is_released or found.has_failed;

    if moved.bet_ids is not null then
        update predictu_dispatch.bet b
           set state = m.state, updated_at = clock_timestamp()
          from unnest(moved.operator_ids, moved.bet_ids, moved.states) as m (operator_id, bet_id, state)
         where b.operator_id = m.operator_id and b.bet_id = m.bet_id;
    end if;

    if moved.has_failed then
        -- BET_MAKE ended unconfirmed.
        for ended in
            select b as bet, placement.state, placement.reason, placement.effect, terminal.request_id as terminal_id,
                   terminal.state as terminal_state, terminal.method as terminal_method
              from unnest(operator_ids, bet_ids) as named (operator_id, bet_id)
             cross join lateral predictu_dispatch.get_bet(named.operator_id, named.bet_id) b
             cross join lateral predictu_dispatch.get_callback(named.operator_id, b.placement_request_id) placement
              left join lateral predictu_dispatch.get_callback(named.operator_id, b.terminal_request_id) terminal on true
             where b.state = 'placing' and placement.state in ('rejected', 'exhausted', 'cancelled')
        loop
            if ended.effect = 'none' then
                -- No debit took place: → void; a waiting terminal is cancelled.
                update predictu_dispatch.bet b set state = 'void', updated_at = clock_timestamp()
                 where b.operator_id = (ended.bet).operator_id and b.bet_id = (ended.bet).bet_id;
                return query select * from predictu_dispatch.cancel_waiting((ended.bet).operator_id, ended.terminal_id,
                    case when ended.state = 'rejected' then 'bet_rejected'
                         when ended.reason = 'rolled_back' then 'rolled_back' else 'bet_void' end, false);
            elsif ended.terminal_state = 'waiting' and ended.terminal_method = 'BET_ROLLBACK' then
                -- The debit may be applied, and its rollback waits: → closing; it is released with
                -- the others.
                update predictu_dispatch.bet b set state = 'closing', updated_at = clock_timestamp()
                 where b.operator_id = (ended.bet).operator_id and b.bet_id = (ended.bet).bet_id;
                moved.released_operator_ids := array_append(moved.released_operator_ids, (ended.bet).operator_id);
                moved.released_ids := array_append(moved.released_ids, ended.terminal_id);
            else
                -- The debit may be applied: → closing with a rollback; another waiting terminal is
                -- cancelled and needs review.
                return query select * from predictu_dispatch.cancel_waiting((ended.bet).operator_id, ended.terminal_id,
                    'rolled_back', true);
                rollback_id := predictu_dispatch.add_rollback(ended.bet, 'closing', 'ready',
                    case ended.reason when 'rolled_back' then 'requested' else 'unknown_effect' end, null);
                return query select c.operator_id, c.request_id, c.method, c.lane, c.state, c.reason, 'rolled_back',
                                    null::integer
                               from predictu_dispatch.callback c
                              where c.operator_id = (ended.bet).operator_id and c.request_id = rollback_id;
            end if;
        end loop;
    end if;

    -- The bet is closing, so its waiting terminal may be sent.
    if moved.released_ids is not null then
        return query
        update predictu_dispatch.callback terminal
           set state = 'ready', due_at = clock_timestamp()
          from unnest(moved.released_operator_ids, moved.released_ids) as released (operator_id, request_id)
         where terminal.operator_id = released.operator_id and terminal.request_id = released.request_id
        returning terminal.operator_id, terminal.request_id, terminal.method, terminal.lane, terminal.state,
                  terminal.reason, 'released', null::integer;
    end if;
end $$;

CREATE FUNCTION predictu_dispatch.audit_append(expected bigint, sealed_until text, sealed_at timestamp with time zone, backlog_part text, backlog_source bigint, backlog_block bigint, head_operators text[], sizes bigint[], roots bytea[], checkpoints text[], tile_operators text[], levels integer[], tiles bigint[], hashes bytea[], report_ids bytea[], started_from timestamp with time zone[], started_until timestamp with time zone[]) RETURNS TABLE(is_appended boolean, operator_id text, origin text, size bigint, root bytea, checkpoint text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET lock_timeout TO '5s'
    AS $$
#variable_conflict use_column
begin
    perform predictu_dispatch.commit_durably();
    update predictu_dispatch.audit_position p
       set revision = p.revision + 1,
           sealed_until = coalesce(audit_append.sealed_until::pg_snapshot, p.sealed_until),
           sealed_at = coalesce(audit_append.sealed_at, p.sealed_at),
           backlog_part = case when audit_append.backlog_part is null then p.backlog_part
                               when audit_append.backlog_part <> 'done' then audit_append.backlog_part end,
           backlog_source = case when audit_append.backlog_part is null then p.backlog_source
                                 else audit_append.backlog_source end,
           backlog_block = case when audit_append.backlog_part is null then p.backlog_block
                                else audit_append.backlog_block end,
           backlog_until = case when audit_append.backlog_part is distinct from 'done' then p.backlog_until end
     where p.revision = expected
       -- With a position ahead of the present, later rows would never be sealed.
       and coalesce(pg_snapshot_xmax(audit_append.sealed_until::pg_snapshot) <= pg_snapshot_xmax(pg_current_snapshot()), true);
    is_appended := found;
    return next;
    if not is_appended then
        return;
    end if;
    update predictu_dispatch.audit_tile t
       set hashes = t.hashes || n.hashes, report_ids = t.report_ids || n.report_ids,
           started_from = least(t.started_from, n.started_from),
           started_until = greatest(t.started_until, n.started_until)
      from unnest(tile_operators, levels, tiles, audit_append.hashes, audit_append.report_ids, audit_append.started_from,
                  audit_append.started_until)
           as n (operator_id, level, tile, hashes, report_ids, started_from, started_until)
     where n.level = 0 and t.operator_id = n.operator_id and t.level = 0 and t.tile = n.tile;
    -- New tiles get their ids afterwards: the two columns of one row would fill two pages of TOAST, and
    -- apart they need one and a half.
    insert into predictu_dispatch.audit_tile as t (operator_id, level, tile, hashes, started_from, started_until)
    select n.operator_id, n.level, n.tile, n.hashes, n.started_from, n.started_until
      from unnest(tile_operators, levels, tiles, hashes, started_from, started_until)
           as n (operator_id, level, tile, hashes, started_from, started_until)
        on conflict (operator_id, level, tile) do update set hashes = excluded.hashes where t.level > 0;
    update predictu_dispatch.audit_tile t
       set report_ids = n.report_ids
      from unnest(tile_operators, levels, tiles, audit_append.report_ids) as n (operator_id, level, tile, report_ids)
     where n.level = 0 and t.operator_id = n.operator_id and t.level = 0 and t.tile = n.tile and t.report_ids is null;
    insert into predictu_dispatch.audit_head as h (operator_id, size, root, checkpoint)
    select n.operator_id, n.size, n.root, n.checkpoint
      from unnest(head_operators, sizes, roots, checkpoints) as n (operator_id, size, root, checkpoint)
        on conflict (operator_id) do update
       set size = excluded.size, root = excluded.root, checkpoint = excluded.checkpoint, updated_at = clock_timestamp();
    return query
        with stored as (
            insert into predictu_dispatch.audit_checkpoint (operator_id, size, checkpoint)
            select h.operator_id, h.size, h.checkpoint
              from predictu_dispatch.audit_head h
              left join lateral (
                       select c.size, c.signed_at from predictu_dispatch.audit_checkpoint c
                        where c.operator_id = h.operator_id order by c.size desc limit 1) newest on true
             where h.size > coalesce(newest.size, 0)
               and (newest.signed_at between date_trunc('minute', clock_timestamp()) and clock_timestamp()) is not true
            returning audit_checkpoint.operator_id
        )
        select true, h.operator_id, l.origin, h.size, h.root, h.checkpoint
          from stored s
          join predictu_dispatch.audit_head h on h.operator_id = s.operator_id
          join predictu_dispatch.audit_log l on l.operator_id = s.operator_id
         order by h.operator_id;
end $$;

CREATE FUNCTION predictu_dispatch.audit_backlog(blocks integer) RETURNS TABLE(revision bigint, backlog_part text, backlog_source bigint, backlog_block bigint, operator_id text, origin text, size bigint, root bytea, level integer, tile bigint, is_new boolean, hashes bytea, report_ids bytea, started_from timestamp with time zone, started_until timestamp with time zone)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
declare
    state predictu_dispatch.audit_position;
    part record;
    first_block bigint;
    next_part text;
    next_source bigint;
    next_block bigint;
    attempts text;
    rows record;
begin
    select p.* into state from predictu_dispatch.audit_position p where p.backlog_until is not null;
    if state.revision is null then
        return;
    end if;
    select null::text[] as operator_ids, null::bigint[] as written, null::uuid[] as entry_ids,
           null::timestamptz[] as started, null::bytea[] as leaves into rows;
    if state.backlog_part = '' then
        select array_agg(o.operator_id) as operator_ids, array_agg(o.written_in) as written,
               array_agg(o.entry_id) as entry_ids, array_agg(null::timestamptz) as started, array_agg(o.leaf) as leaves
          into rows
          from predictu_dispatch.audit_sparse_entries() o
         where (o.written_in is null or o.written_in <= state.xid_offset
                or pg_visible_in_snapshot((o.written_in - state.xid_offset)::text::xid8, state.backlog_until));
        next_part := ' ';
    else
        -- The partitions in the order of their names; rows of the backlog are in no later one.
        select c.relname::text as name, pg_relation_filenode(c.oid)::bigint as source,
               pg_relation_size(c.oid) / current_setting('block_size')::bigint as blocks
          into part
          from pg_inherits i join pg_class c on c.oid = i.inhrelid
         where i.inhparent = 'predictu_dispatch.attempt_record'::regclass and c.relname::text collate "C" >= state.backlog_part
         order by c.relname limit 1;
        if part.name is null then
            next_part := 'done';
        else
            first_block := case when part.name = state.backlog_part and part.source = state.backlog_source
                                then state.backlog_block else 0 end;
            -- The view's text, read from one partition's blocks.
            attempts := replace(rtrim(pg_get_viewdef('predictu_dispatch.attempt'::regclass), ';'),
                                'FROM predictu_dispatch.attempt_record',
                                format('FROM predictu_dispatch.%I attempt_record WHERE ctid >= %L AND ctid < %L', part.name,
                                       format('(%s,0)', first_block), format('(%s,0)', first_block + blocks)));
            execute format($statement$
                select array_agg(a.operator_id) as operator_ids, array_agg(a.written_in) as written,
                       array_agg(a.report_id) as entry_ids, array_agg(a.started_at) as started,
                       array_agg(sha256(decode('00', 'hex')
                                        || predictu_dispatch.audit_entry(row(a.*)::predictu_dispatch.attempt))) as leaves
                  from (%s) a
                 where a.written_in is null or a.written_in <= $1
                    or pg_visible_in_snapshot((a.written_in - $1)::text::xid8, $2)
                $statement$, attempts)
               into rows using state.xid_offset, state.backlog_until;
            if first_block + blocks < part.blocks then
                next_part := part.name;
                next_source := part.source;
                next_block := first_block + blocks;
            else
                -- The next name in any order.
                next_part := part.name || ' ';
            end if;
        end if;
    end if;

    -- Without those that are sealed. A tile may hold an attempt only if its times enclose the attempt's.
    with candidate as materialized (
        select * from unnest(rows.operator_ids, rows.written, rows.entry_ids, rows.started, rows.leaves)
                      as c (operator_id, written_in, entry_id, started_at, leaf)
    ), bounds as materialized (
        select c.operator_id, min(c.started_at) as started_from, max(c.started_at) as started_until,
               bool_or(c.started_at is null) as is_anywhere
          from candidate c group by c.operator_id
    ), sealed as materialized (
        select t.operator_id, substr(t.report_ids, 16 * n + 1, 16) as id, substr(t.hashes, 32 * n + 1, 32) as leaf
          from bounds b
          join predictu_dispatch.audit_tile t
            on t.operator_id = b.operator_id and t.level = 0
               and (b.is_anywhere or t.started_from <= b.started_until and t.started_until >= b.started_from)
         cross join generate_series(0, octet_length(t.report_ids) / 16 - 1) as n
    )
    select array_agg(c.operator_id) as operator_ids, array_agg(c.written_in) as written,
           array_agg(c.entry_id) as entry_ids, array_agg(c.started_at) as started, array_agg(c.leaf) as leaves
      into rows
      from candidate c
     where not exists (select from sealed s
                        where s.operator_id = c.operator_id and s.id = uuid_send(c.entry_id) and s.leaf = c.leaf);
    return query
        select state.revision, next_part, next_source, next_block, p.*
          from (values (true)) as always
          left join predictu_dispatch.audit_tile_growth(rows.operator_ids, rows.written, rows.entry_ids, rows.started,
                                                  rows.leaves) p on true;
end $_$;

CREATE FUNCTION predictu_dispatch.audit_begin(origin text, operator_ids text[]) RETURNS text[]
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    begun text[];
    is_first boolean := not exists (select from predictu_dispatch.audit_position);
begin
    perform predictu_dispatch.commit_durably();
    if not is_first then
        perform set_config('enable_seqscan', 'off', true);
    end if;
    -- One statement, so that all of it sees one snapshot.
    with missing as materialized (
        select o.operator_id from predictu_dispatch.operator o union select unnest(audit_begin.operator_ids)
        except select l.operator_id from predictu_dispatch.audit_log l
    ), stored as materialized (
        select r.operator_id, count(*) as attempts from predictu_dispatch.attempt_record r
         where is_first and r.operator_id in (select m.operator_id from missing m) group by r.operator_id
        union all
        select m.operator_id,
               (select count(*) from predictu_dispatch.attempt_record r where r.operator_id = m.operator_id)
          from missing m where not is_first
    ), inserted as (
        insert into predictu_dispatch.audit_log
            (operator_id, origin, attempts_before, interventions_before, system_identifier)
        select m.operator_id,
               -- The name of a key in notes has no space and no plus.
               audit_begin.origin || '/' || case when m.operator_id ~ '^[A-Za-z0-9._-]{1,200}$' then m.operator_id
                   else '%' || encode(sha256(convert_to(m.operator_id, 'UTF8')), 'hex') end,
               coalesce(a.attempts, 0),
               (select count(*) from predictu_dispatch.intervention i where i.operator_id = m.operator_id),
               c.system_identifier
          from missing m
          left join stored a on a.operator_id = m.operator_id
         cross join pg_control_system() c
            on conflict do nothing returning audit_log.operator_id
    ), positioned as (
        insert into predictu_dispatch.audit_position
            (system_identifier, sealed_until, backlog_until, backlog_part, backlog_block)
        select c.system_identifier, pg_current_snapshot(), pg_current_snapshot(), '', 0 from pg_control_system() c
         where not exists (select from predictu_dispatch.audit_position) on conflict do nothing
    )
    select coalesce(array_agg(b.operator_id order by b.operator_id), '{}') into begun from inserted b;
    return begun;
end $_$;

CREATE TABLE predictu_dispatch.attempt_record (
    operator_id text CONSTRAINT attempt_operator_id_not_null NOT NULL,
    request_id uuid CONSTRAINT attempt_request_id_not_null NOT NULL,
    method text CONSTRAINT attempt_method_not_null NOT NULL,
    attempt integer CONSTRAINT attempt_attempt_not_null NOT NULL,
    evidence text CONSTRAINT attempt_evidence_not_null NOT NULL,
    verdict text CONSTRAINT attempt_verdict_not_null NOT NULL,
    reason text,
    instance text CONSTRAINT attempt_instance_not_null NOT NULL,
    started_at timestamp with time zone CONSTRAINT attempt_started_at_not_null NOT NULL,
    finished_at timestamp with time zone CONSTRAINT attempt_finished_at_not_null NOT NULL,
    url text,
    key_id text,
    request_headers jsonb,
    request_body text,
    response_status integer,
    response_headers jsonb,
    response_body bytea,
    response_truncated boolean DEFAULT false CONSTRAINT attempt_response_truncated_not_null NOT NULL,
    connect_ms double precision,
    first_byte_ms double precision,
    total_ms double precision,
    error text,
    report_id uuid CONSTRAINT attempt_report_id_not_null NOT NULL,
    peer text,
    peer_certificate_sha256 bytea,
    token_signature bytea,
    response_body_sha256 bytea,
    response_body_repeats integer,
    written_in bigint DEFAULT ((pg_current_xact_id())::text)::bigint,
    CONSTRAINT attempt_attempt_check CHECK ((attempt > 0)),
    CONSTRAINT attempt_evidence_check CHECK ((evidence = ANY (ARRAY['not_sent'::text, 'unanswered'::text, 'answered'::text]))),
    CONSTRAINT attempt_verdict_check CHECK ((verdict = ANY (ARRAY['delivered'::text, 'rejected'::text, 'retry'::text, 'late'::text])))
)
PARTITION BY RANGE (started_at);

ALTER TABLE ONLY predictu_dispatch.attempt_record REPLICA IDENTITY FULL;

CREATE VIEW predictu_dispatch.attempt AS
 SELECT operator_id,
    request_id,
    method,
    attempt,
    evidence,
    verdict,
    reason,
    instance,
    started_at,
    finished_at,
    url,
    key_id,
    request_headers,
    request_body,
    response_status,
    response_headers,
    response_body,
    response_truncated,
    connect_ms,
    first_byte_ms,
    total_ms,
    error,
    report_id,
    peer,
    peer_certificate_sha256,
    response_body_sha256,
    response_body_repeats,
    written_in,
        CASE
            WHEN (token_signature IS NOT NULL) THEN sha256(convert_to(replace(substr((request_headers ->> 'Authorization'::text), 8), '[signature withheld]'::text, translate(encode(token_signature, 'base64'::text), '+/=
'::text, '-_'::text)), 'UTF8'::name))
            ELSE NULL::bytea
        END AS token_sha256
   FROM predictu_dispatch.attempt_record;

CREATE FUNCTION predictu_dispatch.audit_entry(a predictu_dispatch.attempt) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN convert_to(((((((((((((((('{"attempt":'::text || COALESCE(((a).attempt)::text, 'null'::text)) || ',"connect_us":'::text) || CASE WHEN (((a).connect_ms >= ('-9000000000000'::numeric)::double precision) AND ((a).connect_ms <= ('9000000000000'::numeric)::double precision)) THEN ((round(((a).connect_ms * (1000)::double precision)))::bigint)::text WHEN ((a).connect_ms = ANY (ARRAY['NaN'::double precision, 'Infinity'::double precision, '-Infinity'::double precision])) THEN (('"'::text || ((a).connect_ms)::text) || '"'::text) ELSE COALESCE((('"'::text || encode(float8send((a).connect_ms), 'hex'::text)) || '"'::text), 'null'::text) END) || ',"error_sha256":'::text) || COALESCE((('"'::text || encode(sha256(convert_to((a).error, 'UTF8'::name)), 'hex'::text)) || '"'::text), 'null'::text)) || ',"evidence":'::text) || COALESCE((to_json((a).evidence))::text, 'null'::text)) || ',"finished_at":'::text) || COALESCE((('"'::text || CASE WHEN (((a).finished_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND ((a).finished_at < 'infinity'::timestamp with time zone)) THEN to_char(((a).finished_at AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'::text) WHEN isfinite((a).finished_at) THEN to_char(((a).finished_at AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z BC"'::text) ELSE ((a).finished_at)::text END) || '"'::text), 'null'::text)) || ',"first_byte_us":'::text) || CASE WHEN (((a).first_byte_ms >= ('-9000000000000'::numeric)::double precision) AND ((a).first_byte_ms <= ('9000000000000'::numeric)::double precision)) THEN ((round(((a).first_byte_ms * (1000)::double precision)))::bigint)::text WHEN ((a).first_byte_ms = ANY (ARRAY['NaN'::double precision, 'Infinity'::double precision, '-Infinity'::double precision])) THEN (('"'::text || ((a).first_byte_ms)::text) || '"'::text) ELSE COALESCE((('"'::text || encode(float8send((a).first_byte_ms), 'hex'::text)) || '"'::text), 'null'::text) END) || (((((((((((',"instance":'::text || COALESCE((to_json((a).instance))::text, 'null'::text)) || ',"key_id":'::text) || COALESCE((to_json((a).key_id))::text, 'null'::text)) || ',"kind":"attempt","method":'::text) || COALESCE((to_json((a).method))::text, 'null'::text)) || ',"operator_id":'::text) || COALESCE((to_json((a).operator_id))::text, 'null'::text)) || ',"peer":'::text) || COALESCE((to_json((a).peer))::text, 'null'::text)) || ',"peer_certificate_sha256":'::text) || COALESCE((('"'::text || encode((a).peer_certificate_sha256, 'hex'::text)) || '"'::text), 'null'::text))) || (((((((((((',"reason":'::text || COALESCE((to_json((a).reason))::text, 'null'::text)) || ',"report_id":'::text) || COALESCE((('"'::text || ((a).report_id)::text) || '"'::text), 'null'::text)) || ',"request_body_sha256":'::text) || COALESCE((('"'::text || encode(sha256(convert_to((a).request_body, 'UTF8'::name)), 'hex'::text)) || '"'::text), 'null'::text)) || ',"request_headers_sha256":'::text) || COALESCE((('"'::text || encode(sha256(convert_to(((a).request_headers)::text, 'UTF8'::name)), 'hex'::text)) || '"'::text), 'null'::text)) || ',"request_id":'::text) || COALESCE((('"'::text || ((a).request_id)::text) || '"'::text), 'null'::text)) || ',"response_body_repeats":'::text) || COALESCE(((a).response_body_repeats)::text, 'null'::text))) || (((((((((((',"response_body_sha256":'::text || COALESCE((('"'::text || encode(COALESCE((a).response_body_sha256, sha256((a).response_body)), 'hex'::text)) || '"'::text), 'null'::text)) || ',"response_body_stored_sha256":'::text) || COALESCE((('"'::text || encode(sha256((a).response_body), 'hex'::text)) || '"'::text), 'null'::text)) || ',"response_headers_sha256":'::text) || COALESCE((('"'::text || encode(sha256(convert_to(((a).response_headers)::text, 'UTF8'::name)), 'hex'::text)) || '"'::text), 'null'::text)) || ',"response_status":'::text) || COALESCE(((a).response_status)::text, 'null'::text)) || ',"response_truncated":'::text) || COALESCE(((a).response_truncated)::text, 'null'::text)) || ',"started_at":'::text) || COALESCE((('"'::text || CASE WHEN (((a).started_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND ((a).started_at < 'infinity'::timestamp with time zone)) THEN to_char(((a).started_at AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'::text) WHEN isfinite((a).started_at) THEN to_char(((a).started_at AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z BC"'::text) ELSE ((a).started_at)::text END) || '"'::text), 'null'::text))) || ((((((((((',"token_sha256":'::text || COALESCE((('"'::text || encode((a).token_sha256, 'hex'::text)) || '"'::text), 'null'::text)) || ',"total_us":'::text) || CASE WHEN (((a).total_ms >= ('-9000000000000'::numeric)::double precision) AND ((a).total_ms <= ('9000000000000'::numeric)::double precision)) THEN ((round(((a).total_ms * (1000)::double precision)))::bigint)::text WHEN ((a).total_ms = ANY (ARRAY['NaN'::double precision, 'Infinity'::double precision, '-Infinity'::double precision])) THEN (('"'::text || ((a).total_ms)::text) || '"'::text) ELSE COALESCE((('"'::text || encode(float8send((a).total_ms), 'hex'::text)) || '"'::text), 'null'::text) END) || ',"url":'::text) || COALESCE((to_json((a).url))::text, 'null'::text)) || ',"verdict":'::text) || COALESCE((to_json((a).verdict))::text, 'null'::text)) || ',"version":1,"written_in":'::text) || COALESCE(((a).written_in)::text, 'null'::text)) || '}'::text)), 'UTF8'::name);

CREATE FUNCTION predictu_dispatch.audit_heads() RETURNS TABLE(unsealed_s double precision, operator_id text, size bigint, checkpoint text, cosignatures text[], verified_s double precision, faults bigint)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    -- One index lookup for each operator, because this is read every few seconds.
    with recursive verified (operator_id) as (
        select min(v.operator_id) from predictu_dispatch.audit_verification v
        union all
        select (select min(v.operator_id) from predictu_dispatch.audit_verification v where v.operator_id > o.operator_id)
          from verified o where o.operator_id is not null
    ), known as (
        select h.operator_id from predictu_dispatch.audit_head h
        union select v.operator_id from verified v where v.operator_id is not null
    )
    select greatest(0, extract(epoch from clock_timestamp() - p.sealed_at)), k.operator_id, h.size, h.checkpoint,
           array(select c.line from predictu_dispatch.audit_cosignature c
                  where c.operator_id = h.operator_id and c.size = h.size order by c.witness),
           greatest(0, extract(epoch from clock_timestamp() - coalesce(last.verified_at, l.started_at))), coalesce(last.faults, 0)
      from predictu_dispatch.audit_position p
      left join known k on true
      left join predictu_dispatch.audit_head h on h.operator_id = k.operator_id
      left join predictu_dispatch.audit_log l on l.operator_id = k.operator_id
      left join lateral (
          select v.verified_at, v.faults from predictu_dispatch.audit_verification v
           where v.operator_id = k.operator_id order by v.verified_at desc limit 1) last on true
$$;

CREATE TABLE predictu_dispatch.intervention (
    operator_id text NOT NULL,
    intervention_id uuid DEFAULT gen_random_uuid() NOT NULL,
    request_id uuid,
    action text NOT NULL,
    reason text,
    done_by text NOT NULL,
    database_role text DEFAULT SESSION_USER NOT NULL,
    done_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    bet_id text,
    client_addr inet DEFAULT inet_client_addr(),
    before jsonb,
    after jsonb,
    written_in bigint DEFAULT ((pg_current_xact_id())::text)::bigint,
    CONSTRAINT intervention_has_a_reason CHECK (((reason IS NOT NULL) OR (action = ANY (ARRAY['resume'::text, 'retry'::text]))))
);

CREATE FUNCTION predictu_dispatch.audit_intervention_entry(i predictu_dispatch.intervention) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN convert_to(((((((((((((('{"action":'::text || COALESCE((to_json((i).action))::text, 'null'::text)) || ',"after_sha256":'::text) || COALESCE((('"'::text || encode(sha256(convert_to(((i).after)::text, 'UTF8'::name)), 'hex'::text)) || '"'::text), 'null'::text)) || ',"before_sha256":'::text) || COALESCE((('"'::text || encode(sha256(convert_to(((i).before)::text, 'UTF8'::name)), 'hex'::text)) || '"'::text), 'null'::text)) || ',"bet_id":'::text) || COALESCE((to_json((i).bet_id))::text, 'null'::text)) || ',"client_addr":'::text) || COALESCE((('"'::text || ((i).client_addr)::text) || '"'::text), 'null'::text)) || ',"database_role":'::text) || COALESCE((to_json((i).database_role))::text, 'null'::text)) || (((((((((((',"done_at":'::text || COALESCE((('"'::text || CASE WHEN (((i).done_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND ((i).done_at < 'infinity'::timestamp with time zone)) THEN to_char(((i).done_at AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'::text) WHEN isfinite((i).done_at) THEN to_char(((i).done_at AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z BC"'::text) ELSE ((i).done_at)::text END) || '"'::text), 'null'::text)) || ',"done_by":'::text) || COALESCE((to_json((i).done_by))::text, 'null'::text)) || ',"intervention_id":'::text) || COALESCE((('"'::text || ((i).intervention_id)::text) || '"'::text), 'null'::text)) || ',"kind":"intervention","operator_id":'::text) || COALESCE((to_json((i).operator_id))::text, 'null'::text)) || ',"reason_sha256":'::text) || COALESCE((('"'::text || encode(sha256(convert_to((i).reason, 'UTF8'::name)), 'hex'::text)) || '"'::text), 'null'::text)) || ',"request_id":'::text) || COALESCE((('"'::text || ((i).request_id)::text) || '"'::text), 'null'::text))) || ((',"version":1,"written_in":'::text || COALESCE(((i).written_in)::text, 'null'::text)) || '}'::text)), 'UTF8'::name);

CREATE TABLE predictu_dispatch.signing_key (
    operator_id text NOT NULL,
    kid text NOT NULL,
    algorithm text NOT NULL,
    public_jwk jsonb NOT NULL,
    first_seen_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    retired_at timestamp with time zone,
    first_seen_id uuid DEFAULT gen_random_uuid() NOT NULL,
    retired_id uuid,
    written_in bigint DEFAULT ((pg_current_xact_id())::text)::bigint,
    retired_in bigint,
    CONSTRAINT signing_key_algorithm_check CHECK ((algorithm = ANY (ARRAY['EdDSA'::text, 'RS256'::text]))),
    CONSTRAINT signing_key_check CHECK ((((retired_at IS NULL) = (retired_id IS NULL)) AND ((retired_at IS NULL) = (retired_in IS NULL)) AND COALESCE((retired_at >= first_seen_at), true)))
);

CREATE FUNCTION predictu_dispatch.audit_key_entry(k predictu_dispatch.signing_key, event text) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN convert_to((((((((((((('{"algorithm":'::text || COALESCE((to_json((k).algorithm))::text, 'null'::text)) || ',"at":'::text) || COALESCE((('"'::text || CASE WHEN ((CASE WHEN (event = 'retired'::text) THEN (k).retired_at ELSE (k).first_seen_at END >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND (CASE WHEN (event = 'retired'::text) THEN (k).retired_at ELSE (k).first_seen_at END < 'infinity'::timestamp with time zone)) THEN to_char((CASE WHEN (event = 'retired'::text) THEN (k).retired_at ELSE (k).first_seen_at END AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'::text) WHEN isfinite(CASE WHEN (event = 'retired'::text) THEN (k).retired_at ELSE (k).first_seen_at END) THEN to_char((CASE WHEN (event = 'retired'::text) THEN (k).retired_at ELSE (k).first_seen_at END AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z BC"'::text) ELSE (CASE WHEN (event = 'retired'::text) THEN (k).retired_at ELSE (k).first_seen_at END)::text END) || '"'::text), 'null'::text)) || ',"entry_id":'::text) || COALESCE((('"'::text || (CASE WHEN (event = 'retired'::text) THEN (k).retired_id ELSE (k).first_seen_id END)::text) || '"'::text), 'null'::text)) || ',"event":'::text) || COALESCE((to_json(event))::text, 'null'::text)) || ',"kid":'::text) || COALESCE((to_json((k).kid))::text, 'null'::text)) || ',"kind":"key","operator_id":'::text) || COALESCE((to_json((k).operator_id))::text, 'null'::text)) || ((((',"public_jwk_sha256":'::text || COALESCE((('"'::text || encode(sha256(convert_to(((k).public_jwk)::text, 'UTF8'::name)), 'hex'::text)) || '"'::text), 'null'::text)) || ',"version":1,"written_in":'::text) || COALESCE((CASE WHEN (event = 'retired'::text) THEN (k).retired_in ELSE (k).written_in END)::text, 'null'::text)) || '}'::text)), 'UTF8'::name);

CREATE TABLE predictu_dispatch.audit_removal (
    operator_id text NOT NULL,
    removal_id uuid DEFAULT gen_random_uuid() NOT NULL,
    part text NOT NULL,
    cutoff timestamp with time zone NOT NULL,
    attempts bigint NOT NULL,
    leaf_indices int8multirange NOT NULL,
    leaf_indices_sha256 bytea NOT NULL,
    removed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    written_in bigint DEFAULT ((pg_current_xact_id())::text)::bigint
);

CREATE FUNCTION predictu_dispatch.audit_removal_entry(r predictu_dispatch.audit_removal) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN convert_to((((((((((((('{"attempts":'::text || COALESCE(((r).attempts)::text, 'null'::text)) || ',"cutoff":'::text) || COALESCE((('"'::text || CASE WHEN (((r).cutoff >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND ((r).cutoff < 'infinity'::timestamp with time zone)) THEN to_char(((r).cutoff AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'::text) WHEN isfinite((r).cutoff) THEN to_char(((r).cutoff AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z BC"'::text) ELSE ((r).cutoff)::text END) || '"'::text), 'null'::text)) || ',"kind":"removal","leaf_indices_sha256":'::text) || COALESCE((('"'::text || encode((r).leaf_indices_sha256, 'hex'::text)) || '"'::text), 'null'::text)) || ',"operator_id":'::text) || COALESCE((to_json((r).operator_id))::text, 'null'::text)) || ',"part":'::text) || COALESCE((to_json((r).part))::text, 'null'::text)) || ',"removal_id":'::text) || COALESCE((('"'::text || ((r).removal_id)::text) || '"'::text), 'null'::text)) || ((((',"removed_at":'::text || COALESCE((('"'::text || CASE WHEN (((r).removed_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND ((r).removed_at < 'infinity'::timestamp with time zone)) THEN to_char(((r).removed_at AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'::text) WHEN isfinite((r).removed_at) THEN to_char(((r).removed_at AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z BC"'::text) ELSE ((r).removed_at)::text END) || '"'::text), 'null'::text)) || ',"version":1,"written_in":'::text) || COALESCE(((r).written_in)::text, 'null'::text)) || '}'::text)), 'UTF8'::name);

CREATE FUNCTION predictu_dispatch.audit_rescan() RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    update predictu_dispatch.audit_position p
       set backlog_until = p.sealed_until, backlog_part = '', backlog_source = null, backlog_block = null,
           revision = p.revision + 1
$$;

CREATE FUNCTION predictu_dispatch.audit_restore() RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '100ms'
    SET enable_seqscan TO 'off'
    AS $$
declare
    state predictu_dispatch.audit_position;
    cluster bigint := (select c.system_identifier from pg_control_system() c);
    -- What cannot be an id of a transaction, and must not stop the logs.
    largest constant bigint := 1::bigint << 52;
    new_offset bigint;
    relation text;
begin
    perform predictu_dispatch.commit_durably();
    select p.* into state from predictu_dispatch.audit_position p for update;
    if state.system_identifier = cluster
       and pg_snapshot_xmax(pg_current_snapshot()) >= pg_snapshot_xmax(state.sealed_until) then
        return false;
    end if;
    -- Rows of the old cluster that are not sealed are at or above sealed_until's end, so the index has them.
    new_offset := state.xid_offset + pg_snapshot_xmax(state.sealed_until)::text::bigint;
    new_offset := greatest(
        new_offset,
        (select max(a.written_in) from predictu_dispatch.attempt_record a
          where a.written_in >= new_offset and a.written_in < largest),
        (select max(i.written_in) from predictu_dispatch.intervention i where i.written_in < largest),
        (select max(greatest(k.written_in, k.retired_in)) from predictu_dispatch.signing_key k
          where greatest(k.written_in, k.retired_in) < largest),
        (select max(r.written_in) from predictu_dispatch.audit_removal r where r.written_in < largest));
    foreach relation in array array['attempt_record', 'intervention', 'signing_key', 'audit_removal', 'audit_log'] loop
        execute format('lock table predictu_dispatch.%I in access exclusive mode', relation);
    end loop;
    -- Now the rows that this cluster has written with the old offset are below this.
    new_offset := greatest(new_offset, state.xid_offset + pg_snapshot_xmax(pg_current_snapshot())::text::bigint);
    foreach relation in array array['attempt_record', 'intervention', 'signing_key', 'audit_removal', 'audit_log'] loop
        execute format('alter table predictu_dispatch.%I alter column written_in '
                       'set default pg_current_xact_id()::text::bigint + %s', relation, new_offset);
    end loop;
    update predictu_dispatch.audit_position p
       set system_identifier = cluster, xid_offset = new_offset, sealed_until = pg_current_snapshot(),
           backlog_until = pg_current_snapshot(), backlog_part = '', backlog_source = null, backlog_block = null,
           revision = p.revision + 1;
    return true;
end $$;

CREATE FUNCTION predictu_dispatch.audit_sparse_entries() RETURNS TABLE(operator_id text, written_in bigint, entry_id uuid, leaf bytea)
    LANGUAGE sql STABLE
    BEGIN ATOMIC
 SELECT i.operator_id,
     i.written_in,
     i.intervention_id,
     sha256((decode('00'::text, 'hex'::text) || predictu_dispatch.audit_intervention_entry(i.*))) AS sha256
    FROM predictu_dispatch.intervention i
 UNION ALL
  SELECT k.operator_id,
     k.written_in,
     k.first_seen_id,
     sha256((decode('00'::text, 'hex'::text) || predictu_dispatch.audit_key_entry(k.*, 'first_seen'::text))) AS sha256
    FROM predictu_dispatch.signing_key k
 UNION ALL
  SELECT k.operator_id,
     k.retired_in,
     k.retired_id,
     sha256((decode('00'::text, 'hex'::text) || predictu_dispatch.audit_key_entry(k.*, 'retired'::text))) AS sha256
    FROM predictu_dispatch.signing_key k
   WHERE (k.retired_id IS NOT NULL)
 UNION ALL
  SELECT r.operator_id,
     r.written_in,
     r.removal_id,
     sha256((decode('00'::text, 'hex'::text) || predictu_dispatch.audit_removal_entry(r.*))) AS sha256
    FROM predictu_dispatch.audit_removal r;
END;

CREATE TABLE predictu_dispatch.audit_log (
    operator_id text NOT NULL,
    origin text NOT NULL,
    start_id uuid DEFAULT gen_random_uuid() NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    attempts_before bigint NOT NULL,
    interventions_before bigint NOT NULL,
    system_identifier bigint NOT NULL,
    written_in bigint DEFAULT ((pg_current_xact_id())::text)::bigint
);

CREATE FUNCTION predictu_dispatch.audit_start_entry(l predictu_dispatch.audit_log) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN convert_to((((((((((((('{"attempts_before":'::text || COALESCE(((l).attempts_before)::text, 'null'::text)) || ',"interventions_before":'::text) || COALESCE(((l).interventions_before)::text, 'null'::text)) || ',"kind":"start","operator_id":'::text) || COALESCE((to_json((l).operator_id))::text, 'null'::text)) || ',"origin":'::text) || COALESCE((to_json((l).origin))::text, 'null'::text)) || ',"start_id":'::text) || COALESCE((('"'::text || ((l).start_id)::text) || '"'::text), 'null'::text)) || ',"started_at":'::text) || COALESCE((('"'::text || CASE WHEN (((l).started_at >= '0001-01-01 00:00:00+00'::timestamp with time zone) AND ((l).started_at < 'infinity'::timestamp with time zone)) THEN to_char(((l).started_at AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'::text) WHEN isfinite((l).started_at) THEN to_char(((l).started_at AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.US"Z BC"'::text) ELSE ((l).started_at)::text END) || '"'::text), 'null'::text)) || ((((',"system_identifier":'::text || COALESCE((('"'::text || ((l).system_identifier)::text) || '"'::text), 'null'::text)) || ',"version":1,"written_in":'::text) || COALESCE(((l).written_in)::text, 'null'::text)) || '}'::text)), 'UTF8'::name);

CREATE FUNCTION predictu_dispatch.audit_summarize() RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '50ms'
    AS $$
declare
    written record;
begin
    for written in
        select i.indexrelid
          from pg_inherits p
          join pg_class c on c.oid = p.inhrelid
          join pg_index i on i.indrelid = c.oid
          join pg_class x on x.oid = i.indexrelid
          join pg_am m on m.oid = x.relam
         where p.inhparent = 'predictu_dispatch.attempt_record'::regclass and m.amname = 'brin'
           -- What is written now; autovacuum is enough for the others.
           and c.relname in ('attempt_default', 'attempt_' || to_char(now() at time zone 'UTC', 'YYYY_MM'),
                             'attempt_' || to_char((now() - interval '1 day') at time zone 'UTC', 'YYYY_MM'))
    loop
        begin
            perform brin_summarize_new_values(written.indexrelid);
        exception when lock_not_available then
            -- A VACUUM does it.
            null;
        end;
    end loop;
end $$;

CREATE FUNCTION predictu_dispatch.audit_tile_growth(operator_ids text[], written bigint[], entry_ids uuid[], started timestamp with time zone[], leaves bytea[]) RETURNS TABLE(operator_id text, origin text, size bigint, root bytea, level integer, tile bigint, is_new boolean, hashes bytea, report_ids bytea, started_from timestamp with time zone, started_until timestamp with time zone)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
    with candidate as materialized (
        select c.operator_id collate "C" as operator_id, false as is_start, c.written_in, c.entry_id, c.started_at, c.leaf
          from unnest(operator_ids, written, entry_ids, started, leaves)
               as c (operator_id, written_in, entry_id, started_at, leaf)
        union all
        select l.operator_id, true, l.written_in, l.start_id, null,
               sha256(decode('00', 'hex') || predictu_dispatch.audit_start_entry(l))
          from predictu_dispatch.audit_log l
         where not exists (select from predictu_dispatch.audit_head h where h.operator_id = l.operator_id)
    ), growing as materialized (
        select g.operator_id, l.origin, coalesce(h.size, 0) as size, h.root
          from (select distinct c.operator_id from candidate c) g
          left join predictu_dispatch.audit_log l on l.operator_id = g.operator_id
          left join predictu_dispatch.audit_head h on h.operator_id = g.operator_id
    ), ordered as materialized (
        select c.operator_id, c.entry_id, c.started_at, c.leaf,
               row_number() over (partition by c.operator_id order by c.is_start desc, c.written_in nulls first,
                                  c.entry_id, c.leaf) - 1 as place
          from candidate c
    )
    select n.operator_id, g.origin, g.size, g.root, 0, n.tile, true, n.hashes, n.report_ids, n.started_from, n.started_until
      from (select t.operator_id, t.tile, string_agg(t.leaf, '' order by t.place) as hashes,
                   string_agg(uuid_send(t.entry_id), '' order by t.place) as report_ids,
                   min(t.started_at) as started_from, max(t.started_at) as started_until
              -- Sorted once for both aggregates.
              from (select o.*, (coalesce(h.size, 0) + o.place) >> 8 as tile
                      from ordered o left join predictu_dispatch.audit_head h on h.operator_id = o.operator_id
                     order by o.operator_id, tile, o.place) t
             group by t.operator_id, t.tile) n
      join growing g on g.operator_id = n.operator_id
    union all
    select g.operator_id, g.origin, g.size, g.root, s.level, t.tile, false, t.hashes, null, null, null
      from growing g
     cross join generate_series(0, 6) as s (level)
      join predictu_dispatch.audit_tile t
        on t.operator_id = g.operator_id and t.level = s.level and t.tile = g.size >> (8 * s.level + 8)
     where (g.size >> (8 * s.level)) % 256 <> 0
     order by 1, 5, 6, 7
$$;

CREATE FUNCTION predictu_dispatch.audit_unsealed(most integer, span bigint) RETURNS TABLE(needs text, revision bigint, sealed_until text, sealed_at timestamp with time zone, is_behind boolean, has_backlog boolean, operator_id text, origin text, size bigint, root bytea, level integer, tile bigint, is_new boolean, hashes bytea, report_ids bytea, started_from timestamp with time zone, started_until timestamp with time zone)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET max_parallel_workers_per_gather TO '0'
    AS $$
#variable_conflict use_column
declare
    current_snapshot pg_snapshot := pg_current_snapshot();
    state predictu_dispatch.audit_position;
    begins_at bigint;
    ends_at bigint;
    -- Transactions that were under way when sealed_until was taken, and have ended.
    ended bigint[];
    found bigint;
    -- The last written_in of this turn if there are more rows than `most`.
    cut bigint;
    last_xid bigint;
    next_until text;
    rows record;
begin
    select p.* into state from predictu_dispatch.audit_position p;
    if state.revision is null or exists (
           select o.operator_id from predictu_dispatch.operator o
           except select l.operator_id from predictu_dispatch.audit_log l) then
        needs := 'begin';
    elsif state.system_identifier <> (select c.system_identifier from pg_control_system() c)
          or pg_snapshot_xmax(current_snapshot) < pg_snapshot_xmax(state.sealed_until) then
        needs := 'restore';
    end if;
    if needs is not null then
        return next;
        return;
    end if;
    begins_at := pg_snapshot_xmax(state.sealed_until)::text::bigint;
    ends_at := least(pg_snapshot_xmax(current_snapshot)::text::bigint, begins_at + span);
    ended := array(select x::text::bigint + state.xid_offset from pg_snapshot_xip(state.sealed_until) x
                    where pg_visible_in_snapshot(x, current_snapshot));

    select count(*) into found
      from predictu_dispatch.attempt_record a
     where a.written_in >= begins_at + state.xid_offset and a.written_in < ends_at + state.xid_offset
        or a.written_in = any (ended);
    if found >= most then
        select a.written_in into cut
          from predictu_dispatch.attempt_record a
         where a.written_in >= begins_at + state.xid_offset and a.written_in < ends_at + state.xid_offset
            or a.written_in = any (ended)
         order by a.written_in offset most - 1 limit 1;
    end if;
    last_xid := coalesce(cut - state.xid_offset, ends_at - 1);

    select array_agg(c.operator_id) as operator_ids, array_agg(c.written_in) as written, array_agg(c.entry_id) as entry_ids,
           array_agg(c.started_at) as started, array_agg(c.leaf) as leaves into rows
      from (
        select a.operator_id, a.written_in, a.report_id as entry_id, a.started_at,
               sha256(decode('00', 'hex') || predictu_dispatch.audit_entry(a)) as leaf
          from predictu_dispatch.attempt a
         where a.written_in >= begins_at + state.xid_offset and a.written_in <= last_xid + state.xid_offset
        union all
        select a.operator_id, a.written_in, a.report_id, a.started_at,
               sha256(decode('00', 'hex') || predictu_dispatch.audit_entry(a))
          from predictu_dispatch.attempt a
         where a.written_in = any (ended) and a.written_in <= last_xid + state.xid_offset and cardinality(ended) > 0
        union all
        select o.operator_id, o.written_in, o.entry_id, null, o.leaf from predictu_dispatch.audit_sparse_entries() o
         where o.written_in >= begins_at + state.xid_offset and o.written_in <= last_xid + state.xid_offset
            or o.written_in = any (ended) and o.written_in <= last_xid + state.xid_offset
      ) c;

    -- Now sealed: what was, and what is visible up to last_xid. Not sealed, below the highest sealed
    -- one: what is under way, and what has ended but came behind the cut.
    ends_at := greatest(last_xid + 1, begins_at);
    select coalesce(min(x.xid), ends_at) || ':' || ends_at || ':' || coalesce(string_agg(x.xid::text, ',' order by x.xid), '')
      into next_until
      from (select x::text::bigint as xid from pg_snapshot_xip(current_snapshot) x
            union
            select x::text::bigint from pg_snapshot_xip(state.sealed_until) x where x::text::bigint > last_xid) x
     where x.xid < ends_at;
    return query
        select null::text, state.revision, next_until,
               case when ends_at = pg_snapshot_xmax(current_snapshot)::text::bigint and cut is null
                    then now() else state.sealed_at end,
               ends_at < pg_snapshot_xmax(current_snapshot)::text::bigint or cut is not null,
               state.backlog_until is not null, p.*
          from (values (true)) as always
          left join predictu_dispatch.audit_tile_growth(rows.operator_ids, rows.written, rows.entry_ids, rows.started,
                                                  rows.leaves) p on true;
end $$;

CREATE FUNCTION predictu_dispatch.backlog() RETURNS TABLE(operator_id text, lane text, state text, callbacks bigint, unknown_effect bigint, oldest_due_s double precision, unknown_for_s double precision, rollbacks bigint, rollback_for_s double precision)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    SET max_parallel_workers_per_gather TO '0'
    AS $$
    select operator_id, lane, state, count(*) as callbacks, count(*) filter (where effect = 'unknown') as unknown_effect,
           extract(epoch from now() - min(due_at))::double precision as oldest_due_s,
           extract(epoch from now() - min(created_at) filter (where effect = 'unknown'))::double precision as unknown_for_s,
           count(*) filter (where method = 'BET_ROLLBACK') as rollbacks,
           extract(epoch from now() - min(created_at) filter (where method = 'BET_ROLLBACK'))::double precision as rollback_for_s
      from (
          select operator_id, lane, state, method, effect, created_at, due_at
            from predictu_dispatch.callback where state = 'ready'
          union all
          select operator_id, lane, state, method, effect, created_at, null
            from predictu_dispatch.callback where state = 'in_flight'
          union all
          select operator_id, lane, state, method, effect, created_at, null
            from predictu_dispatch.callback where state = 'waiting'
      ) unfinished
     group by operator_id, lane, state
$$;

CREATE TABLE predictu_dispatch.reconciliation_run (
    operator_id text NOT NULL,
    run_id uuid DEFAULT gen_random_uuid() NOT NULL,
    first_day date NOT NULL,
    last_day date NOT NULL,
    time_zone text NOT NULL,
    day_starts time without time zone NOT NULL,
    day_edges timestamp with time zone[] NOT NULL,
    settle_s double precision NOT NULL,
    no_end_days integer NOT NULL,
    cut_at timestamp with time zone NOT NULL,
    sources jsonb DEFAULT '[]'::jsonb NOT NULL,
    lines_read bigint DEFAULT 0 NOT NULL,
    lines_ignored bigint DEFAULT 0 NOT NULL,
    lines_unreadable bigint DEFAULT 0 NOT NULL,
    given_from timestamp with time zone,
    given_until timestamp with time zone,
    rows_ours bigint,
    sums jsonb DEFAULT '[]'::jsonb NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    finished_at timestamp with time zone,
    is_complete boolean DEFAULT false NOT NULL,
    opened bigint,
    closed bigint,
    done_by text NOT NULL,
    database_role text DEFAULT SESSION_USER NOT NULL,
    CONSTRAINT reconciliation_run_check CHECK ((last_day >= first_day))
);

CREATE FUNCTION predictu_dispatch.begin_reconciliation(operator_id text, first_day date, last_day date, time_zone text, day_starts time without time zone, day_edges timestamp with time zone[], settle_s double precision, no_end_days integer, done_by text) RETURNS predictu_dispatch.reconciliation_run
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
declare
    days integer := last_day - first_day + 1;
    cutoff timestamptz := (select max(h.removed_before) from predictu_dispatch.removed_history h);
    missing text := (
        select string_agg(wanted, ', ' order by wanted)
          from unnest(array['callback_finished', 'callback_of_transaction']) as wanted
         where not exists (select from pg_index i where i.indexrelid = to_regclass('predictu_dispatch.' || wanted)
                                                    and i.indisvalid));
    fault text;
    hint text := 'Give whole days of the operator''s accounting, the last one not before the first.';
    begun predictu_dispatch.reconciliation_run;
begin
    if not exists (select from predictu_dispatch.operator o where o.operator_id = operator_id) then
        raise exception using errcode = 'PD002', message = format('unknown operator %s', left(operator_id, 80)),
            hint = 'A daemon registers an operator when it starts or reloads with the operator''s file.';
    end if;
    fault := case
        when days is null or days not between 1 and 400 then 'the period must have 1 to 400 days'
        when time_zone is null or length(time_zone) not between 1 and 100 then '"time_zone" is not a name'
        when day_starts is null then '"day_starts" is NULL'
        when cardinality(day_edges) is distinct from days + 1 or array_position(day_edges, null) is not null
             or exists (select from generate_subscripts(day_edges, 1) as n
                         where day_edges[n] >= day_edges[n + 1] or not isfinite(day_edges[n]))
            then '"day_edges" must be the ascending beginnings of the days and the period''s end'
        when settle_s is null or not settle_s between 0 and 86400 then '"settle_s" must be 0 to 86400'
        when no_end_days is null or no_end_days not between 1 and 3650 then '"no_end_days" must be 1 to 3650'
        when done_by is null or length(done_by) not between 1 and 200 then '"done_by" must have 1 to 200 characters'
    end;
    if fault is null and day_edges[1] >= clock_timestamp() then
        fault := format('the period begins in the future, at %s', predictu_dispatch.format_utc(day_edges[1]));
    elsif fault is null and day_edges[1] < cutoff then
        fault := format('the period begins at %s, and retention has removed what ended before %s',
                        predictu_dispatch.format_utc(day_edges[1]), predictu_dispatch.format_utc(cutoff));
        hint := 'Choose a later first day.';
    end if;
    if fault is not null then
        perform predictu_dispatch.refuse_params('reconciliation', fault, hint);
    end if;
    if missing is not null then
        raise exception using errcode = 'PD005', message = format('missing index: %s', missing),
            hint = 'Run predictu-dispatch migrate, which builds it while daemons deliver.';
    end if;

    -- A run may be under way beside this one.
    delete from predictu_dispatch.reconciliation_line l
     where l.operator_id = operator_id
       and not exists (select from predictu_dispatch.reconciliation_run r
                        where r.operator_id = operator_id and r.run_id = l.run_id and r.finished_at is null
                          and r.started_at >= clock_timestamp() - interval '1 day');
    insert into predictu_dispatch.reconciliation_run
        (operator_id, first_day, last_day, time_zone, day_starts, day_edges, settle_s, no_end_days, cut_at, done_by)
    values (operator_id, first_day, last_day, time_zone, day_starts, day_edges, settle_s, no_end_days,
            least(day_edges[days + 1], clock_timestamp()), done_by)
    returning * into begun;
    return begun;
end $$;

CREATE FUNCTION predictu_dispatch.body_money(request_body text) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    body jsonb;
    params jsonb;
begin
    -- Here, because an error in the declarations would not be caught.
    body := request_body::jsonb;
    params := body -> 'params';
    return array[body ->> 'method', params ->> 'player_id', params ->> 'currency', (params ->> 'amount')::numeric::text,
                 params ->> 'bet_id'];
exception when others then
    return null;
end $$;

CREATE FUNCTION predictu_dispatch.callback_groups() RETURNS TABLE(operator_id text, lane text, state text, method text, reason text, callbacks bigint, unknown_effect bigint, unknown_request_id uuid, oldest_due_s double precision, oldest_s double precision)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    SET max_parallel_workers_per_gather TO '0'
    AS $$
    select operator_id, lane, state, method, reason, callbacks, unknown_effect,
           -- By its place in the table: comparing a million ids costs a third of the whole count.
           (select c.request_id from predictu_dispatch.callback c where c.ctid = unknown_place) as unknown_request_id,
           oldest_due_s, oldest_s
      from (
          select operator_id, lane, state, method, reason, count(*) as callbacks,
                 count(*) filter (where effect = 'unknown') as unknown_effect,
                 min(place) filter (where effect = 'unknown') as unknown_place,
                 extract(epoch from now() - min(due_at))::double precision as oldest_due_s,
                 extract(epoch from now() - min(created_at))::double precision as oldest_s
            from (
                select operator_id, lane, state, method, reason, effect, ctid as place, created_at, due_at
                  from predictu_dispatch.callback where state = 'ready'
                union all
                select operator_id, lane, state, method, reason, effect, ctid, created_at, null
                  from predictu_dispatch.callback where state = 'in_flight'
                union all
                select operator_id, lane, state, method, reason, effect, ctid, created_at, null
                  from predictu_dispatch.callback where state = 'waiting'
            ) unfinished
           group by operator_id, lane, state, method, reason
      ) groups
$$;

CREATE TABLE predictu_dispatch.callback (
    operator_id text NOT NULL,
    request_id uuid NOT NULL,
    method text NOT NULL,
    bet_id text,
    lane text NOT NULL,
    params jsonb NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    expires_at timestamp with time zone,
    budget_from integer DEFAULT 0 NOT NULL,
    retry_stopped boolean DEFAULT false NOT NULL,
    note text,
    due_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    amount_format text,
    leased_at timestamp with time zone,
    leased_by text,
    attempts integer DEFAULT 0 NOT NULL,
    state text NOT NULL,
    effect text DEFAULT 'none'::text NOT NULL,
    lease_until timestamp with time zone,
    finished_at timestamp with time zone,
    reason text,
    operator_status text,
    operator_transaction_id text,
    balance bigint,
    anomaly text,
    review_since timestamp with time zone
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='20000', autovacuum_analyze_scale_factor='0.02', fillfactor='50');

CREATE FUNCTION predictu_dispatch.cancel_callback(operator_id text, request_id uuid, reason text, by text) RETURNS predictu_dispatch.callback
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '3s'
    AS $$
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

CREATE FUNCTION predictu_dispatch.cancel_waiting(operator_id text, request_id uuid, reason text, needs_review boolean) RETURNS SETOF predictu_dispatch.change
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    update predictu_dispatch.callback c
       set state = 'cancelled', reason = cancel_waiting.reason, finished_at = clock_timestamp(),
           review_since = case when needs_review then clock_timestamp() end
     where c.operator_id = cancel_waiting.operator_id and c.request_id = cancel_waiting.request_id
       and c.state = 'waiting'
    returning c.operator_id, c.request_id, c.method, c.lane, c.state, c.reason, 'cancelled', null::integer
$$;

CREATE FUNCTION predictu_dispatch.check_intervention(action text, reason text, done_by text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if coalesce(done_by, '') !~ '[^[:space:]]' or length(done_by) > 200 then
        perform predictu_dispatch.refuse_params(action,
            format('by is %s', coalesce(quote_literal(left(done_by, 80)), 'NULL')),
            'Give a name of 1 to 200 characters, for example alice@host-1.');
    end if;
    if (reason is null and action not in ('retry', 'resume')) or reason !~ '[^[:space:]]' or length(reason) > 500 then
        perform predictu_dispatch.refuse_params(action,
            format('reason is %s', coalesce(quote_literal(left(reason, 80)), 'NULL')),
            'Give a reason of 1 to 500 characters; it is the only explanation that is kept.');
    end if;
end $$;

CREATE FUNCTION predictu_dispatch.check_params(method text, params jsonb) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
    is_currency_known boolean := exists (
        select from predictu_dispatch.currency c where c.currency = params ->> 'currency');
    refusal text[] := predictu_dispatch.wrong_params(method, params, is_currency_known);
begin
    if refusal is not null then
        perform predictu_dispatch.refuse_params(method, refusal[1], refusal[2]);
    end if;
end $$;

CREATE FUNCTION predictu_dispatch.check_producer_scope(operator_id text) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if exists (select from predictu_dispatch.producer_scope s where s.role_name = session_user)
       and not exists (select from predictu_dispatch.producer_scope s
                        where s.role_name = session_user and s.operator_id = check_producer_scope.operator_id) then
        raise exception using errcode = 'PD008',
            message = format('%s may not act for operator %s', session_user,
                             coalesce(quote_literal(left(check_producer_scope.operator_id, 80)), 'NULL')),
            hint = 'The login has rows in predictu_dispatch.producer_scope, so it may act for those operators only; '
                   'the owner of the schema adds or deletes rows.';
    end if;
end $$;

CREATE FUNCTION predictu_dispatch.check_terminal(method text, params jsonb, bet predictu_dispatch.bet) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    fault text;
begin
    fault := case
        when params ->> 'player_id' <> bet.player_id
            then format('"player_id" is %s, the bet''s is %s', params ->> 'player_id', bet.player_id)
        when params ->> 'currency' <> bet.currency
            then format('"currency" is %s, the bet''s is %s', params ->> 'currency', bet.currency)
        when method in ('BET_REFUND', 'BET_ROLLBACK') and (params ->> 'amount')::bigint <> bet.amount
            then format('"amount" is %s, the bet''s debit is %s', params ->> 'amount', bet.amount)
        when method = 'BET_ROLLBACK' and params -> 'rollback_of' <> to_jsonb(bet.placement_request_id::text)
            then format('"rollback_of" is %s, the bet''s placement is %s', left(params ->> 'rollback_of', 80),
                        bet.placement_request_id)
    end;
    if fault is not null then
        perform predictu_dispatch.refuse_params(method, fault,
            format('They must agree with bet %s of operator %s.', bet.bet_id, bet.operator_id));
    end if;
end $$;

CREATE FUNCTION predictu_dispatch.claim(instance text, operator_ids text[], lanes text[], free_slots integer[], leases_s double precision[], rollback_leases_s double precision[], amount_formats text[], due_from timestamp with time zone[] DEFAULT NULL::timestamp with time zone[], set_aside uuid[] DEFAULT NULL::uuid[]) RETURNS TABLE(operator_id text, request_id uuid, method text, bet_id text, lane text, attempt integer, budget_from integer, effect text, reason text, params text, created_at timestamp with time zone, due_at timestamp with time zone, expires_in_s double precision, leased_at timestamp with time zone, lease_s double precision, amount_format text, minor_digits integer, placement_ended_s_ago double precision)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
    picked record;
begin
    perform predictu_dispatch.commit_durably();
    -- Apart from the update: the planner does not know that the limits below are small. In one
    -- statement it would read the whole table instead of looking up the picked rows.
    with want as materialized (
        select want.*, o.circuit, o.ping_request_id
          from unnest(operator_ids, lanes, free_slots, leases_s, rollback_leases_s, amount_formats, due_from)
               as want (operator_id, lane, free_slots, lease_s, rollback_lease_s, amount_format, due_from)
          join predictu_dispatch.operator o on o.operator_id = want.operator_id
         where o.paused_at is null and o.circuit <> 'open'
           and coalesce(case want.lane when 'interactive' then o.interactive_backoff_until
                                       else o.settlement_backoff_until end, '-infinity') <= now()
    )
    select array_agg(p.operator_id) as operator_ids, array_agg(p.request_id) as request_ids,
           array_agg(p.amount_format) as amount_formats, array_agg(p.lease_s) as leases_s
      into picked
      from (
          select due.operator_id, due.request_id, want.amount_format,
                 case due.method when 'BET_ROLLBACK' then want.rollback_lease_s else want.lease_s end as lease_s
            from want
           cross join lateral (
               select c.operator_id, c.request_id, c.method
                 from predictu_dispatch.callback c
                where c.operator_id = want.operator_id and c.lane = want.lane and c.state = 'ready' and c.due_at <= now()
                  and c.due_at >= coalesce(want.due_from, '-infinity') and coalesce(c.expires_at, 'infinity') > now()
                  and (set_aside is null or c.request_id <> all(set_aside))
                order by c.due_at limit want.free_slots
                  for no key update skip locked
           ) due
           where want.circuit = 'closed'
          union all
          select ping.operator_id, ping.request_id, want.amount_format, want.lease_s
            from want
           cross join lateral (
               select c.operator_id, c.request_id
                 from predictu_dispatch.callback c
                where c.operator_id = want.operator_id and c.request_id = want.ping_request_id and c.state = 'ready'
                  and (c.expires_at is null or c.expires_at > now())
                  and (set_aside is null or c.request_id <> all(set_aside))
                  for no key update skip locked
           ) ping
           where want.circuit = 'half_open' and want.lane = 'interactive'
      ) p;
    if picked.request_ids is null then
        return;
    end if;
    return query
    update predictu_dispatch.callback c
       set state = 'in_flight', attempts = c.attempts + 1, leased_at = now(), leased_by = instance,
           -- Each ends a microsecond after the one before, so that leases_apart() can tell them apart.
           lease_until = now() + lease.lease_s * interval '1 second' + lease.number * interval '1 microsecond',
           amount_format = coalesce(c.amount_format, lease.amount_format)
      from unnest(picked.operator_ids, picked.request_ids, picked.amount_formats, picked.leases_s) with ordinality
           as lease (operator_id, request_id, amount_format, lease_s, number)
     where c.operator_id = lease.operator_id and c.request_id = lease.request_id
    returning c.operator_id, c.request_id, c.method, c.bet_id, c.lane, c.attempts, c.budget_from, c.effect, c.reason,
              c.params::text, c.created_at, c.due_at, extract(epoch from c.expires_at - now())::double precision,
              c.leased_at, lease.lease_s, c.amount_format,
              -- Only decimal amounts need it.
              case c.amount_format when 'decimal' then (
                  select known.minor_digits from predictu_dispatch.currency known
                   where known.currency = coalesce(c.params ->> 'currency', (
                       -- BET_LOSE names no currency; the balance in its answer is in the bet's currency.
                       select b.currency from predictu_dispatch.bet b
                        where b.operator_id = c.operator_id and b.bet_id = c.bet_id
                   ))
              ) end,
              case when c.method = 'BET_ROLLBACK' then (
                  select extract(epoch from now() - placement.finished_at)::double precision
                    from predictu_dispatch.callback placement
                   where placement.operator_id = c.operator_id
                     and placement.request_id = (c.params ->> 'rollback_of')::uuid
              ) end;
end $$;

CREATE FUNCTION predictu_dispatch.claim_apart(instance text, operator_ids text[], lanes text[], free_slots integer[], leases_s double precision[], rollback_leases_s double precision[], amount_formats text[], set_aside uuid[]) RETURNS TABLE(operator_id text, request_id uuid, method text, bet_id text, lane text, attempt integer, budget_from integer, effect text, reason text, params text, created_at timestamp with time zone, due_at timestamp with time zone, expires_in_s double precision, leased_at timestamp with time zone, lease_s double precision, amount_format text, minor_digits integer, placement_ended_s_ago double precision, failed_sqlstate text, failed_message text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
    want record;
    head record;
    failures_left integer;
    slots_left integer;
    claimed integer;
    is_newest_first boolean;
begin
    for want in
        select w.*, o.circuit = 'half_open' as is_half_open, o.ping_request_id
          from unnest(operator_ids, lanes, free_slots, leases_s, rollback_leases_s, amount_formats)
               as w (operator_id, lane, free_slots, lease_s, rollback_lease_s, amount_format)
          join predictu_dispatch.operator o on o.operator_id = w.operator_id
    loop
        begin
            return query
            select c.*, null::text, null::text
              from predictu_dispatch.claim(
                       instance, array[want.operator_id], array[want.lane], array[want.free_slots], array[want.lease_s],
                       array[want.rollback_lease_s], array[want.amount_format], null, set_aside) c;
            continue;
        exception when others then
            perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
        end;
        failures_left := 20;
        slots_left := want.free_slots;
        is_newest_first := false;
        while slots_left > 0 loop
            -- The callback that claim() takes next.
            begin
                head := null;
                if want.is_half_open then
                    select c.request_id, c.due_at into head
                      from predictu_dispatch.callback c
                     where c.operator_id = want.operator_id and c.request_id = want.ping_request_id and c.state = 'ready'
                       and c.request_id <> all(set_aside);
                elsif is_newest_first then
                    select c.request_id, c.due_at into head
                      from predictu_dispatch.callback c
                     where c.operator_id = want.operator_id and c.lane = want.lane and c.state = 'ready' and c.due_at <= now()
                       and coalesce(c.expires_at, 'infinity') > now() and c.request_id <> all(set_aside)
                     order by c.due_at desc limit 1 for no key update skip locked;
                else
                    select c.request_id, c.due_at into head
                      from predictu_dispatch.callback c
                     where c.operator_id = want.operator_id and c.lane = want.lane and c.state = 'ready' and c.due_at <= now()
                       and coalesce(c.expires_at, 'infinity') > now() and c.request_id <> all(set_aside)
                     order by c.due_at limit 1 for no key update skip locked;
                end if;
            exception when others then
                perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
                if is_newest_first then
                    exit;
                end if;
                is_newest_first := true;
                operator_id := want.operator_id;
                request_id := null;
                failed_sqlstate := sqlstate;
                failed_message := sqlerrm;
                return next;
                continue;
            end;
            exit when head.request_id is null;
            begin
                return query
                select c.*, null::text, null::text
                  from predictu_dispatch.claim(
                           instance, array[want.operator_id], array[want.lane], array[1], array[want.lease_s],
                           array[want.rollback_lease_s], array[want.amount_format], array[head.due_at], set_aside) c;
                get diagnostics claimed = row_count;
                exit when claimed = 0;
                slots_left := slots_left - 1;
            exception when others then
                perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
                set_aside := set_aside || head.request_id;
                failures_left := failures_left - 1;
                operator_id := want.operator_id;
                request_id := head.request_id;
                failed_sqlstate := sqlstate;
                failed_message := sqlerrm;
                return next;
                exit when failures_left = 0;
            end;
        end loop;
    end loop;
end $$;

CREATE FUNCTION predictu_dispatch.claim_chore(chore text, every_s double precision, instance text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    period interval := every_s * interval '1 second';
begin
    if every_s is null or every_s not between 0 and 86400 then
        perform predictu_dispatch.refuse_params('claim_chore',
            format('every_s is %s', coalesce(every_s::text, 'NULL')), 'Give 0 to 86400 seconds.');
    elsif not exists (select from predictu_dispatch.maintenance_chore m where m.chore = claim_chore.chore) then
        perform predictu_dispatch.refuse_params('claim_chore',
            format('unknown chore %s', coalesce(quote_literal(left(chore, 80)), 'NULL')),
            'The chores are partitions, reap, backlog, seal, cosign and reconciliation.');
    end if;
    update predictu_dispatch.maintenance_chore m
       set due_at = clock_timestamp() + period, claimed_by = claim_chore.instance, claimed_at = clock_timestamp()
      from (select c.chore
              from predictu_dispatch.maintenance_chore c
             where c.chore = claim_chore.chore
               -- Later than an interval from now means that the interval or the clock was set back.
               and (c.due_at <= clock_timestamp() or c.due_at > clock_timestamp() + period)
               for no key update skip locked) due
     where m.chore = due.chore;
    return found;
end $$;

CREATE FUNCTION predictu_dispatch.classify(run predictu_dispatch.reconciliation_run) RETURNS TABLE(rows_ours bigint, rows_theirs bigint, sums jsonb, is_consistent boolean)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    SET work_mem TO '16MB'
    SET enable_nestloop TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_sort TO 'off'
    SET enable_memoize TO 'off'
    SET max_parallel_workers_per_gather TO '0'
    AS $$
#variable_conflict use_column
declare
    period_from timestamptz := run.day_edges[1];
    period_until timestamptz := run.day_edges[cardinality(run.day_edges)];
    settling interval := run.settle_s * interval '1 second';
    -- The clock may have been set back between a callback's enqueueing, its attempts and its end.
    clock_margin interval := interval '1 hour';
    old_before timestamptz := run.started_at - run.no_end_days * interval '1 day';
    items_max constant integer := 10000; -- Of each class; reconciliation_total counts all.
    lines_max constant integer := 100; -- Of each item.
begin
    return query
    with target as materialized (
        select t.* from predictu_dispatch.reconciliation_targets(run.operator_id, run.run_id, period_from, period_until) t
    ),
    line_facts as materialized (
        select t.target_id, count(*) as lines, count(*) filter (where t.is_in_period) as lines_in_period,
               min(t.day) as day, min(t.day) filter (where t.is_in_period) as day_in_period, min(t.booked_at) as booked_at,
               min(t.currency collate "C") as currency, max(t.currency collate "C") as last_currency,
               min(t.player_id collate "C") as player_id, max(t.player_id collate "C") as last_player_id,
               min(t.amount) as amount, max(t.amount) as last_amount,
               min(t.source) as source, min(t.line) as line
          from target t where t.target_id is not null group by t.target_id
    ),
    many_line as materialized (
        select t.* from target t
          join (select f.target_id from line_facts f where f.lines > 1) f on f.target_id = t.target_id
    ),
    -- Callbacks that became final in the period, and those under way that were created in it.
    period_callback as materialized (
        select c.request_id, c.method, c.bet_id, c.state, c.reason, c.effect, c.attempts, c.budget_from, c.amount_format,
               c.created_at, c.finished_at, predictu_dispatch.params_money(c.params) as money, true as is_final
          from predictu_dispatch.callback c
         where c.operator_id = run.operator_id and c.bet_id is not null
           and c.finished_at >= period_from and c.finished_at < period_until
        union all
        select c.request_id, c.method, c.bet_id, c.state, c.reason, c.effect, c.attempts, c.budget_from, c.amount_format,
               c.created_at, c.finished_at, predictu_dispatch.params_money(c.params), false
          from predictu_dispatch.callback c
         where c.operator_id = run.operator_id and c.state = 'ready' and c.bet_id is not null and c.attempts > 0
           and c.created_at >= period_from and c.created_at < period_until
        union all
        select c.request_id, c.method, c.bet_id, c.state, c.reason, c.effect, c.attempts, c.budget_from, c.amount_format,
               c.created_at, c.finished_at, predictu_dispatch.params_money(c.params), false
          from predictu_dispatch.callback c
         where c.operator_id = run.operator_id and c.state = 'in_flight' and c.bet_id is not null
           and c.created_at >= period_from and c.created_at < period_until
    ),
    -- The attempts of the period, and the earlier ones of its callbacks. A late one (verdict 0) decided
    -- nothing, but it has a request that was sent.
    attempted as materialized (
        select a.request_id, a.attempt,
               case a.verdict when 'delivered' then 3 when 'rejected' then 2 when 'late' then 0 else 1 end as verdict,
               -- Without those that were not applied.
               case when a.verdict = 'delivered'
                      or a.verdict = 'retry' and a.evidence <> 'not_sent' and a.reason is distinct from 'nothing_to_reverse'
                      or a.verdict = 'rejected' and a.reason = 'unknown_status' then a.started_at end as applied_from,
               a.started_at >= period_from and a.started_at < period_until as is_in_period,
               p.request_id is not null as is_known, coalesce(p.is_final, false) as is_final,
               case when p.request_id is null then a.sent[3] end as currency,
               coalesce(p.is_final and (
                   a.method <> p.method or a.has_body and (
                       a.sent is null or a.sent[1] is distinct from p.method or a.sent[2] is distinct from p.money[1]
                       or a.sent[3] is distinct from p.money[2] or a.sent[5] is distinct from p.bet_id
                       or case p.amount_format when 'decimal' then a.sent[4]::numeric * 10::numeric ^ u.minor_digits
                               else a.sent[4]::numeric end is distinct from p.money[3]::numeric)), false) as is_sent_otherwise
          from (select a.request_id, a.method, a.attempt, a.evidence, a.verdict, a.reason, a.started_at,
                       a.request_body is not null as has_body,
                       predictu_dispatch.body_money(a.request_body) as sent
                  from predictu_dispatch.attempt_record a
                 where a.operator_id = run.operator_id and a.method not in ('PING', 'BALANCE')
                   and a.started_at >= period_from - clock_margin and a.started_at < period_until + clock_margin
                union all
                select a.request_id, a.method, a.attempt, a.evidence, a.verdict, a.reason, a.started_at, a.has_body, a.sent
                  from period_callback p
                 cross join lateral (
                     select a.request_id, a.method, a.attempt, a.evidence, a.verdict, a.reason, a.started_at,
                            a.request_body is not null as has_body,
                            predictu_dispatch.body_money(a.request_body) as sent
                       from predictu_dispatch.attempt_record a
                      where a.operator_id = run.operator_id and a.request_id = p.request_id
                        and a.started_at >= p.created_at - interval '1 day' and a.started_at < period_from - clock_margin
                     offset 0) a
                 where p.is_final and p.created_at < period_from
                offset 0) a
          left join period_callback p on p.request_id = a.request_id
          left join predictu_dispatch.currency u on u.currency = case p.amount_format when 'decimal' then p.money[2] end
    ),
    attempt_facts as materialized (
        select a.request_id, count(*) filter (where a.verdict > 0) as decided,
               max(a.attempt) filter (where a.verdict > 0) as newest,
               max(a.attempt * 4 + a.verdict) filter (where a.verdict > 0) % 4 as last_verdict,
               count(*) filter (where a.verdict = 3) as delivered, min(a.applied_from) as applied_from,
               -- 0 if there are several: at most one of them can be the last one.
               case when min(a.attempt) filter (where a.verdict = 3 and a.is_in_period and not a.is_final)
                         < max(a.attempt) filter (where a.verdict = 3 and a.is_in_period and not a.is_final) then 0
                    else max(a.attempt) filter (where a.verdict = 3 and a.is_in_period and not a.is_final) end as confirmed_attempt,
               bool_or(a.is_known) as is_known, max(a.currency) as currency, bool_or(a.is_sent_otherwise) as is_sent_otherwise
          from attempted a group by a.request_id
    ),
    repeated_attempt as materialized (
        select a.request_id
          from attempted a
          join (select f.request_id from attempt_facts f where f.decided > 1) f on f.request_id = a.request_id
         where a.verdict > 0
         group by a.request_id having count(distinct a.attempt) <> count(*)
    ),
    -- Confirmed attempts of the period whose callback is not one that they confirmed.
    stray as materialized (
        select f.request_id, f.currency
          from attempt_facts f
          left join lateral (
              select c.state, c.reason, c.effect, c.attempts from predictu_dispatch.callback c
               where not f.is_known and c.operator_id = run.operator_id and c.request_id = f.request_id offset 0) c on true
         where f.confirmed_attempt is not null
           and (c.state = 'delivered' and (c.effect = 'applied' or c.reason = 'nothing_to_reverse')
                and c.attempts = f.confirmed_attempt) is not true
    ),
    -- What a line or a stray attempt names, and is no callback of the period; with the bet.
    other as materialized (
        select named.request_id, coalesce(c.method, case when b.bet_id is not null then 'BET_MAKE' end) as method,
               coalesce(c.bet_id, b.bet_id) as bet_id, c.state, c.reason, c.effect, c.created_at, c.finished_at, c.money,
               c.request_id is not null as is_callback, c.request_id is null and b.bet_id is not null as is_adopted,
               b.state as bet_state, b.player_id as bet_player_id, b.currency as bet_currency, b.amount as bet_amount,
               b.placement_request_id, b.terminal_request_id
          from (select f.target_id as request_id from line_facts f
                 where not exists (select from period_callback p where p.request_id = f.target_id)
                union
                select s.request_id from stray s
                 where not exists (select from period_callback p where p.request_id = s.request_id)) named
          left join lateral (
              select c.request_id, c.method, c.bet_id, c.state, c.reason, c.effect, c.created_at, c.finished_at,
                     predictu_dispatch.params_money(c.params) as money
                from predictu_dispatch.callback c
               where c.operator_id = run.operator_id and c.request_id = named.request_id and c.bet_id is not null
              offset 0) c on true
          left join lateral (
              select b.bet_id, b.state, b.player_id, b.currency, b.amount, b.placement_request_id, b.terminal_request_id
                from predictu_dispatch.bet b
               where c.request_id is not null and b.operator_id = run.operator_id and b.bet_id = c.bet_id
              union all
              select b.bet_id, b.state, b.player_id, b.currency, b.amount, b.placement_request_id, b.terminal_request_id
                from predictu_dispatch.bet b
               where c.request_id is null and b.operator_id = run.operator_id and b.placement_request_id = named.request_id
              offset 0) b on true
    ),
    known as (
        select p.request_id, p.method, p.bet_id, p.state, p.reason, p.effect, p.attempts, p.budget_from, p.created_at,
               p.finished_at, p.money, p.is_final, not p.is_final as is_under_way, true as is_callback, false as is_adopted,
               b.state as bet_state, b.player_id as bet_player_id, b.currency as bet_currency, b.amount as bet_amount,
               b.placement_request_id, b.terminal_request_id
          from period_callback p
         cross join lateral (
             select b.state, b.player_id, b.currency, b.amount, b.placement_request_id, b.terminal_request_id
               from predictu_dispatch.bet b
              where b.operator_id = run.operator_id and b.bet_id = p.bet_id offset 0) b
        union all
        select o.request_id, o.method, o.bet_id, o.state, o.reason, o.effect, null, null, o.created_at, o.finished_at, o.money,
               false, false, o.is_callback, o.is_adopted, o.bet_state, o.bet_player_id, o.bet_currency, o.bet_amount,
               o.placement_request_id, o.terminal_request_id
          from other o
    ),
    valued as (
        select k.*, d.effect as debit_effect, coalesce(d.effect = 'applied', true) as is_debit_confirmed,
               -- An adopted bet's debit was booked before.
               k.method = 'BET_ROLLBACK'
                   and (d.created_at >= period_from and d.created_at - settling >= run.given_from
                        and d.finished_at + settling <= run.given_until) is not true as is_debit_elsewhere,
               case when k.method = 'BET_ROLLBACK' then k.placement_request_id else r.request_id end as other_request_id,
               coalesce(k.money[1], k.bet_player_id) as player_id, coalesce(k.money[2], k.bet_currency) as currency,
               case when k.method = 'BET_LOSE' then 0
                    when k.money is not null and k.method = 'BET_MAKE' then -k.money[3]::bigint
                    when k.money is not null then k.money[3]::bigint
                    when k.method = 'BET_MAKE' then -k.bet_amount
                    when k.method in ('BET_REFUND', 'BET_ROLLBACK') then k.bet_amount
                    when k.is_callback then predictu_dispatch.sent_amount(run.operator_id, k.request_id) end as amount
          from known k
          left join lateral (
              select c.effect, c.created_at, c.finished_at from predictu_dispatch.callback c
               where k.method = 'BET_ROLLBACK'
                 and c.operator_id = run.operator_id and c.request_id = k.placement_request_id offset 0) d on true
          -- The rollback of another period that reversed nothing of an unknown debit.
          left join lateral (
              select c.request_id from predictu_dispatch.callback c
               where k.method = 'BET_MAKE' and k.effect = 'unknown'
                 and c.operator_id = run.operator_id and c.request_id = k.terminal_request_id
                 and c.method = 'BET_ROLLBACK' and c.state = 'delivered' and c.reason = 'nothing_to_reverse'
                 and (c.finished_at < period_from or c.finished_at >= period_until) offset 0) r on true
        offset 0
    ),
    judged as (
        select v.*,
               coalesce(v.state = 'delivered' and v.reason is distinct from 'nothing_to_reverse' and (v.amount <> 0) is not false
                        and (v.method <> 'BET_ROLLBACK' or v.is_debit_confirmed), false) as is_in_ledger,
               run.first_day - 1 + width_bucket(v.finished_at, run.day_edges) as day,
               case when v.is_adopted then 'unknown' when not v.is_callback then 'no_callback'
                    when v.state not in ('delivered', 'rejected', 'exhausted', 'cancelled') then 'pending'
                    when v.state = 'delivered' and v.method = 'BET_ROLLBACK' and v.reason = 'nothing_to_reverse' then 'rejected'
                    when v.state = 'delivered' and v.method = 'BET_ROLLBACK' and not v.is_debit_confirmed then 'unknown'
                    when v.state = 'delivered' then 'confirmed'
                    when v.effect <> 'none' then 'unknown'
                    when v.state = 'rejected' then 'rejected' else 'never_sent' end as knowledge
          from valued v
        offset 0
    ),
    -- Lines without a callback, and the ends of the bets that they name.
    unmatched as materialized (
        select t.* from target t where t.target_id is null
        union all
        select t.* from target t
         where t.target_id in (select o.request_id from other o where not o.is_callback and not o.is_adopted)
    ),
    unmatched_end as materialized (
        select u.source, u.line, u.target_id, u.booked_at, u.method, u.bet_id
          from unmatched u
         cross join lateral (
             select from predictu_dispatch.bet b
              where not u.is_debit and b.operator_id = run.operator_id and b.bet_id = u.bet_id offset 0) b
    ),
    known_end as materialized (
        select c.bet_id, bool_or(c.method = 'BET_ROLLBACK') as has_rollback, bool_or(c.method <> 'BET_ROLLBACK') as has_other
          from (select c.bet_id, c.request_id, c.method, c.state
                  from (select distinct e.bet_id from unmatched_end e) named
                 cross join lateral (
                     select c.bet_id, c.request_id, c.method, c.state from predictu_dispatch.callback c
                      where c.operator_id = run.operator_id and c.bet_id = named.bet_id and c.method <> 'BET_MAKE' offset 0) c
                offset 0) c
          left join line_facts f on f.target_id = c.request_id
         where c.state = 'delivered' or f.target_id is not null
         group by c.bet_id
    ),
    other_end as materialized (
        select e.source, e.line, e.target_id,
               case when k.bet_id is null and row_number() over in_order = 1 then 'none'
                    when (coalesce(k.has_rollback, false) or bool_or(e.method = 'BET_ROLLBACK') over of_bet is true)
                     and (coalesce(k.has_other, false) or bool_or(e.method is distinct from 'BET_ROLLBACK') over of_bet)
                        then 'rolled_back'
                    else 'ended' end as other_end
          from unmatched_end e
          left join known_end k on k.bet_id = e.bet_id
        window of_bet as (partition by e.bet_id),
               in_order as (partition by e.bet_id order by e.booked_at, e.source, e.line)
    ),
    -- What only few items have: one join of all items instead of three.
    rare_facts as materialized (
        select rare.request_id, bool_or(rare.is_repeated) as is_repeated, bool_or(rare.is_stray) as is_stray,
               max(rare.currency) as currency, max(rare.other_end) as other_end
          from (select t.request_id, true, false, null, null from repeated_attempt t
                union all
                select s.request_id, false, true, s.currency, null from stray s
                union all
                select e.target_id, false, false, null, e.other_end from other_end e where e.target_id is not null) rare (
                    request_id, is_repeated, is_stray, currency, other_end)
         group by rare.request_id
    ),
    -- The bets that a credit of the ledger names, if a debit is old enough to ask for them.
    credited_bet as materialized (
        select distinct t.bet_id from target t
         where not t.is_debit and t.bet_id is not null
           and (exists (select from period_callback p where p.method = 'BET_MAKE' and p.created_at < old_before)
                or exists (select from other o where o.method = 'BET_MAKE' and o.created_at < old_before))
    ),
    -- One row for each item. One without request_id is a line by itself.
    item as materialized (
        select j.request_id, null::integer as source, null::bigint as line,
               case when j.method = 'BET_ROLLBACK' then j.placement_request_id end as placement_request_id,
               j.is_callback::integer as rows_ours, coalesce(f.lines, 0) as rows_theirs,
               coalesce(j.currency, f.currency, rare.currency, 'XXX') as currency,
               greatest(run.first_day, least(run.last_day, case
                   when j.is_final then j.day else coalesce(f.day_in_period, j.day, f.day, run.first_day) end)) as day,
               coalesce(j.finished_at, f.booked_at, j.created_at) as at, j.bet_amount,
               case when j.is_in_ledger and j.is_final then coalesce(j.amount, 0) else 0 end as ours, j.day as ours_day,
               f.currency as theirs_currency, f.day_in_period as theirs_day,
               case when f.lines = 1 and f.lines_in_period = 1 then f.amount else 0 end as theirs,
               case when f.lines = 1 then f.source end as at_source, case when f.lines = 1 then f.line end as at_line,
               -- The first booking shows an unknown outcome: only what differs from the request is disputed.
               case when j.knowledge = 'unknown' and f.booked_at >= period_from and f.booked_at < period_until
                     and (j.is_debit_confirmed or d.lines is not null or j.is_debit_elsewhere)
                    then coalesce(j.amount, 0) else 0 end as resolved,
               j.is_in_ledger and j.is_final as is_in_ledger,
               predictu_dispatch.difference_class(
                   true,
                   j.is_final or coalesce(rare.is_stray, false) or coalesce(f.lines_in_period > 0, false)
                       or j.knowledge = 'pending' and j.created_at >= period_from and j.created_at < period_until,
                   coalesce(rare.is_stray, false) or j.is_final and (
                       j.money is null
                       or coalesce(a.decided, 0) <> j.attempts or coalesce(a.newest, 0) <> j.attempts
                       or coalesce(rare.is_repeated, false) or coalesce(a.is_sent_otherwise, false)
                       or coalesce(a.delivered, 0) <> (j.state = 'delivered')::integer
                       or j.attempts > j.budget_from
                          and a.last_verdict <> case j.state when 'delivered' then 3 when 'rejected' then 2 else 1 end
                       or j.state = 'delivered' and j.effect <> 'applied' and j.reason is distinct from 'nothing_to_reverse'
                       or j.method = 'BET_MAKE'
                          and (j.placement_request_id <> j.request_id or j.money[1] is distinct from j.bet_player_id
                               or j.money[2] is distinct from j.bet_currency or j.amount is distinct from -j.bet_amount)
                       or j.method in ('BET_REFUND', 'BET_ROLLBACK') and j.amount is distinct from j.bet_amount
                       or j.method <> 'BET_MAKE' and j.state = 'delivered'
                          and (j.terminal_request_id is distinct from j.request_id or j.bet_state <> 'closed')),
                   j.knowledge, coalesce(f.lines, 0),
                   f.lines is null and (
                       j.knowledge in ('confirmed', 'unknown')
                           and (coalesce(a.applied_from, j.created_at) - settling < run.given_from
                                or j.finished_at + settling > run.given_until)
                       or j.state = 'delivered' and j.is_debit_elsewhere and j.debit_effect = 'unknown' and d.lines is null),
                   f.lines is null or j.knowledge = 'no_callback'
                       or coalesce(f.currency = j.currency and f.last_currency = j.currency, false),
                   f.player_id is null or j.knowledge = 'no_callback'
                       or coalesce(f.player_id = j.player_id and f.last_player_id = j.player_id, false),
                   f.lines is null or j.knowledge = 'no_callback'
                       -- Without a debit, nothing was to be reversed.
                       or coalesce(f.amount = j.amount and f.last_amount = j.amount, false)
                          and (j.knowledge <> 'unknown' or j.is_debit_confirmed or d.lines is not null
                               or j.is_debit_elsewhere),
                   case when j.method = 'BET_ROLLBACK' and j.state = 'delivered'
                            then f.lines is null and (d.lines is not null or j.is_debit_confirmed and j.is_debit_elsewhere)
                        when j.method = 'BET_MAKE'
                            then j.other_request_id is not null and d.lines is null and coalesce(f.lines_in_period > 0, false)
                        else false end,
                   coalesce(rare.other_end, 'none'),
                   j.knowledge = 'confirmed' and j.method = 'BET_MAKE' and f.lines is not null and j.bet_state = 'open'
                       and j.created_at < old_before and credited.bet_id is null,
                   not (j.knowledge = 'confirmed' and j.is_in_ledger and coalesce(f.lines = 1 and f.day <> j.day, false))
               ) as class,
               j.is_callback and (j.is_final and (j.is_in_ledger or j.effect = 'unknown'
                                                  or j.state = 'delivered' and j.method = 'BET_ROLLBACK')
                                  or j.is_under_way) as is_our_row
          from judged j
          left join line_facts f on f.target_id = j.request_id
          left join (select f.target_id, f.lines from line_facts f) d
            on d.target_id = j.other_request_id
          left join attempt_facts a on a.request_id = j.request_id
          left join rare_facts rare on rare.request_id = j.request_id
          left join credited_bet credited on credited.bet_id = j.bet_id
        union all
        select null, u.source, u.line, null, 0, 1, u.currency, greatest(run.first_day, least(run.last_day, u.day)), u.booked_at,
               null, 0, null, u.currency, u.day, case when u.is_in_period then u.amount else 0 end, u.source, u.line, 0, false,
               predictu_dispatch.difference_class(true, u.is_in_period, false, 'no_callback', 1, false, true, true, true, false,
                                                  coalesce(e.other_end, 'none'), false, true), false
          from unmatched u
          left join other_end e on e.source = u.source and e.line = u.line
         where u.target_id is null
    ),
    -- Nearly all items are agreed: they are only added up. The others have a number.
    differing as materialized (
        select row_number() over () as item_no, i.*
          from item i where i.class <> 'agreed' and (i.rows_theirs > 0 or i.is_our_row or i.class = 'ours')
    ),
    -- A standing debit is a part of its rollback's item, unless it has a difference of its own.
    merged as materialized (
        select r.item_no, r.currency as item_currency, r.day as item_day, d.*
          from (select i.placement_request_id, min(i.item_no) as item_no, min(i.currency) as currency, min(i.day) as day
                  from differing i where i.class = 'debit_standing' group by i.placement_request_id) r
          join item d on d.request_id = r.placement_request_id
         where predictu_dispatch.difference_kind(d.class) in ('agreed', 'counted')
           and (d.rows_theirs > 0 or d.is_our_row)
    ),
    agreed as materialized (
        select i.currency, i.day, i.ours_day, i.theirs_currency, i.theirs_day, count(*) as items,
               sum(i.rows_ours) as rows_ours, sum(i.rows_theirs) as rows_theirs, sum(i.ours) as ours, sum(i.theirs) as theirs,
               count(*) filter (where i.is_in_ledger) as in_ledger
          from item i
         where i.class = 'agreed' and (i.rows_theirs > 0 or i.is_our_row)
           and not exists (select from merged m where m.request_id = i.request_id)
         group by i.currency, i.day, i.ours_day, i.theirs_currency, i.theirs_day
    ),
    -- The rows of the other items: each has one, and a second one if a standing debit is a part of it.
    placed as materialized (
        select d.item_no, true as is_item, d.class, d.currency as item_currency, d.day as item_day, d.request_id, d.source,
               d.line, d.at_source, d.at_line, d.rows_ours, d.rows_theirs, d.at, d.bet_amount, d.currency as ours_currency,
               d.ours, d.ours_day, d.theirs_currency, d.theirs_day, d.theirs, d.resolved, d.is_in_ledger
          from differing d where not exists (select from merged m where m.request_id = d.request_id)
        union all
        select m.item_no, false, 'debit_standing', m.item_currency, m.item_day, m.request_id, m.source, m.line, m.at_source,
               m.at_line, m.rows_ours, m.rows_theirs, m.at, m.bet_amount, m.currency, m.ours, m.ours_day, m.theirs_currency,
               m.theirs_day, m.theirs, m.resolved, m.is_in_ledger
          from merged m
    ),
    posting as materialized (
        select p.item_no, p.class, p.item_currency, p.item_day, p.ours_currency as currency, p.ours_day as day,
               p.ours::numeric as ours, 0::numeric as theirs
          from placed p where p.ours <> 0
        union all
        select p.item_no, p.class, p.item_currency, p.item_day, p.theirs_currency, p.theirs_day, 0, p.theirs
          from placed p where p.theirs <> 0
        union all
        select p.item_no, p.class, p.item_currency, p.item_day, t.currency, t.day, 0, sum(t.amount)
          from (select p.request_id, min(p.item_no) as item_no, min(p.class) as class, min(p.item_currency) as item_currency,
                       min(p.item_day) as item_day
                  from placed p where p.rows_theirs > 1 group by p.request_id) p
          join many_line t on t.target_id = p.request_id
         where t.is_in_period
         group by p.item_no, p.class, p.item_currency, p.item_day, t.currency, t.day
    ),
    disputed as materialized (
        select p.item_no, p.class, p.item_currency, p.item_day, p.currency, abs(sum(p.difference)) as disputed,
               greatest(-sum(p.difference), 0) as owed
          from (select p.item_no, p.class, p.item_currency, p.item_day, p.currency, p.theirs - p.ours as difference
                  from posting p
                union all
                select p.item_no, p.class, p.item_currency, p.item_day, p.ours_currency, -p.resolved
                  from placed p where p.resolved <> 0) p
         where predictu_dispatch.difference_kind(p.class) = 'difference' and p.class <> 'debit_standing'
         group by p.item_no, p.class, p.item_currency, p.item_day, p.currency
        union all
        select p.item_no, p.class, p.item_currency, p.item_day, p.item_currency, p.bet_amount, p.bet_amount
          from placed p where p.class = 'debit_standing' and p.is_item
    ),
    total as materialized (
        select part.class, part.currency, part.day, sum(part.items)::bigint as items, sum(part.rows_ours)::bigint as rows_ours,
               sum(part.rows_theirs)::bigint as rows_theirs, sum(part.ours) as ours, sum(part.theirs) as theirs,
               sum(part.disputed) as disputed, sum(part.owed) as owed
          from (select 'agreed', a.currency, a.day, a.items, a.rows_ours, a.rows_theirs, 0::numeric, 0::numeric, 0::numeric,
                       0::numeric
                  from agreed a
                union all
                select 'agreed', a.currency, a.ours_day, 0, 0, 0, a.ours, 0, 0, 0 from agreed a where a.ours <> 0
                union all
                select 'agreed', a.theirs_currency, a.theirs_day, 0, 0, 0, 0, a.theirs, 0, 0 from agreed a where a.theirs <> 0
                union all
                select p.class, p.item_currency, p.item_day, count(*) filter (where p.is_item), sum(p.rows_ours),
                       sum(p.rows_theirs), 0, 0, 0, 0
                  from placed p group by p.class, p.item_currency, p.item_day
                union all
                select p.class, p.currency, p.day, 0, 0, 0, sum(p.ours), sum(p.theirs), 0, 0
                  from posting p group by p.class, p.currency, p.day
                union all
                select d.class, d.currency, d.item_day, 0, 0, 0, 0, 0, sum(d.disputed), sum(d.owed)
                  from disputed d group by d.class, d.currency, d.item_day) part (
                      class, currency, day, items, rows_ours, rows_theirs, ours, theirs, disputed, owed)
         group by part.class, part.currency, part.day
    ),
    listed as materialized (
        select p.*
          from (select p.*, row_number() over (partition by p.class order by p.at, p.request_id, p.source, p.line) as place
                  from placed p where p.is_item) p
         where p.place <= items_max
         limit 20 * items_max
    ),
    listed_row as materialized (
        select p.item_no, p.request_id, p.rows_theirs, p.at_source, p.at_line
          from placed p
         where p.rows_theirs > 0 and p.item_no in (select i.item_no from listed i)
         limit 40 * items_max
    ),
    listed_line as (
        select l.item_no, (array_agg(l.bet_id order by l.source, l.line))[1] as bet_id,
               (array_agg(l.method order by l.source, l.line))[1] as method,
               (array_agg(l.player_id order by l.source, l.line))[1] as player_id,
               (array_agg(l.transaction_id order by l.source, l.line))[1] as transaction_id,
               bool_and(l.is_debit) as is_debit,
               jsonb_agg(jsonb_build_object(
                   'source', l.source, 'line', l.line, 'booked_at', l.booked_at, 'transaction_id', l.transaction_id,
                   'request_id', l.request_id, 'method', l.method, 'bet_id', l.bet_id, 'player_id', l.player_id,
                   'currency', l.currency, 'amount', l.amount) order by l.source, l.line) as lines
          from (select named.*, row_number() over (partition by named.item_no order by named.source, named.line) as place
                  from (select p.item_no, t.source, t.line, t.booked_at, t.transaction_id, t.request_id, t.method, t.bet_id,
                               t.player_id, t.currency, t.amount, t.is_debit
                          from listed_row p
                         cross join lateral (
                             select t.* from predictu_dispatch.reconciliation_line t
                              where t.operator_id = run.operator_id and t.run_id = run.run_id
                                and t.source = p.at_source and t.line = p.at_line offset 0) t
                        union all
                        select p.item_no, t.source, t.line, t.booked_at, t.transaction_id, t.request_id, t.method, t.bet_id,
                               t.player_id, t.currency, t.amount, t.is_debit
                          from (select p.request_id, min(p.item_no) as item_no
                                  from listed_row p where p.rows_theirs > 1 group by p.request_id) p
                          join many_line t on t.target_id = p.request_id) named) l
         where l.place <= lines_max
         group by l.item_no
    ),
    listed_amounts as (
        select p.item_no, jsonb_agg(jsonb_build_object('currency', p.currency, 'day', p.day, 'ours', p.ours, 'theirs', p.theirs)
                                    order by p.currency collate "C", p.day) as amounts
          from (select p.item_no, p.currency, p.day, sum(p.ours) as ours, sum(p.theirs) as theirs
                  from posting p where p.item_no in (select i.item_no from listed i)
                 group by p.item_no, p.currency, p.day) p
         group by p.item_no
    ),
    -- In the item's currency; in another one if nothing is disputed in that.
    listed_dispute as (
        select d.item_no,
               (array_agg(d.disputed order by d.currency = d.item_currency desc, d.disputed desc, d.currency))[1] as disputed,
               (array_agg(d.currency order by d.currency = d.item_currency desc, d.disputed desc, d.currency))[1] as currency
          from disputed d
         where d.disputed > 0 and d.item_no in (select i.item_no from listed i)
         group by d.item_no
    ),
    described as (
        select i.item_no, i.request_id, i.source, i.line, i.class, coalesce(d.currency, i.item_currency) as currency,
               i.item_day as day, coalesce(a.amounts, '[]') as amounts, coalesce(l.lines, '[]') as lines,
               coalesce(d.disputed, 0) as disputed, c.finished_at as confirmed_at,
               coalesce(c.method, case when b.bet_id is not null then 'BET_MAKE' end, l.method) as method,
               coalesce(c.bet_id, b.bet_id, l.bet_id) as bet_id, coalesce(c.player_id, b.player_id, l.player_id) as player_id,
               coalesce(c.operator_transaction_id, l.transaction_id) as transaction_id,
               case when i.request_id is not null then 'request:' || i.request_id
                    when l.transaction_id is not null then 'transaction:' || l.transaction_id
                    when l.bet_id is not null
                        then format('bet:%s/%s', l.bet_id, coalesce(l.method, case when l.is_debit then 'debit' else 'credit' end))
                    else format('line:%s/%s', i.source, i.line) end as key
          from listed i
          left join listed_line l on l.item_no = i.item_no
          left join listed_amounts a on a.item_no = i.item_no
          left join listed_dispute d on d.item_no = i.item_no
          left join lateral (
              select c.method, c.bet_id, c.finished_at, c.operator_transaction_id,
                     (predictu_dispatch.params_money(c.params))[1] as player_id
                from predictu_dispatch.callback c
               where c.operator_id = run.operator_id and c.request_id = i.request_id and c.bet_id is not null
              offset 0) c on true
          left join lateral (
              select b.bet_id, b.player_id from predictu_dispatch.bet b
               where b.operator_id = run.operator_id and b.bet_id = c.bet_id
              union all
              select b.bet_id, b.player_id from predictu_dispatch.bet b
               where c.method is null and b.operator_id = run.operator_id and b.placement_request_id = i.request_id
              offset 0) b on true
    ),
    stored_totals as (
        insert into predictu_dispatch.reconciliation_total
            (operator_id, run_id, class, currency, day, items, rows_ours, rows_theirs, ours, theirs, disputed, owed)
        select run.operator_id, run.run_id, t.class, t.currency, t.day, t.items, t.rows_ours, t.rows_theirs, t.ours, t.theirs,
               t.disputed, t.owed
          from total t
    ),
    stored_items as (
        insert into predictu_dispatch.reconciliation_item
            (operator_id, run_id, item_id, key, class, request_id, method, bet_id, player_id, transaction_id, currency, day,
             confirmed_at, amounts, lines, disputed)
        select run.operator_id, run.run_id,
               encode(substr(sha256(convert_to(jsonb_build_array(
                   run.operator_id, d.key, d.class, d.amounts,
                   -- Lines of other files may have the same key and amounts.
                   row_number() over (partition by d.class, d.key, d.amounts order by d.source, d.line))::text,
                   'UTF8')), 1, 16), 'hex')::uuid,
               d.key, d.class, d.request_id, d.method, d.bet_id, d.player_id, d.transaction_id, d.currency, d.day,
               d.confirmed_at, d.amounts, d.lines, d.disputed
          from described d
    ),
    -- Read from `ledger` and from the lines, not from the items.
    checked as materialized (
        select part.currency, part.day, sum(part.ours) as ours, sum(part.theirs) as theirs, sum(part.in_ledger) as in_ledger,
               sum(part.lines) as lines
          from (select l.currency, run.first_day - 1 + width_bucket(l.confirmed_at, run.day_edges),
                       sum(case l.direction when 'debit' then -coalesce(l.amount, 0) else coalesce(l.amount, 0) end),
                       0::numeric, count(*), 0
                  from predictu_dispatch.ledger l
                 where l.operator_id = run.operator_id and l.confirmed_at >= period_from and l.confirmed_at < period_until
                 group by 1, 2
                union all
                select l.currency, l.day, 0,
                       coalesce(sum(l.amount) filter (where l.booked_at >= period_from and l.booked_at < period_until), 0),
                       0, count(*)
                  from predictu_dispatch.reconciliation_line l
                 where l.operator_id = run.operator_id and l.run_id = run.run_id
                 group by 1, 2
               ) part (currency, day, ours, theirs, in_ledger, lines)
         group by part.currency, part.day
    )
    select (select sum(t.rows_ours)::bigint from total t), (select sum(t.rows_theirs)::bigint from total t),
           (select coalesce(jsonb_agg(jsonb_build_object('currency', c.currency, 'day', c.day, 'ours', c.ours, 'theirs', c.theirs)
                                      order by c.currency collate "C", c.day), '[]')
              from checked c where c.ours <> 0 or c.theirs <> 0),
           not exists (
               select from (select t.currency, t.day, sum(t.ours) as ours, sum(t.theirs) as theirs
                              from total t group by t.currency, t.day) t
                 full join checked c on c.currency = t.currency and c.day = t.day
                where coalesce(t.ours, 0) <> coalesce(c.ours, 0) or coalesce(t.theirs, 0) <> coalesce(c.theirs, 0))
           and coalesce((select sum(c.lines) from checked c), 0) = coalesce((select sum(t.rows_theirs) from total t), 0)
           and coalesce((select sum(c.in_ledger) from checked c), 0)
               = coalesce((select sum(a.in_ledger) from agreed a), 0)
                 + (select count(*) from placed p where p.is_in_ledger);
end $$;

CREATE FUNCTION predictu_dispatch.commit_durably() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if current_setting('synchronous_commit') = 'off' then
        perform set_config('synchronous_commit', 'on', true);
    end if;
end $$;

CREATE FUNCTION predictu_dispatch.correct_times(operator_ids text[], delays_s double precision[], interactive_backoffs_s double precision[], settlement_backoffs_s double precision[], ahead_s double precision) RETURNS SETOF text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
    at timestamptz := clock_timestamp();
    -- A clock that is adjusted by less has not been set back.
    ahead timestamptz := at + interval '1 second';
    ahead_from timestamptz := at + ahead_s * interval '1 second';
begin
    return query
    with given as (
        -- Another daemon's file may have a longer delay; five minutes are the default.
        select given.operator_id, given.delay_s * interval '1 second' as delay,
               at + greatest(given.delay_s, 300) * interval '1 second' as latest
          from unnest(operator_ids, delays_s) as given (operator_id, delay_s)
    ), found as materialized (
        select c.operator_id, c.request_id, c.new_due_at
          from given
         cross join (values ('interactive'), ('settlement')) of_operator (lane)
         cross join lateral (
             select c.operator_id, c.request_id, pause.new_due_at
               from predictu_dispatch.callback c
              cross join lateral (
                  select at + case
                      when c.attempts = c.budget_from then interval '0'
                      -- The pause began at the earliest with the lease, on the clock before.
                      when c.leased_at > ahead and (c.due_at > c.leased_at or c.due_at > at + given.delay)
                          then greatest(least(c.due_at - c.leased_at, given.delay), interval '0')
                      when c.due_at > given.latest then given.delay
                      else c.due_at - at end as new_due_at) pause
              where c.operator_id = given.operator_id and c.lane = of_operator.lane and c.state = 'ready'
                and c.due_at > least(given.latest, ahead_from)
                and pause.new_due_at < c.due_at - interval '1 second'
              order by c.due_at desc limit 1000
                for no key update of c skip locked) c
    )
    update predictu_dispatch.callback c
       set due_at = found.new_due_at,
           -- Bets only. A late credit is better than none, and a manual retry needs its length.
           expires_at = case when c.lane = 'interactive' and c.created_at > ahead
                             then least(c.expires_at, at + (c.expires_at - c.created_at)) else c.expires_at end
      from found
     where c.operator_id = found.operator_id and c.request_id = found.request_id
    returning c.operator_id;

    return query
    with given as (
        select * from unnest(operator_ids, interactive_backoffs_s, settlement_backoffs_s)
                      as given (operator_id, interactive_s, settlement_s)
    ), locked as materialized (
        -- The row says when it was last written, and so how much of a backoff is left at most.
        select o.operator_id,
               at + least(given.interactive_s * interval '1 second', case when o.interactive_backoff_until > written.written_at
                          then o.interactive_backoff_until - written.written_at end) as interactive_until,
               at + least(given.settlement_s * interval '1 second', case when o.settlement_backoff_until > written.written_at
                          then o.settlement_backoff_until - written.written_at end) as settlement_until
          from predictu_dispatch.operator o
          join given on given.operator_id = o.operator_id
         cross join lateral (
             select greatest(o.circuit_since, o.last_success_at, o.last_failure_at, ahead) as written_at) written
         where o.circuit_since > ahead or o.last_success_at > ahead or o.last_failure_at > ahead
            or o.interactive_backoff_until > ahead + given.interactive_s * interval '1 second'
            or o.settlement_backoff_until > ahead + given.settlement_s * interval '1 second'
         order by o.operator_id for no key update of o skip locked
    )
    update predictu_dispatch.operator o
       set circuit_since = case when o.circuit_since > at then at else o.circuit_since end,
           last_success_at = case when o.last_success_at > at then at else o.last_success_at end,
           last_failure_at = case when o.last_failure_at > at then at else o.last_failure_at end,
           interactive_backoff_until = case when o.interactive_backoff_until > l.interactive_until
                                            then l.interactive_until else o.interactive_backoff_until end,
           settlement_backoff_until = case when o.settlement_backoff_until > l.settlement_until
                                           then l.settlement_until else o.settlement_backoff_until end,
           revision = o.revision + 1
      from locked l
     where o.operator_id = l.operator_id
    returning o.operator_id;
end $$;

CREATE FUNCTION predictu_dispatch.create_kept_partition(part text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    kept text := 'kept_' || part;
    month date := case when part <> 'default' then to_date(part, 'YYYY_MM') end;
begin
    execute format('drop table if exists predictu_dispatch.%I', kept);
    execute format('create table predictu_dispatch.%I '
                   '(like predictu_dispatch.attempt_record including defaults including constraints including indexes)', kept);
    execute format('alter table predictu_dispatch.%I replica identity full', kept);
    execute format('create trigger attempt_not_truncated before truncate on predictu_dispatch.%I for each statement '
                   'execute function predictu_dispatch.refuse_audit_change()', kept);
    execute format('alter table predictu_dispatch.%I enable always trigger attempt_not_truncated', kept);
    if month is not null then
        -- A table with this constraint is attached without being read.
        execute format('alter table predictu_dispatch.%I add constraint kept_month '
                       'check (started_at >= %L and started_at < %L)', kept, to_char(month, 'YYYY-MM-DD 00:00:00+00'), to_char(month + interval '1 month', 'YYYY-MM-DD 00:00:00+00'));
    end if;
end $$;

CREATE FUNCTION predictu_dispatch.currency_digits(currency text) RETURNS integer
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
    select c.minor_digits from predictu_dispatch.currency c where c.currency = currency_digits.currency
$$;

CREATE FUNCTION predictu_dispatch.deregister(instance text, session_id uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
begin
    perform predictu_dispatch.take_lock('heartbeat', waits => true);
    delete from predictu_dispatch.daemon d where d.instance = deregister.instance and d.session_id = deregister.session_id;
    if found then
        delete from predictu_dispatch.share s where s.instance = deregister.instance;
    end if;
end $$;

CREATE FUNCTION predictu_dispatch.differ_in_one_letter(a text, b text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT ((substr(differ_in_one_letter.a, (i.i + 1)) = substr(differ_in_one_letter.b, (i.i + 1))) OR (substr(differ_in_one_letter.a, i.i) = substr(differ_in_one_letter.b, (i.i + 1))) OR (substr(differ_in_one_letter.a, (i.i + 1)) = substr(differ_in_one_letter.b, i.i)) OR ((substr(differ_in_one_letter.a, i.i, 1) = substr(differ_in_one_letter.b, (i.i + 1), 1)) AND (substr(differ_in_one_letter.a, (i.i + 1), 1) = substr(differ_in_one_letter.b, i.i, 1)) AND (substr(differ_in_one_letter.a, (i.i + 2)) = substr(differ_in_one_letter.b, (i.i + 2))))) FROM generate_series(1, (length(differ_in_one_letter.b) + 1)) i(i) WHERE ((substr(differ_in_one_letter.a, i.i, 1) <> substr(differ_in_one_letter.b, i.i, 1)) AND (abs((length(differ_in_one_letter.a) - length(differ_in_one_letter.b))) <= 1)) ORDER BY i.i LIMIT 1);

CREATE FUNCTION predictu_dispatch.difference_class(is_readable boolean, is_in_window boolean, contradicts boolean, knowledge text, lines bigint, may_be_elsewhere boolean, is_currency_equal boolean, is_player_equal boolean, is_amount_equal boolean, is_debit_standing boolean, other_end text, is_without_end boolean, is_day_equal boolean) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (NOT is_readable) THEN 'unreadable'::text WHEN (NOT is_in_window) THEN 'out_of_window'::text WHEN contradicts THEN 'ours'::text WHEN ((knowledge = 'pending'::text) OR may_be_elsewhere) THEN 'in_flight'::text WHEN (lines > 1) THEN 'booked_twice'::text WHEN (NOT is_currency_equal) THEN 'currency_differs'::text WHEN (NOT is_player_equal) THEN 'player_differs'::text WHEN (NOT is_amount_equal) THEN 'amount_differs'::text WHEN ((lines > 0) AND (knowledge = 'rejected'::text)) THEN 'booked_though_rejected'::text WHEN ((lines > 0) AND (knowledge = 'never_sent'::text)) THEN 'booked_though_never_sent'::text WHEN is_debit_standing THEN 'debit_standing'::text WHEN (other_end = 'rolled_back'::text) THEN 'rolled_back_but_credited'::text WHEN (other_end = 'ended'::text) THEN 'two_ends'::text WHEN is_without_end THEN 'no_end'::text WHEN (NOT is_day_equal) THEN 'day_differs'::text WHEN (knowledge = 'unknown'::text) THEN 'agreed_resolves_unknown'::text WHEN (((knowledge = 'confirmed'::text) AND (lines > 0)) OR (knowledge = ANY (ARRAY['rejected'::text, 'never_sent'::text]))) THEN 'agreed'::text WHEN (knowledge = 'confirmed'::text) THEN 'missing_there'::text ELSE 'missing_here'::text END;

CREATE FUNCTION predictu_dispatch.difference_kind(class text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (class = ANY (ARRAY['agreed'::text, 'agreed_resolves_unknown'::text])) THEN 'agreed'::text WHEN (class = ANY (ARRAY['unreadable'::text, 'out_of_window'::text, 'in_flight'::text, 'no_end'::text, 'day_differs'::text])) THEN 'counted'::text WHEN (class = 'ours'::text) THEN 'contradiction'::text ELSE 'difference'::text END;

CREATE TABLE predictu_dispatch.operator (
    operator_id text NOT NULL,
    enabled boolean NOT NULL,
    interactive_deadline_s double precision NOT NULL,
    settlement_deadline_s double precision NOT NULL,
    config_fingerprint text NOT NULL,
    health text DEFAULT 'unknown'::text NOT NULL,
    circuit text DEFAULT 'closed'::text NOT NULL,
    circuit_since timestamp with time zone,
    consecutive_failures integer DEFAULT 0 NOT NULL,
    last_success_at timestamp with time zone,
    last_failure_at timestamp with time zone,
    ping_at timestamp with time zone,
    ping_request_id uuid,
    interactive_backoff_until timestamp with time zone,
    settlement_backoff_until timestamp with time zone,
    paused_at timestamp with time zone,
    paused_by text,
    pause_reason text,
    revision bigint DEFAULT 0 NOT NULL,
    updated_at timestamp with time zone DEFAULT now() NOT NULL,
    last_failure_reason text,
    last_failure_status integer,
    last_failure_location text,
    last_failure_request_id uuid,
    last_failure_attempt integer,
    retired_at timestamp with time zone,
    retired_by text,
    retire_reason text,
    CONSTRAINT operator_check CHECK ((((paused_at IS NULL) = (paused_by IS NULL)) AND ((paused_at IS NULL) = (pause_reason IS NULL)))),
    CONSTRAINT operator_circuit_check CHECK ((circuit = ANY (ARRAY['closed'::text, 'open'::text, 'half_open'::text]))),
    CONSTRAINT operator_consecutive_failures_check CHECK ((consecutive_failures >= 0)),
    CONSTRAINT operator_health_check CHECK ((health = ANY (ARRAY['unknown'::text, 'healthy'::text, 'degraded'::text, 'down'::text]))),
    CONSTRAINT operator_interactive_deadline_s_check CHECK ((interactive_deadline_s >= (0)::double precision)),
    CONSTRAINT operator_operator_id_check CHECK ((operator_id ~ '^[A-Za-z0-9_-]{1,64}$'::text)),
    CONSTRAINT operator_retired_by_someone CHECK ((((retired_at IS NULL) = (retired_by IS NULL)) AND ((retired_at IS NULL) = (retire_reason IS NULL)))),
    CONSTRAINT operator_settlement_deadline_s_check CHECK ((settlement_deadline_s >= (0)::double precision))
);

CREATE FUNCTION predictu_dispatch.enabled_operator(operator_id text) RETURNS predictu_dispatch.operator
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    found_row predictu_dispatch.operator;
begin
    if current_setting('transaction_isolation') <> 'read committed' then
        -- A snapshot older than a retirement does not show it; this lock then raises 40001.
        perform from predictu_dispatch.operator o where o.operator_id = enabled_operator.operator_id for key share;
    end if;
    select o.* into found_row from predictu_dispatch.operator o where o.operator_id = enabled_operator.operator_id;
    if not found then
        raise exception using errcode = 'PD002',
            message = format('unknown operator %s', coalesce(quote_literal(left(operator_id, 80)), 'NULL')),
            hint = 'A daemon registers an operator when it starts or reloads with the file operators/<operator_id>.toml.';
    end if;
    perform predictu_dispatch.refuse_retired(found_row);
    if not found_row.enabled then
        raise exception using errcode = 'PD002',
            message = format('operator %s is disabled', quote_literal(operator_id)),
            hint = 'Its file has enabled = false; only rollback_bet() works for it.';
    end if;
    return found_row;
end $$;

CREATE FUNCTION predictu_dispatch.enqueue_callback(operator_id text, method text, params jsonb, request_id uuid DEFAULT NULL::uuid, expires_at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION predictu_dispatch.expire(most integer) RETURNS SETOF predictu_dispatch.change
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_custom_plan'
    AS $$
declare
    locked record;
    ending record;
begin
    perform predictu_dispatch.commit_durably();
    -- The bets first, in a statement of their own; see settle().
    select array_agg(b.operator_id) as operator_ids, array_agg(b.bet_id) as bet_ids into locked
      from (select distinct found.operator_id, found.bet_id
              from predictu_dispatch.operator o
             cross join lateral (
                 select * from (
                     select b.operator_id, b.bet_id
                       from predictu_dispatch.callback c
                       join predictu_dispatch.bet b on b.operator_id = c.operator_id and b.bet_id = c.bet_id
                      where c.operator_id = o.operator_id and c.state = 'ready' and c.expires_at <= now()
                        and c.bet_id is not null
                      order by c.expires_at limit most
                        for no key update of b skip locked) picked
                 union all
                 select * from (
                     select b.operator_id, b.bet_id
                       from predictu_dispatch.callback c
                       join predictu_dispatch.bet b on b.operator_id = c.operator_id and b.bet_id = c.bet_id
                      where (o.paused_at is not null or o.circuit <> 'closed')
                        and c.operator_id = o.operator_id and c.state = 'ready' and c.method = 'BET_MAKE'
                      order by c.due_at desc limit most
                        for no key update of b skip locked) picked
             ) found) b;
    -- Apart from the update, as in claim().
    select array_agg(e.operator_id) as operator_ids, array_agg(e.request_id) as request_ids,
           array_agg(e.reason) as reasons
      into ending
      from (
          select * from (
              select c.operator_id, c.request_id,
                     case when c.expires_at <= now() then 'deadline' when o.paused_at is null then 'circuit_open'
                          else 'paused' end as reason
                from unnest(locked.operator_ids, locked.bet_ids) as named (operator_id, bet_id)
                join predictu_dispatch.operator o on o.operator_id = named.operator_id
                join predictu_dispatch.callback c on c.operator_id = named.operator_id and c.bet_id = named.bet_id
               where c.state = 'ready'
                 and (c.expires_at <= now()
                      or (c.method = 'BET_MAKE' and (o.paused_at is not null or o.circuit <> 'closed')))
                 for no key update of c skip locked) of_bets
          union all
          select found.*
            from predictu_dispatch.operator o
           cross join lateral (
               select * from (
                   select c.operator_id, c.request_id, 'deadline' as reason
                     from predictu_dispatch.callback c
                    where c.operator_id = o.operator_id and c.state = 'ready' and c.expires_at <= now() and c.bet_id is null
                    order by c.expires_at limit most
                      for no key update skip locked) overdue
               union all
               select * from (
                   select c.operator_id, c.request_id, case when o.paused_at is null then 'circuit_open' else 'paused' end
                     from predictu_dispatch.callback c
                    where (o.paused_at is not null or o.circuit <> 'closed')
                      and c.operator_id = o.operator_id and c.state = 'ready' and c.method = 'BALANCE'
                      and (c.expires_at is null or c.expires_at > now())
                    order by c.due_at desc limit most
                      for no key update skip locked) refused
           ) found
      ) e;
    if ending.request_ids is not null then
        return query
        update predictu_dispatch.callback c
           set state = 'exhausted', reason = e.reason, finished_at = clock_timestamp(),
               review_since = case when c.method not in ('PING', 'BALANCE', 'BET_MAKE') then clock_timestamp() end
          from unnest(ending.operator_ids, ending.request_ids, ending.reasons) as e (operator_id, request_id, reason)
         where c.operator_id = e.operator_id and c.request_id = e.request_id
        returning c.operator_id, c.request_id, c.method, c.lane, c.state, c.reason, 'settled', null::integer;
    end if;
    if locked.bet_ids is not null then
        return query select * from predictu_dispatch.advance_bets(locked.operator_ids, locked.bet_ids);
    end if;
end $$;

CREATE FUNCTION predictu_dispatch.expire_apart(most integer, set_aside uuid[]) RETURNS TABLE(operator_id text, request_id uuid, method text, lane text, state text, reason text, cause text, attempt integer, failed_sqlstate text, failed_message text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
    o record;
    ending record;
begin
    perform predictu_dispatch.commit_durably();
    for o in
        select op.operator_id, op.paused_at is not null or op.circuit <> 'closed' as is_stopped
          from predictu_dispatch.operator op
    loop
        begin
            for ending in
                select * from (
                    select c.request_id from predictu_dispatch.callback c
                     where c.operator_id = o.operator_id and c.state = 'ready' and c.expires_at <= now()
                       and c.bet_id is not null and c.request_id <> all(set_aside)
                     order by c.expires_at limit most) overdue_of_bets
                union
                select * from (
                    select c.request_id from predictu_dispatch.callback c
                     where c.operator_id = o.operator_id and c.state = 'ready' and c.expires_at <= now()
                       and c.bet_id is null and c.request_id <> all(set_aside)
                     order by c.expires_at limit most) overdue
                union
                select * from (
                    select c.request_id from predictu_dispatch.callback c
                     where o.is_stopped and c.operator_id = o.operator_id and c.state = 'ready'
                       and c.method in ('BALANCE', 'BET_MAKE') and c.request_id <> all(set_aside)
                     order by c.due_at desc limit most) awaited
            loop
                begin
                    return query
                    select c.*, null::text, null::text
                      from predictu_dispatch.expire_one(o.operator_id, ending.request_id) c;
                exception when others then
                    perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
                    operator_id := o.operator_id;
                    request_id := ending.request_id;
                    failed_sqlstate := sqlstate;
                    failed_message := sqlerrm;
                    return next;
                end;
            end loop;
        exception when others then
            perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
            operator_id := o.operator_id;
            request_id := null;
            failed_sqlstate := sqlstate;
            failed_message := sqlerrm;
            return next;
        end;
    end loop;
end $$;

CREATE FUNCTION predictu_dispatch.expire_one(operator_id text, request_id uuid) RETURNS SETOF predictu_dispatch.change
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
    of_bet text := (select c.bet_id from predictu_dispatch.callback c
                     where c.operator_id = expire_one.operator_id and c.request_id = expire_one.request_id);
begin
    if of_bet is not null then
        perform from predictu_dispatch.bet b
          where b.operator_id = expire_one.operator_id and b.bet_id = of_bet
            for no key update skip locked;
        if not found then
            return;
        end if;
    end if;
    perform from predictu_dispatch.callback c
      where c.operator_id = expire_one.operator_id and c.request_id = expire_one.request_id
        for no key update skip locked;
    if not found then
        return;
    end if;
    return query
    update predictu_dispatch.callback c
       set state = 'exhausted', finished_at = clock_timestamp(),
           reason = case when c.expires_at <= now() then 'deadline' when o.paused_at is null then 'circuit_open'
                         else 'paused' end,
           review_since = case when c.method not in ('PING', 'BALANCE', 'BET_MAKE') then clock_timestamp() end
      from predictu_dispatch.operator o
     where c.operator_id = expire_one.operator_id and c.request_id = expire_one.request_id and c.state = 'ready'
       and o.operator_id = c.operator_id
       and (c.expires_at <= now()
            or (c.method in ('BALANCE', 'BET_MAKE') and (o.paused_at is not null or o.circuit <> 'closed')))
    returning c.operator_id, c.request_id, c.method, c.lane, c.state, c.reason, 'settled', null::integer;
    if of_bet is not null then
        return query select * from predictu_dispatch.advance_bets(array[operator_id], array[of_bet]);
    end if;
end $$;

CREATE FUNCTION predictu_dispatch.expired_audit(keep_months integer, only_part text DEFAULT NULL::text) RETURNS TABLE(part text, step text, rows_estimated bigint, bytes bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_column
declare
    cutoff timestamptz := predictu_dispatch.retention_cutoff(keep_months);
begin
    return query
    select named.part, case named.kind when 'attempt' then 'replace' else 'drop' end,
           greatest(named.reltuples, 0)::bigint, pg_total_relation_size(named.oid)
      from (select c.oid, c.reltuples, split_part(c.relname::text, '_', 1) as kind,
                   substring(c.relname::text from '_(.*)$') as part,
                   exists (select from pg_inherits i where i.inhrelid = c.oid) as is_attached
              from pg_class c
             where c.relnamespace = 'predictu_dispatch'::regnamespace and c.relkind = 'r'
               and c.relname ~ '^(attempt|retired)_([0-9]{4}_[0-9]{2}|default)$') named
     where (named.kind = 'attempt') = named.is_attached
       and case when named.part <> coalesce(only_part, named.part) then false
                when named.kind = 'retired' then true
                when named.part <> 'default'
                then (to_date(named.part, 'YYYY_MM') + interval '1 month') at time zone 'UTC' <= cutoff
                -- The default partition goes when all of its rows are old.
                else exists (select from predictu_dispatch.attempt_default)
                     and not exists (select from predictu_dispatch.attempt_default d where d.started_at >= cutoff) end
     order by named.kind desc, named.part;
end $_$;

CREATE FUNCTION predictu_dispatch.explain_difference(operator_id text, item_id uuid, reason text, by text) RETURNS predictu_dispatch.reconciliation_item
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '3s'
    AS $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.reconciliation_item;
    is_explained boolean;
begin
    perform predictu_dispatch.commit_durably();
    perform predictu_dispatch.check_intervention('explain', reason, by);
    locked := predictu_dispatch.lock_difference('explain', operator_id, item_id);
    is_explained := exists (
        select from predictu_dispatch.intervention e
         where e.operator_id = operator_id and e.action = 'explain' and e.before ->> 'item_id' = item_id::text);
    perform predictu_dispatch.record_intervention('explain',
        to_jsonb(locked) || jsonb_build_object('state', case when is_explained then 'explained' else 'open' end),
        to_jsonb(locked) || jsonb_build_object('state', 'explained'), reason, by, clock_timestamp());
    return locked;
end $$;

CREATE FUNCTION predictu_dispatch.finish_reconciliation(operator_id text, run_id uuid, sources jsonb, lines_read bigint, lines_ignored bigint, lines_unreadable bigint, unreadable jsonb, given_from timestamp with time zone, given_until timestamp with time zone) RETURNS predictu_dispatch.reconciliation_run
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
declare
    run predictu_dispatch.reconciliation_run;
    found_rows record;
    fault text := case
        when jsonb_typeof(sources) is distinct from 'array' then '"sources" is not an array'
        when jsonb_typeof(unreadable) is distinct from 'array' then '"unreadable" is not an array'
        when lines_read is null or lines_ignored is null or lines_unreadable is null
             or least(lines_read, lines_ignored, lines_unreadable) < 0 then 'a number of lines is missing or negative'
        when given_from is null or given_until is null or given_from > given_until
            then '"given_from" must be a time not after "given_until"'
    end;
begin
    if fault is not null then
        perform predictu_dispatch.refuse_params('reconciliation', fault, 'Pass what the run has read.');
    end if;
    select r.* into run from predictu_dispatch.reconciliation_run r
     where r.operator_id = operator_id and r.run_id = run_id for no key update;
    if not found or run.finished_at is not null then
        raise exception using errcode = 'PD005',
            message = format('run %s of operator %s %s', run_id, left(operator_id, 80),
                             case when run.finished_at is null then 'is unknown' else 'has finished' end),
            hint = 'Begin another run with begin_reconciliation().';
    end if;
    -- Behind a pooling proxy, the caller may not notice that the server was restarted.
    if lines_read <> (select count(*) from predictu_dispatch.reconciliation_line l
                       where l.operator_id = operator_id and l.run_id = run_id) then
        raise exception using errcode = 'PD005',
            message = format('run %s of operator %s is refused: lines that it has copied are gone', run_id, operator_id),
            hint = 'The server was restarted, or another session removed them. Reconcile again.';
    end if;
    run.given_from := given_from;
    run.given_until := given_until;
    select * into strict found_rows from predictu_dispatch.classify(run);

    insert into predictu_dispatch.reconciliation_unreadable (operator_id, run_id, source, line, column_name, why)
    select operator_id, run_id, u.source, u.line, coalesce(u."column", ''), u.why
      from jsonb_to_recordset(unreadable) as u (source integer, line bigint, "column" text, why text)
    on conflict do nothing;
    delete from predictu_dispatch.reconciliation_line l where l.operator_id = operator_id and l.run_id = run_id;
    update predictu_dispatch.reconciliation_run r
       set sources = finish_reconciliation.sources, lines_read = finish_reconciliation.lines_read,
           lines_ignored = finish_reconciliation.lines_ignored, lines_unreadable = finish_reconciliation.lines_unreadable,
           given_from = finish_reconciliation.given_from, given_until = finish_reconciliation.given_until,
           rows_ours = coalesce(found_rows.rows_ours, 0), sums = found_rows.sums, finished_at = clock_timestamp(),
           is_complete = finish_reconciliation.lines_unreadable = 0 and found_rows.is_consistent
                         and finish_reconciliation.lines_read = coalesce(found_rows.rows_theirs, 0)
     where r.operator_id = run.operator_id and r.run_id = run.run_id;
    perform predictu_dispatch.open_differences(operator_id, run_id);
    select r.* into run from predictu_dispatch.reconciliation_run r
     where r.operator_id = operator_id and r.run_id = run_id;
    return run;
end $$;

CREATE FUNCTION predictu_dispatch.fleet_figures(instance text) RETURNS TABLE(figures jsonb, age_s double precision)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    began_at timestamptz := clock_timestamp();
    counted jsonb;
begin
    if predictu_dispatch.claim_chore('backlog', 20, instance) then
        begin
            counted := jsonb_build_object(
                'backlog', (select coalesce(jsonb_agg(b), '[]') from predictu_dispatch.backlog() b),
                'review', (select coalesce(jsonb_agg(r), '[]')
                             from (select c.operator_id, count(*) as callbacks,
                                          count(*) filter (where c.effect = 'unknown') as unknown_effect,
                                          extract(epoch from now() - min(c.review_since))::double precision as review_for_s
                                     from predictu_dispatch.callback c
                                    where c.review_since is not null group by c.operator_id) r));
        exception when others then
            perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
        end;
        update predictu_dispatch.maintenance_chore m
           set result = counted, result_at = began_at,
               due_at = clock_timestamp() + least(greatest(interval '5 seconds', 50 * (clock_timestamp() - began_at)),
                                                  interval '20 seconds')
         where m.chore = 'backlog' and counted is not null;
    end if;
    return query
        select m.result, greatest(extract(epoch from clock_timestamp() - m.result_at), 0)::double precision
          from predictu_dispatch.maintenance_chore m where m.chore = 'backlog';
end $$;

CREATE FUNCTION predictu_dispatch.format_utc(at_time timestamp with time zone) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN CASE WHEN isfinite(at_time) THEN to_char((at_time AT TIME ZONE 'UTC'::text), 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'::text) ELSE (at_time)::text END;

CREATE FUNCTION predictu_dispatch.get_bet(operator_id text, bet_id text) RETURNS SETOF predictu_dispatch.bet
    LANGUAGE sql STABLE ROWS 1
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
    select b.* from predictu_dispatch.bet b where b.operator_id = get_bet.operator_id and b.bet_id = get_bet.bet_id
$$;

CREATE FUNCTION predictu_dispatch.get_callback(operator_id text, request_id uuid) RETURNS TABLE(request_id uuid, method text, state text, reason text, effect text)
    LANGUAGE sql STABLE ROWS 1
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
    select c.request_id, c.method, c.state, c.reason, c.effect from predictu_dispatch.callback c
     where c.operator_id = get_callback.operator_id and c.request_id = get_callback.request_id
$$;

CREATE TABLE predictu_dispatch.request_tombstone (
    operator_id text NOT NULL,
    request_id uuid NOT NULL,
    method text NOT NULL,
    content bytea,
    state text,
    reason text,
    effect text,
    removed_at timestamp with time zone DEFAULT now() NOT NULL,
    finished_at timestamp with time zone,
    CONSTRAINT request_tombstone_content_check CHECK ((octet_length(content) = 16))
);

CREATE FUNCTION predictu_dispatch.get_request_tombstone(operator_id text, request_id uuid) RETURNS SETOF predictu_dispatch.request_tombstone
    LANGUAGE sql STABLE ROWS 1
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
    select r.* from predictu_dispatch.request_tombstone r
     where r.operator_id = get_request_tombstone.operator_id and r.request_id = get_request_tombstone.request_id
$$;

CREATE FUNCTION predictu_dispatch.granted_share(fair double precision, most double precision, others double precision, had double precision, used double precision) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN GREATEST(LEAST(fair, (most - others)), LEAST(had, used), (0)::double precision);

CREATE FUNCTION predictu_dispatch.guard_bet_move() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if
        (old.state <> new.state and not (
            (old.state = 'placing' and new.state in ('open', 'closing', 'void'))
            or (old.state = 'open' and new.state = 'closing')
            or (old.state = 'closing' and new.state in ('closed', 'open'))
        ))
        or (old.operator_id, old.bet_id, old.player_id, old.currency, old.amount, old.placement_request_id)
           <> (new.operator_id, new.bet_id, new.player_id, new.currency, new.amount, new.placement_request_id)
    then
        raise exception using errcode = 'PD900',
            message = format('bet %s of operator %s must not go from %s to %s, nor change its terms',
                             old.bet_id, old.operator_id, old.state, new.state),
            hint = 'See predictu_dispatch/core/specification.py for the allowed changes.';
    end if;
    return new;
end $$;

CREATE FUNCTION predictu_dispatch.guard_bet_state() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
declare
    seen record;
    fault text;
begin
    select coalesce(bool_or(c.method = 'BET_MAKE' and c.state in ('ready', 'in_flight')), false) as debit_may_go,
           coalesce(bool_or(c.method = 'BET_MAKE' and c.state = 'delivered'), false) as debited,
           coalesce(bool_or(c.method = 'BET_MAKE' and c.effect <> 'none'), false) as maybe_debited,
           coalesce(bool_or(c.method = 'BET_MAKE'), false) as placed_here,
           coalesce(bool_or(c.method <> 'BET_MAKE' and c.state not in ('waiting', 'cancelled')), false)
               as terminal_may_go,
           coalesce(bool_or(c.method <> 'BET_MAKE' and c.state = 'delivered'), false) as ended
      into seen
      from predictu_dispatch.callback c
     where c.operator_id = new.operator_id and c.bet_id = new.bet_id;
    fault := case
        when new.state = 'placing' and seen.terminal_may_go
            then 'its terminal callback could reach the operator before its debit'
        when new.state <> 'placing' and seen.debit_may_go then 'its debit could still be sent'
        when new.state = 'open' and seen.terminal_may_go then 'a terminal callback is already being sent'
        when new.state = 'open' and seen.placed_here and not seen.debited then 'its debit was never confirmed'
        when new.state = 'closed' and not seen.ended then 'no terminal callback was delivered'
        when new.state = 'void' and seen.debited then 'its debit was confirmed'
        when new.state = 'void' and seen.maybe_debited then 'its debit may have taken place'
        when new.state = 'void' and seen.terminal_may_go then 'a terminal callback is already being sent'
    end;
    if fault is not null then
        raise exception using errcode = 'PD900',
            message = format('bet %s of operator %s must not be %s: %s', new.bet_id, new.operator_id, new.state, fault),
            hint = 'See predictu_dispatch/core/specification.py for the allowed changes.';
    end if;
    return null;
end $$;

CREATE FUNCTION predictu_dispatch.guard_callback() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    is_final boolean := new.state in ('delivered', 'rejected', 'exhausted', 'cancelled');
    fault text := case
        when new.method not in ('PING', 'BALANCE', 'BET_MAKE', 'BET_WIN', 'BET_LOSE', 'BET_SELL', 'BET_REFUND', 'BET_ROLLBACK')
            then 'its method is unknown'
        when (new.bet_id is null) <> (new.method in ('PING', 'BALANCE'))
            then 'PING and BALANCE have no bet_id, the other methods have one'
        when new.lane <> case when new.method in ('PING', 'BALANCE', 'BET_MAKE', 'BET_ROLLBACK') then 'interactive'
                              else 'settlement' end
            then 'its method belongs to the other lane'
        when not is_final and new.state not in ('waiting', 'ready', 'in_flight') then 'its state is unknown'
        when new.effect not in ('none', 'unknown', 'applied') then 'its effect is unknown'
        when new.amount_format not in ('subunits', 'decimal') then 'its amount_format is unknown'
        when new.state = 'waiting' and new.method in ('PING', 'BALANCE', 'BET_MAKE')
            then 'a PING, BALANCE or BET_MAKE is never waiting'
        when (new.state = 'in_flight') <> (new.lease_until is not null)
            then 'lease_until must be set if it is in flight, and only then'
        when is_final <> (new.finished_at is not null)
            then 'finished_at must be set if it is final, and only then'
        when new.state in ('in_flight', 'delivered', 'rejected') and new.attempts <= 0 then 'it was never attempted'
        when new.state = 'delivered' and new.effect <> 'applied' and coalesce(new.reason, '') <> 'nothing_to_reverse'
            then 'it was delivered, so its effect is applied'
        when new.attempts < new.budget_from or new.budget_from < 0
            then 'budget_from must be between 0 and attempts'
        when new.review_since is not null and new.state not in ('rejected', 'exhausted', 'cancelled')
             and coalesce(new.reason, '') <> 'nothing_to_reverse'
            then 'review_since must be null in this state'
        when new.state = 'exhausted' and new.attempts = 0 and new.reason = 'abandoned' and new.method <> 'BET_ROLLBACK'
            then 'it was never attempted, so it is cancelled, not abandoned'
        -- A cancelled terminal makes room for another one and may reopen its bet, so it must never
        -- have reached the operator.
        when new.state = 'cancelled' and new.attempts <> 0 then 'it was attempted, so it is never cancelled'
    end;
begin
    if fault is not null then
        raise exception using errcode = 'PD900',
            message = format('callback %s of operator %s (%s) must not be %s: %s',
                             new.request_id, new.operator_id, new.method, new.state, fault),
            hint = 'See predictu_dispatch/core/specification.py for the allowed changes.';
    end if;
    if tg_op = 'UPDATE' and (
        (old.state <> new.state and not (
            (old.state = 'waiting' and new.state in ('ready', 'cancelled'))
            or (old.state = 'ready' and new.state in ('in_flight', 'exhausted', 'cancelled'))
            or (old.state = 'in_flight' and new.state in ('delivered', 'rejected', 'ready', 'exhausted'))
            -- A retry by a person: never of a debit, nor of a method without a bet, whose caller is
            -- gone.
            or (old.state in ('rejected', 'exhausted') and new.state = 'ready'
                and old.method not in ('PING', 'BALANCE', 'BET_MAKE'))
        ))
        or (old.state in ('rejected', 'exhausted') and new.state = 'ready' and old.review_since is null)
        or (old.effect <> new.effect
            and not (old.effect = 'none' or (old.effect = 'unknown' and new.effect = 'applied')))
        or new.attempts <> old.attempts + (old.state = 'ready' and new.state = 'in_flight')::integer
        or (old.retry_stopped and not new.retry_stopped)
        or (old.amount_format is not null and new.amount_format is distinct from old.amount_format)
        or (old.operator_id, old.request_id, old.method, old.lane, old.created_at)
           <> (new.operator_id, new.request_id, new.method, new.lane, new.created_at)
        or old.bet_id is distinct from new.bet_id
    ) then
        raise exception using errcode = 'PD900',
            message = format('callback %s of operator %s (%s) must not go from %s, effect %s, attempt %s '
                             'to %s, effect %s, attempt %s',
                             old.request_id, old.operator_id, old.method, old.state, old.effect, old.attempts,
                             new.state, new.effect, new.attempts),
            hint = 'See predictu_dispatch/core/specification.py for the allowed changes; its identity never changes.';
    end if;
    return new;
end $$;

CREATE FUNCTION predictu_dispatch.guard_legal_hold() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if tg_op = 'INSERT' then
        if not exists (select from predictu_dispatch.operator o where o.operator_id = new.operator_id) then
            perform predictu_dispatch.refuse_params('legal_hold', format('unknown operator %L', left(new.operator_id, 80)),
                'A hold names an operator of the table operator.');
        elsif new.bet_id is not null
              and not exists (select from predictu_dispatch.bet b
                               where b.operator_id = new.operator_id and b.bet_id = new.bet_id)
              and not exists (select from predictu_dispatch.bet_tombstone b
                               where b.operator_id = new.operator_id and b.bet_id = new.bet_id) then
            perform predictu_dispatch.refuse_params('legal_hold', format('unknown bet %L', left(new.bet_id, 80)),
                'A hold names a bet of this operator, or none for the whole operator.');
        end if;
        perform predictu_dispatch.take_lock('retention', waits => true);
        delete from predictu_dispatch.audit_purge_cursor;
        return new;
    elsif tg_op = 'UPDATE' and old.lifted_at is null and new.lifted_at is not null
          and row(new.operator_id, new.bet_id, new.reason, new.placed_at)
              is not distinct from row(old.operator_id, old.bet_id, old.reason, old.placed_at) then
        perform predictu_dispatch.take_lock('retention', waits => true);
        delete from predictu_dispatch.purge_cursor;
        return new;
    end if;
    raise exception using errcode = 'PD900',
        message = format('a legal hold is never changed: %s is refused', tg_op),
        hint = 'Lift it: update predictu_dispatch.legal_hold set lifted_at = now() where … and lifted_at is null.';
end $$;

CREATE FUNCTION predictu_dispatch.guard_params() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    -- Compared as bytes: 500 and 500.0 are equal numbers and different bodies.
    if record_image_ne(row(old.params), row(new.params)) then
        raise exception using errcode = 'PD900',
            message = format('the params of callback %s of operator %s (%s) must not change',
                             old.request_id, old.operator_id, old.method),
            hint = 'Every attempt sends the same bytes.';
    end if;
    return new;
end $$;

CREATE FUNCTION predictu_dispatch.guard_producer_scope() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if not exists (select from pg_roles r where r.rolname = new.role_name) then
        raise exception using errcode = 'PD003',
            message = format('producer_scope names the role %s, which does not exist', quote_ident(new.role_name)),
            hint = 'Give the name of the login, as in session_user.';
    end if;
    return new;
end $$;

CREATE FUNCTION predictu_dispatch.guard_ready() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    bet_state text := (select b.state from predictu_dispatch.bet b
                        where b.operator_id = new.operator_id and b.bet_id = new.bet_id);
begin
    if bet_state is distinct from (case when new.method = 'BET_MAKE' then 'placing' else 'closing' end) then
        raise exception using errcode = 'PD900',
            message = format('%s %s of operator %s must not be sent while its bet %s is %s',
                             new.method, new.request_id, new.operator_id, new.bet_id, coalesce(bet_state, 'unknown')),
            hint = 'See predictu_dispatch/core/specification.py for the allowed changes.';
    end if;
    return null;
end $$;

CREATE FUNCTION predictu_dispatch.guard_retired() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    raise exception using errcode = 'PD900',
        message = format('operator %s was retired at %s and must not be used again', old.operator_id,
                         predictu_dispatch.format_utc(old.retired_at)),
        hint = 'If it returns, give it a new operator_id.';
end $$;

CREATE FUNCTION predictu_dispatch.guard_signing_key() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if tg_op = 'UPDATE' and old.retired_at is null and new.retired_at is not null then
        old.retired_at := new.retired_at;
        old.retired_id := new.retired_id;
        old.retired_in := new.retired_in;
        if old is not distinct from new then
            return new;
        end if;
    end if;
    raise exception using errcode = 'PD900',
        message = format('signing_key is append-only: %s is refused', tg_op),
        hint = 'The only change is that a key is retired, once: retire_signing_key().';
end $$;

CREATE FUNCTION predictu_dispatch.guard_tombstone() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
begin
    if exists (select from predictu_dispatch.bet_tombstone r
                where r.operator_id = new.operator_id and r.bet_id = new.bet_id) then
        perform predictu_dispatch.refuse_for_bet(new.operator_id, new.bet_id, 'placement or adoption', null, null);
    elsif exists (select from predictu_dispatch.request_tombstone r
                   where r.operator_id = new.operator_id and r.request_id = new.placement_request_id) then
        raise exception using errcode = 'PD004',
            message = format('placement_request_id %s of operator %s belongs to a callback or bet that was removed',
                             new.placement_request_id, new.operator_id),
            hint = 'Each debit belongs to one bet; use a new id for a new placement.';
    end if;
    if current_setting('transaction_isolation') <> 'read committed' then
        -- A snapshot older than the removal does not show the tombstone. Inserting one then raises
        -- 40001 at its unique key.
        begin
            insert into predictu_dispatch.bet_tombstone (operator_id, bet_id, state)
            values (new.operator_id, new.bet_id, new.state) on conflict do nothing;
            insert into predictu_dispatch.request_tombstone (operator_id, request_id, method)
            values (new.operator_id, new.placement_request_id, 'BET_MAKE') on conflict do nothing;
            raise exception using errcode = 'PD901', message = 'undone';
        exception when sqlstate 'PD901' then
            null;
        end;
    end if;
    return null;
end $$;

CREATE FUNCTION predictu_dispatch.heartbeat(instance text, session_id uuid, host text, pid integer, version text, operator_ids text[], interactive_max integer[], settlement_max integer[], requests_per_s_max double precision[], interactive_used integer[], settlement_used integer[], requests_per_s_used double precision[], schema_version integer, clock_at_s double precision DEFAULT NULL::double precision, clock_ahead_s double precision DEFAULT NULL::double precision, silent_at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS TABLE(operator_id text, interactive_slots integer, settlement_slots integer, requests_per_s double precision, is_fair boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    SET enable_nestloop TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
declare
    -- As expected, before it waits for others. A daemon of an earlier release expects nothing.
    is_steady boolean := coalesce(abs(extract(epoch from clock_timestamp()) - clock_at_s) < 0.25, true);
    seen_now timestamptz;
    -- A later heartbeat was sent before the clock was set back.
    ahead timestamptz;
    silent_since timestamptz;
    other predictu_dispatch.daemon;
    is_established boolean;
begin
    -- One daemon at a time: the next may take what this one returns.
    perform predictu_dispatch.take_lock('heartbeat', waits => true);
    seen_now := clock_timestamp();
    silent_since := seen_now - predictu_dispatch.heartbeat_timeout();
    ahead := seen_now + interval '1 second';
    select d.* into other from predictu_dispatch.daemon d
     where d.instance = heartbeat.instance and d.session_id <> heartbeat.session_id and d.seen_at > silent_since
       and d.seen_at is distinct from silent_at;
    if found then
        raise exception using errcode = 'PD007',
            message = format('another daemon called %s is running on host %s, process %s', quote_literal(instance),
                             other.host, other.pid),
            hint = 'Give each daemon its own name: [daemon] instance in dispatcher.toml.';
    end if;
    update predictu_dispatch.daemon d
       set session_id = heartbeat.session_id, host = heartbeat.host, pid = heartbeat.pid,
           version = heartbeat.version, schema_version = heartbeat.schema_version, seen_at = seen_now,
           clock_ahead_s = heartbeat.clock_ahead_s,
           started_at = case d.session_id when heartbeat.session_id then d.started_at else seen_now end,
           -- A new session reports its own, or none if it is of an earlier release.
           signing_keys = case d.session_id when heartbeat.session_id then d.signing_keys end,
           present_since = case when d.seen_at between silent_since and ahead then d.present_since else seen_now end
     where d.instance = heartbeat.instance
    returning d.present_since < silent_since into is_established;
    if not found then
        insert into predictu_dispatch.daemon
            (instance, session_id, host, pid, version, schema_version, started_at, present_since, seen_at)
        values (instance, session_id, host, pid, version, schema_version, seen_now, seen_now, seen_now);
    end if;
    if is_established and is_steady then
        -- Since the clock is steady, a running daemon has sent a heartbeat.
        update predictu_dispatch.daemon d set seen_at = silent_since, present_since = least(d.present_since, silent_since)
         where d.seen_at > ahead;
        -- Stopped daemons lose their shares. After an outage all daemons are silent, so the first
        -- one to return must wait.
        delete from predictu_dispatch.share s
         where not exists (select from predictu_dispatch.daemon d
                            where d.instance = s.instance and d.seen_at > silent_since);
        delete from predictu_dispatch.daemon d where d.seen_at < seen_now - interval '1 day';
    end if;
    delete from predictu_dispatch.share s where s.instance = heartbeat.instance and s.operator_id <> all (operator_ids);
    insert into predictu_dispatch.share as s (operator_id, instance, interactive_max, settlement_max, requests_per_s_max)
    select requested.operator_id, heartbeat.instance, requested.interactive_max, requested.settlement_max,
           requested.requests_per_s_max
      from unnest(operator_ids, heartbeat.interactive_max, heartbeat.settlement_max, heartbeat.requests_per_s_max)
           as requested (operator_id, interactive_max, settlement_max, requests_per_s_max)
    on conflict (operator_id, instance) do update
       set interactive_max = excluded.interactive_max, settlement_max = excluded.settlement_max,
           requests_per_s_max = excluded.requests_per_s_max
     where (s.interactive_max, s.settlement_max, s.requests_per_s_max)
           is distinct from (excluded.interactive_max, excluded.settlement_max, excluded.requests_per_s_max);

    return query
    with requested as (
        select * from unnest(operator_ids, interactive_used, settlement_used, requests_per_s_used)
                      as requested (operator_id, interactive_used, settlement_used, requests_per_s_used)
    ), divided as (
        select s.operator_id, count(d.instance) as live,
               count(*) filter (where d.instance < heartbeat.instance) as live_before,
               count(d.instance) filter (where s.unreachable_since is null) as connected,
               count(*) filter (where d.instance < heartbeat.instance and s.unreachable_since is null) as connected_before,
               coalesce(sum(s.interactive_slots) filter (where s.instance <> heartbeat.instance), 0) as others_interactive,
               coalesce(sum(s.settlement_slots) filter (where s.instance <> heartbeat.instance), 0) as others_settlement,
               coalesce(sum(s.requests_per_s) filter (where s.instance <> heartbeat.instance), 0) as others_per_s
          from predictu_dispatch.share s
          left join predictu_dispatch.daemon d on d.instance = s.instance and d.seen_at > silent_since
         where s.operator_id = any (operator_ids)
         group by s.operator_id
    ), fair as (
        select s.operator_id, predictu_dispatch.share_of(s.interactive_max, n.serving, p.place) as interactive,
               predictu_dispatch.share_of(s.settlement_max, n.serving, p.place) as settlement,
               predictu_dispatch.rate_share_of(nullif(s.requests_per_s_max, 0), n.serving, p.place) as per_s
          from predictu_dispatch.share s join divided v on v.operator_id = s.operator_id
         -- A daemon that cannot connect to the operator has no share while another one can.
         cross join lateral (
             select case when v.connected > 0 then v.connected else v.live end as daemons,
                    case when v.connected = 0 then v.live_before when s.unreachable_since is null then v.connected_before
                         else v.connected end as place) p
         cross join lateral (select predictu_dispatch.serving_daemons(p.daemons, s.requests_per_s_max) as serving) n
         where s.instance = heartbeat.instance
    ), counted as (
        select s.operator_id,
               predictu_dispatch.granted_share(f.interactive, s.interactive_max, v.others_interactive, s.interactive_slots,
                                               a.interactive_used)::integer as interactive_slots,
               predictu_dispatch.granted_share(f.settlement, s.settlement_max, v.others_settlement, s.settlement_slots,
                                               a.settlement_used)::integer as settlement_slots,
               case when f.per_s is not null
                    then predictu_dispatch.granted_share(f.per_s, s.requests_per_s_max, v.others_per_s,
                                                         coalesce(s.requests_per_s, 0),
                                                         coalesce(a.requests_per_s_used, s.requests_per_s_max))
               end as requests_per_s
          from predictu_dispatch.share s
          join divided v on v.operator_id = s.operator_id
          join fair f on f.operator_id = s.operator_id
          join requested a on a.operator_id = s.operator_id
         where s.instance = heartbeat.instance
    ), written as (
        update predictu_dispatch.share s
           set interactive_slots = n.interactive_slots, settlement_slots = n.settlement_slots,
               requests_per_s = n.requests_per_s
          from counted n
         where s.operator_id = n.operator_id and s.instance = heartbeat.instance
           and (s.interactive_slots, s.settlement_slots, s.requests_per_s)
               is distinct from (n.interactive_slots, n.settlement_slots, n.requests_per_s)
    )
    -- It must not reuse slots that it still has above its share.
    select n.operator_id, least(n.interactive_slots, f.interactive), least(n.settlement_slots, f.settlement),
           least(n.requests_per_s, f.per_s),
           (n.interactive_slots, n.settlement_slots, n.requests_per_s)
               is not distinct from (f.interactive, f.settlement, f.per_s)
      from counted n join fair f on f.operator_id = n.operator_id;
end $$;

CREATE FUNCTION predictu_dispatch.heartbeat_timeout() RETURNS interval
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN '00:00:03'::interval;

CREATE FUNCTION predictu_dispatch.is_debit_confirmed(operator_id text, placement_request_id uuid) RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select coalesce((select placement.effect = 'applied' from predictu_dispatch.callback placement
                      where placement.operator_id = is_debit_confirmed.operator_id
                        and placement.request_id = is_debit_confirmed.placement_request_id), true)
$$;

CREATE FUNCTION predictu_dispatch.is_misspelling(given text, ours text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (SELECT ((letters.a = letters.b) OR ((length(letters.b) >= 6) AND ("left"(letters.a, 1) = "left"(letters.b, 1)) AND ("right"(letters.a, 1) = "right"(letters.b, 1)) AND ((letters.first_letters < 0) OR ("left"(letters.a, letters.first_letters) <> "left"(letters.b, letters.first_letters))) AND predictu_dispatch.differ_in_one_letter(letters.a, letters.b))) FROM (SELECT translate(lower((is_misspelling.given COLLATE "C")), '_-. '::text, ''::text) AS translate, translate(is_misspelling.ours, '_'::text, ''::text) AS translate, (strpos(is_misspelling.ours, '_'::text) - 1) AS "?column?") letters(a, b, first_letters));

CREATE FUNCTION predictu_dispatch.lane_of(method text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (method = ANY (ARRAY['PING'::text, 'BALANCE'::text, 'BET_MAKE'::text, 'BET_ROLLBACK'::text])) THEN 'interactive'::text WHEN (method = ANY (ARRAY['BET_WIN'::text, 'BET_LOSE'::text, 'BET_SELL'::text, 'BET_REFUND'::text])) THEN 'settlement'::text ELSE NULL::text END;

CREATE FUNCTION predictu_dispatch.leases_apart(from_at timestamp with time zone, until_at timestamp with time zone, most integer) RETURNS TABLE(operator_id text, request_id uuid, method text, bet_id text, lane text, attempt integer, budget_from integer, effect text, reason text, params text, created_at timestamp with time zone, due_at timestamp with time zone, expires_in_s double precision, leased_at timestamp with time zone, lease_s double precision, amount_format text, minor_digits integer, placement_ended_s_ago double precision, leased_by text, reaped_at timestamp with time zone, failed_sqlstate text, failed_message text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
#variable_conflict use_column
declare
    starts timestamptz[] := array[from_at];
    ends timestamptz[] := array[until_at];
    first_at timestamptz;
    end_at timestamptz;
    failures_left integer := 200;
    names text[] := '{}';
    ids uuid[] := '{}';
    found_names text[];
    found_ids uuid[];
begin
    while cardinality(starts) > 0 and failures_left > 0 and cardinality(ids) < most loop
        first_at := starts[cardinality(starts)];
        end_at := ends[cardinality(ends)];
        starts := trim_array(starts, 1);
        ends := trim_array(ends, 1);
        begin
            select coalesce(array_agg(c.operator_id), '{}'), coalesce(array_agg(c.request_id), '{}')
              into found_names, found_ids
              from (select c.operator_id, c.request_id
                      from predictu_dispatch.callback c
                     where c.state = 'in_flight' and c.lease_until >= first_at and c.lease_until < end_at
                     order by c.lease_until limit most) c;
            names := names || found_names;
            ids := ids || found_ids;
        exception when others then
            perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
            if end_at - first_at > interval '1 microsecond' then
                -- The earlier half is next.
                starts := starts || (first_at + (end_at - first_at) / 2) || first_at;
                ends := ends || end_at || (first_at + (end_at - first_at) / 2);
            else
                failures_left := failures_left - 1;
                failed_sqlstate := sqlstate;
                failed_message := format('a lease that ended at %s: %s', predictu_dispatch.format_utc(first_at), sqlerrm);
                return next;
            end if;
        end;
    end loop;
    return query
    select c.operator_id, c.request_id, c.method, c.bet_id, c.lane, c.attempts, c.budget_from, c.effect, c.reason,
           -- Not the callback's: nothing is sent, and they may be unreadable.
           '{}', c.created_at, c.due_at, extract(epoch from c.expires_at - c.leased_at)::double precision, c.leased_at,
           extract(epoch from c.lease_until - c.leased_at)::double precision, c.amount_format, null::integer,
           null::double precision, c.leased_by, now(), null::text, null::text
      from (select distinct k.operator_id, k.request_id from unnest(names, ids) as k (operator_id, request_id)) k
     -- By its key, whatever the conditions below would allow: the offset keeps them out of here.
     cross join lateral (
         select * from predictu_dispatch.callback c
          where c.operator_id = k.operator_id and c.request_id = k.request_id
         offset 0) c
     where c.state = 'in_flight' and c.lease_until >= from_at and c.lease_until < until_at;
end $$;

CREATE FUNCTION predictu_dispatch.lock_callback(action text, operator_id text, request_id uuid) RETURNS predictu_dispatch.callback
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.callback;
begin
    perform from predictu_dispatch.bet b
      where b.operator_id = operator_id and b.bet_id = (
            select c.bet_id from predictu_dispatch.callback c
             where c.operator_id = operator_id and c.request_id = request_id
      ) for no key update;
    -- A statement of its own sees everything that was committed before the bet's lock was granted.
    select c.* into locked from predictu_dispatch.callback c
     where c.operator_id = operator_id and c.request_id = request_id for no key update;
    if not found then
        raise exception using errcode = 'PD005',
            message = format('%s of %s is refused: operator %s has no such callback', action,
                             coalesce(request_id::text, 'NULL'), coalesce(quote_literal(left(operator_id, 80)), 'NULL')),
            hint = 'Check the request_id and the operator_id.';
    end if;
    return locked;
exception when lock_not_available then
    perform predictu_dispatch.refuse_locked(
        format('callback %s of operator %s, or its bet,', request_id, quote_literal(operator_id)));
end $$;

CREATE FUNCTION predictu_dispatch.lock_difference(action text, operator_id text, item_id uuid) RETURNS predictu_dispatch.reconciliation_item
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.reconciliation_item;
    known record;
begin
    perform predictu_dispatch.take_lock(format('differences of %s', operator_id), waits => true);
    -- A statement of its own sees everything that was committed before the lock was granted.
    select i.* into locked from predictu_dispatch.reconciliation_item i
     where i.operator_id = operator_id and i.item_id = item_id and i.is_open
       for no key update;
    if found then
        return locked;
    end if;
    select i.class, r.finished_at into known
      from predictu_dispatch.reconciliation_item i
      join predictu_dispatch.reconciliation_run r on r.operator_id = i.operator_id and r.run_id = i.run_id
     where i.operator_id = operator_id and i.item_id = item_id and r.finished_at is not null
     order by r.finished_at desc limit 1;
    if not found then
        raise exception using errcode = 'PD005',
            message = format('%s of %s is refused: operator %s has no such difference', action,
                             coalesce(item_id::text, 'NULL'), coalesce(quote_literal(left(operator_id, 80)), 'NULL')),
            hint = 'To list the open differences: predictu-dispatch reconcile list';
    elsif predictu_dispatch.difference_kind(known.class) not in ('difference', 'contradiction') then
        raise exception using errcode = 'PD005',
            message = format('%s of %s is refused: it is %s, which is no difference', action, item_id, known.class),
            hint = format('To see it: predictu-dispatch reconcile show %s', item_id);
    end if;
    raise exception using errcode = 'PD005',
        message = format('%s of difference %s is refused: %s', action, item_id, coalesce((
            select format('%s accepted it at %s: %s', a.done_by, predictu_dispatch.format_utc(a.done_at), a.reason)
              from predictu_dispatch.intervention a
             where a.operator_id = operator_id and a.action = 'accept' and a.before ->> 'item_id' = item_id::text
             order by a.done_at desc limit 1
        ), format('it is not open, because a run after %s closed it', predictu_dispatch.format_utc(known.finished_at)))),
        hint = format('To see it: predictu-dispatch reconcile show %s', item_id);
exception when lock_not_available then
    perform predictu_dispatch.refuse_locked(format('a difference of operator %s', quote_literal(operator_id)));
end $$;

CREATE FUNCTION predictu_dispatch.lock_operator(operator_id text) RETURNS predictu_dispatch.operator
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.operator;
begin
    select o.* into locked from predictu_dispatch.operator o where o.operator_id = operator_id for no key update;
    if not found then
        raise exception using errcode = 'PD002',
            message = format('unknown operator %s', coalesce(quote_literal(left(operator_id, 80)), 'NULL')),
            hint = 'A daemon registers an operator when it starts or reloads with the file operators/<operator_id>.toml.';
    end if;
    perform predictu_dispatch.refuse_retired(locked);
    return locked;
exception when lock_not_available then
    perform predictu_dispatch.refuse_locked(format('operator %s', quote_literal(operator_id)));
end $$;

CREATE FUNCTION predictu_dispatch.lock_retention(blocks integer) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if blocks is null or blocks not between 1 and 10000 then
        perform predictu_dispatch.refuse_params('retention', format('blocks is %s', coalesce(blocks::text, 'NULL')),
            'Give 1 to 10000 blocks.');
    elsif current_setting('transaction_isolation') <> 'read committed' then
        perform predictu_dispatch.refuse_params('retention',
            format('the transaction is %s', current_setting('transaction_isolation')),
            'Use read committed: an older snapshot hides rows that were written meanwhile.');
    elsif not predictu_dispatch.take_lock('retention', waits => false) then
        perform predictu_dispatch.refuse_locked('retention');
    end if;
end $$;

CREATE FUNCTION predictu_dispatch.minor_digits(currency text) RETURNS integer
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select predictu_dispatch.currency_digits(minor_digits.currency)
$$;

CREATE FUNCTION predictu_dispatch.missing_keys(fault text, hint text, required text[], given jsonb) RETURNS text[]
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    with missing as (
        select m.key, m.number from unnest(required) with ordinality as m (key, number) where not given ? m.key
    )
    select array[
        format(fault, string_agg(m.key, ', ' order by m.number)),
        format(hint, array_to_string(required, ', ')) || coalesce((
            select format(' If "%s" is meant for "%s", rename it.', left(g.key, 80), m.key)
              from missing m cross join jsonb_object_keys(given) as g (key)
             where g.key <> all (required)
               and (predictu_dispatch.is_misspelling(g.key, m.key) or predictu_dispatch.differ_in_one_letter(g.key, m.key)
                    or length(g.key) >= 3 and starts_with(m.key, lower(g.key)))
             order by m.number limit 1
        ), '')]
      from missing m
$$;

CREATE FUNCTION predictu_dispatch.missing_rows(part text, first_tid tid, end_tid tid, cutoff timestamp with time zone) RETURNS TABLE(row_tid tid, operator_id text, is_needed boolean, has_log boolean, leaf_index bigint)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
begin
    return query execute format($statement$
        with missing as materialized (
            select s.ctid as row_tid, s.operator_id, uuid_send(s.report_id) as entry_id, s.started_at,
                   exists (select from predictu_dispatch.audit_log l where l.operator_id = s.operator_id) as has_log,
                   row_number() over (partition by s.operator_id, s.report_id order by s.verdict = 'late') as nth,
                   %2$s as is_needed
              from predictu_dispatch.%1$I s
             where s.ctid >= $1 and s.ctid < $2
               and not exists (
                   select from predictu_dispatch.attempt_record t
                    where t.operator_id = s.operator_id and t.request_id = s.request_id and t.attempt = s.attempt
                      and t.started_at = s.started_at and t.report_id = s.report_id
                      and (t.verdict = 'late') = (s.verdict = 'late'))
        ), spans as materialized (
            select m.operator_id, tstzrange(min(m.started_at), max(m.started_at), '[]') as span
              from missing m where m.has_log group by m.operator_id, date_trunc('minute', m.started_at, 'UTC')
        ), tiles as materialized (
            -- The concatenation reads the ids once, and not once for each substr().
            select near.operator_id, near.tile, near.report_ids || ''::bytea as ids
              from (select distinct t.operator_id, t.tile, t.report_ids
                      from spans s
                      join predictu_dispatch.audit_tile t
                        on t.operator_id = s.operator_id and t.level = 0
                       and int8range(hashtext(t.operator_id), hashtext(t.operator_id), '[]')
                           && int8range(hashtext(s.operator_id), hashtext(s.operator_id), '[]')
                       and tstzrange(t.started_from, t.started_until, '[]') && s.span) near
        ), leaves as materialized (
            select t.operator_id, t.tile * 256 + place.n as leaf_index, substr(t.ids, place.n * 16 + 1, 16) as entry_id
              from tiles t cross join lateral generate_series(0, octet_length(t.ids) / 16 - 1) as place (n)
        ), matching as (
            select l.operator_id, l.entry_id, l.leaf_index, count(*) over (partition by l.operator_id, l.entry_id) as copies
              from leaves l
             where (l.operator_id, l.entry_id) in (select m.operator_id, m.entry_id from missing m)
        ), free as (
            select l.operator_id, l.entry_id, l.leaf_index,
                   row_number() over (partition by l.operator_id, l.entry_id order by l.leaf_index) as nth
              from matching l
             where l.copies = 1
                or not exists (
                       select from predictu_dispatch.audit_removal_draft d
                        where d.operator_id = l.operator_id and d.part = $4 and d.piece = l.leaf_index / 4096
                          and d.leaf_indices @> l.leaf_index)
                   and not exists (
                       select from predictu_dispatch.audit_removal r
                        where r.operator_id = l.operator_id and r.leaf_indices @> l.leaf_index)
        )
        select m.row_tid, m.operator_id, m.is_needed, m.has_log, f.leaf_index
          from missing m
          left join free f on f.operator_id = m.operator_id and f.entry_id = m.entry_id and f.nth = m.nth
        $statement$, 'retired_' || part, predictu_dispatch.needed_rows())
      using first_tid, end_tid, cutoff, part;
end $_$;

CREATE FUNCTION predictu_dispatch.misspelt_key(ours text[], given jsonb) RETURNS text[]
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    refusal text[];
begin
    select array[format('"%s" is written "%s"', known.key, left(further.key, 80)),
                 format('Write "%s". Further keys are sent to the operator as they are.', known.key)]
      into refusal
      from jsonb_object_keys(given) as further (key)
     cross join unnest(ours) as known (key)
     where further.key <> all (ours) and predictu_dispatch.is_misspelling(further.key, known.key)
     limit 1;
    return refusal;
end $$;

CREATE FUNCTION predictu_dispatch.needed_rows() RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN '(s.started_at >= $3
                or exists (
                    select from predictu_dispatch.callback c
                     where c.operator_id = s.operator_id and c.request_id = s.request_id)
                or exists (
                    select from predictu_dispatch.legal_hold h
                     where h.operator_id = s.operator_id and h.lifted_at is null
                       and (h.bet_id is null or exists (
                           select from predictu_dispatch.bet_tombstone b
                            where b.operator_id = h.operator_id and b.bet_id = h.bet_id
                              and s.request_id in (b.placement_request_id, b.terminal_request_id)))))'::text;

CREATE FUNCTION predictu_dispatch.new_request_id() RETURNS uuid
    LANGUAGE sql PARALLEL SAFE
    RETURN (encode(set_bit(set_bit(OVERLAY(uuid_send(gen_random_uuid()) PLACING SUBSTRING(int8send(((EXTRACT(epoch FROM clock_timestamp()) * (1000)::numeric))::bigint) FROM 3) FROM 1 FOR 6), (52)::bigint, 1), (53)::bigint, 1), 'hex'::text))::uuid;

CREATE FUNCTION predictu_dispatch.not_a_text(key text, value jsonb) RETURNS text[]
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select array[format('"%s" is %s', key, left(value::text, 80)),
                 format('"%s" must be a string of 1 to 200 characters.', key)]
$$;

CREATE FUNCTION predictu_dispatch.notify(channel text, payload text) RETURNS boolean
    LANGUAGE sql
    RETURN CASE WHEN ((pg_notification_queue_usage() <= (0.5)::double precision) AND (COALESCE(current_setting('predictu_dispatch.notify'::text, true), ''::text) <> ALL (ARRAY['off'::text, 'false'::text, 'no'::text, '0'::text]))) THEN (pg_notify(channel, payload) IS NOT NULL) ELSE false END;

CREATE FUNCTION predictu_dispatch.notify_due() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    context text;
    ignored bigint;
begin
    get diagnostics context = pg_context;
    -- One expression, because Postgres prepares each expression of a function again in every transaction.
    ignored := case
        -- Enqueued long before its commit: the daemons have read past it and must start over.
        when new.due_at < clock_timestamp() - interval '0.5 seconds'
            then predictu_dispatch.notify('predictu_dispatch_due', new.operator_id || ' behind')::integer
        -- No commit is waited for longer than 0.1 s: another deferred trigger may delay its end.
        when (date_part('epoch', clock_timestamp()) * 1000)::bigint
             - pg_sequence_last_value('predictu_dispatch.notifier_began_ms') between 0 and 100
             and current_setting('transaction_isolation') = 'read committed'
             and not pg_visible_in_snapshot(pg_sequence_last_value('predictu_dispatch.notifier_xid')::text::xid8,
                                            pg_current_snapshot())
            then null
        when not predictu_dispatch.notify('predictu_dispatch_due', new.operator_id) then null
        -- Not if SET CONSTRAINTS fired this trigger, because its transaction may stay open.
        when position(E'\n' in context) = 0 and coalesce(current_query(), '') not ilike '%constraints%'
            then setval('predictu_dispatch.notifier_xid', pg_current_xact_id()::text::bigint)
                 + 0 * setval('predictu_dispatch.notifier_began_ms', (date_part('epoch', clock_timestamp()) * 1000)::bigint)
    end;
    return null;
end $$;

CREATE FUNCTION predictu_dispatch.notify_operator() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    perform predictu_dispatch.notify('predictu_dispatch_operator', new.operator_id);
    return null;
end $$;

CREATE FUNCTION predictu_dispatch.notify_outcome() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    perform predictu_dispatch.notify('predictu_dispatch_outcome', new.operator_id || ' ' || new.request_id);
    return null;
end $$;

CREATE FUNCTION predictu_dispatch.open_differences(operator_id text, run_id uuid) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
declare
    run predictu_dispatch.reconciliation_run;
    open_before uuid[];
    open_after uuid[];
    is_unread boolean;
begin
    -- Runs and acceptances of one operator wait for each other: the newest run is the last one here.
    perform predictu_dispatch.take_lock(format('differences of %s', operator_id), waits => true);
    select r.* into strict run from predictu_dispatch.reconciliation_run r
     where r.operator_id = operator_id and r.run_id = run_id;
    is_unread := run.lines_read = 0 and run.lines_unreadable > 0;
    select coalesce(array_agg(i.item_id), '{}') into open_before from predictu_dispatch.reconciliation_item i
     where i.operator_id = operator_id and i.is_open;
    update predictu_dispatch.reconciliation_item i set is_open = false
     where i.operator_id = operator_id and i.is_open
       and (not is_unread or predictu_dispatch.difference_kind(i.class) = 'contradiction')
       and (i.day between run.first_day and run.last_day
            -- In another time zone, the same days are other hours.
            and (i.class not in ('missing_there', 'ours') and (i.class <> 'debit_standing' or i.method <> 'BET_ROLLBACK')
                 or (i.confirmed_at >= run.day_edges[1]
                     and i.confirmed_at < run.day_edges[cardinality(run.day_edges)]) is not false)
            -- One of the lines that this run could not read may be one of the difference's.
            and (run.lines_unreadable = 0 or i.lines = '[]')
            and not exists (
                select from jsonb_to_recordset(i.lines) as l (booked_at timestamptz)
                 where l.booked_at < run.given_from or l.booked_at > run.given_until)
            and i.key not in (select n.key from predictu_dispatch.reconciliation_item n
                               where n.operator_id = operator_id and n.run_id = run_id
                                 and n.class in ('out_of_window', 'in_flight'))
            or i.item_id in (select n.item_id from predictu_dispatch.reconciliation_item n
                              where n.operator_id = operator_id and n.run_id = run_id)
            or i.class in ('missing_there', 'debit_standing')
               and i.key in (select n.key from predictu_dispatch.reconciliation_item n
                              where n.operator_id = operator_id and n.run_id = run_id
                                and n.class not in ('out_of_window', 'in_flight')));
    update predictu_dispatch.reconciliation_item i set is_open = true
     where i.operator_id = operator_id and i.run_id = run_id
       and (predictu_dispatch.difference_kind(i.class) = 'contradiction'
            or not is_unread and predictu_dispatch.difference_kind(i.class) = 'difference')
       and not exists (
           select from predictu_dispatch.intervention a
            where a.operator_id = i.operator_id and a.action = 'accept' and a.before ->> 'item_id' = i.item_id::text);
    select coalesce(array_agg(i.item_id), '{}') into open_after from predictu_dispatch.reconciliation_item i
     where i.operator_id = operator_id and i.is_open;
    update predictu_dispatch.reconciliation_run r
       set opened = (select count(*) from (select unnest(open_after) except select unnest(open_before)) as opened),
           closed = (select count(*) from (select unnest(open_before) except select unnest(open_after)) as closed)
     where r.operator_id = operator_id and r.run_id = run_id;
end $$;

CREATE FUNCTION predictu_dispatch.outcome(operator_id text, request_id uuid) RETURNS TABLE(state text, reason text, effect text, operator_status text, operator_transaction_id text, balance bigint, finished_at timestamp with time zone)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    perform predictu_dispatch.check_producer_scope(outcome.operator_id);
    return query
    select c.state, c.reason, c.effect, c.operator_status, c.operator_transaction_id, c.balance, c.finished_at
      from predictu_dispatch.callback c
     where c.operator_id = outcome.operator_id and c.request_id = outcome.request_id;
    if not found then
        return query
        select r.state, r.reason, r.effect, null::text, null::text, null::bigint, r.finished_at
          from predictu_dispatch.get_request_tombstone(outcome.operator_id, outcome.request_id) r
         where r.state is not null;
    end if;
end $$;

CREATE FUNCTION predictu_dispatch.outcome_of_bet(operator_id text, bet_id text) RETURNS TABLE(bet_state text, placement_request_id uuid, placement_state text, placement_reason text, placement_effect text, placement_operator_status text, placement_operator_transaction_id text, placement_balance bigint, placement_finished_at timestamp with time zone, terminal_request_id uuid, terminal_method text, terminal_state text, terminal_reason text, terminal_effect text, terminal_operator_status text, terminal_operator_transaction_id text, terminal_balance bigint, terminal_finished_at timestamp with time zone)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
begin
    perform predictu_dispatch.check_producer_scope(outcome_of_bet.operator_id);
    return query
    select b.state, b.placement_request_id, p.state, p.reason, p.effect, p.operator_status, p.operator_transaction_id,
           p.balance, p.finished_at, b.terminal_request_id, t.method, t.state, t.reason, t.effect, t.operator_status,
           t.operator_transaction_id, t.balance, t.finished_at
      from predictu_dispatch.bet b
      left join predictu_dispatch.callback p on p.operator_id = b.operator_id and p.request_id = b.placement_request_id
      left join predictu_dispatch.callback t on t.operator_id = b.operator_id and t.request_id = b.terminal_request_id
     where b.operator_id = outcome_of_bet.operator_id and b.bet_id = outcome_of_bet.bet_id;
    if not found then
        return query
        select b.state, b.placement_request_id, p.state, p.reason, p.effect, null::text, null::text, null::bigint,
               p.finished_at, b.terminal_request_id, t.method, t.state, t.reason, t.effect, null::text, null::text,
               null::bigint, t.finished_at
          from predictu_dispatch.bet_tombstone b
          left join predictu_dispatch.request_tombstone p
            on p.operator_id = b.operator_id and p.request_id = b.placement_request_id
          left join predictu_dispatch.request_tombstone t
            on t.operator_id = b.operator_id and t.request_id = b.terminal_request_id
         where b.operator_id = outcome_of_bet.operator_id and b.bet_id = outcome_of_bet.bet_id;
    end if;
end $$;

CREATE FUNCTION predictu_dispatch.params_digest(params jsonb) RETURNS bytea
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN SUBSTRING(sha256(convert_to((params)::text, 'UTF8'::name)) FROM 1 FOR 16);

CREATE FUNCTION predictu_dispatch.params_money(params jsonb) RETURNS text[]
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    return array[params ->> 'player_id', params ->> 'currency', (params ->> 'amount')::bigint::text, params ->> 'bet_id'];
exception when others then
    return null;
end $$;

CREATE FUNCTION predictu_dispatch.pause_operator(operator_id text, reason text, by text) RETURNS predictu_dispatch.operator
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '3s'
    AS $$
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

CREATE FUNCTION predictu_dispatch.payout_of(params jsonb) RETURNS text
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    return (params ->> 'currency') || ' ' || (params ->> 'amount');
exception when others then
    return null;
end $$;

CREATE FUNCTION predictu_dispatch.ping_operator(operator_id text) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '3s'
    AS $$
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

CREATE FUNCTION predictu_dispatch.ping_state(operator_id text, request_id uuid) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
begin
    return (select c.state from predictu_dispatch.callback c
             where c.operator_id = ping_state.operator_id and c.request_id = ping_state.request_id);
exception when others then
    perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
    return null;
end $$;

CREATE FUNCTION predictu_dispatch.prepare_partitions(months_ahead integer) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '200ms'
    AS $$
declare
    month date;
    name text;
begin
    if not predictu_dispatch.take_lock('partitions', waits => false) then
        return; -- Another session is creating them.
    end if;
    for step in 0 .. months_ahead loop
        month := (date_trunc('month', now() at time zone 'UTC') + step * interval '1 month')::date;
        name := 'attempt_' || to_char(month, 'YYYY_MM');
        continue when to_regclass('predictu_dispatch.' || name) is not null;
        begin
            -- Created apart and attached: created in place it would lock the whole audit.
            execute format('create table predictu_dispatch.%I '
                           '(like predictu_dispatch.attempt_record including defaults including constraints)', name);
            execute format('alter table predictu_dispatch.%I replica identity full', name);
            execute format('alter table predictu_dispatch.attempt_record attach partition predictu_dispatch.%I '
                           'for values from (%L) to (%L)', name, to_char(month, 'YYYY-MM-DD 00:00:00+00'),
                           to_char(month + interval '1 month', 'YYYY-MM-DD 00:00:00+00'));
            execute format('create trigger attempt_not_truncated before truncate on predictu_dispatch.%I for each statement '
                           'execute function predictu_dispatch.refuse_audit_change()', name);
            execute format('alter table predictu_dispatch.%I enable always trigger attempt_not_truncated', name);
        exception
            -- Attaching locks the default partition. While a long read holds it, waiting would stop
            -- every settle behind us. Rows of this month that are already there stay there.
            when lock_not_available or check_violation then
                raise warning 'predictu_dispatch.% is not created now: %', name, sqlerrm;
        end;
    end loop;
end $$;

CREATE FUNCTION predictu_dispatch.purge_audit(keep_months integer, part text, blocks integer) RETURNS TABLE(step text, scanned bigint, needed bigint, is_done boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '200ms'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_variable
declare
    cutoff timestamptz := predictu_dispatch.retention_cutoff(keep_months);
    kept text := 'kept_' || part;
    source text;
    cursor predictu_dispatch.audit_purge_cursor;
    first_tid tid;
    end_tid tid;
begin
    perform predictu_dispatch.lock_retention(blocks);
    select a.step into step from predictu_dispatch.expired_audit(keep_months, coalesce(part, '')) a
     order by a.step limit 1;
    if not found then
        perform predictu_dispatch.refuse_params('retention',
            format('part %s is not old', coalesce(quote_literal(left(part, 80)), 'NULL')),
            'Use a part that expired_audit() returns.');
    end if;
    source := case step when 'replace' then 'attempt_' else 'retired_' end || part;
    -- No other transaction may rewrite it between the next check and the reading.
    execute format('lock table only predictu_dispatch.%I in access share mode', source);
    select w.* into cursor from predictu_dispatch.audit_purge_cursor w where w.part = purge_audit.part;
    -- The cursor of an interrupted run is not continued: rows that were written behind it meanwhile
    -- would be missing from the successor. Nor is that of a table that was rewritten, by VACUUM FULL
    -- for example: its rows have moved.
    if cursor.source is distinct from pg_relation_filenode(to_regclass('predictu_dispatch.' || source))
       or cursor.moved_at < now() - interval '1 hour' or cursor.moved_at > now()
       or (step = 'replace' and to_regclass('predictu_dispatch.' || kept) is null) then
        delete from predictu_dispatch.audit_purge_cursor w where w.part = purge_audit.part;
        delete from predictu_dispatch.audit_removal_draft d where d.part = purge_audit.part;
        insert into predictu_dispatch.audit_purge_cursor (part, source, next_block)
        values (part, pg_relation_filenode(to_regclass('predictu_dispatch.' || source)), 0) returning * into cursor;
        if step = 'replace' then
            perform predictu_dispatch.create_kept_partition(part);
        end if;
    end if;
    is_done := false;
    if cursor.next_block is not null then
        first_tid := format('(%s,0)', cursor.next_block)::tid;
        end_tid := format('(%s,0)', cursor.next_block + blocks)::tid;
        execute format('select count(*), count(*) filter (where %s) from predictu_dispatch.%I s '
                       'where s.ctid >= $1 and s.ctid < $2', predictu_dispatch.needed_rows(), source)
           into scanned, needed using first_tid, end_tid, cutoff;
        if step = 'drop' then
            needed := greatest(needed, predictu_dispatch.sort_out_rows(part, first_tid, end_tid, cutoff));
        else
            perform predictu_dispatch.refuse_unsealed(part, first_tid, end_tid, cutoff);
            execute format($statement$
                insert into predictu_dispatch.%1$I
                select s.* from predictu_dispatch.%2$I s
                 where s.ctid >= $1 and s.ctid < $2 and %3$s
                   -- A repeated report may be in the audit as late; the row that decided is another
                   -- one.
                   and not exists (
                       select from predictu_dispatch.%1$I t
                        where t.operator_id = s.operator_id and t.request_id = s.request_id and t.attempt = s.attempt
                          and t.started_at = s.started_at and t.report_id = s.report_id
                          and (t.verdict = 'late') = (s.verdict = 'late'))
                $statement$, kept, source, predictu_dispatch.needed_rows())
              using first_tid, end_tid, cutoff;
        end if;
        update predictu_dispatch.audit_purge_cursor w
           set scanned = cursor.scanned + purge_audit.scanned, needed = cursor.needed + purge_audit.needed,
               moved_at = now(),
               next_block = case when (cursor.next_block + blocks) * current_setting('block_size')::bigint
                                      < pg_relation_size(format('predictu_dispatch.%I', source))
                                 then cursor.next_block + blocks end
         where w.part = purge_audit.part returning * into cursor;
    else
        if step = 'drop' then
            perform predictu_dispatch.write_removals(part, cutoff);
            execute format('drop table predictu_dispatch.%I', source);
            is_done := true;
        elsif cursor.needed = cursor.scanned and cursor.scanned > 0 then
            execute format('drop table predictu_dispatch.%I', kept);
            is_done := true;
        else
            perform predictu_dispatch.swap_audit_partition(part, cursor.needed > 0);
        end if;
        delete from predictu_dispatch.audit_purge_cursor w where w.part = purge_audit.part;
    end if;
    scanned := cursor.scanned;
    needed := cursor.needed;
    return next;
end $_$;

CREATE FUNCTION predictu_dispatch.purge_finished(keep_months integer, blocks integer) RETURNS TABLE(callbacks bigint, bets bigint, locked bigint, next_block bigint, blocks_all bigint, held bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '200ms'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_variable
declare
    cutoff timestamptz := predictu_dispatch.retention_cutoff(keep_months);
    cursor predictu_dispatch.purge_cursor;
    first_tid tid;
    end_tid tid;
    candidates record;
    ended record;
    single_callbacks bigint;
    is_any_held boolean := exists (select from predictu_dispatch.legal_hold h where h.lifted_at is null);
begin
    perform predictu_dispatch.lock_retention(blocks);
    blocks_all := pg_relation_size('predictu_dispatch.callback') / current_setting('block_size')::bigint;
    callbacks := 0;
    bets := 0;
    select w.* into cursor from predictu_dispatch.purge_cursor w;
    if cursor.cutoff = cutoff and cursor.next_block is null and cursor.locked = 0 then
        locked := 0;
        held := cursor.held;
        return next; -- Nothing is left for this cutoff.
        return;
    elsif cursor.cutoff is distinct from cutoff or cursor.next_block is null then
        delete from predictu_dispatch.purge_cursor;
        insert into predictu_dispatch.purge_cursor (cutoff, next_block) values (cutoff, 0) returning * into cursor;
        update predictu_dispatch.removed_history h set removed_before = greatest(h.removed_before, cutoff);
        if not found then
            insert into predictu_dispatch.removed_history (removed_before) values (cutoff);
        end if;
    end if;
    first_tid := format('(%s,0)', cursor.next_block)::tid;
    end_tid := format('(%s,0)', cursor.next_block + blocks)::tid;

    -- Bets first, callbacks after them. The next statement checks, under the bet's lock, whether it
    -- has ended.
    with named as materialized (
        select distinct c.operator_id, c.bet_id from predictu_dispatch.callback c
         where c.ctid >= first_tid and c.ctid < end_tid and c.bet_id is not null and c.finished_at < cutoff
           and c.review_since is null
    ), eligible as materialized (
        select b.operator_id, b.bet_id from named
          join predictu_dispatch.bet b on b.operator_id = named.operator_id and b.bet_id = named.bet_id
         where b.state in ('closed', 'void', 'closing') and b.updated_at < cutoff
           and not (is_any_held and exists (
               select from predictu_dispatch.legal_hold h
                where h.operator_id = b.operator_id and h.lifted_at is null and (h.bet_id is null or h.bet_id = b.bet_id)))
    ), locked as materialized (
        select b.operator_id, b.bet_id from eligible
          join predictu_dispatch.bet b on b.operator_id = eligible.operator_id and b.bet_id = eligible.bet_id
         order by b.operator_id, b.bet_id for update of b skip locked
    )
    select (select count(*) from eligible) as eligible, count(*) as locked, array_agg(l.operator_id) as operator_ids,
           array_agg(l.bet_id) as bet_ids
      into candidates from locked l;
    locked := candidates.eligible - candidates.locked;
    -- A bet that is still closing has a terminal that was resolved, or one that needs review and
    -- keeps the bet here.
    select array_agg(l.operator_id) as operator_ids, array_agg(l.bet_id) as bet_ids into ended
      from unnest(candidates.operator_ids, candidates.bet_ids) as l (operator_id, bet_id)
     where not exists (
               select from predictu_dispatch.callback c
                where c.operator_id = l.operator_id and c.bet_id = l.bet_id
                  and (c.finished_at is null or c.finished_at >= cutoff or c.review_since is not null
                       or exists (select from predictu_dispatch.intervention i
                                   where i.operator_id = c.operator_id and i.request_id = c.request_id
                                     and i.done_at >= cutoff)))
       and exists (select from predictu_dispatch.bet b where b.operator_id = l.operator_id and b.bet_id = l.bet_id
                      and b.state in ('closed', 'void', 'closing') and b.updated_at < cutoff);
    -- A producer that repeats an old request locks its callback, and not the bet.
    locked := locked + coalesce(cardinality(ended.bet_ids), 0);
    with mine as materialized (
        select c.operator_id, c.request_id
          from unnest(ended.operator_ids, ended.bet_ids) as l (operator_id, bet_id)
          join predictu_dispatch.callback c on c.operator_id = l.operator_id and c.bet_id = l.bet_id
           for update of c skip locked
    )
    select array_agg(whole.operator_id) as operator_ids, array_agg(whole.bet_id) as bet_ids into ended
      from (select c.operator_id, c.bet_id
              from unnest(ended.operator_ids, ended.bet_ids) as l (operator_id, bet_id)
              join predictu_dispatch.callback c on c.operator_id = l.operator_id and c.bet_id = l.bet_id
              left join mine on mine.operator_id = c.operator_id and mine.request_id = c.request_id
             group by c.operator_id, c.bet_id having count(*) = count(mine.request_id)) whole;
    locked := locked - coalesce(cardinality(ended.bet_ids), 0);
    -- On conflict: the id may be that of an adopted bet's placement.
    with removed as (
        delete from predictu_dispatch.callback c
         using unnest(ended.operator_ids, ended.bet_ids) as o (operator_id, bet_id)
         where c.operator_id = o.operator_id and c.bet_id = o.bet_id returning c.*
    ), tombstones as (
        insert into predictu_dispatch.request_tombstone
            (operator_id, request_id, method, content, state, reason, effect, finished_at)
        select g.operator_id, g.request_id, g.method, predictu_dispatch.readable_digest(g.params), g.state, g.reason,
               g.effect, g.finished_at
          from removed g on conflict do nothing
    )
    select count(*) into callbacks from removed;
    with removed as (
        delete from predictu_dispatch.bet b using unnest(ended.operator_ids, ended.bet_ids) as o (operator_id, bet_id)
         where b.operator_id = o.operator_id and b.bet_id = o.bet_id returning b.*
    ), adopted as (
        -- The operator knows an adopted bet's debit by this id; other bets have a tombstone for it.
        insert into predictu_dispatch.request_tombstone (operator_id, request_id, method)
        select g.operator_id, g.placement_request_id, 'BET_MAKE' from removed g on conflict do nothing
    )
    insert into predictu_dispatch.bet_tombstone
        (operator_id, bet_id, state, placement_request_id, terminal_request_id)
    select g.operator_id, g.bet_id, g.state, g.placement_request_id, g.terminal_request_id from removed g;
    get diagnostics bets = row_count;

    with found as materialized (
        select c.operator_id, c.request_id from predictu_dispatch.callback c
         where c.ctid >= first_tid and c.ctid < end_tid and c.bet_id is null and c.finished_at < cutoff
           and c.review_since is null
           and not (is_any_held and exists (
               select from predictu_dispatch.legal_hold h
                where h.operator_id = c.operator_id and h.lifted_at is null and h.bet_id is null))
           for update skip locked
    ), removed as (
        delete from predictu_dispatch.callback c using found
         where c.operator_id = found.operator_id and c.request_id = found.request_id returning c.*
    ), tombstones as (
        -- PINGs are many, and no operator books anything under their ids.
        insert into predictu_dispatch.request_tombstone
            (operator_id, request_id, method, content, state, reason, effect, finished_at)
        select g.operator_id, g.request_id, g.method, predictu_dispatch.readable_digest(g.params), g.state, g.reason,
               g.effect, g.finished_at
          from removed g where g.method <> 'PING' on conflict do nothing
    )
    select count(*) into single_callbacks from removed;
    -- The old ones that remain were locked.
    locked := locked + (
        select count(*) from predictu_dispatch.callback c
         where c.ctid >= first_tid and c.ctid < end_tid and c.bet_id is null and c.finished_at < cutoff
           and c.review_since is null
           and not (is_any_held and exists (
               select from predictu_dispatch.legal_hold h
                where h.operator_id = c.operator_id and h.lifted_at is null and h.bet_id is null)));
    callbacks := callbacks + single_callbacks;
    held := 0;
    if is_any_held then
        held := (
            select count(*) from predictu_dispatch.callback c
             where c.ctid >= first_tid and c.ctid < end_tid and c.finished_at < cutoff and c.review_since is null
               and exists (
                   select from predictu_dispatch.legal_hold h
                    where h.operator_id = c.operator_id and h.lifted_at is null and (h.bet_id is null or h.bet_id = c.bet_id)));
    end if;
    next_block := case when cursor.next_block + blocks < blocks_all then cursor.next_block + blocks end;
    update predictu_dispatch.purge_cursor w
       set next_block = purge_finished.next_block, locked = cursor.locked + purge_finished.locked,
           held = cursor.held + purge_finished.held;
    return next;
end $$;

CREATE FUNCTION predictu_dispatch.purge_runs(keep_months integer, runs integer) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '200ms'
    AS $$
#variable_conflict use_variable
declare
    cutoff timestamptz := predictu_dispatch.retention_cutoff(keep_months);
    old record;
begin
    perform predictu_dispatch.lock_retention(runs);
    select array_agg(o.operator_id) as operator_ids, array_agg(o.run_id) as run_ids, count(*) as runs into old
      from (select r.operator_id, r.run_id from predictu_dispatch.reconciliation_run r
             where greatest(r.day_edges[cardinality(r.day_edges)], coalesce(r.finished_at, r.started_at)) < cutoff
               and not exists (select from predictu_dispatch.reconciliation_item i
                                where i.operator_id = r.operator_id and i.run_id = r.run_id and i.is_open)
               and not exists (
                   select from predictu_dispatch.legal_hold h
                    where h.operator_id = r.operator_id and h.lifted_at is null
                      and (h.bet_id is null
                           or exists (select from predictu_dispatch.reconciliation_item i
                                       where i.operator_id = r.operator_id and i.run_id = r.run_id and i.bet_id = h.bet_id)))
             order by r.started_at limit runs
               for update skip locked) o;
    delete from predictu_dispatch.reconciliation_line l
     using unnest(old.operator_ids, old.run_ids) as o (operator_id, run_id)
     where l.operator_id = o.operator_id and l.run_id = o.run_id;
    delete from predictu_dispatch.reconciliation_unreadable u
     using unnest(old.operator_ids, old.run_ids) as o (operator_id, run_id)
     where u.operator_id = o.operator_id and u.run_id = o.run_id;
    delete from predictu_dispatch.reconciliation_total t
     using unnest(old.operator_ids, old.run_ids) as o (operator_id, run_id)
     where t.operator_id = o.operator_id and t.run_id = o.run_id;
    delete from predictu_dispatch.reconciliation_item i
     using unnest(old.operator_ids, old.run_ids) as o (operator_id, run_id)
     where i.operator_id = o.operator_id and i.run_id = o.run_id;
    delete from predictu_dispatch.reconciliation_run r
     using unnest(old.operator_ids, old.run_ids) as o (operator_id, run_id)
     where r.operator_id = o.operator_id and r.run_id = o.run_id;
    return old.runs;
end $$;

CREATE FUNCTION predictu_dispatch.raise_outage(sqlstate text, message text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
begin
    if left(sqlstate, 2) in ('08', '40', '53', '57') or sqlstate in ('25006', '55P03') then
        raise exception using errcode = sqlstate, message = message;
    end if;
end $$;

CREATE FUNCTION predictu_dispatch.rate_share_of(most double precision, daemons bigint, place bigint) RETURNS double precision
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN (CASE WHEN (place < daemons) THEN floor(((((floor(most) + (daemons)::double precision) - (1)::double precision) - (place)::double precision) / (daemons)::double precision)) ELSE (0)::double precision END + CASE place WHEN 0 THEN (most - floor(most)) ELSE (0)::double precision END);

CREATE FUNCTION predictu_dispatch.readable_digest(params jsonb) RETURNS bytea
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    return predictu_dispatch.params_digest(params);
exception when others then
    perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
    return null;
end $$;

CREATE FUNCTION predictu_dispatch.readable_params(params jsonb) RETURNS jsonb
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    perform length(params::text);
    return params;
exception when others then
    return jsonb_build_object('unreadable', sqlstate);
end $$;

CREATE FUNCTION predictu_dispatch.reconciliation_figures(instance text) RETURNS TABLE(figures jsonb, age_s double precision)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    began_at timestamptz := clock_timestamp();
    found jsonb;
begin
    if predictu_dispatch.claim_chore('reconciliation', 600, instance) then
        found := jsonb_build_object(
            'differences', (
                select coalesce(jsonb_agg(d), '[]')
                  from (select o.operator_id, o.class, o.currency, count(*) as items, sum(o.disputed) as disputed,
                               extract(epoch from began_at - min(first_run.finished_at)) as open_for_s
                          from predictu_dispatch.reconciliation_open o
                          left join lateral (
                              select min(r.finished_at) as finished_at
                                from predictu_dispatch.reconciliation_item i
                                join predictu_dispatch.reconciliation_run r using (operator_id, run_id)
                               where i.operator_id = o.operator_id and i.item_id = o.item_id) first_run on true
                         group by o.operator_id, o.class, o.currency) d),
            'runs', (
                select coalesce(jsonb_agg(n), '[]')
                  from (select r.operator_id, (array_agg(r.is_complete order by r.finished_at desc))[1] as is_complete,
                               -- The first run's, if none was complete.
                               extract(epoch from coalesce(max(r.finished_at) filter (where r.is_complete),
                                                           min(r.finished_at))) as complete_at_s,
                               extract(epoch from max(r.cut_at) filter (where r.is_complete)) as covered_until_s
                          from predictu_dispatch.reconciliation_run r
                          join predictu_dispatch.operator o using (operator_id)
                         where r.finished_at is not null and o.retired_at is null
                         group by r.operator_id) n));
        update predictu_dispatch.maintenance_chore m
           set result = found, result_at = began_at,
               due_at = clock_timestamp() + least(greatest(interval '1 minute', 50 * (clock_timestamp() - began_at)),
                                                  interval '10 minutes')
         where m.chore = 'reconciliation';
    end if;
    return query
        select m.result, greatest(extract(epoch from clock_timestamp() - m.result_at), 0)::double precision
          from predictu_dispatch.maintenance_chore m where m.chore = 'reconciliation';
end $$;

CREATE FUNCTION predictu_dispatch.reconciliation_targets(operator_id text, run_id uuid, period_from timestamp with time zone, period_until timestamp with time zone) RETURNS TABLE(source integer, line bigint, booked_at timestamp with time zone, day date, transaction_id text, request_id uuid, method text, bet_id text, player_id text, currency text, amount bigint, is_debit boolean, is_in_period boolean, target_id uuid)
    LANGUAGE sql STABLE ROWS 1e+06
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    AS $$
    select l.source, l.line, l.booked_at, l.day, l.transaction_id, l.request_id, l.method, l.bet_id, l.player_id, l.currency,
           l.amount, l.is_debit,
           l.booked_at >= reconciliation_targets.period_from and l.booked_at < reconciliation_targets.period_until,
           coalesce(l.request_id, by_transaction.request_id, by_bet.request_id)
      from predictu_dispatch.reconciliation_line l
      left join lateral (
          select (array_agg(c.request_id))[1] as request_id
            -- Of an id that an operator gives to all of its callbacks, not all are read for each line.
            from (select c.request_id, c.method, c.bet_id, count(*) over () as shared
                    from (select c.request_id, c.method, c.bet_id from predictu_dispatch.callback c
                           where l.request_id is null and l.transaction_id is not null
                             and c.operator_id = l.operator_id and c.operator_transaction_id = l.transaction_id
                           limit 11) c) c
           where c.shared <= 10 and c.bet_id is not null
             and (c.method = l.method or l.method is null and (c.method = 'BET_MAKE') = l.is_debit)
             -- An operator may use an id again, such as on every day.
             and (l.bet_id is null or c.bet_id = l.bet_id
                  or not exists (select from predictu_dispatch.bet b
                                  where b.operator_id = l.operator_id and b.bet_id = l.bet_id offset 0))
          having count(*) = 1 offset 0) by_transaction on true
      left join lateral (
          select case when l.is_debit then b.placement_request_id
                      else (select t.request_id from predictu_dispatch.callback t
                             where t.operator_id = l.operator_id and t.request_id = b.terminal_request_id
                               and (l.method is null or t.method = l.method)) end as request_id
            from predictu_dispatch.bet b
           where l.request_id is null and by_transaction.request_id is null
             and b.operator_id = l.operator_id and b.bet_id = l.bet_id offset 0) by_bet on true
     where l.operator_id = reconciliation_targets.operator_id and l.run_id = reconciliation_targets.run_id;
$$;

CREATE FUNCTION predictu_dispatch.record_intervention(action text, before jsonb, after jsonb, reason text, done_by text, done_at timestamp with time zone) RETURNS void
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    insert into predictu_dispatch.intervention
           (operator_id, request_id, bet_id, action, reason, done_by, done_at, before, after)
    select before ->> 'operator_id', (before ->> 'request_id')::uuid, before ->> 'bet_id', action, reason, done_by, done_at,
           (select jsonb_object_agg(b.key, b.value) from jsonb_each(before) b where b.key = any (decisive.columns)),
           (select jsonb_object_agg(a.key, a.value) from jsonb_each(after) a where a.key = any (decisive.columns))
      from (values (array['state', 'reason', 'effect', 'attempts', 'review_since', 'warning', 'paused_at',
                          'paused_by', 'pause_reason', 'retired_at', 'retired_by', 'retire_reason',
                          'item_id', 'run_id', 'key', 'class', 'day', 'amounts', 'currency', 'disputed']
                   -- A difference must be readable when its run is gone.
                   || case when before ? 'item_id' then array['method', 'player_id', 'transaction_id'] end)) decisive (columns)
$$;

CREATE FUNCTION predictu_dispatch.record_verification(operator_id text, size bigint, faults bigint, first_faults jsonb) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    insert into predictu_dispatch.audit_verification (operator_id, size, faults, first_faults, verified_by)
    values (record_verification.operator_id, record_verification.size, record_verification.faults,
            record_verification.first_faults, session_user)
$$;

CREATE FUNCTION predictu_dispatch.refuse_audit_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    raise exception using errcode = 'PD900',
        message = format('the audit is append-only: %s on %s is refused', tg_op, tg_table_name),
        hint = 'Rows of the audit are never changed or deleted; retention drops whole partitions.';
end $$;

CREATE FUNCTION predictu_dispatch.refuse_currency_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    raise exception using errcode = 'PD900',
        message = format('currencies are only added: %s on %s is refused', tg_op, tg_table_name),
        hint = 'Other digits would change the value of stored amounts; add another code.';
end $$;

CREATE FUNCTION predictu_dispatch.refuse_delete() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    raise exception using errcode = 'PD900',
        message = format('%s %s of operator %s must not be removed: it is %s', tg_table_name,
                         coalesce(to_jsonb(old) ->> 'request_id', to_jsonb(old) ->> 'bet_id'), old.operator_id,
                         old.state),
        hint = 'Only callbacks and bets that ended and need no review are removed; see purge_finished().';
end $$;

CREATE FUNCTION predictu_dispatch.refuse_for_bet(operator_id text, bet_id text, what text, fault text, hint text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    AS $$
declare
    removed text := (select r.state from predictu_dispatch.bet_tombstone r
                      where r.operator_id = refuse_for_bet.operator_id and r.bet_id = refuse_for_bet.bet_id);
begin
    if removed is not null then
        fault := format('it was %s when retention removed it', removed);
        hint := 'A removed bet is never placed, ended or rolled back again; a new placement needs a new bet_id.';
    end if;
    raise exception using errcode = 'PD005',
        message = format('%s for bet %s of operator %s is refused: %s', what, bet_id, operator_id, fault),
        hint = hint;
end $$;

CREATE FUNCTION predictu_dispatch.refuse_intervention(action text, locked predictu_dispatch.callback, fault text, hint text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    raise exception using errcode = 'PD005',
        message = format('%s of %s %s of operator %s is refused: %s', action, locked.method, locked.request_id,
                         locked.operator_id, fault),
        hint = hint;
end $$;

CREATE FUNCTION predictu_dispatch.refuse_intervention_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    raise exception using errcode = 'PD900',
        message = format('intervention is append-only: %s on %s is refused', tg_op, tg_table_name),
        hint = 'Rows of intervention are never changed or deleted.';
end $$;

CREATE FUNCTION predictu_dispatch.refuse_locked(what text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    raise exception using errcode = 'PD006',
        message = format('%s is locked by another transaction; nothing was done', what),
        hint = 'Try again. If it stays locked, look in pg_stat_activity for a transaction that was left open.';
end $$;

CREATE FUNCTION predictu_dispatch.refuse_log_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if tg_op = 'UPDATE' and tg_table_name = 'audit_tile' then
        if (new.operator_id, new.level, new.tile) = (old.operator_id, old.level, old.tile)
           and substr(new.hashes, 1, octet_length(old.hashes)) = old.hashes
           and substr(new.report_ids, 1, octet_length(old.report_ids)) is not distinct from old.report_ids
           and coalesce(new.started_from <= old.started_from, old.started_from is null)
           and coalesce(new.started_until >= old.started_until, old.started_until is null) then
            return new;
        end if;
    elsif tg_op = 'UPDATE' and tg_table_name = 'audit_head' then
        -- A new signature under the same tree is allowed.
        if new.operator_id = old.operator_id and (new.size > old.size or new.size = old.size and new.root = old.root) then
            return new;
        end if;
    end if;
    raise exception using errcode = 'PD900',
        message = format('the log only grows: %s on %s is refused', tg_op, tg_table_name),
        hint = 'Entries are appended by the daemon, and never changed, moved or removed.';
end $$;

CREATE FUNCTION predictu_dispatch.refuse_params(method text, fault text, hint text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    raise exception using errcode = 'PD003', message = format('bad params for %s: %s', method, fault), hint = hint;
end $$;

CREATE FUNCTION predictu_dispatch.refuse_retired(operator predictu_dispatch.operator) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    if operator.retired_at is not null then
        raise exception using errcode = 'PD002',
            message = format('operator %s was retired at %s', quote_literal(operator.operator_id),
                             predictu_dispatch.format_utc(operator.retired_at)),
            hint = 'A retired operator is never used again. If it returns, give it a new operator_id and a file of that name.';
    end if;
end $$;

CREATE FUNCTION predictu_dispatch.refuse_tombstone_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    raise exception using errcode = 'PD900',
        message = format('tombstones are append-only: %s on %s is refused', tg_op, tg_table_name),
        hint = 'These rows prevent that an old request_id causes a second debit.';
end $$;

CREATE FUNCTION predictu_dispatch.refuse_unsealed(part text, first_tid tid, end_tid tid, cutoff timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_variable
declare
    position predictu_dispatch.audit_position;
    is_behind boolean;
    is_unsealed boolean;
begin
    select p.* into position from predictu_dispatch.audit_position p;
    if not found then
        return; -- There is no log.
    end if;
    -- The rows from before the logs, or before a restore, are not sealed yet.
    is_behind := position.backlog_until is not null
        or position.system_identifier <> (select c.system_identifier from pg_control_system() c);
    execute format($statement$
        select exists (
            select from predictu_dispatch.%I s
             where s.ctid >= $1 and s.ctid < $2 and not %s
               and exists (select from predictu_dispatch.audit_log l where l.operator_id = s.operator_id)
               and ($4 or case when s.written_in > $5
                               then not pg_visible_in_snapshot((s.written_in - $5)::text::xid8, $6) end))
        $statement$, 'attempt_' || part, predictu_dispatch.needed_rows())
       into is_unsealed
      using first_tid, end_tid, cutoff, is_behind, position.xid_offset, position.sealed_until;
    if is_unsealed then
        raise exception using errcode = '55000',
            message = format('part %s stays: it has rows that are not sealed in the audit log yet', part),
            hint = 'A daemon with [audit] origin seals them; see predictu_dispatch_audit_* in deploy/metrics.md.';
    end if;
end $_$;

CREATE FUNCTION predictu_dispatch.register_signing_keys(operator_ids text[], key_ids text[], algorithms text[], public_jwks text[]) RETURNS void
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
    insert into predictu_dispatch.signing_key (operator_id, kid, algorithm, public_jwk)
    select loaded.operator_id, loaded.key_id, loaded.algorithm, loaded.public_jwk::jsonb
      from unnest(operator_ids, key_ids, algorithms, public_jwks) as loaded (operator_id, key_id, algorithm, public_jwk)
     -- In one order, so that two daemons that start together do not deadlock.
     order by 1, 2
        on conflict do nothing;
$$;

CREATE FUNCTION predictu_dispatch.repeated_lines(operator_id text, run_id uuid) RETURNS TABLE(source integer, line bigint, first_source integer, first_line bigint)
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET jit TO 'off'
    SET work_mem TO '32MB'
    SET enable_nestloop TO 'off'
    SET enable_mergejoin TO 'off'
    AS $$
    with hashed as (
        select l.source, l.line, hash_record_extended(
                   row(l.booked_at, l.transaction_id, l.request_id, l.method, l.bet_id, l.player_id, l.currency, l.amount,
                       l.is_debit), 0) as hash
          from predictu_dispatch.reconciliation_line l
         where l.operator_id = repeated_lines.operator_id and l.run_id = repeated_lines.run_id
    ), candidate as (
        -- Few, so that only they are compared by all columns.
        select h.source, h.line from hashed h
         where h.hash in (select g.hash from hashed g group by g.hash having count(*) > 1)
    ), compared as (
        select l.source, l.line, first_value(l.source) over same as first_source, first_value(l.line) over same as first_line
          from candidate c
          join predictu_dispatch.reconciliation_line l
            on l.operator_id = repeated_lines.operator_id and l.run_id = repeated_lines.run_id
           and l.source = c.source and l.line = c.line
        window same as (partition by l.booked_at, l.transaction_id, l.request_id, l.method, l.bet_id, l.player_id,
                                     l.currency, l.amount, l.is_debit order by l.source, l.line)
    ), removed as (
        delete from predictu_dispatch.reconciliation_line l
         using compared c
         where l.operator_id = repeated_lines.operator_id and l.run_id = repeated_lines.run_id
           and l.source = c.source and l.line = c.line and (c.source, c.line) <> (c.first_source, c.first_line)
        returning c.source, c.line, c.first_source, c.first_line
    )
    select r.source, r.line, r.first_source, r.first_line from removed r order by r.source, r.line;
$$;

CREATE FUNCTION predictu_dispatch.report_reach(instance text, lost text[], operator_ids text[]) RETURNS TABLE(operator_id text, connected bigint, unconnected bigint)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
#variable_conflict use_column
begin
    -- heartbeat() writes the same rows.
    perform predictu_dispatch.take_lock('heartbeat', waits => true);
    update predictu_dispatch.share s
       set unreachable_since = case when s.operator_id = any (lost) then clock_timestamp() end
     where s.instance = report_reach.instance and (s.unreachable_since is not null) <> (s.operator_id = any (lost));
    return query
    select named.operator_id, count(d.instance) filter (where s.unreachable_since is null),
           count(d.instance) filter (where s.unreachable_since is not null)
      from unnest(operator_ids) as named (operator_id)
      left join predictu_dispatch.share s on s.operator_id = named.operator_id and s.instance <> report_reach.instance
      left join predictu_dispatch.daemon d
        on d.instance = s.instance
       and d.seen_at between clock_timestamp() - predictu_dispatch.heartbeat_timeout()
                         and clock_timestamp() + interval '1 second'
     group by named.operator_id;
end $$;

CREATE FUNCTION predictu_dispatch.report_signing_keys(instance text, session_id uuid, operator_ids text[], key_ids text[]) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
#variable_conflict use_column
begin
    -- heartbeat() writes the same rows.
    perform predictu_dispatch.take_lock('heartbeat', waits => true);
    update predictu_dispatch.daemon d
       set signing_keys = (
           select coalesce(jsonb_object_agg(loaded.operator_id, jsonb_build_object(
                      'key_id', loaded.key_id,
                      'since', case d.signing_keys #>> array[loaded.operator_id, 'key_id'] when loaded.key_id
                               then d.signing_keys #> array[loaded.operator_id, 'since']
                               else to_jsonb(clock_timestamp()) end)), '{}')
             from unnest(operator_ids, key_ids) as loaded (operator_id, key_id))
     where d.instance = report_signing_keys.instance and d.session_id = report_signing_keys.session_id;
    return found;
end $$;

CREATE FUNCTION predictu_dispatch.request_exists(operator_id text, request_id uuid, method text, params jsonb) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    earlier record;
begin
    -- A producer that cancels its wait for a synchronous standby leaves a commit that is visible
    -- and may still be lost. This lock writes WAL, so that this transaction's commit waits for the
    -- standby, and with it for the first commit. It blocks no other session.
    select c.method, c.params into earlier from predictu_dispatch.callback c
     where c.operator_id = request_exists.operator_id and c.request_id = request_exists.request_id for key share;
    if found then
        if earlier.method = method and earlier.params is not distinct from params then
            return true;
        end if;
    else
        -- A statement of its own sees the tombstone of a removal that the lock waited for.
        select r.method, r.content into earlier from predictu_dispatch.get_request_tombstone(operator_id, request_id) r;
        if not found then
            return false;
        elsif earlier.method = method and earlier.content = predictu_dispatch.params_digest(params) then
            return true;
        end if;
    end if;
    raise exception using errcode = 'PD004',
        message = format('request_id %s of operator %s is already used by another %s', request_id, operator_id,
                         earlier.method),
        hint = 'Repeat an id only with the same method and params; use a new id for a new callback.';
end $$;

CREATE FUNCTION predictu_dispatch.required_params(method text) RETURNS text[]
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE method WHEN 'PING'::text THEN '{}'::text[] WHEN 'BALANCE'::text THEN '{player_id,currency}'::text[] WHEN 'BET_MAKE'::text THEN '{player_id,currency,amount,bet_id,bet}'::text[] WHEN 'BET_LOSE'::text THEN '{player_id,bet_id}'::text[] WHEN 'BET_ROLLBACK'::text THEN '{player_id,currency,amount,bet_id,rollback_of}'::text[] ELSE '{player_id,currency,amount,bet_id}'::text[] END;

CREATE FUNCTION predictu_dispatch.resolve_callback(operator_id text, request_id uuid, reason text, by text) RETURNS predictu_dispatch.callback
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '3s'
    AS $$
#variable_conflict use_variable
declare
    locked predictu_dispatch.callback;
    resolved predictu_dispatch.callback;
begin
    perform predictu_dispatch.commit_durably();
    perform predictu_dispatch.check_intervention('resolve', reason, by);
    locked := predictu_dispatch.lock_callback('resolve', operator_id, request_id);
    if locked.review_since is null then
        perform predictu_dispatch.refuse_intervention('resolve', locked, predictu_dispatch.why_not_in_review(locked),
            'Only callbacks on the review list can be resolved; to list them: predictu-dispatch status');
    end if;
    update predictu_dispatch.callback c
       set review_since = null, note = concat_ws('; ', c.note, reason)
     where c.operator_id = operator_id and c.request_id = request_id
    returning c.* into resolved;
    -- They may be unreadable.
    locked.params := null;
    resolved.params := null;
    perform predictu_dispatch.record_intervention('resolve', to_jsonb(locked), to_jsonb(resolved), reason, by,
                                                  clock_timestamp());
    return resolved;
end $$;

CREATE FUNCTION predictu_dispatch.resume_operator(operator_id text, reason text, by text) RETURNS predictu_dispatch.operator
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '3s'
    AS $$
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

CREATE FUNCTION predictu_dispatch.retention_cutoff(keep_months integer) RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    floor_months integer := coalesce((select max(f.months) from predictu_dispatch.retention_floor f), 24);
begin
    if keep_months is null or keep_months not between 1 and 1200 then
        perform predictu_dispatch.refuse_params('retention', format('keep_months is %s', coalesce(keep_months::text, 'NULL')),
            'Give 1 to 1200 whole months; to keep everything, do not run retention.');
    end if;
    if keep_months < floor_months then
        perform predictu_dispatch.refuse_params('retention',
            format('keep_months is %s, and the schema''s owner requires %s', keep_months, floor_months),
            format('Raise [daemon] audit_retention_months, or as the owner: update predictu_dispatch.retention_floor '
                   'set months = %s', keep_months));
    end if;
    return (date_trunc('month', now() at time zone 'UTC') - make_interval(months => keep_months)) at time zone 'UTC';
end $$;

CREATE FUNCTION predictu_dispatch.retire_operator(operator_id text, reason text, by text) RETURNS predictu_dispatch.operator
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '3s'
    AS $$
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

CREATE FUNCTION predictu_dispatch.retire_signing_key(operator_id text, key_id text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    -- audit_restore() locks the table while it changes the offset; the next statement sees the new one.
    lock table predictu_dispatch.signing_key in row exclusive mode;
    update predictu_dispatch.signing_key k
       set retired_at = greatest(clock_timestamp(), k.first_seen_at), retired_id = gen_random_uuid(),
           -- As the default of written_in.
           retired_in = pg_current_xact_id()::text::bigint
                        + coalesce((select p.xid_offset from predictu_dispatch.audit_position p), 0)
     where k.operator_id = retire_signing_key.operator_id and k.kid = key_id and k.retired_at is null;
    return exists (select from predictu_dispatch.signing_key k
                    where k.operator_id = retire_signing_key.operator_id and k.kid = key_id);
end $$;

CREATE FUNCTION predictu_dispatch.retry_callback(operator_id text, request_id uuid, by text) RETURNS predictu_dispatch.callback
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '3s'
    AS $$
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

CREATE FUNCTION predictu_dispatch.rollback_bet(operator_id text, bet_id text, reason text) RETURNS uuid
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
declare
    bet predictu_dispatch.bet;
    placement predictu_dispatch.callback;
    terminal predictu_dispatch.callback;
    rollback_id uuid;
begin
    perform predictu_dispatch.check_producer_scope(operator_id);
    reason := left(reason, 1000);
    select b.* into bet from predictu_dispatch.bet b
     where b.operator_id = operator_id and b.bet_id = bet_id for no key update;
    if not found then
        perform predictu_dispatch.refuse_for_bet(operator_id, bet_id, 'rollback', 'the bet is unknown',
            'Check the operator_id and the bet_id; a bet that was never placed needs no rollback.');
    end if;
    -- A concurrent claim locks the placement briefly; its result must be visible here.
    select c.* into placement from predictu_dispatch.callback c
     where c.operator_id = operator_id and c.request_id = bet.placement_request_id for no key update;
    select c.* into terminal from predictu_dispatch.callback c
     where c.operator_id = operator_id and c.request_id = bet.terminal_request_id for no key update;

    if terminal.method = 'BET_ROLLBACK' and (bet.state <> 'placing' or placement.retry_stopped) then
        return terminal.request_id;
    elsif bet.state = 'void' then
        return null;
    elsif bet.state in ('closing', 'closed') then
        perform predictu_dispatch.refuse_for_bet(operator_id, bet_id, 'rollback',
            format('the bet is %s, its %s %s is %s', bet.state, terminal.method, terminal.request_id, terminal.state),
            'Two terminal callbacks must never reach an operator for one bet; settle the difference with the operator.');
    elsif bet.state = 'open' then
        return predictu_dispatch.add_rollback(bet, 'closing', 'ready', 'requested', reason);
    end if;

    if terminal.state = 'waiting' and terminal.method <> 'BET_ROLLBACK' then
        perform predictu_dispatch.cancel_waiting(operator_id, terminal.request_id, 'rolled_back', false);
        terminal := null;
    end if;
    if placement.state = 'in_flight' then
        update predictu_dispatch.callback c set retry_stopped = true
         where c.operator_id = operator_id and c.request_id = placement.request_id;
        if terminal.state = 'waiting' then
            return terminal.request_id;
        end if;
        return predictu_dispatch.add_rollback(bet, 'placing', 'waiting', 'requested', reason);
    end if;
    update predictu_dispatch.callback c
       set state = case c.attempts when 0 then 'cancelled' else 'exhausted' end, reason = 'rolled_back',
           finished_at = clock_timestamp(), note = rollback_bet.reason
     where c.operator_id = operator_id and c.request_id = placement.request_id;
    perform predictu_dispatch.advance_bets(array[operator_id], array[bet_id]);
    select b.terminal_request_id into rollback_id from predictu_dispatch.bet b
     where b.operator_id = operator_id and b.bet_id = bet_id and b.state = 'closing';
    update predictu_dispatch.callback c set note = rollback_bet.reason
     where c.operator_id = operator_id and c.request_id = rollback_id and c.note is null;
    return rollback_id;
end $$;

CREATE FUNCTION predictu_dispatch.sent_amount(operator_id text, request_id uuid) RETURNS bigint
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
declare
    format text;
    sent text[];
begin
    format := (select c.amount_format from predictu_dispatch.callback c
                where c.operator_id = sent_amount.operator_id and c.request_id = sent_amount.request_id);
    sent := predictu_dispatch.body_money((
        select a.request_body from predictu_dispatch.attempt a
         where a.operator_id = sent_amount.operator_id and a.request_id = sent_amount.request_id
           and a.verdict = 'delivered' order by a.attempt desc limit 1));
    return sent[4]::numeric
           * case format when 'decimal' then 10::numeric ^ predictu_dispatch.currency_digits(sent[3]) else 1 end;
exception when others then
    return null;
end $$;

CREATE FUNCTION predictu_dispatch.serving_daemons(daemons bigint, requests_per_s double precision) RETURNS bigint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (requests_per_s > (0)::double precision) THEN GREATEST(LEAST(daemons, (floor((requests_per_s * (0.15)::double precision)))::bigint), (1)::bigint) ELSE daemons END;

CREATE FUNCTION predictu_dispatch.settle(reports predictu_dispatch.attempt_report[]) RETURNS SETOF predictu_dispatch.change
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
declare
    bet_operator_ids text[];
    bet_ids text[];
    callback_operator_ids text[];
    request_ids uuid[];
begin
    perform predictu_dispatch.commit_durably();
    -- Bets first, callbacks after them. Each is a statement of its own, so that it sees everything
    -- that was committed before the lock was granted. Locked rows are skipped: an open transaction
    -- of a producer or a person must delay no other bet and no other operator.
    select array_agg(b.operator_id), array_agg(b.bet_id) into bet_operator_ids, bet_ids
      from (select b.operator_id, b.bet_id
              from predictu_dispatch.bet b
             where (b.operator_id, b.bet_id) in (select r.operator_id, r.bet_id from unnest(reports) r)
             order by b.operator_id, b.bet_id for no key update skip locked) b;
    select array_agg(c.operator_id), array_agg(c.request_id) into callback_operator_ids, request_ids
      from (select c.operator_id, c.request_id
              from predictu_dispatch.callback c
             where (c.operator_id, c.request_id) in (select r.operator_id, r.request_id from unnest(reports) r)
               and (c.bet_id is null or (c.operator_id, c.bet_id) in (select * from unnest(bet_operator_ids, bet_ids)))
             order by c.operator_id, c.request_id for no key update skip locked) c;
    if cardinality(request_ids) is distinct from cardinality(reports) then
        return query
        select r.operator_id, r.request_id, r.method, null::text, null::text, null::text,
               case when c.request_id is not null then 'locked' else 'unknown_attempt' end, r.attempt
          from unnest(reports) r
          left join predictu_dispatch.callback c
            on c.operator_id = r.operator_id and c.request_id = r.request_id and c.bet_id is not distinct from r.bet_id
           and r.attempt between 1 and c.attempts
         where (r.operator_id, r.request_id) not in (select * from unnest(callback_operator_ids, request_ids));
        if found then
            reports := array(
                select r from unnest(reports) r
                 where (r.operator_id, r.request_id) in (select * from unnest(callback_operator_ids, request_ids)));
        end if;
    end if;

    return query
    with given as materialized (
        select * from unnest(reports)
    ), chosen as (
        -- If a daemon and a reaper report one attempt in one batch, the daemon's report counts.
        select distinct on (r.operator_id, r.request_id, r.attempt) r.*
          from given r
         order by r.operator_id, r.request_id, r.attempt, r.reaped
    ), decided as (
        update predictu_dispatch.callback c
           set state = case when c.retry_stopped and r.state = 'ready' then 'exhausted' else r.state end,
               reason = case when c.retry_stopped and r.state = 'ready' then 'rolled_back' else r.state_reason end,
               effect = r.effect,
               due_at = case when r.state = 'ready' and not c.retry_stopped
                             then clock_timestamp() + r.due_in_s * interval '1 second' else c.due_at end,
               lease_until = null,
               finished_at = case when r.state <> 'ready' or c.retry_stopped then clock_timestamp() end,
               operator_status = coalesce(r.operator_status, c.operator_status),
               operator_transaction_id = coalesce(r.operator_transaction_id, c.operator_transaction_id),
               balance = coalesce(r.balance, c.balance),
               anomaly = coalesce(r.anomaly, c.anomaly),
               review_since = case
                   when r.state in ('rejected', 'exhausted') and c.method not in ('PING', 'BALANCE', 'BET_MAKE')
                       then clock_timestamp()
                   -- coalesce, because with a null reason an "and" would still call the function.
                   when coalesce(r.state_reason, '') = 'nothing_to_reverse' then
                       case when r.state = 'delivered'
                             and predictu_dispatch.is_debit_confirmed(c.operator_id, (c.params ->> 'rollback_of')::uuid)
                            then clock_timestamp() end
               end
          from chosen r
         -- In flight. By its state, the planner would read all callbacks in flight for each report.
         where c.operator_id = r.operator_id and c.request_id = r.request_id and c.lease_until is not null
           and c.attempts = r.attempt
        returning c.operator_id, c.request_id, r.attempt, c.lane, c.state, c.reason, c.method, c.leased_by, c.leased_at,
                  r.report_id
    ), known as (
        select r.*, coalesce(d.report_id = r.report_id, false) as is_decisive, d.lane as new_lane,
               d.state as new_state, d.reason as new_reason, coalesce(d.method, a.method, c.method) as known_method,
               coalesce(d.leased_by, a.instance, c.leased_by) as leased_by,
               coalesce(d.leased_at, a.started_at, c.leased_at) as leased_at
          from given r
          left join decided d
            on d.operator_id = r.operator_id and d.request_id = r.request_id and d.attempt = r.attempt
          -- Decided before: the callback has the start of its last attempt, and all else if retention
          -- is replacing that month; an earlier one's start is the report's, or the attempt is
          -- unknown. So only one partition is searched, and only for a late report: without the
          -- offsets, the planner would search for each one.
          left join lateral (
              select c.method, c.leased_by, c.leased_at
                from predictu_dispatch.callback c
               where d.request_id is null and c.operator_id = r.operator_id and c.request_id = r.request_id
                 and c.attempts = r.attempt
              offset 0) c on true
          left join lateral (
              select a.method, a.instance, a.started_at
                from predictu_dispatch.attempt_record a
               where d.request_id is null and not r.reaped
                 and a.operator_id = r.operator_id and a.request_id = r.request_id and a.attempt = r.attempt
                 and a.started_at = coalesce(c.leased_at, r.started_at) and a.verdict <> 'late'
              offset 0) a on true
    ), written as (
        insert into predictu_dispatch.attempt_record (
            operator_id, request_id, method, attempt, evidence, verdict, reason, instance, started_at, finished_at, url,
            key_id, request_headers, request_body, response_status, response_headers, response_body, response_truncated,
            connect_ms, first_byte_ms, total_ms, error, report_id,
            peer, peer_certificate_sha256, token_signature, response_body_sha256, response_body_repeats)
        select k.operator_id, k.request_id, k.known_method, k.attempt, k.evidence,
               case when k.is_decisive then k.verdict else 'late' end, k.reason, k.leased_by, k.leased_at,
               greatest(k.leased_at, least(k.finished_at, clock_timestamp() + interval '1 second')), k.url, k.key_id,
               k.request_headers::jsonb, k.request_body, k.response_status, k.response_headers::jsonb, k.response_body,
               k.response_truncated, k.connect_ms, k.first_byte_ms, k.total_ms, k.error, k.report_id,
               k.peer, k.peer_certificate_sha256, k.token_signature,
               k.response_body_sha256, k.response_body_repeats
          from known k
         where k.is_decisive or not k.reaped and k.leased_at is not null and not exists (
             select from predictu_dispatch.attempt_record a
              where a.operator_id = k.operator_id and a.request_id = k.request_id and a.attempt = k.attempt
                and a.started_at = k.leased_at and a.report_id = k.report_id)
        returning operator_id, request_id, report_id
    )
    select k.operator_id, k.request_id, k.method, case when k.is_decisive then k.new_lane end,
           case when k.is_decisive then k.new_state end, case when k.is_decisive then k.new_reason end,
           case when k.is_decisive then 'settled' when w.request_id is not null then 'late'
                when k.leased_at is null then 'unknown_attempt' else 'repeated' end,
           k.attempt
      from known k
      left join written w on w.operator_id = k.operator_id and w.request_id = k.request_id and w.report_id = k.report_id
     -- A reaper whose attempt was settled before has nothing to report.
     where k.is_decisive or not k.reaped;

    if bet_ids is not null then
        return query select * from predictu_dispatch.advance_bets(bet_operator_ids, bet_ids);
    end if;
end $$;

CREATE FUNCTION predictu_dispatch.settle(reports predictu_dispatch.report[]) RETURNS SETOF predictu_dispatch.change
    LANGUAGE sql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select * from predictu_dispatch.settle(array(
        select (r.*, null, null, null, null, null)::predictu_dispatch.attempt_report from unnest(reports) r));
$$;

CREATE FUNCTION predictu_dispatch.settle_one(operator_id text, request_id uuid, attempt integer, bet_id text, state text, state_reason text, effect text, due_in_s double precision, operator_status text, operator_transaction_id text, balance bigint, anomaly text, reaped boolean, method text, evidence text, verdict text, reason text, instance text, started_at timestamp with time zone, finished_at timestamp with time zone, url text, key_id text, request_headers text, request_body text, response_status integer, response_headers text, response_body bytea, response_truncated boolean, connect_ms double precision, first_byte_ms double precision, total_ms double precision, error text, report_id uuid, peer text DEFAULT NULL::text, peer_certificate_sha256 bytea DEFAULT NULL::bytea, token_signature bytea DEFAULT NULL::bytea, response_body_sha256 bytea DEFAULT NULL::bytea, response_body_repeats integer DEFAULT NULL::integer) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
declare
    lease record;
begin
    if state <> 'delivered' or method not in ('PING', 'BALANCE', 'BET_MAKE') then
        return false;
    end if;
    perform predictu_dispatch.commit_durably();
    -- The locks are those of settle(), in its order; locked rows are skipped.
    if method = 'BET_MAKE' then
        perform from predictu_dispatch.bet b
          where b.operator_id = settle_one.operator_id and b.bet_id = settle_one.bet_id and b.state = 'placing'
            and b.terminal_request_id is null
            for no key update skip locked;
        if not found then
            return false;
        end if;
    end if;
    select c.leased_by, c.leased_at into lease
      from predictu_dispatch.callback c
     where c.operator_id = settle_one.operator_id and c.request_id = settle_one.request_id
       and c.method = settle_one.method and c.bet_id is not distinct from settle_one.bet_id
       and c.lease_until is not null and c.attempts = settle_one.attempt
       for no key update skip locked;
    if not found then
        return false;
    end if;

    update predictu_dispatch.callback c
       set state = settle_one.state, reason = state_reason, effect = settle_one.effect, lease_until = null,
           finished_at = clock_timestamp(),
           operator_status = coalesce(settle_one.operator_status, c.operator_status),
           operator_transaction_id = coalesce(settle_one.operator_transaction_id, c.operator_transaction_id),
           balance = coalesce(settle_one.balance, c.balance), anomaly = coalesce(settle_one.anomaly, c.anomaly)
     where c.operator_id = settle_one.operator_id and c.request_id = settle_one.request_id;
    insert into predictu_dispatch.attempt_record (
        operator_id, request_id, method, attempt, evidence, verdict, reason, instance, started_at, finished_at, url,
        key_id, request_headers, request_body, response_status, response_headers, response_body, response_truncated,
        connect_ms, first_byte_ms, total_ms, error, report_id,
        peer, peer_certificate_sha256, token_signature, response_body_sha256, response_body_repeats)
    values (
        operator_id, request_id, method, attempt, evidence, verdict, reason, lease.leased_by, lease.leased_at,
        greatest(lease.leased_at, least(finished_at, clock_timestamp() + interval '1 second')), url, key_id,
        request_headers::jsonb, request_body, response_status, response_headers::jsonb, response_body,
        response_truncated, connect_ms, first_byte_ms, total_ms, error, report_id,
        peer, peer_certificate_sha256, token_signature, response_body_sha256, response_body_repeats);
    if method = 'BET_MAKE' then
        -- BET_MAKE delivered, nothing waits: placing → open.
        update predictu_dispatch.bet b
           set state = 'open', updated_at = clock_timestamp()
         where b.operator_id = settle_one.operator_id and b.bet_id = settle_one.bet_id;
    end if;
    return true;
end $$;

CREATE FUNCTION predictu_dispatch.share_of(most integer, daemons bigint, place bigint) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN (place < daemons) THEN (((most / daemons) + ((place < ((most)::bigint % daemons)))::integer))::integer ELSE 0 END;

CREATE FUNCTION predictu_dispatch.sort_out_rows(part text, first_tid tid, end_tid tid, cutoff timestamp with time zone) RETURNS bigint
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
#variable_conflict use_variable
declare
    source text := 'retired_' || part;
    as_stored tid[];
    unsealed tid[];
    operator_ids text[];
    leaf_indices bigint[];
    columns text;
begin
    for trial in 1 .. 2 loop
        select array_agg(m.row_tid) filter (where m.is_needed and (m.leaf_index is not null or not m.has_log)),
               array_agg(m.row_tid) filter (where m.leaf_index is null and m.has_log),
               array_agg(m.operator_id) filter (where m.leaf_index is not null and not m.is_needed),
               array_agg(m.leaf_index) filter (where m.leaf_index is not null and not m.is_needed)
          into as_stored, unsealed, operator_ids, leaf_indices
          from predictu_dispatch.missing_rows(part, first_tid, end_tid, cutoff) m;
        exit when unsealed is null;
        -- A sealer may be about to seal these rows, which it read before the partition was detached.
        -- Once this lock is granted, it has either finished or must start again.
        update predictu_dispatch.audit_position p set revision = p.revision + 1;
    end loop;
    insert into predictu_dispatch.audit_removal_draft as d (operator_id, part, piece, leaf_indices)
    select gone.operator_id, part, gone.leaf_index / 4096, range_agg(int8range(gone.leaf_index, gone.leaf_index + 1))
      from unnest(operator_ids, leaf_indices) as gone (operator_id, leaf_index)
     group by gone.operator_id, gone.leaf_index / 4096
        on conflict on constraint audit_removal_draft_pkey
        do update set leaf_indices = d.leaf_indices + excluded.leaf_indices;
    if as_stored is not null then
        execute format('insert into predictu_dispatch.attempt_record select s.* from predictu_dispatch.%I s '
                       'where s.ctid = any ($1)', source) using as_stored;
    end if;
    if unsealed is not null then
        -- With the id of this transaction, because sealers read new transactions only.
        select string_agg(quote_ident(a.attname), ', ' order by a.attnum) into columns
          from pg_attribute a
         where a.attrelid = 'predictu_dispatch.attempt_record'::regclass and a.attnum > 0 and not a.attisdropped
           and a.attname <> 'written_in';
        execute format('insert into predictu_dispatch.attempt_record (%1$s) select %1$s from predictu_dispatch.%2$I s '
                       'where s.ctid = any ($1)', columns, source) using unsealed;
    end if;
    return coalesce(cardinality(as_stored), 0) + coalesce(cardinality(unsealed), 0);
end $_$;

CREATE FUNCTION predictu_dispatch.start_ping(operator_id text) RETURNS uuid
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
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

CREATE FUNCTION predictu_dispatch.swap_audit_partition(part text, with_kept boolean) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '30ms'
    AS $$
declare
    attached text := 'attempt_' || part;
    month date := case when part <> 'default' then to_date(part, 'YYYY_MM') end;
begin
    if with_kept and month is not null and pg_relation_size('predictu_dispatch.attempt_default') > 1048576 then
        -- Attaching a month reads the default partition under the lock.
        raise exception using errcode = '55000',
            message = format('part %s stays: the default partition is too large to attach beside it', part),
            hint = 'The default partition is removed when all of its rows are old.';
    end if;
    -- With the whole audit locked, only an autovacuum can hold a partition; nowait, because it may
    -- run for long.
    lock table only predictu_dispatch.attempt_record in access exclusive mode;
    lock table only predictu_dispatch.attempt_default in access exclusive mode nowait;
    execute format('lock table only predictu_dispatch.%I in access exclusive mode nowait', attached);
    execute format('alter table predictu_dispatch.attempt_record detach partition predictu_dispatch.%I', attached);
    execute format('alter table predictu_dispatch.%I rename to %I', attached, 'retired_' || part);
    if month is null then
        execute format('alter table predictu_dispatch.%I rename to %I', 'kept_' || part, attached);
        execute format('alter table predictu_dispatch.attempt_record attach partition predictu_dispatch.%I default', attached);
    elsif with_kept then
        execute format('alter table predictu_dispatch.%I rename to %I', 'kept_' || part, attached);
        execute format('alter table predictu_dispatch.attempt_record attach partition predictu_dispatch.%I '
                       'for values from (%L) to (%L)', attached, to_char(month, 'YYYY-MM-DD 00:00:00+00'),
                       to_char(month + interval '1 month', 'YYYY-MM-DD 00:00:00+00'));
        execute format('alter table predictu_dispatch.%I drop constraint kept_month', attached);
    else
        execute format('drop table predictu_dispatch.%I', 'kept_' || part);
    end if;
end $$;

CREATE FUNCTION predictu_dispatch.sync_operators(operator_ids text[], enabled boolean[], interactive_deadlines_s double precision[], settlement_deadlines_s double precision[], fingerprints text[]) RETURNS SETOF text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    insert into predictu_dispatch.operator
        (operator_id, enabled, interactive_deadline_s, settlement_deadline_s, config_fingerprint)
    select * from unnest(operator_ids, sync_operators.enabled, interactive_deadlines_s, settlement_deadlines_s,
                         fingerprints) order by 1
    on conflict (operator_id) do nothing;
    return query
    with given as (
        select * from unnest(operator_ids, sync_operators.enabled, interactive_deadlines_s, settlement_deadlines_s,
                             fingerprints)
                      as given (operator_id, enabled, interactive_deadline_s, settlement_deadline_s, fingerprint)
    ), differing as (
        select given.* from given join predictu_dispatch.operator o on o.operator_id = given.operator_id
         where o.retired_at is null
           and (o.enabled, o.interactive_deadline_s, o.settlement_deadline_s, o.config_fingerprint)
               is distinct from
               (given.enabled, given.interactive_deadline_s, given.settlement_deadline_s, given.fingerprint)
    ), locked as materialized (
        select o.operator_id from predictu_dispatch.operator o join differing on differing.operator_id = o.operator_id
         where o.retired_at is null order by o.operator_id for no key update of o skip locked
    ), written as (
        update predictu_dispatch.operator o
           set enabled = differing.enabled, interactive_deadline_s = differing.interactive_deadline_s,
               settlement_deadline_s = differing.settlement_deadline_s, config_fingerprint = differing.fingerprint,
               updated_at = now()
          from differing, locked
         where o.operator_id = differing.operator_id and locked.operator_id = differing.operator_id
        returning o.operator_id
    )
    select differing.operator_id from differing
     where differing.operator_id not in (select written.operator_id from written);
end $$;

CREATE FUNCTION predictu_dispatch.take_lock(name text, waits boolean) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
begin
    insert into predictu_dispatch.lock (name) values (take_lock.name) on conflict do nothing;
    if waits then
        -- Written, because in another isolation level than read committed the next one then gets
        -- 40001, instead of deciding on a snapshot that is older than its lock.
        update predictu_dispatch.lock l set name = l.name where l.name = take_lock.name;
    else
        perform from predictu_dispatch.lock l where l.name = take_lock.name for no key update skip locked;
    end if;
    return found;
end $$;

CREATE FUNCTION predictu_dispatch.token_of(operator_id text, request_id uuid, attempt integer, report_id uuid DEFAULT NULL::uuid) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
declare
    stored record;
    unsigned text;
    claims text;
    readable_from timestamptz;
begin
    select a.request_headers, a.token_signature into stored
      from predictu_dispatch.attempt_record a
     where a.operator_id = token_of.operator_id and a.request_id = token_of.request_id
       and a.attempt = token_of.attempt
       and case when token_of.report_id is null then a.verdict <> 'late' else a.report_id = token_of.report_id end
     -- A repeated report may be in the audit as late too; both rows have one token.
     limit 1;
    if not found then
        perform predictu_dispatch.refuse_params('token_of', 'there is no such attempt',
            'See `predictu-dispatch show` for the attempts of a callback.');
    end if;
    -- The audited header: Bearer, the token's first two parts, and a note instead of the signature.
    unsigned := substring(stored.request_headers ->> 'Authorization'
                          from '^Bearer ([^.]+[.][^.]+)[.][[]signature withheld[]]$');
    if unsigned is null or stored.token_signature is null then
        perform predictu_dispatch.refuse_params('token_of', 'this row of the attempt has no token',
            'It was made by an earlier release, or the attempt was interrupted. Its late row, if there is one, may have '
            'a token: give its report_id.');
    end if;
    begin
        claims := translate(split_part(unsigned, '.', 2), '-_', '+/');
        claims := convert_from(decode(claims || repeat('=', -length(claims) & 3), 'base64'), 'UTF8');
        if jsonb_typeof(claims::jsonb -> 'exp') = 'number' then
            readable_from := to_timestamp((claims::jsonb ->> 'exp')::double precision + 60);
        end if;
    exception when others then
        perform predictu_dispatch.raise_outage(sqlstate, sqlerrm);
    end;
    if readable_from is null then
        perform predictu_dispatch.refuse_params('token_of', 'the exp of this token cannot be read',
            'It is not known when the token has expired, so it is not shown.');
    end if;
    if clock_timestamp() < readable_from then
        raise exception using errcode = 'PD009',
            message = format('the token of attempt %s may be valid; it may be read from %s', token_of.attempt,
                             predictu_dispatch.format_utc(readable_from)),
            hint = 'A token is a credential until 60 s after its exp.';
    end if;
    return unsigned || '.' || rtrim(translate(encode(stored.token_signature, 'base64'), '+/' || chr(10), '-_'), '=');
end $_$;

CREATE FUNCTION predictu_dispatch.why_not_in_review(locked predictu_dispatch.callback) RETURNS text
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select case
        when locked.state in ('waiting', 'ready', 'in_flight') then format('it has not ended (%s)', locked.state)
        else coalesce((
            select format('%s resolved it at %s: %s', i.done_by, predictu_dispatch.format_utc(i.done_at), i.reason)
              from predictu_dispatch.intervention i
             where i.operator_id = locked.operator_id and i.request_id = locked.request_id and i.action = 'resolve'
             order by i.done_at desc limit 1
        ), format('it is %s and needs no review', locked.state))
    end
$$;

CREATE FUNCTION predictu_dispatch.why_not_retired(operator_id text, with_bets boolean) RETURNS TABLE(fault text, advice text)
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
    select format('its file is used by %s', string_agg(format('daemon %s on host %s', d.instance, d.host), ', '
                                                       order by d.instance)),
           format('Remove operators/%s.toml there and reload the daemon.', why_not_retired.operator_id)
      from predictu_dispatch.share s
      join predictu_dispatch.daemon d
        on d.instance = s.instance
       and d.seen_at between clock_timestamp() - predictu_dispatch.heartbeat_timeout()
                         and clock_timestamp() + interval '1 second'
     where s.operator_id = why_not_retired.operator_id
    having count(*) > 0
    union all
    -- Each state is a part of an index of its own.
    select format('callbacks that are not final: %s, for example %s',
                  string_agg(format('%s %s', unfinished.callbacks, unfinished.state), ', '), min(unfinished.example)),
           format('To list them: predictu-dispatch find --operator %s --state %s. To end a callback: predictu-dispatch '
                  'cancel if it was never attempted, else predictu-dispatch abandon.', why_not_retired.operator_id,
                  min(unfinished.state))
      from (select 'in_flight' as state, count(*) as callbacks, min(c.request_id::text) as example
              from predictu_dispatch.callback c
             where c.operator_id = why_not_retired.operator_id and c.state = 'in_flight'
            union all
            select 'ready', count(*), min(c.request_id::text) from predictu_dispatch.callback c
             where c.operator_id = why_not_retired.operator_id and c.state = 'ready'
            union all
            select 'waiting', count(*), min(c.request_id::text) from predictu_dispatch.callback c
             where c.operator_id = why_not_retired.operator_id and c.state = 'waiting') unfinished
     where unfinished.callbacks > 0
    having count(*) > 0
    union all
    select format('callbacks that need review: %s', count(*)),
           'To list what needs review: predictu-dispatch status --all. To end a review: predictu-dispatch resolve.'
      from predictu_dispatch.callback c
     where c.operator_id = why_not_retired.operator_id and c.review_since is not null
    having count(*) > 0
    union all
    -- A closing bet ends with its terminal callback, which is counted above until it is resolved.
    select format('bets that have not ended: %s, for example %s', count(*), min(b.bet_id)),
           format('To see a bet: predictu-dispatch show --bet %s BET_ID. To end a bet: rollback_bet() or a terminal callback.',
                  why_not_retired.operator_id)
      from predictu_dispatch.bet b
     where with_bets and b.operator_id = why_not_retired.operator_id and b.state in ('placing', 'open')
    having count(*) > 0
$$;

CREATE FUNCTION predictu_dispatch.witness_cosigned(operator_id text, witness text, size bigint, line text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    insert into predictu_dispatch.audit_cosignature (operator_id, size, witness, line)
    values (witness_cosigned.operator_id, witness_cosigned.size, witness_cosigned.witness, witness_cosigned.line)
    on conflict (operator_id, size, witness) do nothing;
    insert into predictu_dispatch.audit_witness as w (operator_id, witness, size, cosigned_at)
    values (witness_cosigned.operator_id, witness_cosigned.witness, witness_cosigned.size, clock_timestamp())
    on conflict (operator_id, witness) do update
       set size = greatest(w.size, excluded.size), cosigned_at = excluded.cosigned_at, failed_at = null,
           is_refused = false, failure = null, failures = 0;
end $$;

CREATE FUNCTION predictu_dispatch.witness_failed(operator_id text, witness text, failure text, is_refused boolean) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
begin
    insert into predictu_dispatch.audit_witness as w (operator_id, witness, failed_at, is_refused, failure, failures)
    values (witness_failed.operator_id, witness_failed.witness, clock_timestamp(), witness_failed.is_refused,
            left(witness_failed.failure, 1000), 1)
    on conflict (operator_id, witness) do update
       set failed_at = excluded.failed_at, is_refused = w.is_refused or excluded.is_refused,
           failure = case when w.is_refused and not excluded.is_refused then w.failure else excluded.failure end,
           failures = w.failures + 1;
end $$;

CREATE FUNCTION predictu_dispatch.witness_figures(witnesses text[]) RETURNS TABLE(operator_id text, witness text, behind_s double precision, is_refused boolean)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select h.operator_id, named.witness,
           greatest(coalesce(extract(epoch from clock_timestamp() - waiting.signed_at), 0), 0)::double precision,
           coalesce(w.is_refused, false)
      from unnest(witnesses) as named (witness)
     cross join predictu_dispatch.audit_head h
      left join predictu_dispatch.audit_witness w on w.operator_id = h.operator_id and w.witness = named.witness
      left join lateral (
          select c.signed_at from predictu_dispatch.audit_checkpoint c
           where c.operator_id = h.operator_id and c.size > coalesce(w.size, 0) order by c.size limit 1) waiting on true
$$;

CREATE FUNCTION predictu_dispatch.witness_newest(operator_id text) RETURNS TABLE(size bigint, checkpoint text)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select c.size, c.checkpoint from predictu_dispatch.audit_checkpoint c
     where c.operator_id = witness_newest.operator_id order by c.size desc limit 1
$$;

CREATE FUNCTION predictu_dispatch.witness_submissions(witness text) RETURNS TABLE(operator_id text, size bigint, checkpoint text, cosigned_size bigint, failures integer, failed_s_ago double precision)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select l.operator_id, newest.size, newest.checkpoint, coalesce(w.size, 0), coalesce(w.failures, 0),
           extract(epoch from clock_timestamp() - w.failed_at)::double precision
      from predictu_dispatch.audit_log l
     cross join lateral predictu_dispatch.witness_newest(l.operator_id) newest
      left join predictu_dispatch.audit_witness w
        on w.operator_id = l.operator_id and w.witness = witness_submissions.witness
     where newest.size > coalesce(w.size, 0)
     order by w.cosigned_at nulls first, l.operator_id
$$;

CREATE FUNCTION predictu_dispatch.witness_tiles(operator_id text, levels smallint[], tiles bigint[]) RETURNS TABLE(level smallint, tile bigint, hashes bytea)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
    select t.level, t.tile, t.hashes
      from unnest(levels, tiles) as w (level, tile)
      join predictu_dispatch.audit_tile t
        on t.operator_id = witness_tiles.operator_id and t.level = w.level and t.tile = w.tile
$$;

CREATE FUNCTION predictu_dispatch.write_circuits(operator_ids text[], revisions bigint[], circuits text[], healths text[], consecutive_failures integer[], success_s_ago double precision[], failure_s_ago double precision[], ping_in_s double precision[], pings boolean[], interactive_backoff_s double precision[], settlement_backoff_s double precision[], failure_reasons text[] DEFAULT NULL::text[], failure_statuses integer[] DEFAULT NULL::integer[], failure_locations text[] DEFAULT NULL::text[], failure_request_ids uuid[] DEFAULT NULL::uuid[], failure_attempts integer[] DEFAULT NULL::integer[]) RETURNS SETOF text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
declare
    named text;
begin
    perform predictu_dispatch.commit_durably();
    for named in
        with decided as (
            select * from unnest(operator_ids, revisions, circuits, healths, write_circuits.consecutive_failures, success_s_ago,
                                 failure_s_ago, ping_in_s, interactive_backoff_s, settlement_backoff_s, failure_reasons,
                                 failure_statuses, failure_locations, failure_request_ids, failure_attempts)
                          as decided (operator_id, revision, circuit, health, consecutive_failures, success_s_ago, failure_s_ago,
                                      ping_in_s, interactive_backoff_s, settlement_backoff_s, failure_reason, failure_status,
                                      failure_location, failure_request_id, failure_attempt)
        ), locked as materialized (
            select o.operator_id,
                   coalesce(o.last_failure_at, '-infinity') <= now() - d.failure_s_ago * interval '1 second' as is_newer
              from predictu_dispatch.operator o join decided d on d.operator_id = o.operator_id
             where o.revision = d.revision order by o.operator_id for no key update of o skip locked
        )
        update predictu_dispatch.operator o
           set circuit = d.circuit, health = d.health, consecutive_failures = d.consecutive_failures,
               revision = o.revision + 1,
               circuit_since = case when o.circuit = d.circuit or d.circuit = 'half_open' then o.circuit_since
                                    when o.circuit = 'half_open' and d.circuit = 'open' then o.circuit_since else now() end,
               last_success_at = greatest(o.last_success_at, now() - d.success_s_ago * interval '1 second'),
               last_failure_at = greatest(o.last_failure_at, now() - d.failure_s_ago * interval '1 second'),
               last_failure_reason = case when l.is_newer then d.failure_reason else o.last_failure_reason end,
               last_failure_status = case when l.is_newer then d.failure_status else o.last_failure_status end,
               last_failure_location = case when l.is_newer then d.failure_location else o.last_failure_location end,
               last_failure_request_id = case when l.is_newer then d.failure_request_id else o.last_failure_request_id end,
               last_failure_attempt = case when l.is_newer then d.failure_attempt else o.last_failure_attempt end,
               ping_at = now() + d.ping_in_s * interval '1 second',
               interactive_backoff_until = greatest(o.interactive_backoff_until,
                                                    now() + d.interactive_backoff_s * interval '1 second'),
               settlement_backoff_until = greatest(o.settlement_backoff_until,
                                                   now() + d.settlement_backoff_s * interval '1 second')
          from decided d, locked l
         where o.operator_id = d.operator_id and l.operator_id = d.operator_id
        returning o.operator_id
    loop
        if pings[array_position(operator_ids, named)] then
            perform predictu_dispatch.start_ping(named);
        end if;
        return next named;
    end loop;
end $$;

CREATE FUNCTION predictu_dispatch.write_removals(part text, cutoff timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_variable
begin
    insert into predictu_dispatch.audit_removal (operator_id, part, cutoff, attempts, leaf_indices, leaf_indices_sha256)
    select whole.operator_id, part, cutoff, written.attempts, whole.leaf_indices,
           sha256(convert_to(written.text, 'UTF8'))
      from (select d.operator_id, range_agg(d.leaf_indices) as leaf_indices
              from predictu_dispatch.audit_removal_draft d where d.part = write_removals.part group by d.operator_id) whole
     cross join lateral (
            select sum(upper(r) - lower(r))::bigint as attempts,
                   string_agg(lower(r) || '-' || upper(r) - 1, ',' order by lower(r)) as text
              from unnest(whole.leaf_indices) as r) written;
    delete from predictu_dispatch.audit_removal_draft d where d.part = write_removals.part;
end $$;

CREATE FUNCTION predictu_dispatch.wrong_params(method text, params jsonb, is_currency_known boolean) RETURNS text[]
    LANGUAGE sql
    RETURN CASE WHEN ((params IS NULL) OR (jsonb_typeof(params) <> 'object'::text)) THEN ARRAY[format('%s is not a JSON object'::text, COALESCE("left"((params)::text, 80), 'NULL'::text)), 'Pass an object, for example jsonb_build_object(''player_id'', …).'::text] WHEN (octet_length((params)::text) > 65536) THEN ARRAY[format('params have %s bytes'::text, octet_length((params)::text)), 'At most 65536 bytes are sent to an operator.'::text] WHEN (params @? '$.**{32}'::jsonpath) THEN ARRAY['params are nested too deeply'::text, 'At most 31 levels are sent to an operator.'::text] WHEN ((method = 'PING'::text) AND (params <> '{}'::jsonb)) THEN ARRAY[format('%s is not empty'::text, "left"((params)::text, 80)), 'PING takes {} only.'::text] WHEN (NOT (params ?& predictu_dispatch.required_params(method))) THEN predictu_dispatch.missing_keys('missing: %s'::text, (method || ' requires %s.'::text), predictu_dispatch.required_params(method), params) WHEN ((jsonb_typeof((params -> 'player_id'::text)) <> 'string'::text) OR ((length((params ->> 'player_id'::text)) < 1) OR (length((params ->> 'player_id'::text)) > 200))) THEN predictu_dispatch.not_a_text('player_id'::text, (params -> 'player_id'::text)) WHEN ((jsonb_typeof((params -> 'bet_id'::text)) <> 'string'::text) OR ((length((params ->> 'bet_id'::text)) < 1) OR (length((params ->> 'bet_id'::text)) > 200))) THEN predictu_dispatch.not_a_text('bet_id'::text, (params -> 'bet_id'::text)) WHEN ((jsonb_typeof((params -> 'currency'::text)) <> 'string'::text) OR ((length((params ->> 'currency'::text)) < 1) OR (length((params ->> 'currency'::text)) > 200))) THEN predictu_dispatch.not_a_text('currency'::text, (params -> 'currency'::text)) WHEN ((params ? 'currency'::text) AND (NOT is_currency_known)) THEN ARRAY[format('unknown currency "%s"'::text, "left"((params ->> 'currency'::text), 80)), 'Use an active ISO 4217 code in capitals, for example EUR, or one that the schema''s owner has added.'::text] WHEN ((params ? 'amount'::text) AND (method = 'BET_LOSE'::text)) THEN ARRAY['"amount" is given'::text, 'BET_LOSE moves no money: leave "amount" out, or send BET_WIN, BET_SELL or BET_REFUND.'::text] WHEN ((jsonb_typeof((params -> 'amount'::text)) <> 'number'::text) OR ((params ->> 'amount'::text) !~ '^[0-9]{1,18}$'::text)) THEN ARRAY[format('"amount" is %s'::text, "left"(((params -> 'amount'::text))::text, 80)), '"amount" must be a whole number of subunits (1250 for 12.50 EUR), at most 18 digits, not negative.'::text] WHEN ((method = 'BET_MAKE'::text) AND ((params -> 'amount'::text) = '0'::jsonb)) THEN ARRAY['"amount" is 0'::text, 'A placement debits more than 0.'::text] WHEN ((method = 'BET_MAKE'::text) AND (jsonb_typeof((params -> 'bet'::text)) <> 'object'::text)) THEN ARRAY[format('"bet" is %s'::text, "left"(((params -> 'bet'::text))::text, 80)), '"bet" must be an object with market_id, outcome, odds, shares, price.'::text] WHEN ((method = 'BET_MAKE'::text) AND (NOT ((params -> 'bet'::text) ?& '{market_id,outcome,odds,shares,price}'::text[]))) THEN predictu_dispatch.missing_keys('"bet" lacks %s'::text, '"bet" must be an object with %s.'::text, '{market_id,outcome,odds,shares,price}'::text[], (params -> 'bet'::text)) WHEN ((method = 'BET_MAKE'::text) AND (jsonb_typeof((params #> '{bet,odds}'::text[])) <> ALL (ARRAY['number'::text, 'null'::text]))) THEN ARRAY[format('"odds" is %s'::text, "left"(((params #> '{bet,odds}'::text[]))::text, 80)), '"odds" must be a number, for example 1.85.'::text] WHEN (lower((((params - '{player_id,currency,amount,bet_id,bet,rollback_of}'::text[]))::text COLLATE "C")) ~ '"[-_. ]*(p[^"]*d|c[^"]*y|a[^"]*t|b[^"]*[dt]|r[^"]*f)[-_. ]*"'::text) THEN predictu_dispatch.misspelt_key('{player_id,currency,amount,bet_id,bet,rollback_of}'::text[], params) WHEN ((method = 'BET_MAKE'::text) AND (lower(((((params -> 'bet'::text) - '{market_id,outcome,odds,shares,price}'::text[]))::text COLLATE "C")) ~ '"[-_. ]*(m[^"]*d|[op][^"]*e|[os][^"]*s)[-_. ]*"'::text)) THEN predictu_dispatch.misspelt_key('{market_id,outcome,odds,shares,price}'::text[], (params -> 'bet'::text)) ELSE NULL::text[] END;

CREATE TABLE predictu_dispatch.attempt_default (
    operator_id text CONSTRAINT attempt_operator_id_not_null NOT NULL,
    request_id uuid CONSTRAINT attempt_request_id_not_null NOT NULL,
    method text CONSTRAINT attempt_method_not_null NOT NULL,
    attempt integer CONSTRAINT attempt_attempt_not_null NOT NULL,
    evidence text CONSTRAINT attempt_evidence_not_null NOT NULL,
    verdict text CONSTRAINT attempt_verdict_not_null NOT NULL,
    reason text,
    instance text CONSTRAINT attempt_instance_not_null NOT NULL,
    started_at timestamp with time zone CONSTRAINT attempt_started_at_not_null NOT NULL,
    finished_at timestamp with time zone CONSTRAINT attempt_finished_at_not_null NOT NULL,
    url text,
    key_id text,
    request_headers jsonb,
    request_body text,
    response_status integer,
    response_headers jsonb,
    response_body bytea,
    response_truncated boolean DEFAULT false CONSTRAINT attempt_response_truncated_not_null NOT NULL,
    connect_ms double precision,
    first_byte_ms double precision,
    total_ms double precision,
    error text,
    report_id uuid CONSTRAINT attempt_report_id_not_null NOT NULL,
    peer text,
    peer_certificate_sha256 bytea,
    token_signature bytea,
    response_body_sha256 bytea,
    response_body_repeats integer,
    written_in bigint DEFAULT ((pg_current_xact_id())::text)::bigint,
    CONSTRAINT attempt_attempt_check CHECK ((attempt > 0)),
    CONSTRAINT attempt_evidence_check CHECK ((evidence = ANY (ARRAY['not_sent'::text, 'unanswered'::text, 'answered'::text]))),
    CONSTRAINT attempt_verdict_check CHECK ((verdict = ANY (ARRAY['delivered'::text, 'rejected'::text, 'retry'::text, 'late'::text])))
);

ALTER TABLE ONLY predictu_dispatch.attempt_default REPLICA IDENTITY FULL;

CREATE TABLE predictu_dispatch.audit_checkpoint (
    operator_id text NOT NULL,
    size bigint NOT NULL,
    checkpoint text NOT NULL,
    signed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE predictu_dispatch.audit_cosignature (
    operator_id text NOT NULL,
    size bigint NOT NULL,
    witness text NOT NULL,
    line text NOT NULL,
    cosigned_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE predictu_dispatch.audit_head (
    operator_id text NOT NULL,
    size bigint NOT NULL,
    root bytea NOT NULL,
    checkpoint text NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    CONSTRAINT audit_head_root_check CHECK ((octet_length(root) = 32)),
    CONSTRAINT audit_head_size_check CHECK ((size >= 0))
);

CREATE TABLE predictu_dispatch.audit_position (
    system_identifier bigint NOT NULL,
    xid_offset bigint DEFAULT 0 NOT NULL,
    sealed_until pg_snapshot NOT NULL,
    backlog_until pg_snapshot,
    backlog_part text,
    backlog_source bigint,
    backlog_block bigint,
    revision bigint DEFAULT 0 NOT NULL,
    sealed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

ALTER TABLE ONLY predictu_dispatch.audit_position REPLICA IDENTITY FULL;

CREATE TABLE predictu_dispatch.audit_purge_cursor (
    part text NOT NULL,
    source oid NOT NULL,
    next_block bigint,
    scanned bigint DEFAULT 0 NOT NULL,
    needed bigint DEFAULT 0 NOT NULL,
    moved_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE ONLY predictu_dispatch.audit_purge_cursor REPLICA IDENTITY FULL;

CREATE TABLE predictu_dispatch.audit_removal_draft (
    operator_id text NOT NULL,
    part text NOT NULL,
    piece bigint NOT NULL,
    leaf_indices int8multirange NOT NULL
);

CREATE TABLE predictu_dispatch.audit_tile (
    operator_id text NOT NULL,
    level smallint NOT NULL,
    tile bigint NOT NULL,
    hashes bytea NOT NULL,
    report_ids bytea,
    started_from timestamp with time zone,
    started_until timestamp with time zone,
    CONSTRAINT audit_tile_check CHECK (((report_ids IS NULL) OR ((level = 0) AND ((octet_length(report_ids) * 2) = octet_length(hashes))))),
    CONSTRAINT audit_tile_hashes_check CHECK ((((octet_length(hashes) >= 32) AND (octet_length(hashes) <= 8192)) AND ((octet_length(hashes) % 32) = 0))),
    CONSTRAINT audit_tile_level_check CHECK (((level >= 0) AND (level <= 7))),
    CONSTRAINT audit_tile_tile_check CHECK ((tile >= 0))
)
WITH (autovacuum_vacuum_scale_factor='0.01', autovacuum_vacuum_threshold='500', toast.autovacuum_vacuum_scale_factor='0.01', toast.autovacuum_vacuum_threshold='2000');
ALTER TABLE ONLY predictu_dispatch.audit_tile ALTER COLUMN hashes SET STORAGE EXTERNAL;
ALTER TABLE ONLY predictu_dispatch.audit_tile ALTER COLUMN report_ids SET STORAGE EXTERNAL;

CREATE TABLE predictu_dispatch.audit_verification (
    operator_id text NOT NULL,
    verified_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    size bigint NOT NULL,
    faults bigint NOT NULL,
    first_faults jsonb NOT NULL,
    verified_by text DEFAULT SESSION_USER NOT NULL
);

CREATE TABLE predictu_dispatch.audit_witness (
    operator_id text NOT NULL,
    witness text NOT NULL,
    size bigint DEFAULT 0 NOT NULL,
    cosigned_at timestamp with time zone,
    failed_at timestamp with time zone,
    is_refused boolean DEFAULT false NOT NULL,
    failure text,
    failures integer DEFAULT 0 NOT NULL
);

CREATE TABLE predictu_dispatch.bet_tombstone (
    operator_id text NOT NULL,
    bet_id text NOT NULL,
    state text NOT NULL,
    removed_at timestamp with time zone DEFAULT now() NOT NULL,
    placement_request_id uuid,
    terminal_request_id uuid
);

CREATE TABLE predictu_dispatch.currency (
    currency text NOT NULL,
    minor_digits integer NOT NULL,
    is_iso_4217 boolean DEFAULT false NOT NULL,
    added_at timestamp with time zone DEFAULT now() NOT NULL,
    added_by text DEFAULT SESSION_USER NOT NULL,
    CONSTRAINT currency_currency_check CHECK (((currency ~ '^[0-9]*[A-Z][A-Z0-9]*$'::text) AND ((length(currency) >= 3) AND (length(currency) <= 10)))),
    CONSTRAINT currency_minor_digits_check CHECK (((minor_digits >= 0) AND (minor_digits <= 18)))
);

CREATE TABLE predictu_dispatch.daemon (
    instance text NOT NULL,
    session_id uuid NOT NULL,
    host text NOT NULL,
    pid integer NOT NULL,
    version text NOT NULL,
    schema_version integer NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    present_since timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    seen_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    clock_ahead_s double precision,
    signing_keys jsonb
);

ALTER TABLE ONLY predictu_dispatch.daemon REPLICA IDENTITY FULL;

CREATE VIEW predictu_dispatch.ledger AS
 SELECT c.operator_id,
    c.request_id,
    c.bet_id,
    COALESCE(read.money[1], b.player_id) AS player_id,
    COALESCE(read.money[2], b.currency) AS currency,
        CASE c.method
            WHEN 'BET_MAKE'::text THEN 'debit'::text
            ELSE 'credit'::text
        END AS direction,
    sent.amount,
    c.method,
    c.finished_at AS confirmed_at,
    c.operator_transaction_id
   FROM (((predictu_dispatch.callback c
     CROSS JOIN LATERAL ( SELECT predictu_dispatch.params_money(c.params) AS money
         OFFSET 0) read)
     LEFT JOIN LATERAL ( SELECT b_1.player_id,
            b_1.currency,
            b_1.amount,
            b_1.placement_request_id
           FROM predictu_dispatch.bet b_1
          WHERE (((read.money IS NULL) OR (c.method = 'BET_ROLLBACK'::text)) AND (b_1.operator_id = c.operator_id) AND (b_1.bet_id = c.bet_id))
         OFFSET 0) b ON (true))
     CROSS JOIN LATERAL ( SELECT
                CASE
                    WHEN (read.money IS NOT NULL) THEN (read.money[3])::bigint
                    WHEN (c.method = ANY (ARRAY['BET_WIN'::text, 'BET_SELL'::text])) THEN predictu_dispatch.sent_amount(c.operator_id, c.request_id)
                    ELSE b.amount
                END AS amount
         OFFSET 0) sent)
  WHERE ((c.state = 'delivered'::text) AND (c.bet_id IS NOT NULL) AND (c.finished_at IS NOT NULL) AND (c.method <> 'BET_LOSE'::text) AND (c.reason IS DISTINCT FROM 'nothing_to_reverse'::text) AND ((sent.amount > 0) IS NOT FALSE) AND ((c.method <> 'BET_ROLLBACK'::text) OR (NOT (EXISTS ( SELECT
           FROM predictu_dispatch.callback placement
          WHERE ((placement.operator_id = c.operator_id) AND (placement.request_id = b.placement_request_id) AND (placement.effect <> 'applied'::text))
         OFFSET 0)))));

CREATE TABLE predictu_dispatch.legal_hold (
    operator_id text NOT NULL,
    bet_id text,
    reason text NOT NULL,
    placed_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    lifted_at timestamp with time zone,
    CONSTRAINT legal_hold_check CHECK ((lifted_at >= placed_at)),
    CONSTRAINT legal_hold_reason_check CHECK ((reason <> ''::text))
);

ALTER TABLE ONLY predictu_dispatch.legal_hold REPLICA IDENTITY FULL;

CREATE TABLE predictu_dispatch.lock (
    name text NOT NULL
);

CREATE TABLE predictu_dispatch.maintenance_chore (
    chore text NOT NULL,
    due_at timestamp with time zone DEFAULT now() NOT NULL,
    claimed_by text,
    claimed_at timestamp with time zone,
    result jsonb,
    result_at timestamp with time zone,
    CONSTRAINT maintenance_chore_chore_check CHECK ((chore = ANY (ARRAY['partitions'::text, 'reap'::text, 'backlog'::text, 'seal'::text, 'cosign'::text, 'reconciliation'::text])))
);

CREATE VIEW predictu_dispatch.needs_review AS
 SELECT c.request_id,
    c.operator_id,
    c.method,
    c.bet_id,
    c.state,
    c.effect,
    ((shown.params ->> 'amount'::text))::bigint AS amount,
    c.review_since AS since,
        CASE
            WHEN (c.state = 'delivered'::text) THEN 'The operator confirmed the debit but had nothing to reverse: the player may be owed the stake.'::text
            WHEN ((c.state = 'rejected'::text) AND (c.reason = 'unknown_status'::text)) THEN format('The operator answered with the status "%s", which its file does not declare; it is not known whether the operator applied it. Declare the status under [statuses] in operators/%s.toml.'::text, c.operator_status, c.operator_id)
            WHEN (c.state = 'rejected'::text) THEN (format('The operator rejected it with %s; it is not retried automatically.'::text, COALESCE(c.operator_status, c.reason)) ||
            CASE c.effect
                WHEN 'unknown'::text THEN ' An earlier attempt may have been applied.'::text
                ELSE ''::text
            END)
            WHEN (c.state = 'cancelled'::text) THEN ('The effect of its bet''s placement is unknown, so this must not be sent. '::text ||
            CASE
                WHEN (rollback.state = ANY (ARRAY['waiting'::text, 'ready'::text, 'in_flight'::text])) THEN 'The bet''s rollback is not confirmed yet.'::text
                WHEN ((rollback.state = 'delivered'::text) AND (rollback.reason = 'nothing_to_reverse'::text)) THEN 'The bet''s rollback is done: the operator had no debit to reverse.'::text
                WHEN (rollback.state = 'delivered'::text) THEN 'The operator has confirmed the bet''s rollback.'::text
                WHEN (rollback.state IS NOT NULL) THEN 'The bet''s rollback ended without a confirmation: the player may still be debited.'::text
                ELSE 'The bet has no rollback.'::text
            END)
            WHEN ((c.reason = 'abandoned'::text) AND (c.method = 'BET_ROLLBACK'::text)) THEN 'It was abandoned manually: a debit may stand at the operator.'::text
            WHEN (c.reason = 'abandoned'::text) THEN ('It was abandoned manually; '::text ||
            CASE c.effect
                WHEN 'unknown'::text THEN 'it is not known whether the operator applied it.'::text
                ELSE 'no attempt reached the operator, so it has certainly not applied it.'::text
            END)
            WHEN ((c.reason = 'deadline'::text) AND (c.effect = 'unknown'::text)) THEN 'Its deadline passed; it is not known whether the operator applied it.'::text
            WHEN (c.reason = 'deadline'::text) THEN 'Its deadline passed; no attempt reached the operator, so it has certainly not applied it.'::text
            WHEN (c.effect = 'unknown'::text) THEN 'No attempt was confirmed; it is not known whether the operator applied it.'::text
            ELSE 'No attempt reached the operator, so it has certainly not applied it.'::text
        END AS reason,
    COALESCE((shown.params ->> 'player_id'::text), b.player_id) AS player_id,
    COALESCE((shown.params ->> 'currency'::text), b.currency) AS currency,
    c.reason AS reason_code
   FROM (((predictu_dispatch.callback c
     CROSS JOIN LATERAL predictu_dispatch.readable_params(c.params) shown(params))
     LEFT JOIN predictu_dispatch.bet b ON (((b.operator_id = c.operator_id) AND (b.bet_id = c.bet_id))))
     LEFT JOIN predictu_dispatch.callback rollback ON (((c.state = 'cancelled'::text) AND (rollback.operator_id = b.operator_id) AND (rollback.request_id = b.terminal_request_id) AND (rollback.method = 'BET_ROLLBACK'::text))))
  WHERE (c.review_since IS NOT NULL);

CREATE UNLOGGED SEQUENCE predictu_dispatch.notifier_began_ms
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE UNLOGGED SEQUENCE predictu_dispatch.notifier_xid
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE predictu_dispatch.producer_scope (
    operator_id text NOT NULL,
    role_name name NOT NULL
);

CREATE TABLE predictu_dispatch.purge_cursor (
    cutoff timestamp with time zone NOT NULL,
    next_block bigint,
    locked bigint DEFAULT 0 NOT NULL,
    held bigint DEFAULT 0 NOT NULL
);

ALTER TABLE ONLY predictu_dispatch.purge_cursor REPLICA IDENTITY FULL;

CREATE UNLOGGED TABLE predictu_dispatch.reconciliation_line (
    operator_id text NOT NULL,
    run_id uuid NOT NULL,
    source integer NOT NULL,
    line bigint NOT NULL,
    booked_at timestamp with time zone NOT NULL,
    day date NOT NULL,
    transaction_id text,
    request_id uuid,
    method text,
    bet_id text,
    player_id text,
    currency text NOT NULL,
    amount bigint NOT NULL,
    is_debit boolean NOT NULL
);

CREATE VIEW predictu_dispatch.reconciliation_open AS
 SELECT operator_id,
    item_id,
    run_id,
    class,
    currency,
    disputed,
    day,
    key,
    request_id,
    method,
    bet_id,
    player_id,
    transaction_id,
    confirmed_at,
    amounts,
    lines
   FROM predictu_dispatch.reconciliation_item i
  WHERE is_open;

CREATE TABLE predictu_dispatch.reconciliation_total (
    operator_id text NOT NULL,
    run_id uuid NOT NULL,
    class text NOT NULL,
    currency text NOT NULL,
    day date NOT NULL,
    items bigint NOT NULL,
    rows_ours bigint NOT NULL,
    rows_theirs bigint NOT NULL,
    ours numeric NOT NULL,
    theirs numeric NOT NULL,
    disputed numeric NOT NULL,
    owed numeric NOT NULL
);

CREATE TABLE predictu_dispatch.reconciliation_unreadable (
    operator_id text NOT NULL,
    run_id uuid NOT NULL,
    source integer NOT NULL,
    line bigint NOT NULL,
    column_name text NOT NULL,
    why text NOT NULL
);

CREATE TABLE predictu_dispatch.removed_history (
    removed_before timestamp with time zone NOT NULL
);

ALTER TABLE ONLY predictu_dispatch.removed_history REPLICA IDENTITY FULL;

CREATE TABLE predictu_dispatch.retention_floor (
    months integer DEFAULT 24 NOT NULL,
    CONSTRAINT retention_floor_months_check CHECK (((months >= 1) AND (months <= 1200)))
);

ALTER TABLE ONLY predictu_dispatch.retention_floor REPLICA IDENTITY FULL;

CREATE TABLE predictu_dispatch.schema_function (
    name text NOT NULL,
    sha256 text NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE ONLY predictu_dispatch.schema_function REPLICA IDENTITY FULL;

CREATE TABLE predictu_dispatch.schema_migration (
    version integer NOT NULL,
    name text NOT NULL,
    sha256 text NOT NULL,
    compatible_from integer NOT NULL,
    applied_at timestamp with time zone DEFAULT now() NOT NULL
);

ALTER TABLE ONLY predictu_dispatch.schema_migration REPLICA IDENTITY FULL;

CREATE TABLE predictu_dispatch.share (
    operator_id text NOT NULL,
    instance text NOT NULL,
    interactive_slots integer DEFAULT 0 NOT NULL,
    settlement_slots integer DEFAULT 0 NOT NULL,
    requests_per_s double precision,
    interactive_max integer NOT NULL,
    settlement_max integer NOT NULL,
    requests_per_s_max double precision NOT NULL,
    unreachable_since timestamp with time zone,
    CONSTRAINT share_interactive_slots_check CHECK ((interactive_slots >= 0)),
    CONSTRAINT share_requests_per_s_check CHECK ((requests_per_s >= (0)::double precision)),
    CONSTRAINT share_settlement_slots_check CHECK ((settlement_slots >= 0))
);

ALTER TABLE ONLY predictu_dispatch.attempt_record ATTACH PARTITION predictu_dispatch.attempt_default DEFAULT;

ALTER TABLE predictu_dispatch.attempt_record
    ADD CONSTRAINT attempt_repeats_an_earlier_answer CHECK ((((response_body_sha256 IS NULL) = (response_body_repeats IS NULL)) AND COALESCE((response_body_repeats < attempt), true))) NOT VALID;

ALTER TABLE ONLY predictu_dispatch.audit_checkpoint
    ADD CONSTRAINT audit_checkpoint_pkey PRIMARY KEY (operator_id, size);

ALTER TABLE ONLY predictu_dispatch.audit_cosignature
    ADD CONSTRAINT audit_cosignature_pkey PRIMARY KEY (operator_id, size, witness);

ALTER TABLE ONLY predictu_dispatch.audit_head
    ADD CONSTRAINT audit_head_pkey PRIMARY KEY (operator_id);

ALTER TABLE ONLY predictu_dispatch.audit_log
    ADD CONSTRAINT audit_log_pkey PRIMARY KEY (operator_id);

ALTER TABLE ONLY predictu_dispatch.audit_removal_draft
    ADD CONSTRAINT audit_removal_draft_pkey PRIMARY KEY (operator_id, part, piece);

ALTER TABLE ONLY predictu_dispatch.audit_removal
    ADD CONSTRAINT audit_removal_pkey PRIMARY KEY (operator_id, removal_id);

ALTER TABLE ONLY predictu_dispatch.audit_tile
    ADD CONSTRAINT audit_tile_pkey PRIMARY KEY (operator_id, level, tile);

ALTER TABLE ONLY predictu_dispatch.audit_verification
    ADD CONSTRAINT audit_verification_pkey PRIMARY KEY (operator_id, verified_at);

ALTER TABLE ONLY predictu_dispatch.audit_witness
    ADD CONSTRAINT audit_witness_pkey PRIMARY KEY (operator_id, witness);

ALTER TABLE ONLY predictu_dispatch.bet
    ADD CONSTRAINT bet_operator_id_placement_request_id_key UNIQUE (operator_id, placement_request_id);

ALTER TABLE ONLY predictu_dispatch.bet
    ADD CONSTRAINT bet_pkey PRIMARY KEY (operator_id, bet_id);

ALTER TABLE ONLY predictu_dispatch.bet_tombstone
    ADD CONSTRAINT bet_tombstone_pkey PRIMARY KEY (operator_id, bet_id);

ALTER TABLE ONLY predictu_dispatch.callback
    ADD CONSTRAINT callback_pkey PRIMARY KEY (operator_id, request_id);

ALTER TABLE ONLY predictu_dispatch.currency
    ADD CONSTRAINT currency_pkey PRIMARY KEY (currency);

ALTER TABLE predictu_dispatch.intervention
    ADD CONSTRAINT intervention_action_known CHECK ((action = ANY (ARRAY['pause'::text, 'resume'::text, 'retire'::text, 'retry'::text, 'cancel'::text, 'abandon'::text, 'resolve'::text, 'explain'::text, 'accept'::text]))) NOT VALID;

ALTER TABLE predictu_dispatch.intervention
    ADD CONSTRAINT intervention_names_its_callback CHECK (((action = ANY (ARRAY['explain'::text, 'accept'::text])) OR ((request_id IS NULL) = (action = ANY (ARRAY['pause'::text, 'resume'::text, 'retire'::text]))))) NOT VALID;

ALTER TABLE predictu_dispatch.intervention
    ADD CONSTRAINT intervention_names_its_difference CHECK (((action <> ALL (ARRAY['explain'::text, 'accept'::text])) OR COALESCE((before ? 'item_id'::text), false))) NOT VALID;

ALTER TABLE ONLY predictu_dispatch.intervention
    ADD CONSTRAINT intervention_pkey PRIMARY KEY (operator_id, intervention_id);

ALTER TABLE ONLY predictu_dispatch.lock
    ADD CONSTRAINT lock_pkey PRIMARY KEY (name);

ALTER TABLE ONLY predictu_dispatch.maintenance_chore
    ADD CONSTRAINT maintenance_chore_pkey PRIMARY KEY (chore);

ALTER TABLE ONLY predictu_dispatch.operator
    ADD CONSTRAINT operator_pkey PRIMARY KEY (operator_id);

ALTER TABLE ONLY predictu_dispatch.producer_scope
    ADD CONSTRAINT producer_scope_pkey PRIMARY KEY (operator_id, role_name);

ALTER TABLE ONLY predictu_dispatch.reconciliation_item
    ADD CONSTRAINT reconciliation_item_pkey PRIMARY KEY (operator_id, run_id, item_id);

ALTER TABLE ONLY predictu_dispatch.reconciliation_line
    ADD CONSTRAINT reconciliation_line_pkey PRIMARY KEY (operator_id, run_id, source, line);

ALTER TABLE ONLY predictu_dispatch.reconciliation_run
    ADD CONSTRAINT reconciliation_run_pkey PRIMARY KEY (operator_id, run_id);

ALTER TABLE ONLY predictu_dispatch.reconciliation_total
    ADD CONSTRAINT reconciliation_total_pkey PRIMARY KEY (operator_id, run_id, class, currency, day);

ALTER TABLE ONLY predictu_dispatch.reconciliation_unreadable
    ADD CONSTRAINT reconciliation_unreadable_pkey PRIMARY KEY (operator_id, run_id, source, line);

ALTER TABLE ONLY predictu_dispatch.request_tombstone
    ADD CONSTRAINT request_tombstone_pkey PRIMARY KEY (operator_id, request_id);

ALTER TABLE ONLY predictu_dispatch.share
    ADD CONSTRAINT share_pkey PRIMARY KEY (operator_id, instance);

ALTER TABLE ONLY predictu_dispatch.signing_key
    ADD CONSTRAINT signing_key_pkey PRIMARY KEY (operator_id, kid);

CREATE UNIQUE INDEX attempt_decided ON ONLY predictu_dispatch.attempt_record USING btree (operator_id, request_id, attempt, started_at, (
CASE
    WHEN (verdict = 'late'::text) THEN report_id
    ELSE NULL::uuid
END)) NULLS NOT DISTINCT;

CREATE UNIQUE INDEX attempt_default_operator_id_request_id_attempt_started_at_c_idx ON predictu_dispatch.attempt_default USING btree (operator_id, request_id, attempt, started_at, (
CASE
    WHEN (verdict = 'late'::text) THEN report_id
    ELSE NULL::uuid
END)) NULLS NOT DISTINCT;

CREATE INDEX attempt_written ON ONLY predictu_dispatch.attempt_record USING brin (written_in) WITH (pages_per_range='32', autosummarize='on');

CREATE INDEX attempt_default_written_in_idx ON predictu_dispatch.attempt_default USING brin (written_in) WITH (pages_per_range='32', autosummarize='on');

CREATE UNIQUE INDEX audit_position_single ON predictu_dispatch.audit_position USING btree ((true));

CREATE INDEX audit_tile_started ON predictu_dispatch.audit_tile USING gist (int8range((hashtext(operator_id))::bigint, (hashtext(operator_id))::bigint, '[]'::text), tstzrange(started_from, started_until, '[]'::text)) WHERE (level = 0);

CREATE INDEX bet_of_player ON predictu_dispatch.bet USING btree (operator_id, player_id, created_at);

CREATE INDEX bet_of_stake ON predictu_dispatch.bet USING btree (operator_id, currency, amount, created_at);

CREATE INDEX bet_placed ON predictu_dispatch.bet USING btree (operator_id, created_at DESC NULLS LAST);

CREATE INDEX callback_awaited ON predictu_dispatch.callback USING btree (operator_id, method, due_at) WHERE ((state = 'ready'::text) AND (method = ANY (ARRAY['BALANCE'::text, 'BET_MAKE'::text])));

CREATE INDEX callback_due ON predictu_dispatch.callback USING btree (operator_id, lane, due_at, COALESCE(expires_at, 'infinity'::timestamp with time zone)) WHERE (state = 'ready'::text);

CREATE INDEX callback_expiring ON predictu_dispatch.callback USING btree (operator_id, expires_at) WHERE ((state = 'ready'::text) AND (expires_at IS NOT NULL) AND (bet_id IS NULL));

CREATE INDEX callback_finished ON predictu_dispatch.callback USING btree (operator_id, finished_at, request_id) WHERE ((bet_id IS NOT NULL) AND (finished_at IS NOT NULL));

CREATE INDEX callback_in_review ON predictu_dispatch.callback USING btree (operator_id, review_since) WHERE (review_since IS NOT NULL);

CREATE INDEX callback_leased ON predictu_dispatch.callback USING btree (lease_until) WHERE (state = 'in_flight'::text);

CREATE UNIQUE INDEX callback_of_bet ON predictu_dispatch.callback USING btree (operator_id, bet_id, (
CASE
    WHEN (state = 'cancelled'::text) THEN NULL::text
    WHEN (method = 'BET_MAKE'::text) THEN 'placement'::text
    ELSE 'terminal'::text
END)) WHERE (bet_id IS NOT NULL);

CREATE INDEX callback_of_bet_expiring ON predictu_dispatch.callback USING btree (operator_id, expires_at) WHERE ((state = 'ready'::text) AND (expires_at IS NOT NULL) AND (bet_id IS NOT NULL));

CREATE INDEX callback_of_payout ON predictu_dispatch.callback USING btree (operator_id, predictu_dispatch.payout_of(params), created_at) WHERE ((state = 'delivered'::text) AND (method = ANY (ARRAY['BET_WIN'::text, 'BET_SELL'::text])));

CREATE INDEX callback_of_transaction ON predictu_dispatch.callback USING btree (operator_id, operator_transaction_id, created_at) WHERE (operator_transaction_id IS NOT NULL);

CREATE INDEX callback_unknown ON predictu_dispatch.callback USING btree (operator_id, finished_at, request_id) WHERE ((effect = 'unknown'::text) AND (bet_id IS NOT NULL) AND (finished_at IS NOT NULL));

CREATE INDEX callback_waiting ON predictu_dispatch.callback USING btree (operator_id, lane) WHERE (state = 'waiting'::text);

CREATE INDEX intervention_by_time ON predictu_dispatch.intervention USING btree (done_at);

CREATE INDEX intervention_of_callback ON predictu_dispatch.intervention USING btree (operator_id, request_id, done_at) WHERE (request_id IS NOT NULL);

CREATE INDEX intervention_of_difference ON predictu_dispatch.intervention USING btree (operator_id, ((before ->> 'item_id'::text)), done_at) WHERE (action = ANY (ARRAY['explain'::text, 'accept'::text]));

CREATE INDEX intervention_written ON predictu_dispatch.intervention USING btree (written_in);

CREATE INDEX legal_hold_standing ON predictu_dispatch.legal_hold USING btree (operator_id, bet_id) WHERE (lifted_at IS NULL);

CREATE INDEX producer_scope_of_role ON predictu_dispatch.producer_scope USING btree (role_name, operator_id);

CREATE INDEX reconciliation_item_by_id ON predictu_dispatch.reconciliation_item USING btree (operator_id, item_id);

CREATE INDEX reconciliation_item_of_key ON predictu_dispatch.reconciliation_item USING btree (operator_id, key);

CREATE INDEX reconciliation_item_open ON predictu_dispatch.reconciliation_item USING btree (operator_id, request_id) WHERE is_open;

CREATE INDEX reconciliation_run_newest ON predictu_dispatch.reconciliation_run USING btree (operator_id, last_day, finished_at);

ALTER INDEX predictu_dispatch.attempt_decided ATTACH PARTITION predictu_dispatch.attempt_default_operator_id_request_id_attempt_started_at_c_idx;

ALTER INDEX predictu_dispatch.attempt_written ATTACH PARTITION predictu_dispatch.attempt_default_written_in_idx;

CREATE TRIGGER attempt_append_only BEFORE DELETE OR UPDATE ON predictu_dispatch.attempt_record FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.refuse_audit_change();

ALTER TABLE predictu_dispatch.attempt_record ENABLE ALWAYS TRIGGER attempt_append_only;

CREATE TRIGGER attempt_not_truncated BEFORE TRUNCATE ON predictu_dispatch.attempt_default FOR EACH STATEMENT EXECUTE FUNCTION predictu_dispatch.refuse_audit_change();

ALTER TABLE predictu_dispatch.attempt_default ENABLE ALWAYS TRIGGER attempt_not_truncated;

CREATE TRIGGER attempt_not_truncated BEFORE TRUNCATE ON predictu_dispatch.attempt_record FOR EACH STATEMENT EXECUTE FUNCTION predictu_dispatch.refuse_audit_change();

ALTER TABLE predictu_dispatch.attempt_record ENABLE ALWAYS TRIGGER attempt_not_truncated;

CREATE TRIGGER audit_checkpoint_not_truncated BEFORE TRUNCATE ON predictu_dispatch.audit_checkpoint FOR EACH STATEMENT EXECUTE FUNCTION predictu_dispatch.refuse_log_change();

ALTER TABLE predictu_dispatch.audit_checkpoint ENABLE ALWAYS TRIGGER audit_checkpoint_not_truncated;

CREATE TRIGGER audit_checkpoint_only_grows BEFORE DELETE OR UPDATE ON predictu_dispatch.audit_checkpoint FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.refuse_log_change();

ALTER TABLE predictu_dispatch.audit_checkpoint ENABLE ALWAYS TRIGGER audit_checkpoint_only_grows;

CREATE TRIGGER audit_cosignature_not_truncated BEFORE TRUNCATE ON predictu_dispatch.audit_cosignature FOR EACH STATEMENT EXECUTE FUNCTION predictu_dispatch.refuse_log_change();

ALTER TABLE predictu_dispatch.audit_cosignature ENABLE ALWAYS TRIGGER audit_cosignature_not_truncated;

CREATE TRIGGER audit_cosignature_only_grows BEFORE DELETE OR UPDATE ON predictu_dispatch.audit_cosignature FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.refuse_log_change();

ALTER TABLE predictu_dispatch.audit_cosignature ENABLE ALWAYS TRIGGER audit_cosignature_only_grows;

CREATE TRIGGER audit_head_not_truncated BEFORE TRUNCATE ON predictu_dispatch.audit_head FOR EACH STATEMENT EXECUTE FUNCTION predictu_dispatch.refuse_log_change();

ALTER TABLE predictu_dispatch.audit_head ENABLE ALWAYS TRIGGER audit_head_not_truncated;

CREATE TRIGGER audit_head_only_grows BEFORE DELETE OR UPDATE ON predictu_dispatch.audit_head FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.refuse_log_change();

ALTER TABLE predictu_dispatch.audit_head ENABLE ALWAYS TRIGGER audit_head_only_grows;

CREATE TRIGGER audit_log_not_truncated BEFORE TRUNCATE ON predictu_dispatch.audit_log FOR EACH STATEMENT EXECUTE FUNCTION predictu_dispatch.refuse_log_change();

ALTER TABLE predictu_dispatch.audit_log ENABLE ALWAYS TRIGGER audit_log_not_truncated;

CREATE TRIGGER audit_log_only_grows BEFORE DELETE OR UPDATE ON predictu_dispatch.audit_log FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.refuse_log_change();

ALTER TABLE predictu_dispatch.audit_log ENABLE ALWAYS TRIGGER audit_log_only_grows;

CREATE TRIGGER audit_removal_not_truncated BEFORE TRUNCATE ON predictu_dispatch.audit_removal FOR EACH STATEMENT EXECUTE FUNCTION predictu_dispatch.refuse_log_change();

ALTER TABLE predictu_dispatch.audit_removal ENABLE ALWAYS TRIGGER audit_removal_not_truncated;

CREATE TRIGGER audit_removal_only_grows BEFORE DELETE OR UPDATE ON predictu_dispatch.audit_removal FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.refuse_log_change();

ALTER TABLE predictu_dispatch.audit_removal ENABLE ALWAYS TRIGGER audit_removal_only_grows;

CREATE TRIGGER audit_tile_not_truncated BEFORE TRUNCATE ON predictu_dispatch.audit_tile FOR EACH STATEMENT EXECUTE FUNCTION predictu_dispatch.refuse_log_change();

ALTER TABLE predictu_dispatch.audit_tile ENABLE ALWAYS TRIGGER audit_tile_not_truncated;

CREATE TRIGGER audit_tile_only_grows BEFORE DELETE OR UPDATE ON predictu_dispatch.audit_tile FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.refuse_log_change();

ALTER TABLE predictu_dispatch.audit_tile ENABLE ALWAYS TRIGGER audit_tile_only_grows;

CREATE TRIGGER audit_verification_not_truncated BEFORE TRUNCATE ON predictu_dispatch.audit_verification FOR EACH STATEMENT EXECUTE FUNCTION predictu_dispatch.refuse_log_change();

ALTER TABLE predictu_dispatch.audit_verification ENABLE ALWAYS TRIGGER audit_verification_not_truncated;

CREATE TRIGGER audit_verification_only_grows BEFORE DELETE OR UPDATE ON predictu_dispatch.audit_verification FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.refuse_log_change();

ALTER TABLE predictu_dispatch.audit_verification ENABLE ALWAYS TRIGGER audit_verification_only_grows;

CREATE TRIGGER bet_deleted_when_final BEFORE DELETE ON predictu_dispatch.bet FOR EACH ROW WHEN ((old.state = ANY (ARRAY['placing'::text, 'open'::text]))) EXECUTE FUNCTION predictu_dispatch.refuse_delete();

ALTER TABLE predictu_dispatch.bet ENABLE ALWAYS TRIGGER bet_deleted_when_final;

CREATE TRIGGER bet_differs_from_tombstones AFTER INSERT ON predictu_dispatch.bet FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.guard_tombstone();

CREATE TRIGGER bet_matches_callbacks AFTER INSERT OR UPDATE OF state ON predictu_dispatch.bet FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.guard_bet_state();

CREATE TRIGGER bet_move BEFORE UPDATE ON predictu_dispatch.bet FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.guard_bet_move();

CREATE TRIGGER bet_tombstone_append_only BEFORE DELETE OR UPDATE ON predictu_dispatch.bet_tombstone FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.refuse_tombstone_change();

ALTER TABLE predictu_dispatch.bet_tombstone ENABLE ALWAYS TRIGGER bet_tombstone_append_only;

CREATE TRIGGER bet_tombstone_not_truncated BEFORE TRUNCATE ON predictu_dispatch.bet_tombstone FOR EACH STATEMENT EXECUTE FUNCTION predictu_dispatch.refuse_tombstone_change();

ALTER TABLE predictu_dispatch.bet_tombstone ENABLE ALWAYS TRIGGER bet_tombstone_not_truncated;

CREATE TRIGGER callback_deleted_when_final BEFORE DELETE ON predictu_dispatch.callback FOR EACH ROW WHEN (((old.finished_at IS NULL) OR (old.review_since IS NOT NULL))) EXECUTE FUNCTION predictu_dispatch.refuse_delete();

ALTER TABLE predictu_dispatch.callback ENABLE ALWAYS TRIGGER callback_deleted_when_final;

CREATE TRIGGER callback_guarded BEFORE INSERT OR UPDATE ON predictu_dispatch.callback FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.guard_callback();

ALTER TABLE predictu_dispatch.callback ENABLE ALWAYS TRIGGER callback_guarded;

CREATE CONSTRAINT TRIGGER callback_notify_due AFTER INSERT ON predictu_dispatch.callback DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (((new.state = 'ready'::text) AND (new.lane = 'interactive'::text))) EXECUTE FUNCTION predictu_dispatch.notify_due();

CREATE TRIGGER callback_notify_outcome AFTER UPDATE OF state ON predictu_dispatch.callback FOR EACH ROW WHEN (((new.lane = 'interactive'::text) AND (new.finished_at IS NOT NULL) AND (old.finished_at IS NULL))) EXECUTE FUNCTION predictu_dispatch.notify_outcome();

CREATE TRIGGER callback_params_guarded BEFORE UPDATE OF params ON predictu_dispatch.callback FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.guard_params();

ALTER TABLE predictu_dispatch.callback ENABLE ALWAYS TRIGGER callback_params_guarded;

CREATE TRIGGER callback_ready_when_inserted AFTER INSERT ON predictu_dispatch.callback FOR EACH ROW WHEN (((new.bet_id IS NOT NULL) AND (new.state <> 'waiting'::text))) EXECUTE FUNCTION predictu_dispatch.guard_ready();

CREATE TRIGGER callback_ready_when_released AFTER UPDATE OF state ON predictu_dispatch.callback FOR EACH ROW WHEN (((new.bet_id IS NOT NULL) AND (new.state = 'ready'::text) AND (old.state <> ALL (ARRAY['ready'::text, 'in_flight'::text])))) EXECUTE FUNCTION predictu_dispatch.guard_ready();

CREATE TRIGGER currency_append_only BEFORE DELETE OR UPDATE ON predictu_dispatch.currency FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.refuse_currency_change();

ALTER TABLE predictu_dispatch.currency ENABLE ALWAYS TRIGGER currency_append_only;

CREATE TRIGGER currency_not_truncated BEFORE TRUNCATE ON predictu_dispatch.currency FOR EACH STATEMENT EXECUTE FUNCTION predictu_dispatch.refuse_currency_change();

ALTER TABLE predictu_dispatch.currency ENABLE ALWAYS TRIGGER currency_not_truncated;

CREATE TRIGGER intervention_append_only BEFORE DELETE OR UPDATE ON predictu_dispatch.intervention FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.refuse_intervention_change();

ALTER TABLE predictu_dispatch.intervention ENABLE ALWAYS TRIGGER intervention_append_only;

CREATE TRIGGER intervention_not_truncated BEFORE TRUNCATE ON predictu_dispatch.intervention FOR EACH STATEMENT EXECUTE FUNCTION predictu_dispatch.refuse_intervention_change();

ALTER TABLE predictu_dispatch.intervention ENABLE ALWAYS TRIGGER intervention_not_truncated;

CREATE TRIGGER legal_hold_guarded BEFORE INSERT OR DELETE OR UPDATE ON predictu_dispatch.legal_hold FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.guard_legal_hold();

ALTER TABLE predictu_dispatch.legal_hold ENABLE ALWAYS TRIGGER legal_hold_guarded;

CREATE TRIGGER legal_hold_not_truncated BEFORE TRUNCATE ON predictu_dispatch.legal_hold FOR EACH STATEMENT EXECUTE FUNCTION predictu_dispatch.guard_legal_hold();

ALTER TABLE predictu_dispatch.legal_hold ENABLE ALWAYS TRIGGER legal_hold_not_truncated;

CREATE TRIGGER operator_deleted_unless_retired BEFORE DELETE ON predictu_dispatch.operator FOR EACH ROW WHEN ((old.retired_at IS NOT NULL)) EXECUTE FUNCTION predictu_dispatch.guard_retired();

CREATE TRIGGER operator_notify_change AFTER UPDATE ON predictu_dispatch.operator FOR EACH ROW WHEN ((((((old.circuit IS DISTINCT FROM new.circuit) OR (old.paused_at IS DISTINCT FROM new.paused_at)) OR (old.interactive_backoff_until IS DISTINCT FROM new.interactive_backoff_until)) OR (old.settlement_backoff_until IS DISTINCT FROM new.settlement_backoff_until)) OR (old.enabled IS DISTINCT FROM new.enabled))) EXECUTE FUNCTION predictu_dispatch.notify_operator();

CREATE TRIGGER operator_stays_retired BEFORE UPDATE ON predictu_dispatch.operator FOR EACH ROW WHEN (((old.retired_at IS NOT NULL) AND (((((((old.operator_id IS DISTINCT FROM new.operator_id) OR (old.enabled IS DISTINCT FROM new.enabled)) OR (old.config_fingerprint IS DISTINCT FROM new.config_fingerprint)) OR (old.paused_at IS DISTINCT FROM new.paused_at)) OR (old.retired_at IS DISTINCT FROM new.retired_at)) OR (old.retired_by IS DISTINCT FROM new.retired_by)) OR (old.retire_reason IS DISTINCT FROM new.retire_reason)))) EXECUTE FUNCTION predictu_dispatch.guard_retired();

CREATE TRIGGER producer_scope_names_a_role BEFORE INSERT OR UPDATE ON predictu_dispatch.producer_scope FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.guard_producer_scope();

CREATE TRIGGER request_tombstone_append_only BEFORE DELETE OR UPDATE ON predictu_dispatch.request_tombstone FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.refuse_tombstone_change();

ALTER TABLE predictu_dispatch.request_tombstone ENABLE ALWAYS TRIGGER request_tombstone_append_only;

CREATE TRIGGER request_tombstone_not_truncated BEFORE TRUNCATE ON predictu_dispatch.request_tombstone FOR EACH STATEMENT EXECUTE FUNCTION predictu_dispatch.refuse_tombstone_change();

ALTER TABLE predictu_dispatch.request_tombstone ENABLE ALWAYS TRIGGER request_tombstone_not_truncated;

CREATE TRIGGER signing_key_append_only BEFORE DELETE OR UPDATE ON predictu_dispatch.signing_key FOR EACH ROW EXECUTE FUNCTION predictu_dispatch.guard_signing_key();

ALTER TABLE predictu_dispatch.signing_key ENABLE ALWAYS TRIGGER signing_key_append_only;

CREATE TRIGGER signing_key_not_truncated BEFORE TRUNCATE ON predictu_dispatch.signing_key FOR EACH STATEMENT EXECUTE FUNCTION predictu_dispatch.guard_signing_key();

ALTER TABLE predictu_dispatch.signing_key ENABLE ALWAYS TRIGGER signing_key_not_truncated;

ALTER TABLE ONLY predictu_dispatch.callback
    ADD CONSTRAINT callback_operator_id_bet_id_fkey FOREIGN KEY (operator_id, bet_id) REFERENCES predictu_dispatch.bet(operator_id, bet_id);

ALTER TABLE ONLY predictu_dispatch.reconciliation_item
    ADD CONSTRAINT reconciliation_item_operator_id_run_id_fkey FOREIGN KEY (operator_id, run_id) REFERENCES predictu_dispatch.reconciliation_run(operator_id, run_id);

ALTER TABLE ONLY predictu_dispatch.reconciliation_total
    ADD CONSTRAINT reconciliation_total_operator_id_run_id_fkey FOREIGN KEY (operator_id, run_id) REFERENCES predictu_dispatch.reconciliation_run(operator_id, run_id);

ALTER TABLE ONLY predictu_dispatch.reconciliation_unreadable
    ADD CONSTRAINT reconciliation_unreadable_operator_id_run_id_fkey FOREIGN KEY (operator_id, run_id) REFERENCES predictu_dispatch.reconciliation_run(operator_id, run_id);

GRANT USAGE ON SCHEMA predictu_dispatch TO predictu_producer;
GRANT USAGE ON SCHEMA predictu_dispatch TO predictu_dispatcher;
GRANT USAGE ON SCHEMA predictu_dispatch TO predictu_support;
GRANT USAGE ON SCHEMA predictu_dispatch TO predictu_retention;
GRANT USAGE ON SCHEMA predictu_dispatch TO predictu_operations;
GRANT USAGE ON SCHEMA predictu_dispatch TO predictu_importer;
GRANT USAGE ON SCHEMA predictu_dispatch TO predictu_auditor;
GRANT USAGE ON SCHEMA predictu_dispatch TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.abandon_callback(operator_id text, request_id uuid, reason text, by text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.abandon_callback(operator_id text, request_id uuid, reason text, by text) TO predictu_operations;

REVOKE ALL ON FUNCTION predictu_dispatch.abandonment_of(operator_id text, request_id uuid, is_repeated boolean) FROM PUBLIC;

GRANT SELECT ON TABLE predictu_dispatch.reconciliation_item TO predictu_reconciler;
GRANT SELECT ON TABLE predictu_dispatch.reconciliation_item TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.reconciliation_item TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.reconciliation_item TO predictu_auditor;

REVOKE ALL ON FUNCTION predictu_dispatch.accept_difference(operator_id text, item_id uuid, reason text, by text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.accept_difference(operator_id text, item_id uuid, reason text, by text) TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.add_currency(currency text, minor_digits integer) FROM PUBLIC;

GRANT SELECT ON TABLE predictu_dispatch.bet TO predictu_dispatcher;
GRANT SELECT ON TABLE predictu_dispatch.bet TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.bet TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.bet TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.bet TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.add_rollback(bet predictu_dispatch.bet, bet_state text, callback_state text, cause text, note text) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.adopt_bet(operator_id text, bet_id text, player_id text, currency text, amount bigint, placement_request_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.adopt_bet(operator_id text, bet_id text, player_id text, currency text, amount bigint, placement_request_id uuid) TO predictu_importer;

REVOKE ALL ON FUNCTION predictu_dispatch.advance_bets(operator_ids text[], bet_ids text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.audit_append(expected bigint, sealed_until text, sealed_at timestamp with time zone, backlog_part text, backlog_source bigint, backlog_block bigint, head_operators text[], sizes bigint[], roots bytea[], checkpoints text[], tile_operators text[], levels integer[], tiles bigint[], hashes bytea[], report_ids bytea[], started_from timestamp with time zone[], started_until timestamp with time zone[]) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.audit_append(expected bigint, sealed_until text, sealed_at timestamp with time zone, backlog_part text, backlog_source bigint, backlog_block bigint, head_operators text[], sizes bigint[], roots bytea[], checkpoints text[], tile_operators text[], levels integer[], tiles bigint[], hashes bytea[], report_ids bytea[], started_from timestamp with time zone[], started_until timestamp with time zone[]) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.audit_backlog(blocks integer) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.audit_backlog(blocks integer) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.audit_begin(origin text, operator_ids text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.audit_begin(origin text, operator_ids text[]) TO predictu_dispatcher;

GRANT SELECT ON TABLE predictu_dispatch.attempt TO predictu_dispatcher;
GRANT SELECT ON TABLE predictu_dispatch.attempt TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.attempt TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.attempt TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.attempt TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.audit_entry(a predictu_dispatch.attempt) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.audit_heads() FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.audit_heads() TO predictu_dispatcher;

GRANT SELECT ON TABLE predictu_dispatch.intervention TO predictu_dispatcher;
GRANT SELECT ON TABLE predictu_dispatch.intervention TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.intervention TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.intervention TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.intervention TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.audit_intervention_entry(i predictu_dispatch.intervention) FROM PUBLIC;

GRANT SELECT ON TABLE predictu_dispatch.signing_key TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.signing_key TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.signing_key TO predictu_support;

REVOKE ALL ON FUNCTION predictu_dispatch.audit_key_entry(k predictu_dispatch.signing_key, event text) FROM PUBLIC;

GRANT SELECT ON TABLE predictu_dispatch.audit_removal TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.audit_removal TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.audit_removal TO predictu_support;

REVOKE ALL ON FUNCTION predictu_dispatch.audit_removal_entry(r predictu_dispatch.audit_removal) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.audit_rescan() FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.audit_rescan() TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.audit_restore() FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.audit_restore() TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.audit_sparse_entries() FROM PUBLIC;

GRANT SELECT ON TABLE predictu_dispatch.audit_log TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.audit_log TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.audit_log TO predictu_support;

REVOKE ALL ON FUNCTION predictu_dispatch.audit_start_entry(l predictu_dispatch.audit_log) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.audit_summarize() FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.audit_summarize() TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.audit_tile_growth(operator_ids text[], written bigint[], entry_ids uuid[], started timestamp with time zone[], leaves bytea[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.audit_unsealed(most integer, span bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.audit_unsealed(most integer, span bigint) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.backlog() FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.backlog() TO predictu_dispatcher;
GRANT ALL ON FUNCTION predictu_dispatch.backlog() TO predictu_support;
GRANT ALL ON FUNCTION predictu_dispatch.backlog() TO predictu_operations;

GRANT SELECT ON TABLE predictu_dispatch.reconciliation_run TO predictu_reconciler;
GRANT SELECT ON TABLE predictu_dispatch.reconciliation_run TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.reconciliation_run TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.reconciliation_run TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.reconciliation_run TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.begin_reconciliation(operator_id text, first_day date, last_day date, time_zone text, day_starts time without time zone, day_edges timestamp with time zone[], settle_s double precision, no_end_days integer, done_by text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.begin_reconciliation(operator_id text, first_day date, last_day date, time_zone text, day_starts time without time zone, day_edges timestamp with time zone[], settle_s double precision, no_end_days integer, done_by text) TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.body_money(request_body text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.body_money(request_body text) TO predictu_support;
GRANT ALL ON FUNCTION predictu_dispatch.body_money(request_body text) TO predictu_operations;
GRANT ALL ON FUNCTION predictu_dispatch.body_money(request_body text) TO predictu_auditor;
GRANT ALL ON FUNCTION predictu_dispatch.body_money(request_body text) TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.callback_groups() FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.callback_groups() TO predictu_dispatcher;
GRANT ALL ON FUNCTION predictu_dispatch.callback_groups() TO predictu_support;
GRANT ALL ON FUNCTION predictu_dispatch.callback_groups() TO predictu_operations;

GRANT SELECT ON TABLE predictu_dispatch.callback TO predictu_dispatcher;
GRANT SELECT ON TABLE predictu_dispatch.callback TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.callback TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.callback TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.callback TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.cancel_callback(operator_id text, request_id uuid, reason text, by text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.cancel_callback(operator_id text, request_id uuid, reason text, by text) TO predictu_operations;

REVOKE ALL ON FUNCTION predictu_dispatch.cancel_waiting(operator_id text, request_id uuid, reason text, needs_review boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.check_intervention(action text, reason text, done_by text) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.check_params(method text, params jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.check_producer_scope(operator_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.check_terminal(method text, params jsonb, bet predictu_dispatch.bet) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.claim(instance text, operator_ids text[], lanes text[], free_slots integer[], leases_s double precision[], rollback_leases_s double precision[], amount_formats text[], due_from timestamp with time zone[], set_aside uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.claim(instance text, operator_ids text[], lanes text[], free_slots integer[], leases_s double precision[], rollback_leases_s double precision[], amount_formats text[], due_from timestamp with time zone[], set_aside uuid[]) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.claim_apart(instance text, operator_ids text[], lanes text[], free_slots integer[], leases_s double precision[], rollback_leases_s double precision[], amount_formats text[], set_aside uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.claim_apart(instance text, operator_ids text[], lanes text[], free_slots integer[], leases_s double precision[], rollback_leases_s double precision[], amount_formats text[], set_aside uuid[]) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.claim_chore(chore text, every_s double precision, instance text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.claim_chore(chore text, every_s double precision, instance text) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.classify(run predictu_dispatch.reconciliation_run) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.commit_durably() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.correct_times(operator_ids text[], delays_s double precision[], interactive_backoffs_s double precision[], settlement_backoffs_s double precision[], ahead_s double precision) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.correct_times(operator_ids text[], delays_s double precision[], interactive_backoffs_s double precision[], settlement_backoffs_s double precision[], ahead_s double precision) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.create_kept_partition(part text) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.currency_digits(currency text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.currency_digits(currency text) TO predictu_producer;
GRANT ALL ON FUNCTION predictu_dispatch.currency_digits(currency text) TO predictu_dispatcher;
GRANT ALL ON FUNCTION predictu_dispatch.currency_digits(currency text) TO predictu_support;
GRANT ALL ON FUNCTION predictu_dispatch.currency_digits(currency text) TO predictu_operations;
GRANT ALL ON FUNCTION predictu_dispatch.currency_digits(currency text) TO predictu_auditor;
GRANT ALL ON FUNCTION predictu_dispatch.currency_digits(currency text) TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.deregister(instance text, session_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.deregister(instance text, session_id uuid) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.differ_in_one_letter(a text, b text) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.difference_class(is_readable boolean, is_in_window boolean, contradicts boolean, knowledge text, lines bigint, may_be_elsewhere boolean, is_currency_equal boolean, is_player_equal boolean, is_amount_equal boolean, is_debit_standing boolean, other_end text, is_without_end boolean, is_day_equal boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.difference_class(is_readable boolean, is_in_window boolean, contradicts boolean, knowledge text, lines bigint, may_be_elsewhere boolean, is_currency_equal boolean, is_player_equal boolean, is_amount_equal boolean, is_debit_standing boolean, other_end text, is_without_end boolean, is_day_equal boolean) TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.difference_kind(class text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.difference_kind(class text) TO predictu_support;
GRANT ALL ON FUNCTION predictu_dispatch.difference_kind(class text) TO predictu_operations;
GRANT ALL ON FUNCTION predictu_dispatch.difference_kind(class text) TO predictu_auditor;
GRANT ALL ON FUNCTION predictu_dispatch.difference_kind(class text) TO predictu_reconciler;

GRANT SELECT ON TABLE predictu_dispatch.operator TO predictu_dispatcher;
GRANT SELECT ON TABLE predictu_dispatch.operator TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.operator TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.operator TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.operator TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.enabled_operator(operator_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.enqueue_callback(operator_id text, method text, params jsonb, request_id uuid, expires_at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.enqueue_callback(operator_id text, method text, params jsonb, request_id uuid, expires_at timestamp with time zone) TO predictu_producer;

REVOKE ALL ON FUNCTION predictu_dispatch.expire(most integer) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.expire(most integer) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.expire_apart(most integer, set_aside uuid[]) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.expire_apart(most integer, set_aside uuid[]) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.expire_one(operator_id text, request_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.expired_audit(keep_months integer, only_part text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.expired_audit(keep_months integer, only_part text) TO predictu_retention;

REVOKE ALL ON FUNCTION predictu_dispatch.explain_difference(operator_id text, item_id uuid, reason text, by text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.explain_difference(operator_id text, item_id uuid, reason text, by text) TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.finish_reconciliation(operator_id text, run_id uuid, sources jsonb, lines_read bigint, lines_ignored bigint, lines_unreadable bigint, unreadable jsonb, given_from timestamp with time zone, given_until timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.finish_reconciliation(operator_id text, run_id uuid, sources jsonb, lines_read bigint, lines_ignored bigint, lines_unreadable bigint, unreadable jsonb, given_from timestamp with time zone, given_until timestamp with time zone) TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.fleet_figures(instance text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.fleet_figures(instance text) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.format_utc(at_time timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.get_bet(operator_id text, bet_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.get_callback(operator_id text, request_id uuid) FROM PUBLIC;

GRANT SELECT ON TABLE predictu_dispatch.request_tombstone TO predictu_dispatcher;
GRANT SELECT ON TABLE predictu_dispatch.request_tombstone TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.request_tombstone TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.request_tombstone TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.request_tombstone TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.get_request_tombstone(operator_id text, request_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.granted_share(fair double precision, most double precision, others double precision, had double precision, used double precision) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.guard_bet_move() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.guard_bet_state() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.guard_callback() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.guard_legal_hold() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.guard_params() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.guard_producer_scope() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.guard_ready() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.guard_retired() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.guard_signing_key() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.guard_tombstone() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.heartbeat(instance text, session_id uuid, host text, pid integer, version text, operator_ids text[], interactive_max integer[], settlement_max integer[], requests_per_s_max double precision[], interactive_used integer[], settlement_used integer[], requests_per_s_used double precision[], schema_version integer, clock_at_s double precision, clock_ahead_s double precision, silent_at timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.heartbeat(instance text, session_id uuid, host text, pid integer, version text, operator_ids text[], interactive_max integer[], settlement_max integer[], requests_per_s_max double precision[], interactive_used integer[], settlement_used integer[], requests_per_s_used double precision[], schema_version integer, clock_at_s double precision, clock_ahead_s double precision, silent_at timestamp with time zone) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.heartbeat_timeout() FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.heartbeat_timeout() TO predictu_dispatcher;
GRANT ALL ON FUNCTION predictu_dispatch.heartbeat_timeout() TO predictu_support;
GRANT ALL ON FUNCTION predictu_dispatch.heartbeat_timeout() TO predictu_operations;

REVOKE ALL ON FUNCTION predictu_dispatch.is_debit_confirmed(operator_id text, placement_request_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.is_misspelling(given text, ours text) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.lane_of(method text) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.leases_apart(from_at timestamp with time zone, until_at timestamp with time zone, most integer) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.leases_apart(from_at timestamp with time zone, until_at timestamp with time zone, most integer) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.lock_callback(action text, operator_id text, request_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.lock_difference(action text, operator_id text, item_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.lock_operator(operator_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.lock_retention(blocks integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.minor_digits(currency text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.minor_digits(currency text) TO predictu_dispatcher;
GRANT ALL ON FUNCTION predictu_dispatch.minor_digits(currency text) TO predictu_support;
GRANT ALL ON FUNCTION predictu_dispatch.minor_digits(currency text) TO predictu_operations;
GRANT ALL ON FUNCTION predictu_dispatch.minor_digits(currency text) TO predictu_auditor;

REVOKE ALL ON FUNCTION predictu_dispatch.missing_keys(fault text, hint text, required text[], given jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.missing_rows(part text, first_tid tid, end_tid tid, cutoff timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.misspelt_key(ours text[], given jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.needed_rows() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.new_request_id() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.not_a_text(key text, value jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.notify(channel text, payload text) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.notify_due() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.notify_operator() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.notify_outcome() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.open_differences(operator_id text, run_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.outcome(operator_id text, request_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.outcome(operator_id text, request_id uuid) TO predictu_producer;

REVOKE ALL ON FUNCTION predictu_dispatch.outcome_of_bet(operator_id text, bet_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.outcome_of_bet(operator_id text, bet_id text) TO predictu_producer;

REVOKE ALL ON FUNCTION predictu_dispatch.params_digest(params jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.params_money(params jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.params_money(params jsonb) TO predictu_support;
GRANT ALL ON FUNCTION predictu_dispatch.params_money(params jsonb) TO predictu_operations;
GRANT ALL ON FUNCTION predictu_dispatch.params_money(params jsonb) TO predictu_auditor;
GRANT ALL ON FUNCTION predictu_dispatch.params_money(params jsonb) TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.pause_operator(operator_id text, reason text, by text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.pause_operator(operator_id text, reason text, by text) TO predictu_operations;

REVOKE ALL ON FUNCTION predictu_dispatch.payout_of(params jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.payout_of(params jsonb) TO predictu_dispatcher;
GRANT ALL ON FUNCTION predictu_dispatch.payout_of(params jsonb) TO predictu_support;
GRANT ALL ON FUNCTION predictu_dispatch.payout_of(params jsonb) TO predictu_operations;
GRANT ALL ON FUNCTION predictu_dispatch.payout_of(params jsonb) TO predictu_auditor;
GRANT ALL ON FUNCTION predictu_dispatch.payout_of(params jsonb) TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.ping_operator(operator_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.ping_operator(operator_id text) TO predictu_operations;

REVOKE ALL ON FUNCTION predictu_dispatch.ping_state(operator_id text, request_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.ping_state(operator_id text, request_id uuid) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.prepare_partitions(months_ahead integer) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.prepare_partitions(months_ahead integer) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.purge_audit(keep_months integer, part text, blocks integer) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.purge_audit(keep_months integer, part text, blocks integer) TO predictu_retention;

REVOKE ALL ON FUNCTION predictu_dispatch.purge_finished(keep_months integer, blocks integer) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.purge_finished(keep_months integer, blocks integer) TO predictu_retention;

REVOKE ALL ON FUNCTION predictu_dispatch.purge_runs(keep_months integer, runs integer) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.purge_runs(keep_months integer, runs integer) TO predictu_retention;

REVOKE ALL ON FUNCTION predictu_dispatch.raise_outage(sqlstate text, message text) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.rate_share_of(most double precision, daemons bigint, place bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.readable_digest(params jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.readable_params(params jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.readable_params(params jsonb) TO predictu_dispatcher;
GRANT ALL ON FUNCTION predictu_dispatch.readable_params(params jsonb) TO predictu_support;
GRANT ALL ON FUNCTION predictu_dispatch.readable_params(params jsonb) TO predictu_operations;
GRANT ALL ON FUNCTION predictu_dispatch.readable_params(params jsonb) TO predictu_auditor;
GRANT ALL ON FUNCTION predictu_dispatch.readable_params(params jsonb) TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.reconciliation_figures(instance text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.reconciliation_figures(instance text) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.reconciliation_targets(operator_id text, run_id uuid, period_from timestamp with time zone, period_until timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.record_intervention(action text, before jsonb, after jsonb, reason text, done_by text, done_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.record_verification(operator_id text, size bigint, faults bigint, first_faults jsonb) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.record_verification(operator_id text, size bigint, faults bigint, first_faults jsonb) TO predictu_auditor;

REVOKE ALL ON FUNCTION predictu_dispatch.refuse_audit_change() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.refuse_currency_change() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.refuse_delete() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.refuse_for_bet(operator_id text, bet_id text, what text, fault text, hint text) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.refuse_intervention(action text, locked predictu_dispatch.callback, fault text, hint text) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.refuse_intervention_change() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.refuse_locked(what text) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.refuse_log_change() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.refuse_params(method text, fault text, hint text) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.refuse_retired(operator predictu_dispatch.operator) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.refuse_tombstone_change() FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.refuse_unsealed(part text, first_tid tid, end_tid tid, cutoff timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.register_signing_keys(operator_ids text[], key_ids text[], algorithms text[], public_jwks text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.register_signing_keys(operator_ids text[], key_ids text[], algorithms text[], public_jwks text[]) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.repeated_lines(operator_id text, run_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.repeated_lines(operator_id text, run_id uuid) TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.report_reach(instance text, lost text[], operator_ids text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.report_reach(instance text, lost text[], operator_ids text[]) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.report_signing_keys(instance text, session_id uuid, operator_ids text[], key_ids text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.report_signing_keys(instance text, session_id uuid, operator_ids text[], key_ids text[]) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.request_exists(operator_id text, request_id uuid, method text, params jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.required_params(method text) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.resolve_callback(operator_id text, request_id uuid, reason text, by text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.resolve_callback(operator_id text, request_id uuid, reason text, by text) TO predictu_operations;

REVOKE ALL ON FUNCTION predictu_dispatch.resume_operator(operator_id text, reason text, by text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.resume_operator(operator_id text, reason text, by text) TO predictu_operations;

REVOKE ALL ON FUNCTION predictu_dispatch.retention_cutoff(keep_months integer) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.retention_cutoff(keep_months integer) TO predictu_retention;

REVOKE ALL ON FUNCTION predictu_dispatch.retire_operator(operator_id text, reason text, by text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.retire_operator(operator_id text, reason text, by text) TO predictu_operations;

REVOKE ALL ON FUNCTION predictu_dispatch.retire_signing_key(operator_id text, key_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.retire_signing_key(operator_id text, key_id text) TO predictu_operations;

REVOKE ALL ON FUNCTION predictu_dispatch.retry_callback(operator_id text, request_id uuid, by text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.retry_callback(operator_id text, request_id uuid, by text) TO predictu_operations;

REVOKE ALL ON FUNCTION predictu_dispatch.rollback_bet(operator_id text, bet_id text, reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.rollback_bet(operator_id text, bet_id text, reason text) TO predictu_producer;

REVOKE ALL ON FUNCTION predictu_dispatch.sent_amount(operator_id text, request_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.sent_amount(operator_id text, request_id uuid) TO predictu_support;
GRANT ALL ON FUNCTION predictu_dispatch.sent_amount(operator_id text, request_id uuid) TO predictu_operations;
GRANT ALL ON FUNCTION predictu_dispatch.sent_amount(operator_id text, request_id uuid) TO predictu_auditor;
GRANT ALL ON FUNCTION predictu_dispatch.sent_amount(operator_id text, request_id uuid) TO predictu_reconciler;

REVOKE ALL ON FUNCTION predictu_dispatch.serving_daemons(daemons bigint, requests_per_s double precision) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.settle(reports predictu_dispatch.attempt_report[]) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.settle(reports predictu_dispatch.attempt_report[]) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.settle(reports predictu_dispatch.report[]) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.settle(reports predictu_dispatch.report[]) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.settle_one(operator_id text, request_id uuid, attempt integer, bet_id text, state text, state_reason text, effect text, due_in_s double precision, operator_status text, operator_transaction_id text, balance bigint, anomaly text, reaped boolean, method text, evidence text, verdict text, reason text, instance text, started_at timestamp with time zone, finished_at timestamp with time zone, url text, key_id text, request_headers text, request_body text, response_status integer, response_headers text, response_body bytea, response_truncated boolean, connect_ms double precision, first_byte_ms double precision, total_ms double precision, error text, report_id uuid, peer text, peer_certificate_sha256 bytea, token_signature bytea, response_body_sha256 bytea, response_body_repeats integer) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.settle_one(operator_id text, request_id uuid, attempt integer, bet_id text, state text, state_reason text, effect text, due_in_s double precision, operator_status text, operator_transaction_id text, balance bigint, anomaly text, reaped boolean, method text, evidence text, verdict text, reason text, instance text, started_at timestamp with time zone, finished_at timestamp with time zone, url text, key_id text, request_headers text, request_body text, response_status integer, response_headers text, response_body bytea, response_truncated boolean, connect_ms double precision, first_byte_ms double precision, total_ms double precision, error text, report_id uuid, peer text, peer_certificate_sha256 bytea, token_signature bytea, response_body_sha256 bytea, response_body_repeats integer) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.share_of(most integer, daemons bigint, place bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.sort_out_rows(part text, first_tid tid, end_tid tid, cutoff timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.start_ping(operator_id text) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.swap_audit_partition(part text, with_kept boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.sync_operators(operator_ids text[], enabled boolean[], interactive_deadlines_s double precision[], settlement_deadlines_s double precision[], fingerprints text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.sync_operators(operator_ids text[], enabled boolean[], interactive_deadlines_s double precision[], settlement_deadlines_s double precision[], fingerprints text[]) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.take_lock(name text, waits boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.token_of(operator_id text, request_id uuid, attempt integer, report_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.token_of(operator_id text, request_id uuid, attempt integer, report_id uuid) TO predictu_auditor;

REVOKE ALL ON FUNCTION predictu_dispatch.why_not_in_review(locked predictu_dispatch.callback) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.why_not_retired(operator_id text, with_bets boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.witness_cosigned(operator_id text, witness text, size bigint, line text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.witness_cosigned(operator_id text, witness text, size bigint, line text) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.witness_failed(operator_id text, witness text, failure text, is_refused boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.witness_failed(operator_id text, witness text, failure text, is_refused boolean) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.witness_figures(witnesses text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.witness_figures(witnesses text[]) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.witness_newest(operator_id text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.witness_newest(operator_id text) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.witness_submissions(witness text) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.witness_submissions(witness text) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.witness_tiles(operator_id text, levels smallint[], tiles bigint[]) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.witness_tiles(operator_id text, levels smallint[], tiles bigint[]) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.write_circuits(operator_ids text[], revisions bigint[], circuits text[], healths text[], consecutive_failures integer[], success_s_ago double precision[], failure_s_ago double precision[], ping_in_s double precision[], pings boolean[], interactive_backoff_s double precision[], settlement_backoff_s double precision[], failure_reasons text[], failure_statuses integer[], failure_locations text[], failure_request_ids uuid[], failure_attempts integer[]) FROM PUBLIC;
GRANT ALL ON FUNCTION predictu_dispatch.write_circuits(operator_ids text[], revisions bigint[], circuits text[], healths text[], consecutive_failures integer[], success_s_ago double precision[], failure_s_ago double precision[], ping_in_s double precision[], pings boolean[], interactive_backoff_s double precision[], settlement_backoff_s double precision[], failure_reasons text[], failure_statuses integer[], failure_locations text[], failure_request_ids uuid[], failure_attempts integer[]) TO predictu_dispatcher;

REVOKE ALL ON FUNCTION predictu_dispatch.write_removals(part text, cutoff timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION predictu_dispatch.wrong_params(method text, params jsonb, is_currency_known boolean) FROM PUBLIC;

GRANT SELECT ON TABLE predictu_dispatch.audit_checkpoint TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.audit_checkpoint TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.audit_checkpoint TO predictu_support;

GRANT SELECT ON TABLE predictu_dispatch.audit_cosignature TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.audit_cosignature TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.audit_cosignature TO predictu_support;

GRANT SELECT ON TABLE predictu_dispatch.audit_head TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.audit_head TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.audit_head TO predictu_support;

GRANT SELECT ON TABLE predictu_dispatch.audit_position TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.audit_position TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.audit_position TO predictu_support;

GRANT SELECT ON TABLE predictu_dispatch.audit_tile TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.audit_tile TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.audit_tile TO predictu_support;

GRANT SELECT ON TABLE predictu_dispatch.audit_verification TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.audit_verification TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.audit_verification TO predictu_support;

GRANT SELECT ON TABLE predictu_dispatch.audit_witness TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.audit_witness TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.audit_witness TO predictu_support;

GRANT SELECT ON TABLE predictu_dispatch.bet_tombstone TO predictu_dispatcher;
GRANT SELECT ON TABLE predictu_dispatch.bet_tombstone TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.bet_tombstone TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.bet_tombstone TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.bet_tombstone TO predictu_reconciler;

GRANT SELECT ON TABLE predictu_dispatch.currency TO predictu_dispatcher;
GRANT SELECT ON TABLE predictu_dispatch.currency TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.currency TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.currency TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.currency TO predictu_reconciler;

GRANT SELECT ON TABLE predictu_dispatch.daemon TO predictu_dispatcher;
GRANT SELECT ON TABLE predictu_dispatch.daemon TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.daemon TO predictu_operations;

GRANT SELECT ON TABLE predictu_dispatch.ledger TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.ledger TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.ledger TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.ledger TO predictu_reconciler;

GRANT SELECT ON TABLE predictu_dispatch.legal_hold TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.legal_hold TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.legal_hold TO predictu_support;

GRANT SELECT ON TABLE predictu_dispatch.needs_review TO predictu_dispatcher;
GRANT SELECT ON TABLE predictu_dispatch.needs_review TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.needs_review TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.needs_review TO predictu_auditor;

GRANT SELECT ON TABLE predictu_dispatch.producer_scope TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.producer_scope TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.producer_scope TO predictu_auditor;

GRANT SELECT ON TABLE predictu_dispatch.purge_cursor TO predictu_dispatcher;
GRANT SELECT ON TABLE predictu_dispatch.purge_cursor TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.purge_cursor TO predictu_retention;
GRANT SELECT ON TABLE predictu_dispatch.purge_cursor TO predictu_operations;

GRANT SELECT,INSERT,DELETE ON TABLE predictu_dispatch.reconciliation_line TO predictu_reconciler;

GRANT SELECT ON TABLE predictu_dispatch.reconciliation_open TO predictu_dispatcher;
GRANT SELECT ON TABLE predictu_dispatch.reconciliation_open TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.reconciliation_open TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.reconciliation_open TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.reconciliation_open TO predictu_reconciler;

GRANT SELECT ON TABLE predictu_dispatch.reconciliation_total TO predictu_reconciler;
GRANT SELECT ON TABLE predictu_dispatch.reconciliation_total TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.reconciliation_total TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.reconciliation_total TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.reconciliation_total TO predictu_dispatcher;

GRANT SELECT ON TABLE predictu_dispatch.reconciliation_unreadable TO predictu_reconciler;
GRANT SELECT ON TABLE predictu_dispatch.reconciliation_unreadable TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.reconciliation_unreadable TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.reconciliation_unreadable TO predictu_auditor;

GRANT SELECT ON TABLE predictu_dispatch.removed_history TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.removed_history TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.removed_history TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.removed_history TO predictu_reconciler;

GRANT SELECT ON TABLE predictu_dispatch.retention_floor TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.retention_floor TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.retention_floor TO predictu_auditor;

GRANT SELECT ON TABLE predictu_dispatch.schema_migration TO predictu_dispatcher;
GRANT SELECT ON TABLE predictu_dispatch.schema_migration TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.schema_migration TO predictu_retention;
GRANT SELECT ON TABLE predictu_dispatch.schema_migration TO predictu_operations;
GRANT SELECT ON TABLE predictu_dispatch.schema_migration TO predictu_auditor;
GRANT SELECT ON TABLE predictu_dispatch.schema_migration TO predictu_reconciler;

GRANT SELECT ON TABLE predictu_dispatch.share TO predictu_dispatcher;
GRANT SELECT ON TABLE predictu_dispatch.share TO predictu_support;
GRANT SELECT ON TABLE predictu_dispatch.share TO predictu_operations;
