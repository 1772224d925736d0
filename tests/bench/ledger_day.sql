-- A large accounting day and the operator's ledger of it. Everything follows from a bet's number; see
-- ledger_day.py.
create schema bench;

-- Bets with the same formulas. The first block is the day of the ledger.
create table bench.block (
    operator_id text,
    prefix      text primary key,
    begins_at   timestamptz,
    spread      interval,
    bets        integer,
    has_ledger  boolean
);

create table bench.planted (
    n     integer primary key,
    fault text
);

-- The bets with numbers from `bench.first` to `bench.last`.
create view bench.numbered_bet as
select k.operator_id, k.prefix, k.has_ledger, n.n, p.fault, k.prefix || 'bet-' || n.n as bet_id,
       'player-' || n.n % 50000 as player_id, 100 + (n.n::bigint * 7919) % 50000 as stake,
       case when n.n % 50 = 19 then 'BET_ROLLBACK' when n.n % 50 = 9 then 'BET_REFUND'
            when n.n % 10 in (7, 8) then 'BET_LOSE' when n.n % 10 in (5, 6) then 'BET_SELL' else 'BET_WIN' end as end_method,
       k.begins_at + k.spread * n.n as placed_at, md5(k.prefix || 'make-' || n.n)::uuid as placement_request_id,
       md5(k.prefix || 'end-' || n.n)::uuid as terminal_request_id
  from bench.block k
 cross join generate_series(current_setting('bench.first')::integer, current_setting('bench.last')::integer) as n (n)
  left join bench.planted p on p.n = n.n and k.has_ledger
 where n.n <= k.bets;

-- Their callbacks; amounts are null or positive. A `values` list for each bet would take twice as long.
create view bench.booking as
select b.*, 'ask' as kind, 'BALANCE' as method, md5(b.prefix || 'ask-' || b.n)::uuid as request_id,
       b.placed_at - interval '1 second' as finished_at, null::bigint as amount, 'interactive' as lane, null as planted
  from bench.numbered_bet b
 where b.n % 5 = 0
union all
select b.*, 'make', 'BET_MAKE', b.placement_request_id, b.placed_at, b.stake, 'interactive', null
  from bench.numbered_bet b
union all
select b.*, 'end', b.end_method, b.terminal_request_id, b.placed_at + interval '1 hour',
       case b.end_method when 'BET_LOSE' then null when 'BET_WIN' then b.stake + (b.n::bigint * 31) % 20000
                         when 'BET_SELL' then b.stake * 9 / 10 else b.stake end,
       case b.end_method when 'BET_ROLLBACK' then 'interactive' else 'settlement' end, b.fault
  from bench.numbered_bet b;

-- The same as we have them after they ended; `signed` is the amount as the player's wallet sees it.
create view bench.movement as
select b.*, case b.kind when 'make' then -b.amount else coalesce(b.amount, 0) end as signed,
       'tx-' || b.request_id as transaction_id,
       case b.planted when 'booked_though_rejected' then 'rejected' when 'booked_though_never_sent' then 'exhausted'
            when 'agreed_resolves_unknown' then 'exhausted' when 'in_flight' then 'ready' else 'delivered' end as state,
       case when b.planted in ('booked_though_rejected', 'booked_though_never_sent') then 'none'
            when b.planted in ('agreed_resolves_unknown', 'in_flight') then 'unknown' else 'applied' end as effect,
       case when b.n % 50 = 7 then 2 else 1 end as attempts,
       jsonb_strip_nulls(jsonb_build_object('player_id', b.player_id, 'currency', 'EUR', 'amount', b.amount,
                                            'bet_id', case when b.kind <> 'ask' then b.bet_id end))
           || case b.kind
                  when 'make' then jsonb_build_object('session', repeat('s', 96), 'bet', jsonb_build_object(
                      'market_id', 'm-' || b.n % 900, 'outcome', 'yes', 'odds', 1.85, 'shares', 10, 'price', 0.54,
                      'title', repeat('t', 180)))
                  else jsonb_build_object('session', repeat('s', 320)) end
           || case b.method when 'BET_ROLLBACK' then jsonb_build_object('rollback_of', b.placement_request_id)
                   else '{}' end as params
  from bench.booking b;

