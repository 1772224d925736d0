-- What the audit and the bet say otherwise than a callback, as classify() compares them: a name, the
-- callback's value, the other one, and where that is. Amounts are in subunits.
-- $1 operator_id; $2 request_id
with ours as (
    select c.request_id, c.method, c.bet_id, c.state, c.reason, c.effect, c.attempts, c.budget_from, c.amount_format,
           predictu_dispatch.params_money(c.params) as money
      from predictu_dispatch.callback c
     where c.operator_id = $1 and c.request_id = $2
),
tried as (
    select t.attempt, t.method, t.verdict, t.request_body, predictu_dispatch.body_money(t.request_body) as sent
      from predictu_dispatch.attempt t
     where t.operator_id = $1 and t.request_id = $2
),
decided as (
    select count(*) as attempts, max(t.attempt) as newest, count(*) filter (where t.verdict = 'delivered') as delivered,
           (array_agg(t.verdict order by t.attempt desc))[1] as last_verdict
      from tried t where t.verdict <> 'late'
)
select found.name, found.ours, found.other, found.place
  from ours c
 cross join decided d
  left join predictu_dispatch.currency u on u.currency = case c.amount_format when 'decimal' then c.money[2] end
  left join predictu_dispatch.bet b on b.operator_id = $1 and b.bet_id = c.bet_id
 cross join lateral (
     values (1, 'attempts', c.attempts::text, d.attempts::text, 'audit'),
            (1, 'newest attempt', c.attempts::text, coalesce(d.newest, 0)::text, 'audit'),
            (1, 'confirmed attempts', (c.state = 'delivered')::integer::text, d.delivered::text, 'audit'),
            (1, 'verdict', case when c.attempts <= c.budget_from then d.last_verdict
                                when c.state in ('delivered', 'rejected') then c.state
                                when d.last_verdict in ('delivered', 'rejected') then 'retry' else d.last_verdict end,
             d.last_verdict, 'last attempt'),
            (2, 'effect', c.effect, case when c.state = 'delivered' and c.reason is distinct from 'nothing_to_reverse'
                                         then 'applied' else c.effect end, 'state'),
            (4, 'placement', c.request_id::text,
             case c.method when 'BET_MAKE' then b.placement_request_id else c.request_id end::text, 'bet'),
            (4, 'end', c.request_id::text,
             case when c.method <> 'BET_MAKE' and c.state = 'delivered' then b.terminal_request_id
                  else c.request_id end::text, 'bet'),
            (4, 'state of the bet', 'closed',
             case when c.method <> 'BET_MAKE' and c.state = 'delivered' then b.state else 'closed' end, 'bet'),
            (4, 'player', c.money[1], case c.method when 'BET_MAKE' then b.player_id else c.money[1] end, 'bet'),
            (4, 'currency', c.money[2], case c.method when 'BET_MAKE' then b.currency else c.money[2] end, 'bet'),
            (4, 'amount', c.money[3], case when c.method in ('BET_MAKE', 'BET_REFUND', 'BET_ROLLBACK')
                                           then b.amount::text else c.money[3] end, 'bet')
     union all
     select 3, named.name, named.ours, named.sent, 'request of attempt ' || t.attempt
       from tried t
      cross join lateral (
          values ('method', c.method, t.sent[1]), ('player', c.money[1], t.sent[2]), ('currency', c.money[2], t.sent[3]),
                 ('amount', c.money[3],
                  trim_scale(t.sent[4]::numeric * case c.amount_format when 'decimal' then 10::numeric ^ u.minor_digits
                                                  else 1 end)::text),
                 ('bet', c.bet_id, t.sent[5])) named (name, ours, sent)
      where t.request_body is not null
     union all
     select 3, 'method', c.method, t.method, 'audit row of attempt ' || t.attempt from tried t
 ) found (part, name, ours, other, place)
 where found.ours is distinct from found.other
 order by found.part, found.place, found.name
