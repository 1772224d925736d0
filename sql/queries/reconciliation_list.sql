-- The open differences, and with $3 those that were accepted last: by operator, contradictions first, then
-- the newest and the largest.
-- $1 operator_id; $2 class; each null for any; $3 whether accepted ones are listed; $4 limit
with listed as (
    select o.operator_id, o.item_id, o.class, o.currency, o.disputed, o.day, o.key, o.request_id, o.method, o.bet_id,
           o.player_id, o.transaction_id, false as is_accepted
      from predictu_dispatch.reconciliation_open o
     where ($1::text is null or o.operator_id = $1) and ($2::text is null or o.class = $2)
    union all
    -- As it was when it was accepted: its run may be gone. Of years of them, the newest.
    (select a.operator_id, (a.before ->> 'item_id')::uuid, a.before ->> 'class', a.before ->> 'currency',
           (a.before ->> 'disputed')::numeric, (a.before ->> 'day')::date, a.before ->> 'key',
           a.request_id, a.before ->> 'method', a.bet_id, a.before ->> 'player_id', a.before ->> 'transaction_id', true
      from predictu_dispatch.intervention a
     where $3 and a.action = 'accept' and ($1::text is null or a.operator_id = $1)
       and ($2::text is null or a.before ->> 'class' = $2)
     order by a.done_at desc limit $4 + 1)
)
select l.*, c.minor_digits, said.action as said_action, said.done_by as said_by, said.done_at as said_at, said.reason as said
  from (
      select listed.*, count(*) over () as found from listed
       order by operator_id, is_accepted, class <> 'ours', day desc, disputed desc, item_id limit $4
  ) l
  left join predictu_dispatch.currency c on c.currency = l.currency
  left join lateral (
      select i.action, i.done_by, i.done_at, i.reason from predictu_dispatch.intervention i
       where i.operator_id = l.operator_id and i.action in ('explain', 'accept') and i.before ->> 'item_id' = l.item_id::text
       order by i.done_at desc limit 1
  ) said on true
 order by l.operator_id, l.is_accepted, l.class <> 'ours', l.day desc, l.disputed desc, l.item_id
