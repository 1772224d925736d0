-- Puts every row of every side into one class, writes the run's totals and items, and returns the sums
-- that check them. One statement, so that all sides are read in one snapshot;
-- predictu_dispatch/reconciliation/README.md has the rules.
-- Rows by key are looked up in lateral subqueries with an offset, which no other plan can replace; all
-- other joins are hash joins, whatever the planner assumes. So the time grows with the period and not
-- with the history, and memory is bounded by work_mem. Nothing is known of the distribution of a CTE's
-- columns, and a join of two would be assumed to have their product's size, and get as many batches:
-- one side of each join is grouped by its key, or the join is a semi-join, or a limit states the size.
create or replace function predictu_dispatch.classify(run predictu_dispatch.reconciliation_run)
returns table (rows_ours bigint, rows_theirs bigint, sums jsonb, is_consistent boolean)
language plpgsql set search_path = pg_catalog, pg_temp
set jit = off set work_mem = '16MB' set enable_nestloop = off set enable_mergejoin = off set enable_sort = off
set enable_memoize = off set max_parallel_workers_per_gather = 0 as $$
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

revoke all on function predictu_dispatch.classify from public;