-- The operator's ledger. Some faults are lines of their own, with the transaction id `other-N`.
create view bench.ledger_line as
select to_char(line.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"') as booked_at, line.amount, line.currency,
       line.request_id, line.transaction_id, line.method, line.bet_id, line.player_id
  from (
    select m.finished_at + case m.planted when 'day_differs' then interval '1 day' else '0' end as at,
           m.signed + case m.planted when 'amount_differs' then 100 else 0 end as amount,
           case m.planted when 'currency_differs' then 'USD' else 'EUR' end as currency, m.request_id, m.transaction_id,
           m.method, m.bet_id, m.player_id || case m.planted when 'player_differs' then '-x' else '' end as player_id
      from bench.movement m
     where m.has_ledger and m.kind <> 'ask' and coalesce(m.planted not in ('missing_there', 'debit_standing'), true)
    union all
    select m.finished_at - case m.planted when 'out_of_window' then interval '1 day' else '0' end, m.signed, 'EUR',
           case when m.planted = 'booked_twice' then m.request_id
                when m.planted in ('missing_here', 'out_of_window') then gen_random_uuid() end,
           'other-' || m.n,
           case m.planted when 'two_ends' then 'BET_SELL' when 'rolled_back_but_credited' then 'BET_WIN' else m.method end,
           case when m.planted not in ('missing_here', 'out_of_window') then m.bet_id end, m.player_id
      from bench.movement m
     where m.has_ledger
       and m.planted in ('booked_twice', 'missing_here', 'out_of_window', 'rolled_back_but_credited', 'two_ends')
 ) line
 order by line.at, line.transaction_id;

-- The callbacks whose booking is planted, and the lines that have no callback.
create view bench.planted_item as
select m.planted as fault, m.signed, m.stake, extra.is_extra,
       case when extra.is_extra then 'other-' || m.n else m.request_id::text end as item
  from bench.movement m
 cross join lateral (
     select m.planted in ('missing_here', 'out_of_window', 'rolled_back_but_credited', 'two_ends') as is_extra) extra
 where m.has_ledger and m.planted is not null;

-- Inserts the rows of these bets, as a replica: foreign keys and most triggers do not allow rows in
-- their final state.
create procedure bench.write_bets(first integer, last integer) language plpgsql set session_replication_role = replica as $$
begin
    perform set_config('bench.first', first::text, true), set_config('bench.last', last::text, true);
    insert into predictu_dispatch.bet
        (operator_id, bet_id, state, player_id, currency, amount, placement_request_id, terminal_request_id, created_at,
         updated_at)
    select operator_id, bet_id,
           case when fault in ('booked_though_rejected', 'booked_though_never_sent', 'agreed_resolves_unknown', 'in_flight')
                then 'closing' else 'closed' end,
           player_id, 'EUR', stake, placement_request_id, terminal_request_id, placed_at, placed_at + interval '1 hour'
      from bench.numbered_bet;
    insert into predictu_dispatch.callback
        (operator_id, request_id, method, bet_id, lane, state, reason, effect, attempts, params, amount_format, created_at,
         due_at, finished_at, operator_status, operator_transaction_id, balance, review_since)
    select operator_id, request_id, method, case when kind <> 'ask' then bet_id end, lane, state,
           case state when 'rejected' then 'PLAYER_NOT_FOUND' when 'exhausted' then 'attempts_exhausted' end, effect,
           attempts, params, 'subunits', finished_at - interval '40 milliseconds', finished_at,
           case when state <> 'ready' then finished_at end, case state when 'delivered' then 'OK' end,
           case when state = 'delivered' and kind <> 'ask' then transaction_id end, 100000,
           case when state in ('rejected', 'exhausted') then finished_at end
      from bench.movement;
    insert into predictu_dispatch.attempt_record
        (operator_id, request_id, method, attempt, evidence, verdict, reason, instance, started_at, finished_at, url,
         key_id, request_headers, request_body, response_status, response_headers, response_body, connect_ms,
         first_byte_ms, total_ms, report_id, peer, token_signature)
    select m.operator_id, m.request_id, m.method, tries.attempt,
           case when verdict.name <> 'retry' then 'answered' when m.effect = 'none' then 'not_sent' else 'unanswered' end,
           verdict.name, case verdict.name when 'retry' then 'read_timeout' end, 'host-1',
           m.finished_at - (1 + m.attempts - tries.attempt) * interval '20 milliseconds',
           m.finished_at - (m.attempts - tries.attempt) * interval '20 milliseconds', 'https://wallet.example/predictu',
           'key-1', '{"Content-Type": "application/json", "X-Predictu-Operator": "op_day", "Authorization": "redacted"}',
           format('{"method":"%s","timestamp":"%s","request_id":"%s","operator_id":"%s","params":%s}', m.method,
                  to_char(m.finished_at - interval '40 milliseconds', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'), m.request_id,
                  m.operator_id,
                  replace(case m.planted when 'ours' then jsonb_set(m.params, '{amount}', '1') else m.params end::text, ' ', '')),
           case verdict.name when 'retry' then null else 200 end, '[["Content-Type", "application/json"]]',
           case when verdict.name <> 'retry'
                then convert_to(format('{"status":"OK","balance":100000,"transaction_id":"%s"}', m.transaction_id), 'UTF8') end,
           0.1, 18.0, 20.0, md5(m.request_id::text || tries.attempt)::uuid, '192.0.2.1:443',
           decode(repeat(md5(m.request_id::text), 4), 'hex')
      from bench.movement m
     cross join generate_series(1, m.attempts) tries (attempt)
     cross join lateral (select case when tries.attempt < m.attempts or m.state in ('exhausted', 'ready') then 'retry'
                                     else m.state end as name) verdict;
end $$;
