-- The movements of a period in `ledger`, in the order of their confirmation.
-- $1 operator_id; $2 currency; $3 the period's start; $4 its end
select l.confirmed_at, l.request_id, l.bet_id, l.player_id, l.direction, l.amount, l.method, l.operator_transaction_id
  from predictu_dispatch.ledger l
 where l.operator_id = $1 and l.currency = $2 and l.confirmed_at >= $3::timestamptz and l.confirmed_at < $4::timestamptz
 order by l.confirmed_at, l.request_id
