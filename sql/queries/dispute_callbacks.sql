-- The callbacks of a bet, in the order in which they were enqueued.
-- $1 operator_id, $2 bet_id
select c.request_id, c.method, c.state, c.reason, c.effect, c.attempts, shown.params ->> 'amount' as amount,
       shown.params ->> 'currency' as currency, c.created_at, c.expires_at, c.finished_at, c.operator_status,
       c.operator_transaction_id, c.anomaly, c.review_since, c.note,
       predictu_dispatch.currency_digits(coalesce(shown.params ->> 'currency', b.currency)) as minor_digits,
       b.currency as bet_currency
  from predictu_dispatch.callback c
 cross join lateral predictu_dispatch.readable_params(c.params) as shown (params)
  left join predictu_dispatch.bet b on b.operator_id = c.operator_id and b.bet_id = c.bet_id
 where c.operator_id = $1 and c.bet_id = $2
 order by c.created_at, c.request_id
