-- The delivered rollbacks of a period that are not in `ledger`, in the order of their confirmation:
-- `unconfirmed_rollback` (reversed, the debit was never confirmed), `nothing_to_reverse` (the debit
-- was never confirmed either) and `debit_standing` (nothing was reversed of a confirmed debit).
-- $1 operator_id; $2 currency; $3 the period's start; $4 its end
select case when c.reason is distinct from 'nothing_to_reverse' then 'unconfirmed_rollback'
            when debit.is_confirmed then 'debit_standing' else 'nothing_to_reverse' end as kind,
       c.finished_at as confirmed_at, c.request_id, c.bet_id, b.player_id, 'credit' as direction, b.amount, c.method,
       c.operator_transaction_id
  from predictu_dispatch.callback c
  join predictu_dispatch.bet b on b.operator_id = c.operator_id and b.bet_id = c.bet_id
  left join predictu_dispatch.callback placement
    on placement.operator_id = b.operator_id and placement.request_id = b.placement_request_id
 -- An adopted bet has no placement; its debit is confirmed.
 cross join lateral (select coalesce(placement.effect = 'applied', true) as is_confirmed) debit
 where c.operator_id = $1 and b.currency = $2 and c.method = 'BET_ROLLBACK' and c.state = 'delivered'
   and c.finished_at >= $3::timestamptz and c.finished_at < $4::timestamptz
   and (c.reason is not distinct from 'nothing_to_reverse' or not debit.is_confirmed)
 order by c.finished_at, c.request_id
