-- A callback by its key, with its bet's state.
-- $1 request_id; $2 operator_id
select c.request_id, c.operator_id, c.method, c.bet_id, c.lane, c.state, c.reason, c.effect, c.attempts, shown.params::text as params,
       c.created_at, c.due_at, c.expires_at, c.finished_at, c.operator_status, c.operator_transaction_id, c.balance, c.anomaly,
       c.leased_by, c.lease_until, c.review_since, c.note, b.state as bet_state, b.currency as bet_currency,
       predictu_dispatch.currency_digits(coalesce(shown.params ->> 'currency', b.currency)) as minor_digits, now() as shown_at
  from predictu_dispatch.callback c
 cross join lateral predictu_dispatch.readable_params(c.params) as shown (params)
  left join predictu_dispatch.bet b on b.operator_id = c.operator_id and b.bet_id = c.bet_id
 where c.request_id = $1 and c.operator_id = $2
